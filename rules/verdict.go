package rules

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// errorPeriod is the cooldown of errors of a policy that has none of its own:
// a guest that found out how to make a policy fail must not fill the log.
const errorPeriod = 5 * time.Minute

// verdict returns what all verdicts of this entry share. p is nil for
// findings of the engine itself.
func (j *judgement) verdict(p *policy.Policy, mode policy.Mode) *record.Verdict {
	hash := j.hash
	v := &record.Verdict{
		BundleDigest: append([]byte(nil), j.engine.bundle.Digest[:]...),
		CauseIndex:   j.leaf.Index,
		CauseHash:    hash[:],
		CauseClass:   j.leaf.Header.Class.String(),
		Mode:         mode.String(),
		WouldHave:    mode == policy.ModeAudit,
	}
	if p != nil {
		v.Policy, v.Severity, v.Title = p.Name, p.Severity, p.Title
		v.Attack = p.Attack
	}
	return v
}

// match is called with what a policy's condition found.
func (j *judgement) match(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	if !j.excused(p, mode, ev) {
		j.matched(p, mode, ev)
	}
}

// excused reports whether an exception or an approval covers what a policy found.
func (j *judgement) excused(p *policy.Policy, mode policy.Mode, ev *event.Event) bool {
	return j.excepted(p, mode, ev) || j.approved(p, mode, ev)
}

// matched is called with what a policy found and nothing covers.
func (j *judgement) matched(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	if !j.remembered(p, ev) {
		return
	}
	j.tell(p, mode, ev)
	j.escalate(p, mode, ev)
	j.counted = 0
}

// tell gives the verdict on a match, if the policy's cooldown lets it pass.
func (j *judgement) tell(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	var suppressed uint64
	if c := p.Cooldown; c != nil {
		var pass bool
		if suppressed, pass = j.state.pass(j.leaf, j.hash, p, hashKey('c', c.By, ev), c.Period); !pass {
			j.ended(p, EndCooldown, "")
			return
		}
	}
	v := j.verdict(p, mode)
	v.Suppressed, v.Counted, v.Steps, v.Approval = suppressed, j.counted, j.steps, j.exceeded
	j.act(p, mode, v, p.Actions, ev)
	j.verdicts = append(j.verdicts, v)
	j.unapproved(p)
}

// errorKey is the one key of all errors of a policy.
var errorKey = func() key {
	sum := sha256.Sum256([]byte{'e'})
	return key(sum[:len(key{})])
}()

// fail records that a policy could not be decided: an alert once in each
// cooldown, and nothing that changes the domain.
func (j *judgement) fail(p *policy.Policy, mode policy.Mode, problem string) {
	period := errorPeriod
	if p.Cooldown != nil {
		period = p.Cooldown.Period
	}
	suppressed, pass := j.state.pass(j.leaf, j.hash, p, errorKey, period)
	if !pass {
		return
	}
	v := j.alarm(p, mode, problem, fmt.Sprintf("policy %s could not be decided: %s", p.Name, problem))
	v.Suppressed = suppressed
	j.verdicts = append(j.verdicts, v)
}

// alarm returns a finding about a policy, with an alert to where the policy's
// own alerts go.
func (j *judgement) alarm(p *policy.Policy, mode policy.Mode, problem, message string) *record.Verdict {
	v := j.failure(p, problem)
	v.Mode, v.WouldHave = mode.String(), mode == policy.ModeAudit
	act := &record.Action{Kind: "alert", Message: policy.Safe(message)}
	for _, a := range p.Actions {
		if a.Kind == "alert" && len(a.Channels) > 0 {
			act.Parameters = map[string]string{"channels": strings.Join(a.Channels, ",")}
			break
		}
	}
	v.Actions = []*record.Action{act}
	return v
}

// failure returns a policy.error.
func (j *judgement) failure(p *policy.Policy, problem string) *record.Verdict {
	v := j.verdict(p, policy.ModeEnforce)
	v.Error = policy.Safe(problem)
	return v
}

// maxReports bounds the reports of one entry: a guest chooses how many cooldowns
// end together. The others are told with the next entries.
const maxReports = 128

// reportEnded reports what was swallowed by the cooldowns that have ended.
func (j *judgement) reportEnded() {
	for range maxReports {
		en := j.state.ended()
		if en == nil {
			return
		}
		var p *policy.Policy
		mode := policy.ModeOff // the policy is gone: only its count remains
		for i, q := range j.engine.bundle.Policies {
			if q.Name == en.policy {
				p, mode = q, j.state.modes[i]
			}
		}
		v := j.verdict(p, mode)
		v.Policy = en.policy
		cause := en.hash
		v.CauseShard, v.CauseIndex, v.CauseHash, v.CauseClass = en.place.shard(), en.place.index(), cause[:], en.class.String()
		v.Suppressed = en.suppressed
		j.verdicts = append(j.verdicts, v)
	}
}

// givenUpPeriod is how often an overflow of the state is reported.
const givenUpPeriod = time.Minute

// reportGivenUp reports that cooldowns were given up for lack of room, at once
// and then at most once a minute.
func (j *judgement) reportGivenUp() {
	st := j.state
	if st.givenUp == 0 || st.reported != 0 && st.mono-st.reported < int64(givenUpPeriod) {
		return
	}
	j.verdicts = append(j.verdicts, j.failure(nil, fmt.Sprintf(
		"state overflow: %d cooldown(s) were given up because a VM may have only %d at once; their repeats will alert again", st.givenUp, MaxKeys)))
	st.givenUp, st.reported = 0, st.mono
}
