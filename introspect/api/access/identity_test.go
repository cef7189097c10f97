package access

import (
	"errors"
	"testing"

	"github.com/provostd/provost/chain/record"
)

func TestSees(t *testing.T) {
	const own, other = "11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555"
	for _, c := range []struct {
		who  *Identity
		sees map[string]bool
	}{
		{nil, map[string]bool{"": false, own: false}},
		{&Identity{Domains: []string{own}}, map[string]bool{"": false, own: false}},
		{&Identity{Role: Tenant}, map[string]bool{"": false, own: false}},
		{&Identity{Role: Tenant, Domains: []string{own, ""}}, map[string]bool{"": false, own: true, other: false}},
		{&Identity{Role: Auditor}, map[string]bool{"": true, own: true}},
		{&Identity{Role: Operator}, map[string]bool{"": true, own: true}},
		{&Identity{Role: Operator + 1, Domains: []string{own}}, map[string]bool{"": false, own: false}},
	} {
		for domain, want := range c.sees {
			if got := c.who.Sees(domain); got != want {
				t.Errorf("%+v sees %q: %v", c.who, domain, got)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	for _, r := range []Role{Tenant, Auditor, Operator} {
		if got, err := ParseRole(r.String()); err != nil || got != r {
			t.Errorf("%s is read as %s: %v", r, got, err)
		}
		for _, least := range []Role{Tenant, Auditor, Operator} {
			if got := (&Identity{Role: r}).May(least); got != (r >= least) {
				t.Errorf("%s may what %s may: %v", r, least, got)
			}
		}
	}
	for _, bad := range []string{"", "nobody", "root", "Operator"} {
		if r, err := ParseRole(bad); !errors.Is(err, record.ErrReject) || r != 0 {
			t.Errorf("%q is %s: %v", bad, r, err)
		}
	}
	var nobody *Identity
	if nobody.May(Tenant) || (&Identity{}).May(0) || (&Identity{Role: 9}).May(Tenant) {
		t.Error("nobody may something")
	}
}

func TestContext(t *testing.T) {
	if From(t.Context()) != nil {
		t.Error("somebody is in an empty context")
	}
	who := &Identity{Name: "a", Role: Auditor}
	if From(With(t.Context(), who)) != who {
		t.Error("another than was put into the context")
	}
}
