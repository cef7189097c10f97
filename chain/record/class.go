package record

import "fmt"

// Class says what kind of record this is. Numbers are neutral to operating
// systems, part of the format, and never reused.
type Class uint16

// The classes of records.
const (
	ClassGenesis        Class = 0x0001
	ClassClosed         Class = 0x0002
	ClassPruned         Class = 0x0003
	ClassErased         Class = 0x0004
	ClassVMCheckpoint   Class = 0x0005
	ClassKeyCertificate Class = 0x0006
	ClassTick           Class = 0x0007
	ClassDropped        Class = 0x0008
	ClassDamage         Class = 0x0010

	ClassProcessExec  Class = 0x0101
	ClassProcessFork  Class = 0x0102
	ClassProcessExit  Class = 0x0103
	ClassProcessCreds Class = 0x0104

	ClassProcessRename    Class = 0x0105
	ClassProcessChroot    Class = 0x0106
	ClassProcessNamespace Class = 0x0107
	ClassProcessSignal    Class = 0x0108
	ClassProcessDigest    Class = 0x0109
	ClassProcessTrace     Class = 0x010a

	ClassFileCreate   Class = 0x0201
	ClassFileModify   Class = 0x0202
	ClassFileDelete   Class = 0x0203
	ClassFileRename   Class = 0x0204
	ClassFileChmod    Class = 0x0205
	ClassFileChown    Class = 0x0206
	ClassFileLink     Class = 0x0207
	ClassFileTruncate Class = 0x0208
	ClassFileClose    Class = 0x0209

	ClassFileXattr      Class = 0x020a
	ClassFileAttributes Class = 0x020b
	ClassFileUtime      Class = 0x020c
	ClassFileMount      Class = 0x020d
	ClassFileUnmount    Class = 0x020e
	ClassFileDigest     Class = 0x020f

	ClassNetworkConnect Class = 0x0301
	ClassNetworkAccept  Class = 0x0302
	ClassNetworkListen  Class = 0x0303
	ClassNetworkDrop    Class = 0x0304
	ClassNetworkBind    Class = 0x0305
	ClassNetworkSend    Class = 0x0306
	ClassNetworkFlow    Class = 0x0307
	ClassNetworkRaw     Class = 0x0308
	ClassNetworkUnix    Class = 0x0309

	ClassDNSQuery  Class = 0x0381
	ClassDNSAnswer Class = 0x0382

	ClassMemoryMap      Class = 0x0401
	ClassMemoryProtect  Class = 0x0402
	ClassMemoryFile     Class = 0x0403
	ClassMemoryAllocate Class = 0x0404

	ClassKernelModuleLoad   Class = 0x0501
	ClassKernelModuleUnload Class = 0x0502
	ClassKernelParamChange  Class = 0x0503
	ClassKernelBPF          Class = 0x0504
	ClassKernelPerf         Class = 0x0505
	ClassKernelKexec        Class = 0x0506
	ClassKernelUserfaultfd  Class = 0x0507
	ClassKernelIOUring      Class = 0x0508

	ClassAuthLogin        Class = 0x0601
	ClassAuthSudo         Class = 0x0602
	ClassAuthSu           Class = 0x0603
	ClassAuthAuthenticate Class = 0x0604
	ClassAuthSession      Class = 0x0605
	ClassAuthAccount      Class = 0x0606

	ClassVMDefine       Class = 0x1001
	ClassVMUndefine     Class = 0x1002
	ClassVMStart        Class = 0x1003
	ClassVMStop         Class = 0x1004
	ClassVMPause        Class = 0x1005
	ClassVMResume       Class = 0x1006
	ClassVMMigrate      Class = 0x1007
	ClassVMSnapshot     Class = 0x1008
	ClassVMDeviceAttach Class = 0x1009
	ClassVMDeviceDetach Class = 0x100a
	ClassVMCrash        Class = 0x100b
	ClassVMReboot       Class = 0x100c
	ClassVMEpoch        Class = 0x100d
	ClassVMGap          Class = 0x100e
	ClassVMChange       Class = 0x100f

	// What a domain is over its lifetime.
	ClassVMHandover   Class = 0x1020
	ClassVMFork       Class = 0x1021
	ClassAgentRewound Class = 0x1022
	ClassAgentForked  Class = 0x1023
	ClassAgentStale   Class = 0x1024
	ClassAgentCloned  Class = 0x1025
	ClassAgentArrived Class = 0x1026

	ClassVMConfigChanged Class = 0x1010
	ClassVMDiskChanged   Class = 0x1011
	ClassVMBlockJob      Class = 0x1012
	ClassVMIOError       Class = 0x1013
	ClassVMWatchdog      Class = 0x1014
	ClassVMTray          Class = 0x1015
	ClassVMMemory        Class = 0x1016
	ClassVMConsole       Class = 0x1017
	ClassVMControlLost   Class = 0x1018
	ClassVMChannel       Class = 0x1019
	ClassVMMetadata      Class = 0x101a
	ClassVMMemoryFailure Class = 0x101b
	ClassVMInterface     Class = 0x101c
	ClassVMImageDigest   Class = 0x101d
	ClassVMEnvironment   Class = 0x101e
	ClassVMJob           Class = 0x101f

	ClassAgentEnrolled         Class = 0x1101
	ClassAgentFrame            Class = 0x1102
	ClassAgentDropped          Class = 0x1103
	ClassAgentHooks            Class = 0x1104
	ClassAgentHeartbeatLost    Class = 0x1105
	ClassAgentSequenceGap      Class = 0x1106
	ClassAgentSignatureInvalid Class = 0x1107
	ClassAgentRefused          Class = 0x1108
	ClassAgentConnected        Class = 0x1109
	ClassAgentDisconnected     Class = 0x110a
	ClassAgentRollback         Class = 0x110b
	ClassAgentHeartbeatBack    Class = 0x110c
	ClassAgentThrottled        Class = 0x110d
	ClassAgentTamper           Class = 0x110e
	ClassAgentStopped          Class = 0x110f
	ClassAgentCommand          Class = 0x1110
	ClassAgentResult           Class = 0x1111
	ClassAgentAggregating      Class = 0x1112
	ClassAgentRestarted        Class = 0x1113
	ClassAgentKeyChanged       Class = 0x1114
	ClassAgentCoverageLow      Class = 0x1115
	ClassAgentCoverageLost     Class = 0x1116
	ClassAgentClockJump        Class = 0x1117
	ClassAgentAbsent           Class = 0x1118

	ClassPolicyVerdict Class = 0x1201
	ClassPolicyOutcome Class = 0x1202
	ClassPolicyLoaded  Class = 0x1203
	ClassPolicyError   Class = 0x1204
	// ClassPolicyExceptionExpired says that an exception covers nothing any more.
	ClassPolicyExceptionExpired Class = 0x1205
	// ClassPolicyCarried says what policies remember at the beginning of a shard.
	ClassPolicyCarried Class = 0x1206

	ClassPolicyMismatch Class = 0x1210
	// ClassPolicyLimitReached says that a limit of a policy has left something undone.
	ClassPolicyLimitReached Class = 0x1211

	ClassPolicyActing    Class = 0x1220
	ClassPolicyReapplied Class = 0x1221
	ClassPolicyReleased  Class = 0x1222
	ClassPolicySnapshot  Class = 0x1223
	// ClassPolicySnapshotRemoved says that files of snapshots are gone, or about to be.
	ClassPolicySnapshotRemoved Class = 0x1224
	ClassPolicyAlertFailed     Class = 0x1230
	ClassPolicyAlertDelivered  Class = 0x1231

	ClassHostStart         Class = 0x1301
	ClassHostStop          Class = 0x1302
	ClassHostConfiguration Class = 0x1303
	ClassHostGap           Class = 0x1304
	ClassHostNetwork       Class = 0x1305
	ClassHostPool          Class = 0x1306
	ClassHostSecret        Class = 0x1307
	ClassHostCoverage      Class = 0x1308
	ClassHostBackup        Class = 0x1310
	ClassHostRestore       Class = 0x1311

	ClassWitnessShortfall Class = 0x1401
	ClassWitnessRestored  Class = 0x1402
	ClassWitnessDisputed  Class = 0x1403

	ClassAccessDisclosed Class = 0x1501

	ClassApprovalLoaded    Class = 0x1601
	ClassApprovalUsed      Class = 0x1602
	ClassApprovalUsedLate  Class = 0x1603
	ClassApprovalExpired   Class = 0x1604
	ClassApprovalRevoked   Class = 0x1605
	ClassApprovalApprovers Class = 0x1606

	// ClassVMGuard tells of the packet filter on the taps of a domain.
	ClassVMGuard Class = 0x1702
	// ClassNetworkUndeclared is a flow that the host saw and the guest's agent did not tell of.
	ClassNetworkUndeclared Class = 0x1705
)

// classes is the one table of names: policies, the command line and the
// documentation all use it.
var classes = map[Class]string{
	ClassGenesis:        "log.genesis",
	ClassClosed:         "log.closed",
	ClassPruned:         "log.pruned",
	ClassErased:         "log.erased",
	ClassVMCheckpoint:   "log.vm_checkpoint",
	ClassKeyCertificate: "log.key_certificate",
	ClassTick:           "log.tick",
	ClassDropped:        "log.dropped",
	ClassDamage:         "log.damage",

	ClassProcessExec:  "process.exec",
	ClassProcessFork:  "process.fork",
	ClassProcessExit:  "process.exit",
	ClassProcessCreds: "process.setuid",

	ClassProcessRename:    "process.rename",
	ClassProcessChroot:    "process.chroot",
	ClassProcessNamespace: "process.namespace",
	ClassProcessSignal:    "process.signal",
	ClassProcessDigest:    "process.digest",
	ClassProcessTrace:     "process.trace",

	ClassFileCreate:   "file.create",
	ClassFileModify:   "file.modify",
	ClassFileDelete:   "file.delete",
	ClassFileRename:   "file.rename",
	ClassFileChmod:    "file.chmod",
	ClassFileChown:    "file.chown",
	ClassFileLink:     "file.link",
	ClassFileTruncate: "file.truncate",
	ClassFileClose:    "file.close",

	ClassFileXattr:      "file.xattr",
	ClassFileAttributes: "file.attributes",
	ClassFileUtime:      "file.utime",
	ClassFileMount:      "file.mount",
	ClassFileUnmount:    "file.unmount",
	ClassFileDigest:     "file.digest",

	ClassNetworkConnect: "network.connect",
	ClassNetworkAccept:  "network.accept",
	ClassNetworkListen:  "network.listen",
	ClassNetworkDrop:    "network.drop",
	ClassNetworkBind:    "network.bind",
	ClassNetworkSend:    "network.send",
	ClassNetworkFlow:    "network.flow",
	ClassNetworkRaw:     "network.raw",
	ClassNetworkUnix:    "network.unix",

	ClassDNSQuery:  "dns.query",
	ClassDNSAnswer: "dns.answer",

	ClassMemoryMap:      "memory.map",
	ClassMemoryProtect:  "memory.protect",
	ClassMemoryFile:     "memory.file",
	ClassMemoryAllocate: "memory.allocate",

	ClassKernelModuleLoad:   "kernel.module_load",
	ClassKernelModuleUnload: "kernel.module_unload",
	ClassKernelParamChange:  "kernel.param_change",
	ClassKernelBPF:          "kernel.bpf",
	ClassKernelPerf:         "kernel.perf",
	ClassKernelKexec:        "kernel.kexec",
	ClassKernelUserfaultfd:  "kernel.userfaultfd",
	ClassKernelIOUring:      "kernel.io_uring",

	ClassAuthLogin:        "auth.login",
	ClassAuthSudo:         "auth.sudo",
	ClassAuthSu:           "auth.su",
	ClassAuthAuthenticate: "auth.authenticate",
	ClassAuthSession:      "auth.session",
	ClassAuthAccount:      "auth.account",

	ClassVMDefine:       "vm.define",
	ClassVMUndefine:     "vm.undefine",
	ClassVMStart:        "vm.start",
	ClassVMStop:         "vm.stop",
	ClassVMPause:        "vm.pause",
	ClassVMResume:       "vm.resume",
	ClassVMMigrate:      "vm.migrate",
	ClassVMSnapshot:     "vm.snapshot",
	ClassVMDeviceAttach: "vm.device_attach",
	ClassVMDeviceDetach: "vm.device_detach",
	ClassVMCrash:        "vm.crash",
	ClassVMReboot:       "vm.reboot",
	ClassVMEpoch:        "vm.epoch",
	ClassVMGap:          "vm.gap",
	ClassVMChange:       "vm.change",

	ClassVMHandover:   "vm.handover",
	ClassVMFork:       "vm.fork",
	ClassAgentRewound: "agent.rewound",
	ClassAgentForked:  "agent.forked",
	ClassAgentStale:   "agent.stale",
	ClassAgentCloned:  "agent.cloned",
	ClassAgentArrived: "agent.arrived",

	ClassVMConfigChanged: "vm.config_changed",
	ClassVMDiskChanged:   "vm.disk_changed",
	ClassVMBlockJob:      "vm.block_job",
	ClassVMIOError:       "vm.io_error",
	ClassVMWatchdog:      "vm.watchdog",
	ClassVMTray:          "vm.tray",
	ClassVMMemory:        "vm.memory",
	ClassVMConsole:       "vm.console",
	ClassVMControlLost:   "vm.control_lost",
	ClassVMChannel:       "vm.channel",
	ClassVMMetadata:      "vm.metadata",
	ClassVMMemoryFailure: "vm.memory_failure",
	ClassVMInterface:     "vm.interface",
	ClassVMImageDigest:   "vm.image_digest",
	ClassVMEnvironment:   "vm.environment",
	ClassVMJob:           "vm.job",

	ClassAgentEnrolled:         "agent.enrolled",
	ClassAgentFrame:            "agent.frame",
	ClassAgentDropped:          "agent.dropped",
	ClassAgentHooks:            "agent.hooks",
	ClassAgentHeartbeatLost:    "agent.heartbeat_lost",
	ClassAgentSequenceGap:      "agent.sequence_gap",
	ClassAgentSignatureInvalid: "agent.signature_invalid",
	ClassAgentRefused:          "agent.refused",
	ClassAgentConnected:        "agent.connected",
	ClassAgentDisconnected:     "agent.disconnected",
	ClassAgentRollback:         "agent.rollback",
	ClassAgentHeartbeatBack:    "agent.heartbeat_back",
	ClassAgentThrottled:        "agent.throttled",
	ClassAgentTamper:           "agent.tamper",
	ClassAgentStopped:          "agent.stopped",
	ClassAgentCommand:          "agent.command",
	ClassAgentResult:           "agent.result",
	ClassAgentAggregating:      "agent.aggregating",
	ClassAgentRestarted:        "agent.restarted",
	ClassAgentKeyChanged:       "agent.key_changed",
	ClassAgentCoverageLow:      "agent.coverage_low",
	ClassAgentCoverageLost:     "agent.coverage_lost",
	ClassAgentClockJump:        "agent.clock_jump",
	ClassAgentAbsent:           "agent.absent",

	ClassPolicyVerdict: "policy.verdict",
	ClassPolicyOutcome: "policy.outcome",
	ClassPolicyLoaded:  "policy.loaded",
	ClassPolicyError:   "policy.error",

	ClassPolicyCarried:          "policy.carried",
	ClassPolicyMismatch:         "policy.engine_mismatch",
	ClassPolicyLimitReached:     "policy.limit_reached",
	ClassPolicyExceptionExpired: "policy.exception_expired",

	ClassPolicyActing:    "policy.acting",
	ClassPolicyReapplied: "policy.reapplied",
	ClassPolicyReleased:  "policy.released",
	ClassPolicySnapshot:  "policy.snapshot",

	ClassPolicySnapshotRemoved: "policy.snapshot_removed",

	ClassPolicyAlertFailed:    "policy.alert_failed",
	ClassPolicyAlertDelivered: "policy.alert_delivered",

	ClassHostStart:         "host.start",
	ClassHostStop:          "host.stop",
	ClassHostConfiguration: "host.configuration",
	ClassHostGap:           "host.gap",
	ClassHostNetwork:       "host.network",
	ClassHostPool:          "host.pool",
	ClassHostSecret:        "host.secret",
	ClassHostCoverage:      "host.coverage",
	ClassHostBackup:        "host.backup",
	ClassHostRestore:       "host.restore",

	ClassWitnessShortfall: "witness.shortfall",
	ClassWitnessRestored:  "witness.restored",
	ClassWitnessDisputed:  "witness.disputed",

	ClassAccessDisclosed: "access.disclosed",

	ClassApprovalLoaded:    "approval.loaded",
	ClassApprovalUsed:      "approval.used",
	ClassApprovalUsedLate:  "approval.used_late",
	ClassApprovalExpired:   "approval.expired",
	ClassApprovalRevoked:   "approval.revoked",
	ClassApprovalApprovers: "approval.approvers",

	ClassVMGuard:           "vm.guard",
	ClassNetworkUndeclared: "network.undeclared",
}

var classByName = func() map[string]Class {
	m := make(map[string]Class, len(classes))
	for c, n := range classes {
		m[n] = c
	}
	return m
}()

// String returns the class's name, such as "file.rename".
func (c Class) String() string {
	if n, ok := classes[c]; ok {
		return n
	}
	return fmt.Sprintf("class(%#04x)", uint16(c))
}

// Known reports whether this version has a name for c. Unknown classes are
// sealed all the same: a newer author may write to an older reader.
func (c Class) Known() bool { _, ok := classes[c]; return ok }

// FromGuest reports whether a guest agent may write records of class c. The
// host refuses all others from a channel, so that no guest can author a
// verdict or a lifecycle event.
func (c Class) FromGuest() bool {
	switch c {
	case ClassAgentDropped, ClassAgentHooks, ClassAgentTamper, ClassAgentStopped, ClassAgentAggregating:
		return true
	}
	return c >= 0x0100 && c < 0x1000
}

// ParseClass returns the class with the given name.
func ParseClass(name string) (Class, error) {
	if c, ok := classByName[name]; ok {
		return c, nil
	}
	return 0, fmt.Errorf("parse class: no class is named %q: %w", name, ErrReject)
}

// Classes returns every class that has a name, in no order.
func Classes() []Class {
	all := make([]Class, 0, len(classes))
	for c := range classes {
		all = append(all, c)
	}
	return all
}
