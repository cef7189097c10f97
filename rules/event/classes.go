package event

import (
	"slices"

	"github.com/provostd/provost/chain/record"
)

// subjects are the classes of entries that policies may judge: the
// observations and findings in a VM log. Entries that only a host log holds,
// and the ledger's own bookkeeping, are not among them.
var subjects = []record.Class{
	record.ClassGenesis,

	record.ClassProcessExec, record.ClassProcessFork, record.ClassProcessExit, record.ClassProcessCreds,

	record.ClassFileCreate, record.ClassFileModify, record.ClassFileDelete, record.ClassFileRename,
	record.ClassFileChmod, record.ClassFileChown, record.ClassFileLink, record.ClassFileTruncate,
	record.ClassFileClose,

	record.ClassNetworkConnect, record.ClassNetworkAccept, record.ClassNetworkListen, record.ClassNetworkDrop,

	record.ClassVMDefine, record.ClassVMUndefine, record.ClassVMStart, record.ClassVMStop,
	record.ClassVMPause, record.ClassVMResume, record.ClassVMMigrate, record.ClassVMSnapshot,
	record.ClassVMDeviceAttach, record.ClassVMDeviceDetach, record.ClassVMCrash, record.ClassVMReboot,
	record.ClassVMEpoch, record.ClassVMGap, record.ClassVMChange,

	record.ClassAgentEnrolled, record.ClassAgentFrame, record.ClassAgentDropped, record.ClassAgentHooks,
	record.ClassAgentHeartbeatLost, record.ClassAgentSequenceGap, record.ClassAgentSignatureInvalid,
	record.ClassAgentRefused, record.ClassAgentConnected, record.ClassAgentDisconnected,
	record.ClassAgentRollback, record.ClassAgentHeartbeatBack, record.ClassAgentThrottled,

	record.ClassPolicyVerdict, record.ClassPolicyOutcome, record.ClassPolicyLoaded, record.ClassPolicyError,
}

// Planned are event types of the policy language which no source of this
// version produces. A policy that names one is refused, because it could
// never fire.
var Planned = []string{
	"dns.query", "memory.map", "memory.protect", "memory.integrity",
	"kernel.module_load", "kernel.module_unload", "kernel.param_change",
	"auth.login", "auth.sudo", "agent.start", "agent.stop",
	"policy.exception_expired", "policy.limit_reached", "policy.approval_used",
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

// ClassSet is a set of subject classes.
type ClassSet uint64

// SetOf returns the set of the given classes; those that are no subjects are
// left out.
func SetOf(classes ...record.Class) ClassSet {
	var s ClassSet
	for _, c := range classes {
		if bit, ok := subjectBit[c]; ok {
			s |= 1 << bit
		}
	}
	return s
}

// Has reports whether c is in s.
func (s ClassSet) Has(c record.Class) bool {
	bit, ok := subjectBit[c]
	return ok && s&(1<<bit) != 0
}

// Classes returns the members of s in order of number.
func (s ClassSet) Classes() []record.Class {
	var all []record.Class
	for i, c := range subjects {
		if s&(1<<uint(i)) != 0 {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}

// group returns the subjects whose class numbers share the high byte of c.
func group(c record.Class) ClassSet {
	var s ClassSet
	for _, k := range subjects {
		if k>>8 == c>>8 {
			s |= SetOf(k)
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
	setActor   = setProcess | setFile | setNetwork
	setVM      = group(record.ClassVMDefine)
	setDomain  = setVM &^ SetOf(record.ClassVMEpoch, record.ClassVMGap)
	setAgent   = group(record.ClassAgentEnrolled)
	setFinding = setAgent &^ SetOf(record.ClassAgentEnrolled, record.ClassAgentFrame, record.ClassAgentDropped, record.ClassAgentHooks)
	setPolicy  = group(record.ClassPolicyVerdict)
	setVerdict = SetOf(record.ClassPolicyVerdict, record.ClassPolicyError)
)
