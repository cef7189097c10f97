package rules

import (
	"slices"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

const watchingPolicies = approvalPolicies + `
policy "often" {
  on   = ["file.create"]
  mode = "enforce"
  limit {
    max   = 1
    per   = "1m"
    scope = "vm"
    then  = "alert"
  }
  action "pause" {}
}
policy "limits" {
  on        = ["policy.limit_reached"]
  condition = policy.name == "often" && policy.limit_max == 1 && policy.limited == "alert"
  mode      = "enforce"
  limit {
    max   = 1
    per   = "1m"
    scope = "vm"
    then  = "audit"
  }
  action "pause" {}
}
policy "taken" {
  on        = ["approval.loaded"]
  condition = approval.group == "security-team" && contains(approval.signers, "alice") && approval.id == "CHG-1"
}
policy "used" {
  on        = ["approval.used", "approval.used_late", "approval.expired"]
  condition = contains(["used", "expired"], approval.state) && approval.uses == 1 && approval.max_uses == 3
  approval {
    group = "security-team"
  }
}
policy "all" {
  on = ["policy.verdict", "policy.limit_reached", "approval.loaded", "approval.used", "approval.used_late", "approval.expired"]
}
`

// Policies may judge limits that were reached and what became of approvals; what those
// cause is judged by none, also where they have limits and approvals of their own.
func TestWatchingLimitsAndApprovals(t *testing.T) {
	s := storyOf(t, watchingPolicies)
	by := func(act func()) (all []string) {
		t.Helper()
		n := len(s.f.payloads)
		act()
		s.step()
		for i, m := range s.f.payloads[n:] {
			if v, ok := m.(*record.Verdict); ok {
				all = append(all, ClassOf(v).String()+" "+v.Policy+" on "+v.CauseClass)
				if c := s.f.leaves[n+i].Header.Class; c != ClassOf(v) {
					t.Errorf("sealed as %s", c)
				}
			}
		}
		slices.Sort(all)
		return all
	}
	create := func() {
		s.f.add(t, time.Second, record.OriginGuest, record.ClassFileCreate, &record.Event{Process: vim(), File: file("/x")})
	}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
	expect("within the limit", by(create), "policy.verdict often on file.create", "policy.verdict all on policy.verdict")
	expect("beyond the limit", by(create), "policy.verdict often on file.create", "policy.limit_reached often on file.create",
		"policy.verdict limits on policy.limit_reached", "policy.verdict all on policy.limit_reached", "policy.verdict all on policy.verdict")
	expect("told once", by(create), "policy.verdict often on file.create", "policy.verdict all on policy.verdict")
	expect("loaded", by(func() {
		s.f.add(t, 0, record.OriginOperator, record.ClassApprovalLoaded, approve(t, s.f, "CHG-1", nil))
	}),
		"policy.verdict taken on approval.loaded", "policy.verdict all on approval.loaded")
	expect("used", by(func() { s.f.modify(t, "/etc/x") }), "approval.used etc on file.modify",
		"policy.verdict used on approval.used", "policy.verdict all on approval.used")
	expect("expired", by(func() { s.f.add(t, 2*time.Hour, record.OriginHost, record.ClassTick, &record.Event{}) }), "approval.expired  on log.tick",
		"policy.verdict used on approval.expired", "policy.verdict all on approval.expired")
	expect("another window", by(create), "policy.verdict often on file.create", "policy.verdict all on policy.verdict")
	expect("and beyond it", by(create), "policy.verdict often on file.create", "policy.limit_reached often on file.create",
		"policy.verdict limits on policy.limit_reached", "policy.verdict all on policy.limit_reached", "policy.verdict all on policy.verdict")
}
