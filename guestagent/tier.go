package guestagent

import "github.com/provostd/provost/chain/record"

// tier says how much of the queue a record may fill. A storm of one tier
// leaves the room above its share to those that matter more. What any user can
// make without end, whatever the kernel then says to it, is not critical.
type tier uint8

const (
	tierBulk     tier = iota // what a busy guest makes by the thousand: files, connections
	tierProcess              // forks, programs, credentials, name spaces, logins, calls of the kernel that anybody may try
	tierCritical             // the rest: rare, and what an attack is made of
)

// shares are the parts of the queue, in hundredths, that records of a tier
// may fill.
var shares = [...]int{tierBulk: 60, tierProcess: 85, tierCritical: 100}

// heavyShare is the part for records of processes beyond their budget, whatever
// their tier: a process that floods the agent pushes out none but its own.
const heavyShare = 30

// sumShare is the part for sums: each stands for many acts of its tier. Digests
// are the agent's own records too, and as many as the files of a storm.
const sumShare = 70

// shareOf is the part of the queue that a record may fill.
func shareOf(h *record.Header) int {
	share := shares[tierOf(h.Class)]
	if h.Lane != record.NoLane || h.Class == record.ClassFileDigest || h.Class == record.ClassProcessDigest {
		return share
	}
	return max(share, sumShare)
}

// tierOf is the one place that says which class is which. A class that is not
// named here is critical: nothing new may be hidden by a storm of it because
// nobody thought of its name.
func tierOf(c record.Class) tier {
	switch c {
	case record.ClassProcessExec, record.ClassProcessFork, record.ClassProcessExit, record.ClassProcessDigest,
		record.ClassAuthLogin, record.ClassAuthSudo, record.ClassAuthSu, record.ClassAuthAuthenticate,
		record.ClassAuthSession, record.ClassAuthAccount,
		record.ClassProcessCreds, record.ClassProcessNamespace, record.ClassProcessChroot, record.ClassFileMount, record.ClassFileUnmount,
		record.ClassMemoryFile, record.ClassKernelBPF, record.ClassKernelPerf, record.ClassKernelUserfaultfd, record.ClassKernelIOUring:
		return tierProcess
	case record.ClassProcessRename, record.ClassProcessSignal,
		record.ClassFileCreate, record.ClassFileModify, record.ClassFileDelete, record.ClassFileRename,
		record.ClassFileChmod, record.ClassFileChown, record.ClassFileLink, record.ClassFileTruncate, record.ClassFileClose,
		record.ClassFileXattr, record.ClassFileAttributes, record.ClassFileUtime, record.ClassFileDigest,
		record.ClassNetworkConnect, record.ClassNetworkAccept, record.ClassNetworkListen, record.ClassNetworkDrop,
		record.ClassNetworkBind, record.ClassNetworkSend, record.ClassNetworkFlow, record.ClassNetworkUnix,
		record.ClassDNSQuery, record.ClassDNSAnswer,
		record.ClassMemoryMap, record.ClassMemoryProtect, record.ClassMemoryAllocate:
		return tierBulk
	}
	return tierCritical
}
