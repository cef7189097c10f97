package event

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// MaxAncestors bounds process.ancestors, so that no guest can make one event
// cost much more than another (I8).
const MaxAncestors = 64

// ErrNoPayload says that an entry cannot be evaluated because its payload was
// erased. That is to be reported, never taken for "no verdict".
var ErrNoPayload = errors.New("payload erased: not re-evaluable")

// noLogin is the audit subsystem's "nobody logged in".
const noLogin = 1<<32 - 1

// payloadTypes is what record.NewPayload makes for each subject.
var payloadTypes = func() map[record.Class]reflect.Type {
	m := make(map[record.Class]reflect.Type, len(subjects))
	for _, c := range subjects {
		m[c] = reflect.TypeOf(record.NewPayload(c))
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
	e.loadCommon(leaf, vm)
	if reflect.TypeOf(payload) != payloadTypes[class] {
		e.Reset()
		return fmt.Errorf("load %s entry %d: payload is a %T: %w", class, leaf.Index, payload, record.ErrReject)
	}
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
	case *record.Gap:
		e.SetString(EventReason, p.Cause)
		e.signed(GapSeconds, (p.To-p.From)/1e9)
		e.SetStrings(GapChanges, append([]string(nil), p.Changes...))
	case *record.Genesis:
		e.SetString(EventReason, p.Cause)
	case *record.Verdict:
		e.loadVerdict(p)
	case *record.Outcome:
		e.SetString(PolicyName, p.Policy)
		e.SetString(PolicyAction, p.Kind)
		e.SetString(PolicyResult, p.Result)
		e.SetString(EventReason, p.Error)
	case *record.BundleActivation:
		e.SetString(PolicyName, p.Name)
	case *record.Frame: // the statement is the ledger's business
	}
	return nil
}

func (e *Event) loadCommon(leaf *record.Leaf, vm *VM) {
	name := leaf.Header.Class.String()
	category, action, _ := strings.Cut(name, ".")
	e.SetString(EventType, name)
	e.SetString(EventCategory, category)
	e.SetString(EventAction, action)
	e.SetString(EventOrigin, leaf.Origin.String())
	e.wall = leaf.Wall
	e.deferred(EventTime)
	e.SetNumber(EventIndex, leaf.Index)
	e.SetNumber(EventSequence, leaf.Header.Sequence)
	e.loadVM(vm)
}

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

func (e *Event) loadEvent(class record.Class, p *record.Event) {
	e.SetString(EventReason, p.Reason)
	if p.ResultKnown {
		e.SetNumber(EventResult, uint64(p.Result))
		if p.Result == 0 {
			e.SetString(EventOutcome, "success")
		} else {
			e.SetString(EventOutcome, "failure")
		}
	}
	if p.Process != nil {
		e.loadProcess(p.Process)
	}
	e.loadAncestry(p)
	if p.File != nil {
		e.loadFile(p.File)
	}
	if p.Target != nil {
		e.bytes(FileTargetPath, p.Target.Path)
	}
	if p.Replaced != nil {
		e.SetBool(FileReplaced, true)
	}
	if p.Network != nil {
		e.loadNetwork(p.Network)
	}
	if p.Exit != nil {
		e.SetNumber(ProcessExitCode, uint64(p.Exit.Code))
		e.SetNumber(ProcessExitSignal, uint64(p.Exit.Signal))
		e.SetBool(ProcessCoreDumped, p.Exit.CoreDumped)
	}
	// Only the host's own classes speak of the domain: a guest's event that
	// carries a VM is not believed (I3).
	if p.Vm != nil && !class.FromGuest() {
		e.SetString(LibvirtDetail, p.Vm.Detail)
		e.SetString(LibvirtConnection, p.Vm.Connection)
		e.SetString(LibvirtSource, p.Vm.Source)
		e.signed(LibvirtEventID, int64(p.Vm.LibvirtEvent))
		e.signed(LibvirtDetailID, int64(p.Vm.LibvirtDetail))
		e.signed(LibvirtDomainID, p.Vm.LibvirtId)
	}
}

func (e *Event) loadProcess(p *record.Process) {
	e.SetNumber(ProcessPID, uint64(p.Pid))
	e.SetNumber(ProcessStart, p.Start)
	e.deferred(ProcessEntityID)
	e.bytes(ProcessName, p.Name)
	e.bytes(ProcessExecutable, p.Executable)
	e.bytes(ProcessFilename, p.Filename)
	e.bytes(ProcessScript, p.Script)
	e.args(ProcessArgs, ProcessCommandLine, p.Args)
	e.SetBool(ProcessArgsTruncated, p.ArgsTruncated)
	e.bytes(ProcessWorkingDirectory, p.WorkingDirectory)
	e.digest(ProcessHashSHA256, p.Sha256)
	e.bytes(ProcessCgroup, p.Cgroup)
	e.SetString(ProcessContainerID, p.ContainerId)
	if p.SessionId != noLogin {
		e.SetNumber(ProcessSessionID, uint64(p.SessionId))
	}
	e.SetNumber(ProcessExecCount, uint64(p.ExecCount))
	if p.LoginUid != noLogin {
		e.SetNumber(UserLoginID, uint64(p.LoginUid))
	}
	if c := p.Credentials; c != nil {
		e.SetNumber(UserID, uint64(c.Uid))
		e.SetNumber(UserGroupID, uint64(c.Gid))
		e.SetNumber(UserEffectiveID, uint64(c.Euid))
		e.SetNumber(UserEffectiveGroupID, uint64(c.Egid))
		if c.Uid == 0 {
			e.SetString(UserName, "root")
		}
	}
}

// loadAncestry fills the parent and the list of ancestors, in which the
// parent comes first.
func (e *Event) loadAncestry(p *record.Event) {
	if q := p.Parent; q != nil {
		e.SetNumber(ParentPID, uint64(q.Pid))
		e.SetNumber(ParentStart, q.Start)
		e.deferred(ParentEntityID)
		e.bytes(ParentName, q.Name)
		e.bytes(ParentExecutable, q.Executable)
		e.args(ParentArgs, ParentCommandLine, q.Args)
		e.bytes(ParentWorkingDirectory, q.WorkingDirectory)
		e.digest(ParentHashSHA256, q.Sha256)
		e.ancestor(q)
	} else if q := p.Process; q != nil && q.Ppid != 0 {
		e.SetNumber(ParentPID, uint64(q.Ppid))
		e.SetNumber(ParentStart, q.ParentStart)
		e.deferred(ParentEntityID)
	}
	for _, q := range p.Ancestors {
		if q == nil || len(e.ancestors) >= MaxAncestors {
			break
		}
		e.ancestor(q)
	}
	e.ancestorsSet()
}

func (e *Event) ancestor(q *record.Process) {
	e.ancestors = append(e.ancestors, Process{
		PID: uint64(q.Pid), Start: q.Start,
		Name: Normalize(alias(q.Name)), Executable: Normalize(alias(q.Executable)),
	})
}

func (e *Event) loadFile(p *record.File) {
	if len(p.Path) > 0 {
		e.bytes(FilePath, p.Path)
		e.deferred(FileName)
		e.deferred(FileDirectory)
		if Extension(e.str[FilePath]) != "" {
			e.deferred(FileExtension)
		}
	}
	e.bytes(FileFilesystemPath, p.FilesystemPath)
	e.SetString(FileHow, p.How)
	if p.Operations != 0 {
		e.SetNumber(FileOperations, p.Operations)
	}
	if p.Inode == 0 {
		return // the object itself was not examined, only its path is known
	}
	e.SetNumber(FileInode, p.Inode)
	e.SetNumber(FileDevice, p.Device)
	e.SetNumber(FileSize, p.Size)
	e.SetNumber(FileSizeBefore, p.SizeBefore)
	e.SetNumber(FileUID, uint64(p.Uid))
	e.SetNumber(FileGID, uint64(p.Gid))
	if p.Mode != 0 {
		e.SetNumber(FileMode, uint64(p.Mode))
		e.SetBool(FileModeExecutable, p.Mode&0o111 != 0)
	}
	if p.ModeBefore != 0 {
		e.SetNumber(FileModeBefore, uint64(p.ModeBefore))
	}
}

func (e *Event) loadNetwork(p *record.Network) {
	e.SetString(NetworkProtocol, p.Protocol)
	e.SetString(NetworkDirection, p.Direction)
	switch p.Family {
	case 4:
		e.SetString(NetworkType, "ipv4")
	case 6:
		e.SetString(NetworkType, "ipv6")
	default:
		return
	}
	e.SetString(NetworkTransport, p.Protocol)
	if a, ok := netip.AddrFromSlice(p.SourceIp); ok {
		e.SetAddr(SourceIP, a)
		e.SetNumber(SourcePort, uint64(p.SourcePort))
	}
	if a, ok := netip.AddrFromSlice(p.DestinationIp); ok {
		e.SetAddr(DestinationIP, a)
		e.SetNumber(DestinationPort, uint64(p.DestinationPort))
	}
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

func (e *Event) loadVerdict(p *record.Verdict) {
	e.SetString(PolicyName, p.Policy)
	e.SetString(PolicySeverity, p.Severity)
	e.SetString(PolicyMode, p.Mode)
	e.SetString(PolicyCause, p.CauseClass)
	e.SetBool(PolicyWouldHave, p.WouldHave)
	e.SetString(EventReason, p.Error)
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

func (e *Event) args(list, line Field, args [][]byte) {
	if len(args) == 0 {
		return
	}
	from := len(e.texts)
	for _, a := range args {
		e.texts = append(e.texts, Normalize(alias(a)))
	}
	e.lists[list-endAddresses] = e.texts[from:len(e.texts):len(e.texts)]
	e.set(list)
	e.deferred(line)
}

// LoadVM makes e an event of nothing but the domain, for conditions that
// select VMs.
func (e *Event) LoadVM(vm *VM) {
	e.Reset()
	e.loadVM(vm)
}
