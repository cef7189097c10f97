package event

import "github.com/provostd/provost/chain/record"

var (
	onExit   = SetOf(record.ClassProcessExit)
	onTarget = SetOf(record.ClassFileRename, record.ClassFileLink)
	onLost   = SetOf(record.ClassAgentDropped)
	onEnroll = SetOf(record.ClassAgentEnrolled)
	onHooks  = SetOf(record.ClassAgentHooks)
	onGap    = SetOf(record.ClassVMGap)
)

// Fields is the table of everything a policy can name, the one place where
// name, type, carriers and meaning of a field stand.
var Fields = [...]Info{
	fact(EventType, "event.type", KindString, setAll, must, `Type of the event, such as "file.rename".`),
	fact(EventCategory, "event.category", KindString, setAll, must, `Part of event.type before the dot.`),
	fact(EventAction, "event.action", KindString, setAll, must, `Part of event.type after the dot.`),
	fact(EventOrigin, "event.origin", KindString, setAll, must, `On whose authority the entry stands. What "guest" says can be forged by a hostile guest.`).enum("guest", "host", "policy", "operator"),
	fact(EventTime, "event.time", KindString, setAll, must, `Host's wall time when the entry was sealed, RFC 3339 in UTC.`),
	fact(EventIndex, "event.index", KindNumber, setAll, must, `Index of the entry in the VM's log.`),
	claim(EventSequence, "event.sequence", KindNumber, setAll, must, `Sequence number given by the entry's author.`),
	claim(EventReason, "event.reason", KindString, setAll, opt, `Why, in one short word or phrase.`),
	claim(EventResult, "event.result", KindNumber, setActor, opt, `Error number of the attempt, 0 for success, where it is known.`),
	claim(EventOutcome, "event.outcome", KindString, setActor, opt, `Whether the attempt succeeded, where it is known.`).enum("success", "failure"),

	fact(VMUUID, "vm.uuid", KindString, setAll, opt, `UUID of the domain.`),
	fact(VMName, "vm.name", KindString, setAll, opt, `Name of the domain.`),
	fact(VMState, "vm.state", KindString, setAll, opt, `State of the domain after the event.`).enum("running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended", "nostate"),
	fact(VMTags, "vm.tags", KindStrings, setAll, opt, `Tags from the domain's metadata.`),
	fact(VMMetadata, "vm.metadata", KindMap, setAll, opt, `Values from the domain's metadata; write the key, as in vm.metadata.zone.`),

	claim(ProcessPID, "process.pid", KindNumber, setActor, opt, `Process id in the guest's initial namespace. Reused: use process.entity_id as an identity.`),
	claim(ProcessStart, "process.start", KindNumber, setActor, opt, `Start of the process, nanoseconds of the guest's boot clock.`),
	claim(ProcessEntityID, "process.entity_id", KindString, setActor, opt, `Identity of the process: VM, pid and start.`),
	claim(ProcessName, "process.name", KindString, setActor, opt, `Name of the process: comm, at most 15 bytes.`),
	claim(ProcessExecutable, "process.executable", KindString, setActor, opt, `Resolved path of the executable.`),
	claim(ProcessFilename, "process.filename", KindString, setActor, opt, `Path as passed to exec, before resolving.`),
	claim(ProcessScript, "process.script", KindString, setActor, opt, `Path of the script, where an interpreter runs one.`),
	claim(ProcessCommandLine, "process.command_line", KindString, setActor, opt, `All arguments joined by one space.`),
	claim(ProcessArgs, "process.args", KindStrings, setActor, opt, `Arguments, the program's name first.`),
	claim(ProcessArgsTruncated, "process.args_truncated", KindBool, setActor, opt, `Whether arguments are missing at the end.`),
	claim(ProcessWorkingDirectory, "process.working_directory", KindString, setActor, opt, `Current directory.`),
	claim(ProcessHashSHA256, "process.hash.sha256", KindString, setActor, opt, `SHA-256 of the executable in lower-case hexadecimal, where the agent measured it.`),
	claim(ProcessCgroup, "process.cgroup", KindString, setActor, opt, `Control group path.`),
	claim(ProcessContainerID, "process.container_id", KindString, setActor, opt, `Container id.`),
	claim(ProcessSessionID, "process.session_id", KindNumber, setActor, opt, `Audit login session.`),
	claim(ProcessExecCount, "process.exec_count", KindNumber, setActor, opt, `How many images this process has had.`),
	claim(ProcessExitCode, "process.exit_code", KindNumber, onExit, opt, `Exit code.`),
	claim(ProcessExitSignal, "process.exit_signal", KindNumber, onExit, opt, `Signal that ended the process, 0 for none.`),
	claim(ProcessCoreDumped, "process.core_dumped", KindBool, onExit, opt, `Whether a core was dumped.`),
	claim(ParentPID, "process.parent.pid", KindNumber, setActor, opt, `Process id of the parent.`),
	claim(ParentStart, "process.parent.start", KindNumber, setActor, opt, `Start of the parent.`),
	claim(ParentEntityID, "process.parent.entity_id", KindString, setActor, opt, `Identity of the parent.`),
	claim(ParentName, "process.parent.name", KindString, setActor, opt, `Name of the parent.`),
	claim(ParentExecutable, "process.parent.executable", KindString, setActor, opt, `Executable of the parent.`),
	claim(ParentCommandLine, "process.parent.command_line", KindString, setActor, opt, `Arguments of the parent joined by one space.`),
	claim(ParentArgs, "process.parent.args", KindStrings, setActor, opt, `Arguments of the parent.`),
	claim(ParentWorkingDirectory, "process.parent.working_directory", KindString, setActor, opt, `Current directory of the parent.`),
	claim(ParentHashSHA256, "process.parent.hash.sha256", KindString, setActor, opt, `SHA-256 of the parent's executable.`),
	claim(ProcessAncestors, "process.ancestors", KindProcesses, setActor, opt, `Parent, grandparent and so on; at most 64.`),

	claim(UserID, "user.id", KindNumber, setActor, opt, `Real user id.`),
	claim(UserName, "user.name", KindString, setActor, opt, `Name of the real user. The agent sends ids: only "root" (0) is known.`),
	claim(UserGroupID, "user.group.id", KindNumber, setActor, opt, `Real group id.`),
	claim(UserEffectiveID, "user.effective.id", KindNumber, setActor, opt, `Effective user id.`),
	claim(UserEffectiveGroupID, "user.effective.group.id", KindNumber, setActor, opt, `Effective group id.`),
	claim(UserLoginID, "user.login.id", KindNumber, setActor, opt, `User id at login, where one logged in.`),

	claim(FilePath, "file.path", KindString, setFile, opt, `Path of the file; for a rename or link, the old path.`),
	claim(FileName, "file.name", KindString, setFile, opt, `Last component of file.path.`),
	claim(FileDirectory, "file.directory", KindString, setFile, opt, `file.path without its last component.`),
	claim(FileExtension, "file.extension", KindString, setFile, opt, `Extension of file.name, without the dot.`),
	claim(FileTargetPath, "file.target_path", KindString, onTarget, opt, `New path of a rename or link.`),
	claim(FileReplaced, "file.replaced", KindBool, onTarget, opt, `Whether the new path named another file before.`),
	claim(FileFilesystemPath, "file.filesystem_path", KindString, setFile, opt, `Path in its file system, where it differs from file.path.`),
	claim(FileInode, "file.inode", KindNumber, setFile, opt, `Inode number.`),
	claim(FileDevice, "file.device", KindNumber, setFile, opt, `Device number.`),
	claim(FileMode, "file.mode", KindNumber, setFile, opt, `Mode after the event: type and permission bits.`),
	claim(FileModeBefore, "file.mode_before", KindNumber, setFile, opt, `Mode before the event.`),
	claim(FileModeExecutable, "file.mode_executable", KindBool, setFile, opt, `Whether any execute bit is set.`),
	claim(FileSize, "file.size", KindNumber, setFile, opt, `Size in bytes.`),
	claim(FileSizeBefore, "file.size_before", KindNumber, setFile, opt, `Size in bytes before the event.`),
	claim(FileUID, "file.uid", KindNumber, setFile, opt, `User id of the owner.`),
	claim(FileGID, "file.gid", KindNumber, setFile, opt, `Group id of the owner.`),
	claim(FileHow, "file.how", KindString, setFile, opt, `How it was changed: write, mmap, falloc, copy.`),
	claim(FileOperations, "file.operations", KindNumber, setFile, opt, `How many operations the event stands for.`),

	claim(SourceIP, "source.ip", KindAddress, setNetwork, opt, `Source address.`),
	claim(SourcePort, "source.port", KindNumber, setNetwork, opt, `Source port.`),
	claim(DestinationIP, "destination.ip", KindAddress, setNetwork, opt, `Destination address.`),
	claim(DestinationPort, "destination.port", KindNumber, setNetwork, opt, `Destination port.`),
	claim(NetworkDirection, "network.direction", KindString, setNetwork, opt, `Seen from the guest.`).enum("egress", "ingress"),
	claim(NetworkProtocol, "network.protocol", KindString, setNetwork, opt, `Protocol, such as tcp, or the name of another address family.`),
	claim(NetworkTransport, "network.transport", KindString, setNetwork, opt, `Transport protocol of an IP connection, such as tcp.`),
	claim(NetworkType, "network.type", KindString, setNetwork, opt, `Version of IP.`).enum("ipv4", "ipv6"),

	fact(AgentSession, "agent.session", KindNumber, setFinding|onEnroll, opt, `Session of the guest agent.`),
	fact(AgentCount, "agent.count", KindNumber, setFinding, opt, `How many records the finding is about.`),
	fact(AgentSilentSeconds, "agent.silent_seconds", KindNumber, setFinding, opt, `For how long the agent was silent.`),
	claim(AgentVersion, "agent.version", KindString, onEnroll, opt, `Version of the guest agent.`),
	fact(AgentKey, "agent.key", KindString, onEnroll, opt, `The agent's public key in hexadecimal.`),
	fact(AgentAttestationLevel, "agent.attestation_level", KindNumber, onEnroll, opt, `How the key is bound: 0 to the channel.`),
	fact(AgentResumed, "agent.resumed", KindBool, onEnroll, opt, `Whether a known key connected again.`),
	claim(AgentMode, "agent.mode", KindString, onHooks, opt, `How the probe observes.`).enum("lsm", "tracepoint"),
	claim(AgentKernel, "agent.kernel", KindString, onHooks, opt, `Release of the guest's kernel.`),
	claim(AgentUncovered, "agent.uncovered", KindStrings, onHooks, opt, `Event types that no hook covers.`),

	claim(LostCount, "lost.count", KindNumber, onLost, must, `How many observations were lost.`),
	claim(LostAuthor, "lost.author", KindString, onLost, opt, `Who says so: "guest" is a claim, "host" a finding.`),
	claim(LostReasons, "lost.reasons", KindStrings, onLost, opt, `Reasons: ring_full, queue_full, nested, spool_full, undecodable, unexplained, too_large, fault.`),
	claim(LostClasses, "lost.classes", KindStrings, onLost, opt, `Event types that were lost, where known.`),

	fact(GapSeconds, "gap.seconds", KindNumber, onGap, opt, `For how long the host could not see the domain.`),
	fact(GapChanges, "gap.changes", KindStrings, onGap, opt, `What differs after the gap.`),

	fact(LibvirtDetail, "libvirt.detail", KindString, setDomain, opt, `libvirt's detail of the event, in words.`),
	fact(LibvirtEventID, "libvirt.event_id", KindNumber, setDomain, opt, `libvirt's number of the event.`),
	fact(LibvirtDetailID, "libvirt.detail_id", KindNumber, setDomain, opt, `libvirt's number of the detail.`),
	fact(LibvirtDomainID, "libvirt.domain_id", KindNumber, setVM, opt, `libvirt's id of the running domain.`),
	fact(LibvirtConnection, "libvirt.connection", KindString, setDomain, opt, `URI of the connection.`),
	fact(LibvirtSource, "libvirt.source", KindString, setDomain, opt, `How the host learnt of it: event, sweep, resync.`),

	fact(PolicyName, "policy.name", KindString, setPolicy, opt, `Name of the policy, or of the bundle for policy.loaded.`),
	fact(PolicySeverity, "policy.severity", KindString, setVerdict, opt, `Severity of the policy.`).enum("informational", "low", "medium", "high", "critical"),
	fact(PolicyMode, "policy.mode", KindString, setVerdict, opt, `Effective mode.`).enum("audit", "enforce"),
	fact(PolicyCause, "policy.cause", KindString, setVerdict, opt, `Type of the event that caused the verdict.`),
	fact(PolicyWouldHave, "policy.would_have", KindBool, setVerdict, opt, `Whether the actions were only recorded.`),
	fact(PolicyAction, "policy.action", KindString, SetOf(record.ClassPolicyOutcome), opt, `Kind of the action.`),
	fact(PolicyResult, "policy.result", KindString, SetOf(record.ClassPolicyOutcome), opt, `What came of the action.`).enum("done", "already", "failed", "skipped"),
}
