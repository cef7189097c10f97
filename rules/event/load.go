package event

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// MaxAncestors bounds process.ancestors, so that no guest can make one event
// cost much more than another (I8).
const MaxAncestors = 64

// ErrNoPayload says that an entry cannot be evaluated because its payload was
// erased. That is to be reported, never taken for "no verdict".
var ErrNoPayload = errors.New("payload erased: not re-evaluable")

// maxHex bounds the numbers of commands, which an agent may claim at any
// length.
const maxHex = 64

// noLogin is the audit subsystem's "nobody logged in".
const noLogin = 1<<32 - 1

// kind is what all events of one class have in common.
type kind struct {
	name, category, action string
	payload                reflect.Type // what record.NewPayload makes
}

var kinds = func() map[record.Class]*kind {
	m := make(map[record.Class]*kind, len(subjects))
	for _, c := range subjects {
		k := &kind{name: c.String(), payload: reflect.TypeOf(record.NewPayload(c))}
		k.category, k.action, _ = strings.Cut(k.name, ".")
		m[c] = k
	}
	return m
}()

// Load makes e the event of one sealed entry. vm is copied by reference and
// must not change while e is used. An error wraps record.ErrReject and leaves
// e empty: the payload is missing or not of the entry's class.
func (e *Event) Load(leaf *record.Leaf, payload record.Message, vm *VM) error {
	e.Reset()
	class := leaf.Header.Class
	if payload == nil {
		return fmt.Errorf("load %s entry %d: %w: %w", class, leaf.Index, ErrNoPayload, record.ErrReject)
	}
	k := kinds[class]
	if k == nil || reflect.TypeOf(payload) != k.payload {
		return fmt.Errorf("load %s entry %d: payload is a %T: %w", class, leaf.Index, payload, record.ErrReject)
	}
	e.loadCommon(k, leaf, vm)
	switch p := payload.(type) {
	case *record.Event:
		e.loadEvent(class, p)
	case *record.AgentState:
		e.loadAgent(p)
	case *record.Lost:
		e.loadLost(p)
	case *record.Enrolled:
		e.loadEnrolled(p)
	case *record.Hooks:
		e.loadHooks(p)
	case *record.Epoch:
		e.SetString(EventReason, p.Cause)
		e.signed(LibvirtDomainID, p.LibvirtId)
	case *record.Handover:
		e.SetString(EventReason, p.What)
	case *record.Gap:
		e.SetString(EventReason, p.Cause)
		e.signed(GapSeconds, (p.To-p.From)/1e9)
		e.SetStrings(GapChanges, append([]string(nil), p.Changes...))
	case *record.Genesis:
		e.SetString(EventReason, p.Cause)
	case *record.Verdict:
		e.loadVerdict(class, p)
	case *record.Approval:
		e.loadSigned(p.Statement, p.Signers, p.Submitter)
	case *record.Revocation:
		e.loadSigned(p.Statement, p.Signers, p.Submitter)
	case *record.Outcome:
		e.SetString(PolicyName, p.Policy)
		e.SetString(PolicyAction, p.Kind)
		e.SetString(PolicyResult, p.Result)
		e.SetString(EventReason, p.Error)
	case *record.Held:
		if len(p.Holds) > 0 {
			e.SetString(PolicyName, p.Holds[0].Policy)
			e.SetString(PolicyAction, p.Holds[0].Action)
		}
		if class == record.ClassPolicyReleased {
			e.SetString(PolicyRequester, p.Requester)
		}
		e.SetString(EventReason, p.Cause)
	case *record.BundleActivation:
		e.SetString(PolicyName, p.Name)
	case *record.AgentStopped:
		e.SetString(EventReason, p.Reason)
		e.SetBool(AgentAuthorised, p.Authorised)
		e.hex(CommandID, p.Command)
	case *record.AgentCommand:
		e.SetString(EventReason, p.Reason)
		e.SetNumber(AgentSession, p.Session)
		e.hex(CommandID, p.Id)
		e.SetString(CommandKind, p.Kind)
		e.SetString(CommandRequester, p.Requester)
	case *record.AgentResult:
		e.SetString(EventReason, p.Detail)
		e.SetNumber(AgentSession, p.Session)
		e.hex(CommandID, p.Id)
		e.SetNumber(CommandStatus, uint64(p.Status))
	case *record.Frame: // the statement is the ledger's business
	}
	return nil
}

func (e *Event) loadCommon(k *kind, leaf *record.Leaf, vm *VM) {
	e.plain(EventType, k.name)
	e.plain(EventCategory, k.category)
	e.plain(EventAction, k.action)
	e.plain(EventOrigin, leaf.Origin.String())
	e.wall = leaf.Wall
	e.deferred(EventTime)
	e.SetNumber(EventIndex, leaf.Index)
	e.SetNumber(EventSequence, leaf.Header.Sequence)
	e.loadVM(vm)
}

// plain sets a string that needs no normalising.
func (e *Event) plain(f Field, s string) { e.str[f] = s; e.set(f) }

func (e *Event) loadVM(vm *VM) {
	if vm == nil {
		return
	}
	e.uuid = vm.UUID
	e.SetString(VMUUID, vm.UUID)
	e.SetString(VMName, vm.Name)
	e.SetString(VMState, vm.State)
	if len(vm.Tags) > 0 { // normalised when they were learnt
		e.lists[VMTags-endAddresses] = vm.Tags
		e.set(VMTags)
	}
	e.metadata = vm.Metadata
}

func (e *Event) loadAgent(p *record.AgentState) {
	e.SetString(EventReason, p.Reason)
	e.SetNumber(AgentSession, p.Session)
	e.SetNumber(AgentCount, p.Count)
	e.signed(AgentSilentSeconds, p.Silent/1e9)
}

func (e *Event) loadLost(p *record.Lost) {
	e.SetString(EventReason, p.Detail)
	e.SetString(LostAuthor, p.Author)
	var total uint64
	var reasons, classes []string
	for _, c := range p.Counts {
		if c == nil {
			continue
		}
		if total += c.Count; total < c.Count {
			total = 1<<64 - 1 // a forged count must not wrap to a small one
		}
		reasons = appendNew(reasons, strings.ToLower(strings.TrimPrefix(c.Reason.String(), "LOSS_REASON_")))
		if c.Class != 0 && c.Class <= 0xffff {
			classes = appendNew(classes, record.Class(c.Class).String())
		}
	}
	e.SetNumber(LostCount, total)
	e.SetStrings(LostReasons, reasons)
	e.SetStrings(LostClasses, classes)
}

func (e *Event) loadEnrolled(p *record.Enrolled) {
	e.SetNumber(AgentSession, p.Session)
	e.SetString(AgentVersion, p.AgentVersion)
	e.SetString(AgentKey, hex.EncodeToString(p.Key))
	e.SetNumber(AgentAttestationLevel, uint64(p.AttestationLevel))
	e.SetBool(AgentResumed, p.Resumed)
}

func (e *Event) loadHooks(p *record.Hooks) {
	e.SetString(AgentMode, p.Mode)
	e.SetString(AgentKernel, p.Kernel)
	var uncovered []string
	for _, h := range p.Hooks {
		if h != nil && h.Name == "" && h.Class <= 0xffff {
			uncovered = appendNew(uncovered, record.Class(h.Class).String())
		}
	}
	e.SetStrings(AgentUncovered, uncovered)
}

func (e *Event) loadVerdict(class record.Class, p *record.Verdict) {
	e.SetString(PolicyName, p.Policy)
	e.SetString(PolicySeverity, p.Severity)
	e.SetString(PolicyMode, p.Mode)
	e.SetString(PolicyCause, p.CauseClass)
	e.SetBool(PolicyWouldHave, p.WouldHave)
	e.SetString(EventReason, p.Error)
	if setLimited.Has(class) {
		e.SetString(PolicyLimited, p.Limited)
	}
	if class == record.ClassPolicyLimitReached {
		e.SetNumber(PolicyLimitMax, p.LimitMax)
	}
	if a := p.Approval; a != nil && setUses.Has(class) {
		e.SetString(ApprovalID, a.Id)
		e.SetString(ApprovalGroup, a.Group)
		e.SetString(ApprovalState, a.State)
		e.SetNumber(ApprovalUses, a.Uses)
		e.SetNumber(ApprovalMaxUses, a.MaxUses)
	}
}

// signedStatement is what policies may read of what was signed. The host has verified
// that it is one before it sealed it: rules/approval.
type signedStatement struct {
	ID    string `json:"id"`
	Group string `json:"group"`
}

func (e *Event) loadSigned(statement []byte, signers []string, submitter string) {
	var s signedStatement
	if json.Unmarshal(statement, &s) == nil { // else the engine tells that it has no effect
		e.SetString(ApprovalID, s.ID)
		e.SetString(ApprovalGroup, s.Group)
	}
	e.SetStrings(ApprovalSigners, slices.Clone(signers))
	e.SetString(ApprovalSubmitter, submitter)
}

// appendNew appends s where list lacks it. Lists longer than 64 are cut: the
// guest decides how many counts it sends.
func appendNew(list []string, s string) []string {
	if len(list) >= 64 {
		return list
	}
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

func (e *Event) bytes(f Field, b []byte) { e.SetString(f, alias(b)) }

// signed sets a number that is negative where there is none.
func (e *Event) signed(f Field, n int64) {
	if n >= 0 {
		e.SetNumber(f, uint64(n))
	}
}

func (e *Event) digest(f Field, b []byte) {
	if len(b) == 32 {
		e.SetString(f, hex.EncodeToString(b))
	}
}

func (e *Event) hex(f Field, b []byte) {
	if len(b) <= maxHex {
		e.SetString(f, hex.EncodeToString(b))
	}
}

// nonzero sets a number of which 0 says nothing.
func (e *Event) nonzero(f Field, n uint64) {
	if n != 0 {
		e.SetNumber(f, n)
	}
}

// moment sets a time in Unix nanoseconds, where there is one.
func (e *Event) moment(f Field, n int64) {
	if n > 0 {
		e.SetNumber(f, uint64(n))
	}
}

// texted sets a list of text that shares the payload's memory.
func (e *Event) texted(f Field, list [][]byte) {
	if len(list) == 0 {
		return
	}
	from := len(e.texts)
	for _, a := range list {
		e.texts = append(e.texts, Normalize(alias(a)))
	}
	e.lists[f-endAddresses] = e.texts[from:len(e.texts):len(e.texts)]
	e.set(f)
}

func (e *Event) args(list, line Field, args [][]byte) {
	if len(args) > 0 {
		e.texted(list, args)
		e.deferred(line)
	}
}

// LoadVM makes e an event of nothing but the domain, for conditions that
// select VMs.
func (e *Event) LoadVM(vm *VM) {
	e.Reset()
	e.loadVM(vm)
}
