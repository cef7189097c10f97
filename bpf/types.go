// Code generated from the BPF sources; DO NOT EDIT.
//go:build 386 || amd64

package bpf

import "structs"

type ProbeConfig struct {
	_        structs.HostLayout
	Self     uint32
	Classes  uint32
	Allocate uint64
	Budget   uint64
}

type ProbeCpuStats struct {
	_       structs.HostLayout
	Seq     [2]uint64
	Own     [64]uint64
	Dropped uint64
	Drops   [2][64][8]uint64
	Woken   uint64
	Wakes   uint64
	Bytes   [2]uint64
	Notes   uint64
	Folded  [64]uint64
}

type ProbeDropReason uint32

const (
	ProbeDropReasonDROP_NONE    ProbeDropReason = 0
	ProbeDropReasonDROP_RING    ProbeDropReason = 1
	ProbeDropReasonDROP_NESTED  ProbeDropReason = 2
	ProbeDropReasonDROP_FAULT   ProbeDropReason = 3
	ProbeDropReasonDROP_MAP     ProbeDropReason = 4
	ProbeDropReasonDROP_REASONS ProbeDropReason = 8
)

type ProbeEventAggregate struct {
	_     structs.HostLayout
	H     ProbeEventHead
	Count uint64
}

type ProbeEventAuth struct {
	_         structs.HostLayout
	H         ProbeEventHead
	Sessionid uint32
	Loginuid  uint32
	Message   uint16
	TextLen   uint16
	TextTotal uint32
}

type ProbeEventCgroup struct {
	_       structs.HostLayout
	H       ProbeEventHead
	Id      uint64
	PathLen uint16
	Pad     [3]uint16
}

type ProbeEventClose struct {
	_        structs.HostLayout
	H        ProbeEventHead
	Ino      uint64
	Size0    uint64
	Size1    uint64
	Ctime0   int64
	Ctime1   int64
	Mtime    int64
	Ops      uint64
	Bytes    uint64
	Dev      uint32
	Mode     uint32
	Uid      uint32
	Gid      uint32
	Hows     uint32
	Links    uint32
	PathLen  uint16
	PlaceLen uint16
	OuterLen uint16
	Pad      uint16
	Magic    uint32
	Doubt    uint32
}

type ProbeEventComm struct {
	_      structs.HostLayout
	H      ProbeEventHead
	Before [16]int8
	After  [16]int8
}

type ProbeEventCreds struct {
	_              structs.HostLayout
	H              ProbeEventHead
	T              ProbeEventTask
	Uid            uint32
	Gid            uint32
	Euid           uint32
	Egid           uint32
	Suid           uint32
	Sgid           uint32
	Fsuid          uint32
	Fsgid          uint32
	CapEffective   uint64
	CapPermitted   uint64
	CapInheritable uint64
	NewPermitted   uint64
	NewInheritable uint64
	Known          uint32
	Groups         uint32
}

type ProbeEventDns struct {
	_       structs.HostLayout
	H       ProbeEventHead
	Cookie  uint64
	Server  [16]uint8
	Family  uint16
	DataLen uint16
	Port    uint16
	Answer  uint16
	Netns   uint32
	Pad     uint32
}

type ProbeEventExec struct {
	_           structs.HostLayout
	H           ProbeEventHead
	T           ProbeEventTask
	Dev         uint64
	Ino         uint64
	Size        uint64
	Mtime       int64
	Ctime       int64
	ArgsTotal   uint64
	Mode        uint32
	Nlink       uint32
	Uid         uint32
	Gid         uint32
	PathLen     uint16
	CwdLen      uint16
	FilenameLen uint16
	ArgsLen     uint16
	OuterLen    uint16
	PlaceLen    uint16
	Gained      uint32
	Magic       uint32
	Doubt       uint32
}

type ProbeEventExit struct {
	_    structs.HostLayout
	H    ProbeEventHead
	Peak uint64
}

type ProbeEventFile struct {
	_        structs.HostLayout
	H        ProbeEventHead
	Ino      uint64
	Size     uint64
	Arg2     uint64
	Dev      uint32
	Mode     uint32
	Uid      uint32
	Gid      uint32
	Arg      uint32
	Rdev     uint32
	Links    uint32
	PathLen  uint16
	NameLen  uint16
	ExtraLen uint16
	PlaceLen uint16
	OuterLen uint16
	Pad      uint16
}

type ProbeEventFlag uint32

const (
	ProbeEventFlagFL_PATH_TRUNC ProbeEventFlag = 1
	ProbeEventFlagFL_PATH2TRUNC ProbeEventFlag = 2
	ProbeEventFlagFL_DETACHED   ProbeEventFlag = 4
	ProbeEventFlagFL_DELETED    ProbeEventFlag = 8
	ProbeEventFlagFL_USER_PATH  ProbeEventFlag = 16
	ProbeEventFlagFL_ARGS_TRUNC ProbeEventFlag = 32
	ProbeEventFlagFL_SCRIPT     ProbeEventFlag = 64
	ProbeEventFlagFL_DETACHED2  ProbeEventFlag = 128
	ProbeEventFlagFL_NOTE       ProbeEventFlag = 256
	ProbeEventFlagFL_COMPAT     ProbeEventFlag = 512
	ProbeEventFlagFL_IO_WORKER  ProbeEventFlag = 1024
	ProbeEventFlagFL_MEMORY     ProbeEventFlag = 2048
	ProbeEventFlagFL_TEMPORARY  ProbeEventFlag = 4096
	ProbeEventFlagFL_REFUSED    ProbeEventFlag = 8192
	ProbeEventFlagFL_RESULT     ProbeEventFlag = 16384
	ProbeEventFlagFL_HEAVY      ProbeEventFlag = 32768
)

type ProbeEventFork struct {
	_ structs.HostLayout
	H ProbeEventHead
	T ProbeEventTask
}

type ProbeEventHead struct {
	_     structs.HostLayout
	Mask  uint64
	Time  uint64
	Type  uint8
	Ring  uint8
	Cpu   uint16
	Seq   uint32
	Start uint64
	Tgid  uint32
	Tid   uint32
	Euid  uint32
	Mntns uint32
	Arg   uint32
	Flags uint16
	Pad   uint16
}

type ProbeEventKernel struct {
	_         structs.HostLayout
	H         ProbeEventHead
	Kind      uint64
	Id        uint64
	Size      uint64
	Flags     uint64
	Ino       uint64
	Dev       uint32
	Operation uint32
	NameLen   uint16
	ValueLen  uint16
	BeforeLen uint16
	PathLen   uint16
	OuterLen  uint16
	Signature uint16
	Pad       [2]uint16
}

type ProbeEventMemory struct {
	_                structs.HostLayout
	H                ProbeEventHead
	Address          uint64
	Length           uint64
	Flags            uint64
	Total            uint64
	Ino              uint64
	Dev              uint32
	Protection       uint32
	ProtectionBefore uint32
	Kind             uint32
	PathLen          uint16
	OuterLen         uint16
	PlaceLen         uint16
	Pad              uint16
}

type ProbeEventMount struct {
	_           structs.HostLayout
	H           ProbeEventHead
	Flags       uint64
	Ino         uint64
	Dev         uint32
	Mode        uint32
	Operation   uint32
	Api         uint32
	PathLen     uint16
	NameLen     uint16
	SourceLen   uint16
	TypeLen     uint16
	FromLen     uint16
	FromNameLen uint16
	Pad         uint32
}

type ProbeEventNamespace struct {
	_      structs.HostLayout
	H      ProbeEventHead
	Mnt    uint32
	Pid    uint32
	Net    uint32
	Uts    uint32
	Ipc    uint32
	Cgroup uint32
	Time   uint32
	User   uint32
	Call   uint32
	Pad    uint32
}

type ProbeEventNet struct {
	_        structs.HostLayout
	H        ProbeEventHead
	Saddr    [16]uint8
	Daddr    [16]uint8
	Cookie   uint64
	Packets  uint64
	Bytes    uint64
	Sport    uint32
	Dport    uint32
	Protocol uint16
	Family   uint8
	Type     uint8
	Bits     uint16
	Pad      uint16
	Backlog  uint32
	Netns    uint32
}

type ProbeEventRename struct {
	_            structs.HostLayout
	H            ProbeEventHead
	Ino          uint64
	Size         uint64
	ReplacedIno  uint64
	Dev          uint32
	Mode         uint32
	ReplacedMode uint32
	Uid          uint32
	Gid          uint32
	Flags        uint32
	Links        uint32
	OldLen       uint16
	NewLen       uint16
	OldNameLen   uint16
	NewNameLen   uint16
	OldOuter     uint16
	NewOuter     uint16
	PlaceLen     uint16
	Pad          [3]uint16
}

type ProbeEventTamper struct {
	_       structs.HostLayout
	H       ProbeEventHead
	Kind    uint32
	What    uint32
	Id      uint64
	Request uint64
	Before  uint64
}

type ProbeEventTarget struct {
	_       structs.HostLayout
	H       ProbeEventHead
	Start   uint64
	Tgid    uint32
	Tid     uint32
	How     uint32
	Code    uint32
	Request uint64
	Address uint64
	Comm    [16]int8
}

type ProbeEventTask struct {
	_            structs.HostLayout
	Start        uint64
	ParentStart  uint64
	Cgroup       uint64
	CapEffective uint64
	Tgid         uint32
	Ppid         uint32
	Uid          uint32
	Gid          uint32
	Euid         uint32
	Egid         uint32
	Suid         uint32
	Sgid         uint32
	Fsuid        uint32
	Fsgid        uint32
	Loginuid     uint32
	Sessionid    uint32
	Mntns        uint32
	Flags        uint32
	Comm         [16]int8
}

type ProbeEventType uint32

const (
	ProbeEventTypeEV_NONE          ProbeEventType = 0
	ProbeEventTypeEV_EXEC          ProbeEventType = 1
	ProbeEventTypeEV_FORK          ProbeEventType = 2
	ProbeEventTypeEV_EXIT          ProbeEventType = 3
	ProbeEventTypeEV_CREDS         ProbeEventType = 4
	ProbeEventTypeEV_COMM          ProbeEventType = 5
	ProbeEventTypeEV_CHROOT        ProbeEventType = 6
	ProbeEventTypeEV_NAMESPACE     ProbeEventType = 7
	ProbeEventTypeEV_SIGNAL        ProbeEventType = 8
	ProbeEventTypeEV_TRACE         ProbeEventType = 9
	ProbeEventTypeEV_CGROUP        ProbeEventType = 10
	ProbeEventTypeEV_CREATE        ProbeEventType = 11
	ProbeEventTypeEV_WRITE         ProbeEventType = 12
	ProbeEventTypeEV_CLOSE         ProbeEventType = 13
	ProbeEventTypeEV_RENAME        ProbeEventType = 14
	ProbeEventTypeEV_UNLINK        ProbeEventType = 15
	ProbeEventTypeEV_TRUNCATE      ProbeEventType = 16
	ProbeEventTypeEV_CHMOD         ProbeEventType = 17
	ProbeEventTypeEV_CHOWN         ProbeEventType = 18
	ProbeEventTypeEV_LINK          ProbeEventType = 19
	ProbeEventTypeEV_XATTR         ProbeEventType = 20
	ProbeEventTypeEV_ATTRIBUTES    ProbeEventType = 21
	ProbeEventTypeEV_UTIME         ProbeEventType = 22
	ProbeEventTypeEV_MOUNT         ProbeEventType = 23
	ProbeEventTypeEV_UNMOUNT       ProbeEventType = 24
	ProbeEventTypeEV_PIVOT         ProbeEventType = 25
	ProbeEventTypeEV_CONNECT       ProbeEventType = 26
	ProbeEventTypeEV_ACCEPT        ProbeEventType = 27
	ProbeEventTypeEV_LISTEN        ProbeEventType = 28
	ProbeEventTypeEV_BIND          ProbeEventType = 29
	ProbeEventTypeEV_SEND          ProbeEventType = 30
	ProbeEventTypeEV_FLOW          ProbeEventType = 31
	ProbeEventTypeEV_RAW           ProbeEventType = 32
	ProbeEventTypeEV_UNIX          ProbeEventType = 33
	ProbeEventTypeEV_DNS           ProbeEventType = 34
	ProbeEventTypeEV_MAP           ProbeEventType = 35
	ProbeEventTypeEV_PROTECT       ProbeEventType = 36
	ProbeEventTypeEV_MEMFD         ProbeEventType = 37
	ProbeEventTypeEV_ALLOCATE      ProbeEventType = 38
	ProbeEventTypeEV_MODULE_LOAD   ProbeEventType = 39
	ProbeEventTypeEV_MODULE_UNLOAD ProbeEventType = 40
	ProbeEventTypeEV_PARAM         ProbeEventType = 41
	ProbeEventTypeEV_BPF           ProbeEventType = 42
	ProbeEventTypeEV_PERF          ProbeEventType = 43
	ProbeEventTypeEV_KEXEC         ProbeEventType = 44
	ProbeEventTypeEV_USERFAULT     ProbeEventType = 45
	ProbeEventTypeEV_URING         ProbeEventType = 46
	ProbeEventTypeEV_AUTH          ProbeEventType = 47
	ProbeEventTypeEV_TAMPER        ProbeEventType = 48
	ProbeEventTypeEV_AGGREGATE     ProbeEventType = 49
	ProbeEventTypeEV_TYPES         ProbeEventType = 64
)

type ProbeEventUnix struct {
	_       structs.HostLayout
	H       ProbeEventHead
	NameLen uint16
	Type    uint16
	Peer    uint32
}

type ProbeFileTimes struct {
	_     structs.HostLayout
	Atime int64
	Mtime int64
	Ctime int64
}

type ProbeGained uint32

const (
	ProbeGainedGAINED_UID    ProbeGained = 1
	ProbeGainedGAINED_GID    ProbeGained = 2
	ProbeGainedGAINED_CAPS   ProbeGained = 4
	ProbeGainedGAINED_COMPAT ProbeGained = 8
)

type ProbeHeld struct {
	_     structs.HostLayout
	Id    uint32
	Count uint32
	Uses  uint32
	Pad   uint32
}

type ProbeKernelOperation uint32

const (
	ProbeKernelOperationKERNEL_SOCKET_FILTER ProbeKernelOperation = 256
)

type ProbeMemoryKind uint32

const (
	ProbeMemoryKindMEM_MAP     ProbeMemoryKind = 1
	ProbeMemoryKindMEM_PROTECT ProbeMemoryKind = 2
	ProbeMemoryKindMEM_MEMFD   ProbeMemoryKind = 3
	ProbeMemoryKindMEM_MMAP    ProbeMemoryKind = 4
	ProbeMemoryKindMEM_BRK     ProbeMemoryKind = 5
	ProbeMemoryKindMEM_REMAP   ProbeMemoryKind = 6
	ProbeMemoryKindMEM_SHM     ProbeMemoryKind = 7
	ProbeMemoryKindMEM_SECRET  ProbeMemoryKind = 8
)

type ProbeModuleSignature uint32

const (
	ProbeModuleSignatureSIGNATURE_UNKNOWN ProbeModuleSignature = 0
	ProbeModuleSignatureSIGNATURE_VALID   ProbeModuleSignature = 1
	ProbeModuleSignatureSIGNATURE_NONE    ProbeModuleSignature = 2
)

type ProbeMountApi uint32

const (
	ProbeMountApiAPI_MOUNT         ProbeMountApi = 1
	ProbeMountApiAPI_MOVE_MOUNT    ProbeMountApi = 2
	ProbeMountApiAPI_FSCONFIG      ProbeMountApi = 3
	ProbeMountApiAPI_MOUNT_SETATTR ProbeMountApi = 4
)

type ProbeMountOperation uint32

const (
	ProbeMountOperationMOUNT_NEW         ProbeMountOperation = 1
	ProbeMountOperationMOUNT_BIND        ProbeMountOperation = 2
	ProbeMountOperationMOUNT_REMOUNT     ProbeMountOperation = 3
	ProbeMountOperationMOUNT_MOVE        ProbeMountOperation = 4
	ProbeMountOperationMOUNT_PROPAGATION ProbeMountOperation = 5
	ProbeMountOperationMOUNT_UNMOUNT     ProbeMountOperation = 6
	ProbeMountOperationMOUNT_PIVOT       ProbeMountOperation = 7
	ProbeMountOperationMOUNT_SETATTR     ProbeMountOperation = 8
)

type ProbeNetBits uint32

const (
	ProbeNetBitsNET_FAST_OPEN ProbeNetBits = 1
	ProbeNetBitsNET_FIRST     ProbeNetBits = 2
	ProbeNetBitsNET_INGRESS   ProbeNetBits = 4
)

type ProbeOptional uint32

const (
	ProbeOptionalOPT_SIGNAL ProbeOptional = 1
	ProbeOptionalOPT_UNIX   ProbeOptional = 2
	ProbeOptionalOPT_DNS    ProbeOptional = 4
	ProbeOptionalOPT_COMM   ProbeOptional = 8
)

type ProbeOwned uint32

const (
	ProbeOwnedOWNED_PROGRAM ProbeOwned = 1
	ProbeOwnedOWNED_MAP     ProbeOwned = 2
	ProbeOwnedOWNED_LINK    ProbeOwned = 3
)

type ProbeOwnedKey struct {
	_    structs.HostLayout
	Kind uint32
	Id   uint32
}

type ProbeStarve uint32

const (
	ProbeStarveSTARVE_SCHEDULER ProbeStarve = 1
	ProbeStarveSTARVE_NICE      ProbeStarve = 2
	ProbeStarveSTARVE_IO        ProbeStarve = 3
	ProbeStarveSTARVE_MEMORY    ProbeStarve = 4
)

type ProbeSum struct {
	_     structs.HostLayout
	Count uint64
	Bytes uint64
	First uint64
	Last  uint64
	Flags uint32
	Pad   uint32
	Event [512]int8
}

type ProbeSumKey struct {
	_        structs.HostLayout
	Start    uint64
	Object   uint64
	Address  [16]uint8
	Tgid     uint32
	Place    uint32
	Protocol uint16
	Type     uint8
	Layout   uint8
	Netns    uint32
}

type ProbeSumLayout uint32

const (
	ProbeSumLayoutSUM_FLOW    ProbeSumLayout = 1
	ProbeSumLayoutSUM_NET     ProbeSumLayout = 2
	ProbeSumLayoutSUM_FILE    ProbeSumLayout = 3
	ProbeSumLayoutSUM_HEAD    ProbeSumLayout = 4
	ProbeSumLayoutSUM_MEMORY  ProbeSumLayout = 5
	ProbeSumLayoutSUM_ENTRIES ProbeSumLayout = 6
)

type ProbeSwitches struct {
	_       structs.HostLayout
	Protect uint32
	Canary  uint32
}

type ProbeTamperKind uint32

const (
	ProbeTamperKindTAMPER_SIGNAL    ProbeTamperKind = 1
	ProbeTamperKindTAMPER_TRACE     ProbeTamperKind = 2
	ProbeTamperKindTAMPER_BPF       ProbeTamperKind = 3
	ProbeTamperKindTAMPER_FTRACE    ProbeTamperKind = 4
	ProbeTamperKindTAMPER_LIMIT     ProbeTamperKind = 5
	ProbeTamperKindTAMPER_SCHEDULER ProbeTamperKind = 6
)

type ProbeTraceHow uint32

const (
	ProbeTraceHowTRACE_ATTACH   ProbeTraceHow = 1
	ProbeTraceHowTRACE_SEIZE    ProbeTraceHow = 2
	ProbeTraceHowTRACE_ME       ProbeTraceHow = 3
	ProbeTraceHowTRACE_REQUEST  ProbeTraceHow = 4
	ProbeTraceHowTRACE_VM_WRITE ProbeTraceHow = 5
	ProbeTraceHowTRACE_VM_READ  ProbeTraceHow = 6
	ProbeTraceHowTRACE_MEM      ProbeTraceHow = 7
	ProbeTraceHowTRACE_GETFD    ProbeTraceHow = 8
	ProbeTraceHowTRACE_OTHER    ProbeTraceHow = 9
)

type ProbeWriteHow uint32

const (
	ProbeWriteHowHOW_WRITE     ProbeWriteHow = 0
	ProbeWriteHowHOW_COPY      ProbeWriteHow = 1
	ProbeWriteHowHOW_FALLOCATE ProbeWriteHow = 2
	ProbeWriteHowHOW_MMAP      ProbeWriteHow = 3
)
