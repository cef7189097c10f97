package rules

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// hashKey hashes the values of a key, so that a guest's long paths take no
// room; 128 bits of SHA-256 leave nothing to collide on purpose.
func hashKey(tag byte, by []*policy.Value, ev *event.Event) key {
	var buf [256]byte
	b := append(buf[:0], tag)
	for _, v := range by {
		b = v.AppendKey(b, ev)
	}
	sum := sha256.Sum256(b)
	return key(sum[:len(key{})])
}

func hashValue(v *policy.Value, ev *event.Event) key {
	var buf [256]byte
	sum := sha256.Sum256(v.AppendKey(append(buf[:0], 'v'), ev))
	return key(sum[:len(key{})])
}

// count adds a match to a threshold's window and reports how many are in it,
// and whether that is enough. Counting then begins anew.
func (j *judgement) count(t *table, h *policy.Threshold, ev *event.Event) (uint64, bool) {
	st := j.state
	if h.Distinct != nil && !h.Distinct.Has(ev) {
		return 0, false
	}
	s := t.take(hashKey('t', h.By, ev), st.mono, here(j.leaf.Index))
	s.expire(st.mono - int64(h.Window))
	x := instant{mono: st.mono, place: here(j.leaf.Index)}
	if h.Distinct != nil {
		x.value = hashValue(h.Distinct, ev)
		s.pushDistinct(x)
	} else {
		s.ring.push(x)
	}
	n := uint64(s.counted())
	if n >= h.Count {
		st.drop(t, s)
		return n, true
	}
	st.keep(t, s)
	return n, false
}

// firstSeen remembers the values of a match and reports whether they are new.
func (j *judgement) firstSeen(t *table, f *policy.FirstSeen, ev *event.Event) bool {
	st := j.state
	k := hashKey('f', f.By, ev)
	known := false
	if s := t.find(k); s != nil {
		known = s.mono > st.mono-int64(f.History)
	}
	st.keep(t, t.take(k, st.mono, here(j.leaf.Index)))
	return !known && st.mono >= t.since+int64(f.Learn)
}

// remembered asks the policy's window whether a match passes.
func (j *judgement) remembered(p *policy.Policy, ev *event.Event) bool {
	w := &j.state.windows[p.Number]
	switch {
	case p.Threshold != nil:
		n, reached := j.count(w.main, p.Threshold, ev)
		if !reached {
			j.ended(p, EndThreshold, strconv.FormatUint(n, 10))
			return false
		}
		j.counted = n
		j.lendCount(p, p.Threshold, n, ev)
	case p.FirstSeen != nil:
		if !j.firstSeen(w.main, p.FirstSeen, ev) {
			j.ended(p, EndSeen, "")
			return false
		}
	}
	return true
}

// escalate counts a match for the escalate blocks of its policy.
func (j *judgement) escalate(p *policy.Policy, mode policy.Mode, ev *event.Event) {
	for i, x := range p.Escalates {
		n, reached := j.count(j.state.windows[p.Number].escalates[i], x.Threshold, ev)
		if !reached {
			continue
		}
		j.lendCount(p, x.Threshold, n, ev)
		v := j.verdict(p, mode)
		v.Escalation, v.Counted, v.Steps = x.Name, n, j.steps
		j.act(p, mode, v, x.Actions, ev)
		j.verdicts = append(j.verdicts, v)
	}
}

// act gives a verdict its actions, less what the policy's limit forbids.
func (j *judgement) act(p *policy.Policy, mode policy.Mode, v *record.Verdict, actions []*policy.Action, ev *event.Event) {
	limited := j.limited(p, mode, actions)
	if limited {
		j.reached(p, mode)
	}
	for _, a := range actions {
		if limited && p.Limit.Then == policy.LimitAlert && a.Destructive() {
			continue
		}
		act := &record.Action{Kind: a.Kind, Message: a.Message.Render(ev)}
		if len(a.Parameters)+len(a.Channels) > 0 {
			act.Parameters = make(map[string]string, len(a.Parameters)+1)
			maps.Copy(act.Parameters, a.Parameters)
		}
		if len(a.Channels) > 0 {
			act.Parameters["channels"] = strings.Join(a.Channels, ",")
		}
		v.Actions = append(v.Actions, act)
	}
	if limited {
		v.Limited = p.Limit.Then
		if p.Limit.Then == policy.LimitAudit {
			v.Mode, v.WouldHave = policy.ModeAudit.String(), true
		}
	}
}

// limited counts a verdict that would change the domain, and reports whether
// the policy's limit forbids it. A limit of the whole host is enforcement's.
func (j *judgement) limited(p *policy.Policy, mode policy.Mode, actions []*policy.Action) bool {
	m := p.Limit
	if m == nil || m.Scope != policy.LimitVM || mode != policy.ModeEnforce || !slices.ContainsFunc(actions, (*policy.Action).Destructive) {
		return false
	}
	st, t := j.state, j.state.windows[p.Number].limit
	s := t.take(key{}, st.mono, here(j.leaf.Index))
	s.ring.expire(st.mono - int64(m.Per))
	if uint64(s.ring.n) >= m.Max {
		st.keep(t, s)
		return true
	}
	s.ring.push(instant{mono: st.mono, place: here(j.leaf.Index)})
	st.keep(t, s)
	return false
}

// reached tells that a limit leaves something undone: once, until the time that the limit
// counts in is over.
func (j *judgement) reached(p *policy.Policy, mode policy.Mode) {
	st, t := j.state, j.state.windows[p.Number].limit
	if t.reported != 0 && st.mono-t.reported < int64(p.Limit.Per) {
		return
	}
	t.reported = st.mono
	v := j.verdict(p, mode)
	v.Limited, v.LimitMax = p.Limit.Then, p.Limit.Max
	j.verdicts = append(j.verdicts, v)
}

// lend makes room for the values that the policy's expressions read beside the
// event: those of another policy must not be seen.
func (j *judgement) lend(p *policy.Policy, ev *event.Event) {
	n := len(p.Captures)
	if n == 0 {
		ev.Bound = nil
		return
	}
	j.state.lent = slices.Grow(j.state.lent[:0], n)[:n]
	clear(j.state.lent)
	ev.Bound = j.state.lent
}

func (j *judgement) lendCount(p *policy.Policy, h *policy.Threshold, n uint64, ev *event.Event) {
	for i, c := range p.Captures {
		switch c.Kind {
		case policy.CaptureCount:
			ev.Bound[i] = event.Bound{Present: true, Num: n}
		case policy.CaptureWindow:
			ev.Bound[i] = event.Bound{Present: true, Str: policy.FormatPeriod(h.Window)}
		}
	}
}
