package event

import "github.com/provostd/provost/chain/record"

// inProgress is EINPROGRESS: whether a connection comes about is not known yet
// when a socket that does not wait has begun it.
const inProgress = 115

func (e *Event) loadEvent(class record.Class, p *record.Event) {
	e.SetString(EventReason, p.Reason)
	if p.ResultKnown {
		e.SetNumber(EventResult, uint64(p.Result))
		switch p.Result {
		case 0:
			e.SetString(EventOutcome, "success")
		case inProgress:
		default:
			e.SetString(EventOutcome, "failure")
		}
	}
	if p.Process != nil {
		e.loadProcess(p.Process)
	}
	e.loadAncestry(p)
	e.loadTally(p)
	if p.File != nil {
		e.loadFile(p.File)
	}
	if p.Target != nil {
		e.bytes(FileTargetPath, p.Target.Path)
	}
	if p.Replaced != nil {
		e.SetBool(FileReplaced, true)
	}
	if p.Object != nil {
		e.loadObject(p.Object)
	}
	if p.CredentialsBefore != nil {
		e.loadBefore(p.CredentialsBefore)
	}
	if p.Network != nil {
		e.loadNetwork(p.Network)
	}
	e.loadParts(class, p)
	if p.Exit != nil {
		e.SetNumber(ProcessExitCode, uint64(p.Exit.Code))
		e.SetNumber(ProcessExitSignal, uint64(p.Exit.Signal))
		e.SetBool(ProcessCoreDumped, p.Exit.CoreDumped)
		e.nonzero(ProcessPeakMemory, p.Exit.PeakMemory)
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
		if p.Vm.Hypervisor != nil {
			e.loadHypervisor(p.Vm.Hypervisor)
		}
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
	e.nonzero(ThreadID, uint64(p.Tid))
	e.nonzero(ProcessArgsLength, p.ArgsLength)
	e.nonzero(ProcessCgroupID, p.CgroupId)
	e.nonzero(ProcessMountNamespace, uint64(p.MountNamespace))
	e.loadExecutable(p)
	if p.LoginUid != noLogin {
		e.SetNumber(UserLoginID, uint64(p.LoginUid))
	}
	if c := p.Credentials; c != nil {
		e.SetNumber(UserID, uint64(c.Uid))
		e.SetNumber(UserGroupID, uint64(c.Gid))
		e.SetNumber(UserEffectiveID, uint64(c.Euid))
		e.SetNumber(UserEffectiveGroupID, uint64(c.Egid))
		e.SetNumber(UserSavedID, uint64(c.Suid))
		e.SetNumber(UserSavedGroupID, uint64(c.Sgid))
		e.SetNumber(UserFilesystemID, uint64(c.Fsuid))
		e.SetNumber(UserFilesystemGroupID, uint64(c.Fsgid))
		e.mask(CapabilitiesEffective, c.CapEffective)
		e.mask(CapabilitiesPermitted, c.CapPermitted)
		e.mask(CapabilitiesInheritable, c.CapInheritable)
		e.mask(CapabilitiesBounding, c.CapBounding)
		e.mask(CapabilitiesAmbient, c.CapAmbient)
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

// loadExecutable tells what is known of the file behind a process.
func (e *Event) loadExecutable(p *record.Process) {
	e.bytes(ProcessFilesystemPath, p.FilesystemPath)
	if p.Inode != 0 { // else it was not examined
		e.SetNumber(ProcessDevice, p.Device)
		e.SetNumber(ProcessInode, p.Inode)
	}
	e.nonzero(ProcessLinks, uint64(p.Links))
	e.nonzero(ProcessSize, p.Size)
	e.moment(ProcessMtime, p.Mtime)
	e.moment(ProcessCtime, p.Ctime)
	if f := p.Flags; f != 0 {
		e.SetBool(ProcessDeleted, f&record.ProcessDeleted != 0)
		e.SetBool(ProcessInMemfd, f&record.ProcessDetached != 0)
		e.SetBool(ProcessExecutableTruncated, f&record.ProcessPathTruncated != 0)
		e.SetBool(ProcessCwdTruncated, f&record.ProcessCwdTruncated != 0)
		e.SetBool(ProcessKernelThread, f&record.ProcessKernelThread != 0)
		e.SetBool(ProcessSnapshot, f&record.ProcessSnapshot != 0)
		e.SetBool(ProcessSetuid, f&record.ProcessSetuid != 0)
		e.SetBool(ProcessSetgid, f&record.ProcessSetgid != 0)
		e.SetBool(ProcessFileCaps, f&record.ProcessFileCaps != 0)
		e.SetBool(ProcessCompat, f&record.ProcessCompat != 0)
	}
}

func (e *Event) loadObject(p *record.Process) {
	e.SetNumber(ObjectPID, uint64(p.Pid))
	e.SetNumber(ObjectStart, p.Start)
	e.deferred(ObjectEntityID)
	e.bytes(ObjectName, p.Name)
	e.bytes(ObjectExecutable, p.Executable)
}

func (e *Event) loadBefore(c *record.Credentials) {
	e.SetNumber(BeforeUserID, uint64(c.Uid))
	e.SetNumber(BeforeGroupID, uint64(c.Gid))
	e.SetNumber(BeforeEffectiveID, uint64(c.Euid))
	e.SetNumber(BeforeEffectiveGroupID, uint64(c.Egid))
	e.SetNumber(BeforeSavedID, uint64(c.Suid))
	e.SetNumber(BeforeSavedGroupID, uint64(c.Sgid))
	e.SetNumber(BeforeFilesystemID, uint64(c.Fsuid))
	e.SetNumber(BeforeFilesystemGroupID, uint64(c.Fsgid))
	e.mask(CapabilitiesEffectiveBefore, c.CapEffective)
	e.mask(CapabilitiesPermittedBefore, c.CapPermitted)
}

// loadTally tells how many acts the event stands for, and in what way they
// were done.
func (e *Event) loadTally(p *record.Event) {
	e.nonzero(EventCount, p.Count)
	e.nonzero(EventUntil, p.Until)
	if f := p.Flags; f != 0 {
		e.SetBool(EventCompat, f&record.EventCompat != 0)
		e.SetBool(EventIOWorker, f&record.EventIOWorker != 0)
		e.SetBool(EventAggregated, f&record.EventAggregated != 0)
		e.SetBool(EventSelf, f&record.EventSelf != 0)
		e.SetBool(EventRefused, f&record.EventRefused != 0)
	}
}
