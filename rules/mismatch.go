package rules

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// A fault of the index or of a closure would be a policy that stays silent, and
// nobody would miss its alert. So some entries are judged twice: by every
// condition that looks at the type, past the index, and by a few of them
// through cty, which shares no code with the closures. Which entries and which
// conditions is drawn from the hash of the leaf: a guest cannot choose it, and
// a replay draws the same (I5).
const (
	// Looking at all conditions takes longer the more there are; with these the
	// average entry costs some 5 ns more, less than 1 % of decoding and judging it.
	sampleBase = 32768
	samplePart = 16
	// sampleByHCL is how many conditions are evaluated through cty.
	sampleByHCL = 2
)

// twice reports whether the entry is to be judged twice.
func (j *judgement) twice() bool {
	every := j.engine.sample
	if every == 0 {
		every = sampleBase + samplePart*uint64(len(j.engine.index.Judges(j.leaf.Header.Class)))
	}
	return binary.BigEndian.Uint64(j.hash[:8])%every == 0
}

// again judges an event a second time. named are the parts that the index has
// found, in order.
func (j *judgement) again(ev *event.Event, named []int32) {
	ev.Bound = nil // guards hold whatever else a condition reads
	all := j.engine.index.Judges(j.leaf.Header.Class)
	for _, n := range all {
		if len(named) > 0 && named[0] == n {
			named = named[1:]
			continue
		}
		if c := j.engine.parts[n].condition; c == nil {
			j.disagree(n, "the index left it out, and it is true of every event")
		} else if got := c.Closure(ev); got != policy.False {
			j.disagree(n, "the index left it out, and it is "+got.String())
		}
	}
	at := binary.BigEndian.Uint64(j.hash[8:16])
	for i := range uint64(min(len(all), sampleByHCL)) {
		n := all[(at+i)%uint64(len(all))]
		if problem := j.engine.parts[n].condition.Disagreement(ev); problem != "" {
			j.disagree(n, problem)
		}
	}
}

// mismatchKey is the one key of all mismatches of a policy.
var mismatchKey = func() key {
	sum := sha256.Sum256([]byte{'m'})
	return key(sum[:len(key{})])
}()

// disagree records that the engine cannot be trusted with a condition, once in
// a while for each policy.
func (j *judgement) disagree(n int32, problem string) {
	part := &j.engine.parts[n]
	p := j.engine.bundle.Policies[part.policy]
	if j.state.modes[part.policy] == policy.ModeOff {
		return
	}
	suppressed, pass := j.state.pass(j.leaf, j.hash, p, mismatchKey, errorPeriod)
	if !pass {
		return
	}
	kind, name := part.names(p)
	if name != "" {
		kind += " " + name
	}
	problem = kind + ": " + problem
	v := j.alarm(p, policy.ModeEnforce, problem, "policy "+p.Name+" is decided wrongly: "+problem)
	v.Mismatch, v.Severity, v.Title, v.Suppressed = true, "critical", "The engine disagrees with itself", suppressed
	j.verdicts = append(j.verdicts, v)
}
