package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// maxCaptured bounds one value that is kept of an earlier step: as long as the
// longest path.
const maxCaptured = 4096

// sequence has a policy with a sequence judge an event, see policy.
//
// The reset comes first, then the steps from the last to the first, so that one
// event takes nothing two steps further; but it may end one sequence and begin
// the next.
func (j *judgement) sequence(p *policy.Policy, mode policy.Mode, ev *event.Event, may []int) {
	q, class := p.Sequence, j.leaf.Header.Class
	reached, fired, excused := "", false, false
	if q.Reset != nil && q.Reset.Looks(class) && slices.Contains(may, len(q.Steps)) {
		j.reset(p, mode, ev)
	}
	for i := len(q.Steps) - 1; i >= 0; i-- {
		if !q.Steps[i].Looks(class) || !slices.Contains(may, i) {
			continue
		}
		switch j.step(p, mode, i, ev) {
		case stepTaken:
			reached = q.Steps[i].Name
		case stepLast:
			fired = true
		case stepExcused:
			excused = true
		}
	}
	if fired {
		j.fire(p, mode, ev)
		return
	}
	if excused {
		return // by what is told
	}
	if reached != "" {
		j.ended(p, EndSequence, reached)
	} else {
		j.ended(p, EndCondition, "")
	}
}

// What an event did to a step.
type stepResult uint8

const (
	stepNone stepResult = iota
	stepTaken
	stepLast    // the sequence is complete: judgement.complete holds it
	stepExcused // it would be, but for an exception or an approval
)

// at returns how far a key has come when step i looks for the next event, or
// nil where the steps before it are not done, or too old. What is too old stays until its
// slot goes: whether it was looked for must not change what the slot is accounted for.
func (s *slot) at(i int, now int64, q *policy.Sequence) *progress {
	if s == nil || i-1 >= len(s.steps) {
		return nil
	}
	g := &s.steps[i-1]
	if !g.live || g.start <= now-int64(q.Within) {
		return nil
	}
	return g
}

func (j *judgement) step(p *policy.Policy, mode policy.Mode, i int, ev *event.Event) stepResult {
	q, st := p.Sequence, j.state
	step, t := q.Steps[i], st.windows[p.Number].main
	var g *progress
	var k key
	if i > 0 {
		k = hashKey('s', step.By, ev)
		if g = t.find(k).at(i, st.mono, q); g == nil {
			return stepNone
		}
	}
	j.lendProgress(p, g, ev)
	j.asked(p, PartStep, step.Name, step.Condition, ev)
	ok, err := step.Condition.Eval(ev)
	if err != nil {
		ok = j.undecided(p, mode, "step "+step.Name+": "+err.Error())
	}
	if !ok {
		return stepNone
	}
	values, problem := capture(p, i, ev)
	if problem != "" {
		j.fail(p, mode, problem)
		return stepNone
	}
	if i == 0 {
		k = hashKey('s', step.By, ev)
	}
	s := t.take(k, st.mono, j.leaf.Index)
	next := j.advance(s, g, q, i)
	if next == nil {
		st.keep(t, s)
		return stepTaken
	}
	next.values = append(next.values, values...)
	if i == len(q.Steps)-1 {
		j.lendProgress(p, next, ev)
		if j.excused(p, mode, ev) {
			// No match, so it uses nothing up: a guest could else have what is excused
			// stand before what is not.
			g.taken = step.Count - 1
			st.keep(t, s)
			return stepExcused
		}
		j.complete = *next
		st.drop(t, s)
		return stepLast
	}
	if s.steps == nil {
		s.steps = make([]progress, len(q.Steps)-1)
	}
	s.steps[i] = *next // the newest wins
	st.keep(t, s)
	return stepTaken
}

// advance adds an event to step i and returns what is reached when the step is
// done, or nil.
func (j *judgement) advance(s *slot, g *progress, q *policy.Sequence, i int) *progress {
	need, now := q.Steps[i].Count, j.state.mono
	if i > 0 {
		g.taken++
		if g.taken < need {
			return nil
		}
		next := &progress{live: true, start: g.start, values: slices.Clone(g.values)}
		next.done = append(slices.Clone(g.done), doneStep{j.leaf.Index, g.taken})
		g.taken = 0
		return next
	}
	next := &progress{live: true, start: now}
	count := uint64(1)
	if need > 1 {
		// Of the first step the newest events count: those before slide out.
		s.ring.expire(now - int64(q.Within))
		if s.ring.n == 0 {
			s.run = 0
		}
		s.run++
		s.ring.push(instant{mono: now, index: j.leaf.Index})
		if uint64(s.ring.n) < need {
			return nil
		}
		next.start, count = s.ring.at(0).mono, s.run
		s.ring.pop()
	}
	next.done = []doneStep{{j.leaf.Index, count}}
	return next
}

// capture returns what expressions read of the event of step i. The values are
// kept, so they share no memory with the event.
func capture(p *policy.Policy, i int, ev *event.Event) ([]captured, string) {
	var all []captured
	for n, c := range p.Captures {
		if c.Kind != policy.CaptureField || c.Step != i {
			continue
		}
		v := c.Value.Bound(ev)
		if !v.Present {
			continue
		}
		if len(v.Str) > maxCaptured {
			return nil, fmt.Sprintf("step %s: %s has %d bytes, and %d are kept at most, so the next steps could not be decided", p.Sequence.Steps[i].Name, c.Value.Name(), len(v.Str), maxCaptured)
		}
		v.Str = strings.Clone(v.Str)
		all = append(all, captured{n, v})
	}
	return all, ""
}

// lendProgress gives expressions the values of the steps that are done.
func (j *judgement) lendProgress(p *policy.Policy, g *progress, ev *event.Event) {
	j.lend(p, ev)
	if g == nil || ev.Bound == nil {
		return
	}
	for _, v := range g.values {
		if v.number < len(ev.Bound) {
			ev.Bound[v.number] = v.value
		}
	}
	for i, c := range p.Captures {
		if c.Kind == policy.CaptureTaken && c.Step < len(g.done) {
			ev.Bound[i] = event.Bound{Present: true, Num: g.done[c.Step].count}
		}
	}
}

// fire has the policy act on a complete sequence.
func (j *judgement) fire(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	done := j.complete
	j.complete = progress{}
	j.lendProgress(p, &done, ev)
	for i, d := range done.done[:len(done.done)-1] {
		j.steps = append(j.steps, &record.VerdictStep{Name: p.Sequence.Steps[i].Name, Index: d.index, Count: d.count})
	}
	j.matched(p, mode, ev)
	j.steps = nil
}

// reset drops the progress of a key for which the reset is true.
func (j *judgement) reset(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	q, st := p.Sequence, j.state
	t := st.windows[p.Number].main
	s := t.find(hashKey('s', q.Reset.By, ev))
	if s == nil {
		return
	}
	holds := func(g *progress) bool {
		j.lendProgress(p, g, ev)
		j.asked(p, PartReset, "", q.Reset.Condition, ev)
		ok, err := q.Reset.Condition.Eval(ev)
		if err != nil {
			// What cannot be decided resets nothing, whatever on_error says.
			j.fail(p, mode, "reset: "+err.Error())
		}
		return err == nil && ok
	}
	for i := 1; i < len(q.Steps); i++ {
		if g := s.at(i, st.mono, q); g != nil && holds(g) {
			*g = progress{}
		}
	}
	if s.ring.n > 0 && holds(nil) {
		s.ring.clear()
	}
	if s.idle() {
		st.drop(t, s)
	} else {
		st.keep(t, s)
	}
}
