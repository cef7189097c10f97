package rules

import (
	"fmt"
	"math"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// exceptionID names an exception.
type exceptionID struct{ policy, name string }

// exempt is what is remembered of an exception in one VM.
type exempt struct {
	covered uint64 // matches, since the incarnation began or its last end was told
	told    int64  // the end that was told, Unix nanoseconds; 0 for none
}

// never is the end of what does not end.
const never = math.MaxInt64

func ends(x *policy.Exception) int64 {
	if x.Expires.IsZero() {
		return never
	}
	return x.Expires.UnixNano()
}

// excepted reports whether an exception covers a match. One that cannot be
// decided covers nothing and is told: what is wrong with it hides no match.
func (j *judgement) excepted(p *policy.Policy, mode policy.Mode, ev *event.Event) bool {
	st := j.state
	for _, x := range p.Exceptions {
		if st.wall >= ends(x) {
			continue
		}
		j.asked(p, PartException, x.Name, x.Condition, ev)
		ok, err := x.Condition.Eval(ev)
		if err != nil {
			j.fail(p, mode, "exception "+x.Name+": "+err.Error())
			continue
		}
		if ok {
			st.exempt(exceptionID{p.Name, x.Name}).covered++
			j.ended(p, EndException, x.Name)
			return true
		}
	}
	return false
}

func (st *State) exempt(id exceptionID) *exempt {
	if st.exempts == nil {
		st.exempts = make(map[exceptionID]*exempt)
	}
	if st.exempts[id] == nil {
		st.exempts[id] = &exempt{}
	}
	return st.exempts[id]
}

// openExceptions forgets the exceptions of no policy.
func (st *State) openExceptions(e *Engine) {
	kept := make(map[exceptionID]*exempt)
	for _, p := range e.bundle.Policies {
		for _, x := range p.Exceptions {
			id := exceptionID{p.Name, x.Name}
			if old := st.exempts[id]; old != nil {
				kept[id] = old
			}
		}
	}
	st.exempts = kept
}

// findEnd returns when the next exception ends that was not told of.
func (st *State) findEnd(e *Engine) int64 {
	next := int64(never)
	for i, p := range e.bundle.Policies {
		if st.modes[i] == policy.ModeOff {
			continue
		}
		for _, x := range p.Exceptions {
			if old := st.exempts[exceptionID{p.Name, x.Name}]; old == nil || old.told != ends(x) {
				next = min(next, ends(x))
			}
		}
	}
	return next
}

// reportExpired tells, once in each incarnation, of the exceptions that have ended.
func (j *judgement) reportExpired() {
	st, e := j.state, j.engine
	if st.wall < st.nextEnd {
		return
	}
	for i, p := range e.bundle.Policies {
		if st.modes[i] == policy.ModeOff {
			continue
		}
		for _, x := range p.Exceptions {
			old := st.exempts[exceptionID{p.Name, x.Name}]
			if end := ends(x); st.wall < end || old != nil && old.told == end {
				continue
			}
			old = st.exempt(exceptionID{p.Name, x.Name})
			v := j.verdict(p, st.modes[i])
			v.WouldHave = false
			v.Exception, v.Suppressed = x.Name, old.covered
			*old = exempt{told: ends(x)}
			j.verdicts = append(j.verdicts, v)
		}
	}
	st.nextEnd = st.findEnd(e)
}

// undecided does what a policy says about an event which it cannot decide, and
// reports whether that is a match.
func (j *judgement) undecided(p *policy.Policy, mode policy.Mode, problem string) bool {
	switch p.OnError {
	case policy.OnErrorIgnore:
		j.ended(p, EndError, problem)
		return false
	case policy.OnErrorMatch:
		return true
	}
	j.fail(p, mode, problem)
	return false
}

// lostPeriod is how often what one window gave up is told.
const lostPeriod = int64(time.Minute)

// lose notes that a window has given up keys, and when that may be told.
func (st *State) lose(t *table) {
	if t.givenUp == 0 {
		return
	}
	due := int64(math.MinInt64)
	if t.reported != 0 {
		due = t.reported + lostPeriod
	}
	if !st.lost || due < st.lostDue {
		st.lost, st.lostDue = true, due
	}
}

// reportLost tells of keys that windows gave up for want of room, at once and
// then at most once a minute for each window.
func (j *judgement) reportLost() {
	st := j.state
	if !st.lost || st.mono < st.lostDue {
		return
	}
	st.lost = false
	for i, p := range j.engine.bundle.Policies {
		for _, t := range st.windows[i].all() {
			if t.givenUp == 0 {
				continue
			}
			if t.reported != 0 && st.mono-t.reported < lostPeriod {
				st.lose(t)
				continue
			}
			v := j.lost(p, t)
			v.Mode = st.modes[i].String()
			j.verdicts = append(j.verdicts, v)
			t.givenUp, t.reported = 0, st.mono
		}
	}
}

func (j *judgement) lost(p *policy.Policy, t *table) *record.Verdict {
	things, held, what := "key(s)", "", "what it counts may begin anew, so a match may be missed"
	switch {
	case t.seen:
		what = "what was seen before may look new"
	case p.Sequence != nil && t == j.state.windows[p.Number].main:
		things, held = "key(s) or attempt(s)", fmt.Sprintf(", %d attempts of a key that wait for one step,", MaxAttempts)
	}
	return j.failure(p, fmt.Sprintf("state overflow: %d %s of policy %s were given up, because of one VM it may hold %d keys%s and %d bytes, and all policies together %d bytes; %s",
		t.givenUp, things, p.Name, t.limit, held, t.limit*keyBytes, MaxWindowBytes, what))
}
