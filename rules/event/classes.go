package event

import (
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// subjects are the classes of entries that policies may judge: the
// observations and findings in a VM log. Entries that only a host log holds,
// and the ledger's own bookkeeping, are not among them.
var subjects = []record.Class{
	record.ClassGenesis,

	record.ClassProcessExec, record.ClassProcessFork, record.ClassProcessExit, record.ClassProcessCreds,
	record.ClassProcessRename, record.ClassProcessChroot, record.ClassProcessNamespace,
	record.ClassProcessSignal, record.ClassProcessDigest, record.ClassProcessTrace,

	record.ClassFileCreate, record.ClassFileModify, record.ClassFileDelete, record.ClassFileRename,
	record.ClassFileChmod, record.ClassFileChown, record.ClassFileLink, record.ClassFileTruncate,
	record.ClassFileClose, record.ClassFileXattr, record.ClassFileAttributes, record.ClassFileUtime,
	record.ClassFileMount, record.ClassFileUnmount, record.ClassFileDigest,

	record.ClassNetworkConnect, record.ClassNetworkAccept, record.ClassNetworkListen, record.ClassNetworkDrop,
	record.ClassNetworkBind, record.ClassNetworkSend, record.ClassNetworkFlow, record.ClassNetworkRaw,
	record.ClassNetworkUnix, record.ClassDNSQuery, record.ClassDNSAnswer,

	record.ClassMemoryMap, record.ClassMemoryProtect, record.ClassMemoryFile, record.ClassMemoryAllocate,

	record.ClassKernelModuleLoad, record.ClassKernelModuleUnload, record.ClassKernelParamChange,
	record.ClassKernelBPF, record.ClassKernelPerf, record.ClassKernelKexec,
	record.ClassKernelUserfaultfd, record.ClassKernelIOUring,

	record.ClassAuthLogin, record.ClassAuthSudo, record.ClassAuthSu, record.ClassAuthAuthenticate,
	record.ClassAuthSession, record.ClassAuthAccount,

	record.ClassVMDefine, record.ClassVMUndefine, record.ClassVMStart, record.ClassVMStop,
	record.ClassVMPause, record.ClassVMResume, record.ClassVMMigrate, record.ClassVMSnapshot,
	record.ClassVMDeviceAttach, record.ClassVMDeviceDetach, record.ClassVMCrash, record.ClassVMReboot,
	record.ClassVMEpoch, record.ClassVMGap, record.ClassVMChange,
	record.ClassVMConfigChanged, record.ClassVMDiskChanged, record.ClassVMBlockJob, record.ClassVMIOError,
	record.ClassVMWatchdog, record.ClassVMTray, record.ClassVMMemory, record.ClassVMConsole,
	record.ClassVMControlLost, record.ClassVMChannel, record.ClassVMMetadata, record.ClassVMMemoryFailure,
	record.ClassVMInterface, record.ClassVMImageDigest, record.ClassVMEnvironment, record.ClassVMJob,

	record.ClassAgentEnrolled, record.ClassAgentFrame, record.ClassAgentDropped, record.ClassAgentHooks,
	record.ClassAgentHeartbeatLost, record.ClassAgentSequenceGap, record.ClassAgentSignatureInvalid,
	record.ClassAgentRefused, record.ClassAgentConnected, record.ClassAgentDisconnected,
	record.ClassAgentRollback, record.ClassAgentHeartbeatBack, record.ClassAgentThrottled,
	record.ClassAgentTamper, record.ClassAgentStopped, record.ClassAgentCommand, record.ClassAgentResult,
	record.ClassAgentAggregating,

	record.ClassVMHandover, record.ClassVMFork, record.ClassAgentRewound, record.ClassAgentForked,
	record.ClassAgentStale, record.ClassAgentCloned, record.ClassAgentArrived,

	record.ClassPolicyVerdict, record.ClassPolicyOutcome, record.ClassPolicyLoaded, record.ClassPolicyError,
	record.ClassPolicyMismatch,
	record.ClassPolicyExceptionExpired, record.ClassPolicyLimitReached,
	record.ClassPolicyReapplied, record.ClassPolicyReleased,

	record.ClassApprovalLoaded, record.ClassApprovalRevoked, record.ClassApprovalUsed,
	record.ClassApprovalUsedLate, record.ClassApprovalExpired,

	record.ClassVMGuard, record.ClassNetworkUndeclared,

	record.ClassAgentRestarted, record.ClassAgentKeyChanged, record.ClassAgentCoverageLow, record.ClassAgentCoverageLost,
	record.ClassAgentClockJump, record.ClassAgentAbsent,
}

// Planned are event types of the policy language which no source of this
// version produces. A policy that names one is refused, because it could
// never fire.
var Planned = []string{
	"memory.integrity", "agent.start", "agent.stop",
}

var subjectBit = func() map[record.Class]uint {
	m := make(map[record.Class]uint, len(subjects))
	for i, c := range subjects {
		m[c] = uint(i)
	}
	return m
}()

// Subjects returns the classes that policies may judge, in order of number.
func Subjects() []record.Class {
	all := slices.Clone(subjects)
	slices.Sort(all)
	return all
}

// IsSubject reports whether policies may judge entries of class c.
func IsSubject(c record.Class) bool { _, ok := subjectBit[c]; return ok }

// maxSubjects is how many classes a ClassSet can tell apart.
const maxSubjects = 192

// ClassSet is a set of subject classes. Sets are equal when == says so.
type ClassSet struct{ a, b, c uint64 }

// SetOf returns the set of the given classes; those that are no subjects are
// left out.
func SetOf(classes ...record.Class) ClassSet {
	var s ClassSet
	for _, c := range classes {
		if bit, ok := subjectBit[c]; ok {
			s = s.Union(bitSet(bit))
		}
	}
	return s
}

func bitSet(bit uint) ClassSet {
	switch bit / 64 {
	case 0:
		return ClassSet{a: 1 << bit}
	case 1:
		return ClassSet{b: 1 << (bit - 64)}
	}
	return ClassSet{c: 1 << (bit - 128)}
}

// Has reports whether c is in s.
func (s ClassSet) Has(c record.Class) bool {
	bit, ok := subjectBit[c]
	return ok && s.Intersects(bitSet(bit))
}

// Empty reports whether s has no member.
func (s ClassSet) Empty() bool { return s == ClassSet{} }

// Union returns the members of s, t and more.
func (s ClassSet) Union(t ClassSet, more ...ClassSet) ClassSet {
	u := ClassSet{a: s.a | t.a, b: s.b | t.b, c: s.c | t.c}
	for _, m := range more {
		u = ClassSet{a: u.a | m.a, b: u.b | m.b, c: u.c | m.c}
	}
	return u
}

// Minus returns the members of s that are not in t.
func (s ClassSet) Minus(t ClassSet) ClassSet {
	return ClassSet{a: s.a &^ t.a, b: s.b &^ t.b, c: s.c &^ t.c}
}

// Intersects reports whether s and t have a member in common.
func (s ClassSet) Intersects(t ClassSet) bool { return s.a&t.a|s.b&t.b|s.c&t.c != 0 }

// Classes returns the members of s in order of number.
func (s ClassSet) Classes() []record.Class {
	var all []record.Class
	for i, c := range subjects {
		if s.Intersects(bitSet(uint(i))) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}

// group returns the subjects whose names share the part before the dot with
// that of c.
func group(c record.Class) ClassSet {
	var s ClassSet
	category, _, _ := strings.Cut(c.String(), ".")
	for _, k := range subjects {
		if strings.HasPrefix(k.String(), category+".") {
			s = s.Union(SetOf(k))
		}
	}
	return s
}

// The sets the field table is written with.
var (
	setAll     = SetOf(subjects...)
	setProcess = group(record.ClassProcessExec)
	setFile    = group(record.ClassFileCreate)
	setNetwork = group(record.ClassNetworkConnect)
	setDNS     = group(record.ClassDNSQuery)
	setMemory  = group(record.ClassMemoryMap)
	setKernel  = group(record.ClassKernelBPF)
	setAuth    = group(record.ClassAuthLogin)
	setVM      = group(record.ClassVMDefine)
	setDomain  = setVM.Minus(SetOf(record.ClassVMEpoch, record.ClassVMGap, record.ClassVMHandover))
	setAgent   = group(record.ClassAgentEnrolled)
	// what the agent itself observes, as it does a process or a file
	setSelf    = SetOf(record.ClassAgentTamper, record.ClassAgentAggregating)
	setCommand = SetOf(record.ClassAgentCommand, record.ClassAgentResult)
	setFinding = setAgent.Minus(setSelf.Union(setCommand, SetOf(record.ClassAgentEnrolled, record.ClassAgentFrame,
		record.ClassAgentDropped, record.ClassAgentHooks, record.ClassAgentStopped, record.ClassAgentArrived)))
	setPolicy  = group(record.ClassPolicyVerdict)
	setVerdict = SetOf(record.ClassPolicyVerdict, record.ClassPolicyError, record.ClassPolicyExceptionExpired, record.ClassPolicyMismatch, record.ClassPolicyLimitReached)

	// setStatements is what was signed for approvals, setUse what became of one, and
	// setApproved whatever speaks of one.
	setStatements = SetOf(record.ClassApprovalLoaded, record.ClassApprovalRevoked)
	setUse        = SetOf(record.ClassApprovalUsed, record.ClassApprovalUsedLate, record.ClassApprovalExpired)
	setLimited    = SetOf(record.ClassPolicyVerdict, record.ClassPolicyLimitReached)
	setDecided    = setVerdict.Union(setUse)
	setUses       = setUse.Union(SetOf(record.ClassPolicyVerdict))
	setApproved   = setStatements.Union(setUses)

	// setHeld tells of actions that last.
	setHeld = SetOf(record.ClassPolicyReapplied, record.ClassPolicyReleased)

	// setActor are the acts of a process in the guest.
	setActor = setProcess.Union(setFile, setNetwork, setDNS, setMemory, setKernel, setAuth, setSelf).Minus(SetOf(record.ClassNetworkUndeclared)) // that one the host saw
	// setObject are the acts upon a file, or with one.
	setObject = setFile.Union(setMemory, SetOf(record.ClassProcessChroot, record.ClassProcessTrace, record.ClassKernelModuleLoad,
		record.ClassKernelKexec, record.ClassKernelParamChange, record.ClassKernelBPF, record.ClassAgentTamper))
	setSocket = setNetwork.Union(setDNS)
)
