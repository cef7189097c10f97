package rules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/index"
	"github.com/provostd/provost/rules/policy"
)

// VM is what a log says about its domain.
type VM = event.VM

// ErrNoPayload says that an entry's payload was erased, so that it cannot be
// judged again.
var ErrNoPayload = event.ErrNoPayload

// Options are the host's part of the decision. The zero value limits nothing
// and knows no alert channels.
type Options struct {
	// HostMode is the host's switch: no policy is stronger. ModeUnset means
	// ModeEnforce.
	HostMode policy.Mode
	// VMModes limits single VMs, by UUID in lower case.
	VMModes map[string]policy.Mode
	// Channels are the names of the alert channels of this host.
	Channels []string
	// Recorded says that entries are judged again which a host has judged: what it
	// could honour was decided there, and nothing is refused.
	Recorded bool
	// Actions is what this host can do: kinds of action, and the Capabilities
	// below. Nil means everything, for tests and replay.
	Actions []string
	// Approvers says of each approver group how many people can sign for it.
	// Nil means that every group will do, for tests and replay.
	Approvers map[string]int
}

// Engine is a bundle ready to judge. It is immutable and may be used by many
// goroutines, each with a State of its own.
type Engine struct {
	bundle *policy.Bundle
	opts   Options
	// parts are the conditions of all policies that are not off, and index
	// finds those which may be true of an entry.
	parts    []part
	index    *index.Index
	watchers map[string]bool        // policies that judge policy.* entries
	sample   uint64                 // of how many entries one is judged twice; 0: as sampleEvery says
	modes    map[string]policy.Mode // of an activation; nil: what opts allow
}

// New returns an engine for the bundle. It refuses what this host could not
// honour (I10): an unknown channel, or an action it lacks.
func New(b *policy.Bundle, opts Options) (*Engine, error) {
	if opts.HostMode == policy.ModeUnset {
		opts.HostMode = policy.ModeEnforce
	}
	e := &Engine{bundle: b, opts: opts, watchers: make(map[string]bool)}
	var problems []error
	for i, p := range b.Policies {
		problems = append(problems, e.refuse(p)...)
		if p.Watches {
			e.watchers[p.Name] = true
		}
		if p.Mode != policy.ModeOff {
			e.parts = append(e.parts, partsOf(i, p)...)
		}
	}
	if len(problems) > 0 && !opts.Recorded {
		return nil, fmt.Errorf("use bundle %q: %w: %w", b.Name, errors.Join(problems...), record.ErrReject)
	}
	e.index = newIndex(e.parts)
	return e, nil
}

// Bundle returns the engine's bundle.
func (e *Engine) Bundle() *policy.Bundle { return e.bundle }

// Mode returns the effective mode of a policy on the VM with this UUID: the
// weakest of policy, bundle, VM and host. An empty UUID leaves the VM out.
func (e *Engine) Mode(p *policy.Policy, uuid string) policy.Mode {
	if e.modes != nil {
		return e.modes[p.Name]
	}
	m := min(p.Mode, e.opts.HostMode)
	if e.bundle.Mode != policy.ModeUnset {
		m = min(m, e.bundle.Mode)
	}
	if vm, ok := e.opts.VMModes[strings.ToLower(uuid)]; ok && vm != policy.ModeUnset {
		m = min(m, vm)
	}
	return m
}

// Activation is the record that says which policies judge from now on, with
// the modes that this host allows.
func (e *Engine) Activation() *record.BundleActivation { return e.ActivationFor("") }

// ActivationFor is Activation with the modes on the VM with this UUID: it
// belongs into that VM's log before the first entry the engine judges.
func (e *Engine) ActivationFor(uuid string) *record.BundleActivation {
	b := &record.BundleActivation{Name: e.bundle.Name, Version: e.bundle.Version, Digest: e.bundle.Digest[:]}
	for _, p := range e.bundle.Policies {
		b.Policies = append(b.Policies, &record.ActivePolicy{Name: p.Name, Mode: e.Mode(p, uuid).String(), Digest: p.Digest[:]})
	}
	return b
}

// ClassOf returns the class under which a verdict is sealed.
func ClassOf(v *record.Verdict) record.Class {
	switch {
	case v.Mismatch:
		return record.ClassPolicyMismatch
	case v.Error != "":
		return record.ClassPolicyError
	case v.LimitMax > 0:
		return record.ClassPolicyLimitReached
	}
	if v.Exception != "" {
		return record.ClassPolicyExceptionExpired
	}
	switch v.Approval.GetState() {
	case ApprovalUsed:
		return record.ClassApprovalUsed
	case ApprovalLate:
		return record.ClassApprovalUsedLate
	case ApprovalExpired:
		return record.ClassApprovalExpired
	}
	return record.ClassPolicyVerdict
}

var scratch = sync.Pool{New: func() any { return new(workspace) }}

// Eval judges one entry and moves the state past it. Entries come in order of
// index; one that was judged before is refused, and missing ones are allowed
// (they were pruned). payload is the decoded payload of the entry, and must not
// change during the call; nil means that it was erased.
//
// An error wraps record.ErrReject and ErrNoPayload where the entry cannot be
// judged; the state has moved past it all the same, except where the entry was
// judged before. Verdicts share no memory with payload.
func (e *Engine) Eval(st *State, leaf record.Leaf, leafHash record.Hash, payload record.Message) ([]*record.Verdict, error) {
	return e.eval(st, leaf, leafHash, payload, nil)
}

func (e *Engine) eval(st *State, leaf record.Leaf, leafHash record.Hash, payload record.Message, o *Observer) ([]*record.Verdict, error) {
	if leaf.Index < st.next {
		return nil, fmt.Errorf("judge entry %d: the next one is %d: %w", leaf.Index, st.next, record.ErrReject)
	}
	if leaf.Index >= maxIndex {
		return nil, fmt.Errorf("judge entry %d: no log has more than %d: %w", leaf.Index, maxIndex, record.ErrReject)
	}
	st.next = leaf.Index + 1
	st.mono = max(st.mono, leaf.Mono)
	st.wall = max(st.wall, leaf.Wall)
	st.leaf = leaf
	j := judgement{engine: e, state: st, leaf: &st.leaf, hash: leafHash, payload: payload, observer: o}
	j.learn()
	if st.engine != e || st.stale {
		j.retarget()
	}
	if m, ok := payload.(*record.Erased); ok {
		erased := erasedBy(m)
		if st.forget(erased); st.heir != nil {
			st.heir.forget(erased)
			st.heir.approvals.forget(func(u *unapproved) bool { return erased(u.cause) })
		}
	}
	err := j.learnApproval()
	err = errors.Join(err, j.judge())
	if !st.over && !st.held(e) {
		j.reportExpired()
		j.reportLost()
		j.reportEnded()
		j.reportGivenUp()
	}
	st.border(leaf, payload)
	return j.verdicts, err
}

// judgement is one call of Eval.
type judgement struct {
	engine   *Engine
	state    *State
	leaf     *record.Leaf
	hash     record.Hash
	payload  record.Message
	verdicts []*record.Verdict
	observer *Observer // nil: nobody watches

	exceeded *record.VerdictApproval // would cover the match, but for its uses
	counted  uint64                  // matches that reached the threshold
	complete progress                // the sequence that a step has ended
	steps    []*record.VerdictStep   // its earlier steps
}

func (j *judgement) learn() {
	if problem := j.state.learn(j.leaf, j.payload); problem != "" {
		j.verdicts = append(j.verdicts, j.failure(nil, problem))
	}
}

// retarget decides which policies look at this VM, and in which mode. It runs
// when the VM's facts or the engine have changed, not for each entry.
func (j *judgement) retarget() {
	st, e := j.state, j.engine
	w := scratch.Get().(*workspace)
	defer w.release()
	ev := &w.event
	ev.LoadVM(&st.vm)
	st.modes, st.judged = st.modes[:0], event.ClassSet{}
	for _, p := range e.bundle.Policies {
		mode := e.Mode(p, st.vm.UUID)
		if mode != policy.ModeOff {
			ok, err := p.Target.Selects(ev)
			if err != nil {
				j.fail(p, mode, "target: "+err.Error())
			}
			if !ok {
				mode = policy.ModeOff
			}
		}
		st.modes = append(st.modes, mode)
		if mode != policy.ModeOff {
			st.judged = st.judged.Union(event.SetOf(p.Classes()...))
		}
	}
	if st.engine != e {
		st.lost, st.lostDue = true, math.MinInt64 // found out by reportLost
	}
	if st.engine != e && !st.held(e) {
		st.openExceptions(e)
	}
	if (st.engine != e || st.unopened) && !st.held(e) {
		st.openWindows(e)
	}
	st.nextEnd = st.findEnd(e)
	st.engine, st.stale = e, false
}

// workspace is the memory that one evaluation needs.
type workspace struct {
	event event.Event
	found index.Scratch
	may   []int
	named []int32 // what the index found, where the entry is judged twice
}

func (w *workspace) release() {
	w.event.Reset() // keep no payload alive
	scratch.Put(w)
}

func (j *judgement) judge() error {
	class := j.leaf.Header.Class
	active := j.state.judged.Intersects(event.SetOf(class))
	if j.payload == nil && (active || teaches(j.leaf) || approvalEntry(j.leaf)) {
		return fmt.Errorf("judge %s entry %d: %w: %w", class, j.leaf.Index, ErrNoPayload, record.ErrReject)
	}
	if j.observer != nil {
		j.observeIdle(class)
	}
	if !active || j.engine.ownOutput(j.payload) {
		return nil
	}
	w := scratch.Get().(*workspace)
	defer w.release()
	if err := w.event.Load(j.leaf, j.payload, &j.state.vm); err != nil {
		return fmt.Errorf("judge entry: %w", err)
	}
	if j.observer != nil {
		j.engine.index.All(class, &w.found)
	} else {
		j.engine.index.Find(class, &w.event, &w.found)
	}
	parts := j.engine.parts
	twice := j.twice()
	w.named = w.named[:0]
	for n, ok := w.found.Next(); ok; {
		at := parts[n].policy
		w.may = w.may[:0]
		for ; ok && parts[n].policy == at; n, ok = w.found.Next() {
			w.may = append(w.may, parts[n].step)
			if twice {
				w.named = append(w.named, int32(n))
			}
		}
		if mode := j.state.modes[at]; mode != policy.ModeOff {
			j.policy(j.engine.bundle.Policies[at], mode, &w.event, w.may)
		}
	}
	if twice {
		j.again(&w.event, w.named)
	}
	return nil
}

// policy has one policy judge the event. may lists its parts that may be true
// of it, in order: 0, or the numbers of a sequence's steps, behind which comes
// that of its reset. All others are false.
func (j *judgement) policy(p *policy.Policy, mode policy.Mode, ev *event.Event, may []int) {
	if p.Sequence != nil {
		j.sequence(p, mode, ev, may)
		return
	}
	j.lend(p, ev)
	j.asked(p, PartCondition, "", p.Condition, ev)
	ok, err := p.Condition.Eval(ev)
	switch {
	case err != nil:
		if j.undecided(p, mode, err.Error()) {
			j.match(p, mode, ev)
		}
	case ok:
		j.match(p, mode, ev)
	default:
		j.ended(p, EndCondition, "")
	}
}

// ownOutput reports whether an entry was caused by a policy that watches
// policies or approvals: judging it could go on for ever. That an approval has ended is
// found with whatever entry comes next, which is not its cause.
func (e *Engine) ownOutput(payload record.Message) bool {
	switch p := payload.(type) {
	case *record.Verdict:
		if ClassOf(p) == record.ClassApprovalExpired {
			return false
		}
		return strings.HasPrefix(p.CauseClass, "policy.") || strings.HasPrefix(p.CauseClass, "approval.") || e.watchers[p.Policy]
	case *record.Outcome:
		return e.watchers[p.Policy]
	case *record.Held: // the end of a pause for a time would lead to the next one
		return slices.ContainsFunc(p.Holds, func(h *record.Hold) bool { return e.watchers[h.Policy] })
	}
	return false
}
