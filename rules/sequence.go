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

// step has step i judge an event: the first begins an attempt, the others take every
// attempt of their key a step further for which they hold.
func (j *judgement) step(p *policy.Policy, mode policy.Mode, i int, ev *event.Event) stepResult {
	if i == 0 {
		return j.begin(p, mode, ev)
	}
	q, st := p.Sequence, j.state
	step, t := q.Steps[i], st.windows[p.Number].main
	k := hashKey('s', step.By, ev)
	var took attempts
	if s := t.find(k); s != nil && len(s.steps) > 0 {
		for n := range s.steps[i-1] {
			if g := &s.steps[i-1][n]; g.within(st.mono, q) && j.holds(p, mode, step, g, ev) {
				took |= 1 << n
			}
		}
	}
	if took == 0 {
		return stepNone
	}
	values, problem := capture(p, i, ev)
	if problem != "" {
		j.fail(p, mode, problem)
		return stepNone
	}
	s := t.take(k, st.mono, here(j.leaf.Index))
	result := stepTaken
	if i == len(q.Steps)-1 {
		result = j.end(p, mode, s, took, values, ev)
	} else {
		for n := range took.each() {
			if g := &s.steps[i-1][n]; j.count1(g, step) {
				j.reach(p, t, s, i, g.and(doneStep{here(j.leaf.Index), step.Count}, values))
				g.taken = 0
			}
		}
	}
	if s.idle() {
		st.drop(t, s)
	} else {
		st.keep(t, s)
	}
	return result
}

// holds asks a step's condition, with the values of an attempt.
func (j *judgement) holds(p *policy.Policy, mode policy.Mode, step *policy.Step, g *progress, ev *event.Event) bool {
	j.lendProgress(p, g, ev)
	j.asked(p, PartStep, step.Name, step.Condition, ev)
	ok, err := step.Condition.Eval(ev)
	if err != nil {
		return j.undecided(p, mode, "step "+step.Name+": "+err.Error())
	}
	return ok
}

// count1 adds an event to the step that an attempt waits for, and reports whether that
// is done.
func (j *judgement) count1(g *progress, step *policy.Step) bool {
	g.taken++
	return g.taken >= step.Count
}

// begin has the first step judge an event.
func (j *judgement) begin(p *policy.Policy, mode policy.Mode, ev *event.Event) stepResult {
	q, st := p.Sequence, j.state
	step, t := q.Steps[0], st.windows[p.Number].main
	if !j.holds(p, mode, step, nil, ev) {
		return stepNone
	}
	values, problem := capture(p, 0, ev)
	if problem != "" {
		j.fail(p, mode, problem)
		return stepNone
	}
	s := t.take(hashKey('s', step.By, ev), st.mono, here(j.leaf.Index))
	start, count := st.mono, uint64(1)
	done := step.Count == 1
	if !done {
		// Of the first step the newest events count: those before slide out.
		s.ring.expire(st.mono - int64(q.Within))
		if s.ring.n == 0 {
			s.run = 0
		}
		s.run++
		s.ring.push(instant{mono: st.mono, place: here(j.leaf.Index)})
		if done = uint64(s.ring.n) >= step.Count; done {
			start, count = s.ring.at(0).mono, s.run
			s.ring.pop()
		}
	}
	if done {
		j.reach(p, t, s, 0, progress{start: start, values: values, done: []doneStep{{here(j.leaf.Index), count}}})
	}
	st.keep(t, s)
	return stepTaken
}

// reach adds an attempt that has done step i, and waits for the next. One of which
// everything to come would be the same, but that it ends sooner, makes room for it; where
// there are too many all the same, the one that was there first is given up, which is told.
func (j *judgement) reach(p *policy.Policy, t *table, s *slot, i int, g progress) {
	q := p.Sequence
	if s.steps == nil {
		s.steps = make([][]progress, len(q.Steps)-1)
	}
	all := slices.DeleteFunc(s.steps[i], func(o progress) bool {
		return !o.within(j.state.mono, q) || o.start <= g.start && o.like(&g, p)
	})
	if !slices.ContainsFunc(all, func(o progress) bool { return o.like(&g, p) }) {
		if len(all) == MaxAttempts {
			all = slices.Delete(all, 0, 1)
			t.givenUp++
		}
		all = append(all, g)
	}
	s.steps[i] = all
}

// end has the last step take attempts. Those which it completes are used up, where
// nothing covers the match; the newest of them is told. What an exception covers of one
// attempt may be a match of another. What is covered uses nothing up: a guest could else
// have what is excused stand before what is not.
func (j *judgement) end(p *policy.Policy, mode policy.Mode, s *slot, took attempts, values []captured, ev *event.Event) stepResult {
	i := len(p.Sequence.Steps) - 1
	step, all := p.Sequence.Steps[i], s.steps[i-1]
	var whole attempts
	var newest *progress
	covered := false
	for n := len(all) - 1; n >= 0; n-- {
		if took&(1<<n) == 0 || !j.count1(&all[n], step) {
			continue
		}
		g := all[n].and(doneStep{here(j.leaf.Index), step.Count}, values)
		j.lendProgress(p, &g, ev)
		if j.excepted(p, mode, ev) {
			covered = true
			all[n].taken = step.Count - 1
			continue
		}
		whole |= 1 << n
		if newest == nil {
			newest = &g
		}
	}
	if newest == nil {
		if covered {
			return stepExcused
		}
		return stepTaken
	}
	j.lendProgress(p, newest, ev)
	if j.approved(p, mode, ev) { // as what an approval covers is of the event alone, it is used once
		for n := range whole.each() {
			all[n].taken = step.Count - 1
		}
		return stepExcused
	}
	j.complete = *newest
	n := -1
	s.steps[i-1] = slices.DeleteFunc(all, func(progress) bool { n++; return whole&(1<<n) != 0 })
	s.ring.clear()
	return stepLast
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
		j.steps = append(j.steps, &record.VerdictStep{Name: p.Sequence.Steps[i].Name, Shard: d.place.shard(), Index: d.place.index(), Count: d.count})
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
	for i := range s.steps {
		s.steps[i] = slices.DeleteFunc(s.steps[i], func(g progress) bool { return g.within(st.mono, q) && holds(&g) })
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
