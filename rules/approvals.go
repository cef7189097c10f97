package rules

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// MaxApprovals bounds the approvals that one VM has at a time. It takes part in
// what is decided, so it is a constant.
const MaxApprovals = 64

// maxUnapproved bounds the verdicts that wait for a late approval, and maxCauses the
// bytes of the payloads that they are on.
const (
	maxUnapproved = 256
	maxCauses     = 1 << 20
)

// maxRevoked bounds the revocations that are remembered of approvals which the log does
// not have (yet): those that a new shard of a log may still be given are at most
// MaxApprovals. Beyond it the oldest is forgotten.
const maxRevoked = 4 * MaxApprovals

// What an approval had to do with a decision: VerdictApproval.State.
const (
	ApprovalUsed     = "used"
	ApprovalLate     = "late"
	ApprovalExpired  = "expired"
	ApprovalExceeded = "exceeded" // in a verdict: its uses are used up
)

// OfApproval reports whether v tells what became of an approval: it decides and does
// nothing.
func OfApproval(v *record.Verdict) bool {
	switch ClassOf(v) {
	case record.ClassApprovalUsed, record.ClassApprovalUsedLate, record.ClassApprovalExpired:
		return true
	}
	return false
}

// Recall returns an entry that stands before the one being judged: of the log, or of
// the shard of its incarnation that has this number. It wraps ErrNoPayload where the
// payload was erased.
type Recall func(shard uint32, index uint64) (record.Leaf, record.Message, error)

// active is an approval that has neither ended nor been revoked.
type active struct {
	text      []byte // the statement, as it was signed
	statement *approval.Statement
	scope     *approval.Matcher
	signers   uint32
	loaded    place
	uses      uint64
}

// unapproved is a verdict that a late approval would close.
type unapproved struct {
	policy string
	cause  place
	hash   record.Hash
	class  record.Class
	until  int64 // host monotone time
	// where the verdict was sealed; known is false until its entry is read
	known       bool
	verdict     place
	verdictHash record.Hash

	// What the verdict is on, not saved: nil behind a restart, or for lack of room.
	leaf    record.Leaf
	payload []byte
}

// approvals is the part of a State that approvals have.
type approvals struct {
	active []*active // in order of loading
	ends   int64     // wall time at which the next one ends, where there is one
	late   []*unapproved
	bytes  int // of payloads in late
	// revoked are ids that were revoked before they were loaded, the oldest first.
	revoked []string
}

// authority reports whether an entry may load or revoke an approval: the daemon
// has verified it. Nothing that policies seal gives any authority.
func authority(leaf *record.Leaf) bool {
	return leaf.Origin == record.OriginOperator || leaf.Origin == record.OriginHost
}

// approvalEntry reports whether an entry says something about approvals.
func approvalEntry(leaf *record.Leaf) bool {
	c := leaf.Header.Class
	return (c == record.ClassApprovalLoaded || c == record.ClassApprovalRevoked) && authority(leaf)
}

// learnApproval takes from an entry what it says about approvals, and tells of
// those that have ended. It comes before the entry is judged.
func (j *judgement) learnApproval() error {
	st := j.state
	if !st.over && !st.held(j.engine) {
		j.expire()
	}
	leaf := j.leaf
	switch p := j.payload.(type) {
	case *record.Approval:
		if leaf.Header.Class != record.ClassApprovalLoaded || !authority(leaf) {
			return nil
		}
		if problem := st.approvals.load(leaf.Index, p, st.vm.UUID); problem != "" {
			j.verdicts = append(j.verdicts, j.failure(nil, problem))
			return nil
		}
		return j.closeLate(func(u *unapproved) bool { return u.known || u.cause.shard() > 0 })
	case *record.Revocation:
		if leaf.Header.Class != record.ClassApprovalRevoked || !authority(leaf) {
			return nil
		}
		r, err := approval.ParseRevocation(p.Statement)
		if err != nil {
			j.verdicts = append(j.verdicts, j.failure(nil, "a revocation has no effect: "+err.Error()))
			return nil
		}
		st.approvals.revoke(r.ID)
	case *record.Erased:
		if authority(leaf) {
			erased := erasedBy(p)
			st.approvals.forget(func(u *unapproved) bool { return erased(u.cause) })
		}
	case *record.Verdict:
		if leaf.Header.Class != record.ClassPolicyVerdict || leaf.Origin != record.OriginPolicy {
			return nil
		}
		for _, u := range st.approvals.late {
			if !u.known && u.policy == p.Policy && u.cause == placed(p.CauseShard, p.CauseIndex) {
				u.known, u.verdict, u.verdictHash = true, here(leaf.Index), j.hash
				return j.closeLate(func(o *unapproved) bool { return o == u })
			}
		}
	}
	return nil
}

// load adds an approval. It returns a problem in words, or "".
func (as *approvals) load(index uint64, m *record.Approval, uuid string) string {
	s, err := approval.Parse(m.Statement)
	if err != nil {
		return "an approval has no effect: " + err.Error()
	}
	a, err := newActive(m.Statement, s)
	switch {
	case err != nil:
		return "approval " + s.ID + " has no effect: " + err.Error()
	case !slices.Contains(s.VMs, uuid):
		return fmt.Sprintf("approval %s has no effect: it is not for the VM %s", s.ID, uuid)
	case slices.Contains(as.revoked, s.ID):
		return "approval " + s.ID + " has no effect: it was revoked before"
	case slices.ContainsFunc(as.active, func(o *active) bool { return o.statement.ID == s.ID || o.statement.Nonce == s.Nonce }):
		return "approval " + s.ID + " has no effect: it was loaded before"
	case len(as.active) >= MaxApprovals:
		return fmt.Sprintf("approval %s has no effect: a VM may have only %d at once", s.ID, MaxApprovals)
	}
	a.signers, a.loaded, a.uses = uint32(min(len(m.Signers), math.MaxUint16)), here(index), 0
	as.active = append(as.active, a)
	as.settle()
	return ""
}

func newActive(text []byte, s *approval.Statement) (*active, error) {
	scope, err := s.Matcher()
	if err != nil {
		return nil, err
	}
	return &active{text: bytes.Clone(text), statement: s, scope: scope}, nil
}

// drop removes approvals.
func (as *approvals) drop(gone func(*active) bool) {
	as.active = slices.DeleteFunc(as.active, gone)
	as.settle()
}

// revoke ends an approval, also one that is yet to be loaded.
func (as *approvals) revoke(id string) {
	had := len(as.active)
	as.drop(func(a *active) bool { return a.statement.ID == id })
	if len(as.active) < had || slices.Contains(as.revoked, id) {
		return
	}
	if len(as.revoked) == maxRevoked {
		as.revoked = slices.Delete(as.revoked, 0, 1)
	}
	as.revoked = append(as.revoked, id)
}

// settle finds out when the next approval ends.
func (as *approvals) settle() {
	as.ends = math.MaxInt64
	for _, a := range as.active {
		as.ends = min(as.ends, a.statement.NotAfter.UnixNano())
	}
}

// forget gives up waiting for late approvals of some verdicts.
func (as *approvals) forget(gone func(*unapproved) bool) {
	as.late = slices.DeleteFunc(as.late, func(u *unapproved) bool {
		if !gone(u) {
			return false
		}
		as.bytes -= len(u.payload)
		return true
	})
}

// expire tells of the approvals that have ended, and gives up waiting for late
// ones whose time is over.
func (j *judgement) expire() {
	st := j.state
	as := &st.approvals
	if len(as.active) > 0 && st.wall > as.ends {
		for _, a := range as.active {
			if a.statement.Ended(st.wall) {
				v := j.verdict(nil, policy.ModeUnset)
				v.Approval = a.record(ApprovalExpired)
				j.verdicts = append(j.verdicts, v)
			}
		}
		as.drop(func(a *active) bool { return a.statement.Ended(st.wall) })
	}
	if len(as.late) > 0 {
		as.forget(func(u *unapproved) bool { return st.mono > u.until })
	}
}

func (a *active) record(state string) *record.VerdictApproval {
	return &record.VerdictApproval{Id: a.statement.ID, Group: a.statement.Group, State: state, Uses: a.uses, MaxUses: a.statement.MaxUses, LoadedShard: a.loaded.shard(), LoadedIndex: a.loaded.index()}
}

// grants reports whether an approval covers an entry that a policy matched.
func (a *active) grants(p *policy.Policy, wall int64, class record.Class, ev *event.Event) bool {
	s := a.statement
	if s.Group != p.Approval.Group || int(a.signers) < p.Approval.Require || !s.Names(p.Name) || !s.Valid(wall) {
		return false
	}
	ok, err := a.scope.Covers(class, ev)
	return ok && err == nil // what cannot be decided is not covered: there is a verdict
}

// approved reports whether an approval covers what a policy has matched. It
// then uses it once. Where all that would cover it are used up, exceeded is one.
func (j *judgement) approved(p *policy.Policy, mode policy.Mode, ev *event.Event) bool {
	j.exceeded = nil
	if p.Approval == nil {
		return false
	}
	for _, a := range j.state.approvals.active {
		if !a.grants(p, j.state.wall, j.leaf.Header.Class, ev) {
			continue
		}
		if a.uses >= a.statement.MaxUses {
			j.exceeded = a.record(ApprovalExceeded)
			continue
		}
		a.uses++
		v := j.verdict(p, mode)
		v.Approval = a.record(ApprovalUsed)
		v.WouldHave = false
		j.verdicts = append(j.verdicts, v)
		j.ended(p, EndApproval, a.statement.ID)
		return true
	}
	return false
}

// unapproved remembers a verdict that a late approval may close.
func (j *judgement) unapproved(p *policy.Policy) {
	if p.Approval == nil || p.Approval.Grace <= 0 {
		return
	}
	as := &j.state.approvals
	if len(as.late) >= maxUnapproved {
		// The oldest waits no longer: its alert stays open, which is the safe side.
		oldest := as.late[0]
		as.forget(func(u *unapproved) bool { return u == oldest })
	}
	u := &unapproved{policy: p.Name, cause: here(j.leaf.Index), hash: j.hash, class: j.leaf.Header.Class, until: j.state.mono + int64(p.Approval.Grace), leaf: *j.leaf}
	if as.bytes < maxCauses {
		// A copy: the payload is the caller's. Without one the entry is read again.
		if b, err := record.Encode(j.payload); err == nil {
			u.payload = b
			as.bytes += len(b)
		}
	}
	as.late = append(as.late, u)
}

// closeLate uses approvals that were loaded behind an entry for it, where its
// verdict is sealed and the policy's grace is not over: when an approval is loaded, for all
// verdicts, and when a verdict is sealed, for that one. So what a verdict is on is read
// again once for each approval.
func (j *judgement) closeLate(of func(*unapproved) bool) error {
	var problems []error
	as := &j.state.approvals
	as.forget(func(u *unapproved) bool {
		if !of(u) {
			return false
		}
		i := slices.IndexFunc(j.engine.bundle.Policies, func(p *policy.Policy) bool { return p.Name == u.policy })
		if i < 0 || j.engine.bundle.Policies[i].Approval == nil {
			return true
		}
		done, err := j.lateFor(j.engine.bundle.Policies[i], u)
		if err != nil {
			problems = append(problems, err)
		}
		return done || err != nil
	})
	return errors.Join(problems...)
}

// lateFor closes one verdict if an approval covers its cause now.
func (j *judgement) lateFor(p *policy.Policy, u *unapproved) (bool, error) {
	st := j.state
	var w *workspace
	for _, a := range st.approvals.active {
		if a.loaded.before(u.cause) || a.uses >= a.statement.MaxUses || a.statement.Group != p.Approval.Group || !a.statement.Names(p.Name) {
			continue
		}
		if w == nil {
			var err error
			if w, err = j.recall(u); err != nil {
				return false, err
			}
			defer w.release()
		}
		if !a.grants(p, st.wall, u.class, &w.event) {
			continue
		}
		a.uses++
		v := j.verdict(p, j.engine.Mode(p, st.vm.UUID))
		v.WouldHave = false
		v.CauseShard, v.CauseIndex, v.CauseHash, v.CauseClass = u.cause.shard(), u.cause.index(), bytes.Clone(u.hash[:]), u.class.String()
		v.Approval = a.record(ApprovalLate)
		// A verdict that was sealed behind the end of its shard is named by its cause
		// alone: this log does not say where it stands.
		if v.Approval.VerdictShard = u.cause.shard(); u.known {
			v.Approval.VerdictShard, v.Approval.VerdictIndex, v.Approval.VerdictHash = u.verdict.shard(), u.verdict.index(), bytes.Clone(u.verdictHash[:])
		}
		j.verdicts = append(j.verdicts, v)
		return true, nil
	}
	return false, nil
}

// recall loads the entry that a verdict is on.
func (j *judgement) recall(u *unapproved) (*workspace, error) {
	leaf := u.leaf
	var payload record.Message
	var err error
	switch {
	case u.payload != nil:
		payload, err = record.Decode(u.class, u.payload)
	case j.state.Recall != nil:
		leaf, payload, err = j.state.Recall(u.cause.shard(), u.cause.index())
	default:
		err = fmt.Errorf("an approval came late, and the entry that it may cover is not at hand: %w: %w", ErrNoPayload, record.ErrReject)
	}
	if err != nil {
		return nil, fmt.Errorf("judge entry %d: look at entry %s again: %w", j.leaf.Index, u.cause, err)
	}
	w := scratch.Get().(*workspace)
	if err := w.event.Load(&leaf, payload, &j.state.vm); err != nil {
		w.release()
		return nil, fmt.Errorf("judge entry %d: look at entry %s again: %w", j.leaf.Index, u.cause, err)
	}
	return w, nil
}

// Approval is what a State knows of one approval.
type Approval struct {
	ID     string
	Shard  uint32 // that loaded it; 0: this log
	Loaded uint64 // leaf
	Uses   uint64
}

// Approvals returns the approvals that have neither ended nor been revoked, in
// order of loading.
func (st *State) Approvals() []Approval {
	var all []Approval
	for _, a := range st.approvals.active {
		all = append(all, Approval{a.statement.ID, a.loaded.shard(), a.loaded.index(), a.uses})
	}
	return all
}

// CheckApprovers is CheckApprovers of the engine's bundle.
func (e *Engine) CheckApprovers(groups map[string]int) error { return CheckApprovers(e.bundle, groups) }

// CheckApprovers refuses approvers, see Options, with whom policies of a bundle could
// not be honoured (I10): every match would alert, and nobody could approve.
func CheckApprovers(b *policy.Bundle, groups map[string]int) error {
	var problems []error
	for _, p := range b.Policies {
		problems = append(problems, refuseApproval(p, groups))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("use approvers: %w: %w", err, record.ErrReject)
	}
	return nil
}

// refuseApproval returns what of a policy's approval block cannot be honoured with
// these groups; nil are all.
func refuseApproval(p *policy.Policy, groups map[string]int) error {
	if p.Approval == nil || groups == nil {
		return nil
	}
	signers, ok := groups[p.Approval.Group]
	switch {
	case !ok:
		return fmt.Errorf("policy %q: this host has no approver_group %q", p.Name, p.Approval.Group)
	case signers < p.Approval.Require:
		return fmt.Errorf("policy %q: wants %d signers of approver_group %q, which has %d", p.Name, p.Approval.Require, p.Approval.Group, signers)
	}
	return nil
}
