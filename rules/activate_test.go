package rules

import (
	"errors"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// TestForAnActivation holds that modes are those of the activation, whatever the
// engine was made with, and that an activation of anything else is refused.
func TestForAnActivation(t *testing.T) {
	b := &policy.Bundle{Name: "b", Digest: policy.Digest{1}, Policies: []*policy.Policy{
		{Name: "one", Mode: policy.ModeEnforce, Digest: policy.Digest{2}}, {Name: "two", Mode: policy.ModeAudit, Digest: policy.Digest{3}}}}
	strict, err := New(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	lax, err := New(b, Options{HostMode: policy.ModeAudit})
	if err != nil {
		t.Fatal(err)
	}
	e, err := strict.For(lax.ActivationFor(""))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Mode(b.Policies[0], ""); got != policy.ModeAudit {
		t.Errorf("the mode is %s, the activation says audit", got)
	}
	if got := strict.Mode(b.Policies[0], ""); got != policy.ModeEnforce {
		t.Errorf("the engine itself is in mode %s now", got)
	}
	for name, change := range map[string]func(a *record.BundleActivation){
		"another bundle": func(a *record.BundleActivation) { a.Digest = make([]byte, 32) },
		"another policy": func(a *record.BundleActivation) { a.Policies[0].Digest = make([]byte, 32) },
		"a policy more": func(a *record.BundleActivation) {
			a.Policies = append(a.Policies, &record.ActivePolicy{Name: "x", Mode: "off"})
		},
		"a policy less":   func(a *record.BundleActivation) { a.Policies = a.Policies[:1] },
		"no mode":         func(a *record.BundleActivation) { a.Policies[0].Mode = "" },
		"a stronger mode": func(a *record.BundleActivation) { a.Policies[1].Mode = "enforce" },
	} {
		a := strict.ActivationFor("")
		change(a)
		if _, err := strict.For(a); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
