package event

import (
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// part returns what at points to, and makes it first where there is nothing.
func part[T any](at **T) *T {
	if *at == nil {
		*at = new(T)
	}
	return *at
}

func (d *Draft) process() *record.Process {
	e := d.event()
	if e.Process == nil {
		e.Process = &record.Process{SessionId: noLogin, LoginUid: noLogin}
	}
	return e.Process
}

func (d *Draft) parent() *record.Process     { return part(&d.event().Parent) }
func (d *Draft) object() *record.Process     { return part(&d.event().Object) }
func (d *Draft) user() *record.Credentials   { return part(&d.process().Credentials) }
func (d *Draft) before() *record.Credentials { return part(&d.event().CredentialsBefore) }
func (d *Draft) exit() *record.Exit          { return part(&d.event().Exit) }
func (d *Draft) processFlags() *uint32       { return &d.process().Flags }
func (d *Draft) eventFlags() *uint32         { return &d.event().Flags }

func commonSetters() map[Field]setter {
	return map[Field]setter{
		EventOrigin: func(d *Draft, v any) error {
			for _, o := range []record.Origin{record.OriginGuest, record.OriginHost, record.OriginPolicy, record.OriginOperator} {
				if o.String() == v {
					d.leaf.Origin = o
				}
			}
			return nil
		},
		EventSequence:   setWide(func(d *Draft) *uint64 { return &d.leaf.Header.Sequence }),
		EventReason:     setWord((*Draft).reason),
		EventCount:      setWide(func(d *Draft) *uint64 { return &d.event().Count }),
		EventUntil:      setWide(func(d *Draft) *uint64 { return &d.event().Until }),
		EventAggregated: setBit((*Draft).eventFlags, record.EventAggregated),
		EventCompat:     setBit((*Draft).eventFlags, record.EventCompat),
		EventIOWorker:   setBit((*Draft).eventFlags, record.EventIOWorker),
		EventSelf:       setBit((*Draft).eventFlags, record.EventSelf),
		EventRefused:    setBit((*Draft).eventFlags, record.EventRefused),
		EventResult: func(d *Draft, v any) error {
			d.event().ResultKnown = true
			return setNarrow(func(d *Draft) *uint32 { return &d.event().Result })(d, v)
		},
		EventOutcome: func(d *Draft, v any) error {
			if setAuth.Has(d.leaf.Header.Class) {
				d.auth().Success = v == "success"
				return nil
			}
			if d.event().ResultKnown {
				return fmt.Errorf("follows from event.result, which is said already")
			}
			d.event().ResultKnown = true
			if v == "failure" {
				d.event().Result = 1 // EPERM
			}
			return nil
		},
	}
}

// reason is where the payload of each kind says why.
func (d *Draft) reason() *string {
	switch p := d.payload.(type) {
	case *record.AgentState:
		return &p.Reason
	case *record.Lost:
		return &p.Detail
	case *record.Epoch:
		return &p.Cause
	case *record.Handover:
		return &p.What
	case *record.Gap:
		return &p.Cause
	case *record.Genesis:
		return &p.Cause
	case *record.Verdict:
		return &p.Error
	case *record.Outcome:
		return &p.Error
	case *record.Held:
		return &p.Cause
	case *record.AgentStopped:
		return &p.Reason
	case *record.AgentCommand:
		return &p.Reason
	case *record.AgentResult:
		return &p.Detail
	case *record.Event:
		return &p.Reason
	}
	return new(string) // Entry finds that it is not carried
}

func processSetters() map[Field]setter {
	return map[Field]setter{
		ProcessPID:                 setNarrow(func(d *Draft) *uint32 { return &d.process().Pid }),
		ProcessStart:               setWide(func(d *Draft) *uint64 { return &d.process().Start }),
		ProcessName:                setText(func(d *Draft) *[]byte { return &d.process().Name }),
		ProcessExecutable:          setText(func(d *Draft) *[]byte { return &d.process().Executable }),
		ProcessFilename:            setText(func(d *Draft) *[]byte { return &d.process().Filename }),
		ProcessScript:              setText(func(d *Draft) *[]byte { return &d.process().Script }),
		ProcessArgs:                setTexts(func(d *Draft) *[][]byte { return &d.process().Args }),
		ProcessCommandLine:         setLine(ProcessArgs, func(d *Draft) *[][]byte { return &d.process().Args }),
		ProcessArgsTruncated:       setYes(func(d *Draft) *bool { return &d.process().ArgsTruncated }),
		ProcessArgsLength:          setWide(func(d *Draft) *uint64 { return &d.process().ArgsLength }),
		ProcessWorkingDirectory:    setText(func(d *Draft) *[]byte { return &d.process().WorkingDirectory }),
		ProcessHashSHA256:          setSHA256(func(d *Draft) *[]byte { return &d.process().Sha256 }),
		ProcessCgroup:              setText(func(d *Draft) *[]byte { return &d.process().Cgroup }),
		ProcessCgroupID:            setWide(func(d *Draft) *uint64 { return &d.process().CgroupId }),
		ProcessContainerID:         setWord(func(d *Draft) *string { return &d.process().ContainerId }),
		ProcessSessionID:           setNarrow(func(d *Draft) *uint32 { return &d.process().SessionId }),
		ProcessExecCount:           setNarrow(func(d *Draft) *uint32 { return &d.process().ExecCount }),
		ThreadID:                   setNarrow(func(d *Draft) *uint32 { return &d.process().Tid }),
		ProcessFilesystemPath:      setText(func(d *Draft) *[]byte { return &d.process().FilesystemPath }),
		ProcessDevice:              setWide(func(d *Draft) *uint64 { return &d.process().Device }),
		ProcessInode:               setWide(func(d *Draft) *uint64 { return &d.process().Inode }),
		ProcessLinks:               setNarrow(func(d *Draft) *uint32 { return &d.process().Links }),
		ProcessSize:                setWide(func(d *Draft) *uint64 { return &d.process().Size }),
		ProcessMtime:               setSigned(func(d *Draft) *int64 { return &d.process().Mtime }, 1),
		ProcessCtime:               setSigned(func(d *Draft) *int64 { return &d.process().Ctime }, 1),
		ProcessMountNamespace:      setNarrow(func(d *Draft) *uint32 { return &d.process().MountNamespace }),
		ProcessDeleted:             setBit((*Draft).processFlags, record.ProcessDeleted),
		ProcessInMemfd:             setBit((*Draft).processFlags, record.ProcessDetached),
		ProcessExecutableTruncated: setBit((*Draft).processFlags, record.ProcessPathTruncated),
		ProcessCwdTruncated:        setBit((*Draft).processFlags, record.ProcessCwdTruncated),
		ProcessKernelThread:        setBit((*Draft).processFlags, record.ProcessKernelThread),
		ProcessSnapshot:            setBit((*Draft).processFlags, record.ProcessSnapshot),
		ProcessSetuid:              setBit((*Draft).processFlags, record.ProcessSetuid),
		ProcessSetgid:              setBit((*Draft).processFlags, record.ProcessSetgid),
		ProcessFileCaps:            setBit((*Draft).processFlags, record.ProcessFileCaps),
		ProcessCompat:              setBit((*Draft).processFlags, record.ProcessCompat),
		ProcessExitCode:            setNarrow(func(d *Draft) *uint32 { return &d.exit().Code }),
		ProcessExitSignal:          setNarrow(func(d *Draft) *uint32 { return &d.exit().Signal }),
		ProcessCoreDumped:          setYes(func(d *Draft) *bool { return &d.exit().CoreDumped }),
		ProcessPeakMemory:          setWide(func(d *Draft) *uint64 { return &d.exit().PeakMemory }),
		ParentPID:                  setNarrow(func(d *Draft) *uint32 { return &d.parent().Pid }),
		ParentStart:                setWide(func(d *Draft) *uint64 { return &d.parent().Start }),
		ParentName:                 setText(func(d *Draft) *[]byte { return &d.parent().Name }),
		ParentExecutable:           setText(func(d *Draft) *[]byte { return &d.parent().Executable }),
		ParentArgs:                 setTexts(func(d *Draft) *[][]byte { return &d.parent().Args }),
		ParentCommandLine:          setLine(ParentArgs, func(d *Draft) *[][]byte { return &d.parent().Args }),
		ParentWorkingDirectory:     setText(func(d *Draft) *[]byte { return &d.parent().WorkingDirectory }),
		ParentHashSHA256:           setSHA256(func(d *Draft) *[]byte { return &d.parent().Sha256 }),
		ProcessAncestors:           func(d *Draft, v any) error { return d.ancestors(v.([]Process)) },
		ObjectPID:                  setNarrow(func(d *Draft) *uint32 { return &d.object().Pid }),
		ObjectStart:                setWide(func(d *Draft) *uint64 { return &d.object().Start }),
		ObjectName:                 setText(func(d *Draft) *[]byte { return &d.object().Name }),
		ObjectExecutable:           setText(func(d *Draft) *[]byte { return &d.object().Executable }),
	}
}

// ancestors sets the parent, which is the first of them, and those above it.
// What is said of the parent elsewhere must agree: Entry sees whether it does.
func (d *Draft) ancestors(list []Process) error {
	if len(list) == 0 || len(list) > MaxAncestors {
		return fmt.Errorf("has 1 to %d members", MaxAncestors)
	}
	for i, a := range list {
		if a.PID > 1<<32-1 {
			return fmt.Errorf("has a pid of more than %d", uint64(1<<32-1))
		}
		p := &record.Process{}
		if i == 0 {
			p = d.parent()
		} else {
			d.event().Ancestors = append(d.event().Ancestors, p)
		}
		p.Pid, p.Start, p.Name, p.Executable = uint32(a.PID), a.Start, []byte(a.Name), []byte(a.Executable)
	}
	return nil
}

func userSetters() map[Field]setter {
	m := map[Field]setter{
		UserName: func(d *Draft, v any) error {
			switch {
			case setAuth.Has(d.leaf.Header.Class):
				d.auth().Account = []byte(v.(string))
			case v != "root":
				return fmt.Errorf(`is "root" or missing: agents send ids and no names, except in auth.* events; say user.id`)
			default:
				d.user().Uid = 0
			}
			return nil
		},
		UserLoginID:             setNarrow(func(d *Draft) *uint32 { return &d.process().LoginUid }),
		CapabilitiesEffective:   setNames(CapabilitiesEffective, func(d *Draft) *uint64 { return &d.user().CapEffective }),
		CapabilitiesPermitted:   setNames(CapabilitiesPermitted, func(d *Draft) *uint64 { return &d.user().CapPermitted }),
		CapabilitiesInheritable: setNames(CapabilitiesInheritable, func(d *Draft) *uint64 { return &d.user().CapInheritable }),
		CapabilitiesBounding:    setNames(CapabilitiesBounding, func(d *Draft) *uint64 { return &d.user().CapBounding }),
		CapabilitiesAmbient:     setNames(CapabilitiesAmbient, func(d *Draft) *uint64 { return &d.user().CapAmbient }),
		CapabilitiesEffectiveBefore: setNames(CapabilitiesEffectiveBefore, func(d *Draft) *uint64 {
			return &d.before().CapEffective
		}),
		CapabilitiesPermittedBefore: setNames(CapabilitiesPermittedBefore, func(d *Draft) *uint64 {
			return &d.before().CapPermitted
		}),
	}
	for i, f := range userIDs {
		m[f] = setNarrow(func(d *Draft) *uint32 { return ids(d.user())[i] })
		m[beforeIDs[i]] = setNarrow(func(d *Draft) *uint32 { return ids(d.before())[i] })
	}
	return m
}

// userIDs and beforeIDs are in the order of ids: the real ids first.
var (
	userIDs = [8]Field{UserID, UserGroupID, UserEffectiveID, UserEffectiveGroupID, UserSavedID, UserSavedGroupID, UserFilesystemID, UserFilesystemGroupID}

	beforeIDs = [8]Field{BeforeUserID, BeforeGroupID, BeforeEffectiveID, BeforeEffectiveGroupID, BeforeSavedID, BeforeSavedGroupID,
		BeforeFilesystemID, BeforeFilesystemGroupID}
)

func ids(c *record.Credentials) [8]*uint32 {
	return [8]*uint32{&c.Uid, &c.Gid, &c.Euid, &c.Egid, &c.Suid, &c.Sgid, &c.Fsuid, &c.Fsgid}
}

// completeIDs gives ids that were not said the value of the real one: that is
// how a process has them which did nothing about it.
func (d *Draft) completeIDs(c *record.Credentials, fields [8]Field) {
	if c == nil {
		return
	}
	all := ids(c)
	for i, at := range all[2:] {
		if !d.has(fields[i+2]) {
			*at = *all[i%2]
		}
	}
}
