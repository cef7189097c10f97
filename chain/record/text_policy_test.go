package record

import "testing"

func TestVerdictText(t *testing.T) {
	for want, v := range map[string]*Verdict{
		"policy scan (high, enforce) on leaf 7 network.connect: alert, pause; escalation repeated; 50 counted; its limit leaves: alert; 3 swallowed by the cooldown": {
			Policy: "scan", Severity: "high", Mode: "enforce", CauseIndex: 7, CauseClass: "network.connect", Actions: []*Action{{Kind: "alert"}, {Kind: "pause"}},
			Escalation: "repeated", Counted: 50, Limited: "alert", Suppressed: 3,
		},
		"policy dropper (high, audit) on leaf 9 process.exec: would have done: pause; step download on leaf 2; step chmod on leaf 5, the last of 4": {
			Policy: "dropper", Severity: "high", Mode: "audit", CauseIndex: 9, CauseClass: "process.exec", WouldHave: true, Actions: []*Action{{Kind: "pause"}},
			Steps: []*VerdictStep{{Name: "download", Index: 2, Count: 1}, {Name: "chmod", Index: 5, Count: 4}},
		},
		"policy etc (low, enforce) on leaf 4 file.modify: no action; approval apr_1 of ops is exceeded": {
			Policy: "etc", Severity: "low", Mode: "enforce", CauseIndex: 4, CauseClass: "file.modify", Approval: &VerdictApproval{Id: "apr_1", Group: "ops", State: "exceeded"},
		},
		`policy etc (low, enforce) on leaf 4 file.modify: no action; exception "a\x1b" has ended, it covered 2`: {
			Policy: "etc", Severity: "low", Mode: "enforce", CauseIndex: 4, CauseClass: "file.modify", Exception: "a\x1b", Suppressed: 2,
		},
	} {
		if got := Text(ClassPolicyVerdict, v); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
