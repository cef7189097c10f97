package probe

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

var credsKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_CREDS:     {record.ClassProcessCreds, (*decoder).creds},
	bpf.ProbeEventTypeEV_NAMESPACE: {record.ClassProcessNamespace, (*decoder).namespace},
	bpf.ProbeEventTypeEV_CHROOT:    {record.ClassProcessChroot, (*decoder).file},
	bpf.ProbeEventTypeEV_SIGNAL:    {record.ClassProcessSignal, (*decoder).signal},
}

// callNames are the reasons of changes of credentials.
var callNames = map[uint32]string{
	unix.SYS_SETUID: "setuid", unix.SYS_SETGID: "setgid", unix.SYS_SETREUID: "setreuid", unix.SYS_SETREGID: "setregid",
	unix.SYS_SETRESUID: "setresuid", unix.SYS_SETRESGID: "setresgid", unix.SYS_SETFSUID: "setfsuid",
	unix.SYS_SETFSGID: "setfsgid", unix.SYS_SETGROUPS: "setgroups", unix.SYS_CAPSET: "capset", unix.SYS_PRCTL: "prctl",
	unix.SYS_UNSHARE: "unshare", unix.SYS_SETNS: "setns", unix.SYS_KEYCTL: "keyctl", unix.SYS_CLONE: "clone",
	unix.SYS_CLONE3: "clone",
}

// compatNames are those of 32-bit programs, whose calls have other numbers.
var compatNames = map[uint32]string{
	23: "setuid", 213: "setuid", 46: "setgid", 214: "setgid", 70: "setreuid", 203: "setreuid", 71: "setregid",
	204: "setregid", 164: "setresuid", 208: "setresuid", 170: "setresgid", 210: "setresgid", 138: "setfsuid",
	215: "setfsuid", 139: "setfsgid", 216: "setfsgid", 81: "setgroups", 206: "setgroups", 185: "capset", 172: "prctl",
	310: "unshare", 346: "setns", 288: "keyctl", 120: "clone", 435: "clone",
}

// callName names the system call that an event happened in.
func callName(h *bpf.ProbeEventHead, nr uint32) string {
	names := callNames
	if bpf.ProbeEventFlag(h.Flags)&bpf.ProbeEventFlagFL_COMPAT != 0 {
		names = compatNames
	}
	if n, ok := names[nr]; ok {
		return n
	}
	return fmt.Sprintf("call %d", nr)
}

// creds tells of new credentials; the process has them from now on.
func (d *decoder) creds(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventCreds](b)
	if err != nil {
		return nil, err
	}
	p := d.known(&x.H)
	before := p.cred
	if x.Known != 0 {
		before = &record.Credentials{Uid: x.Uid, Gid: x.Gid, Euid: x.Euid, Egid: x.Egid, Suid: x.Suid, Sgid: x.Sgid,
			Fsuid: x.Fsuid, Fsgid: x.Fsgid, CapEffective: x.CapEffective, CapPermitted: x.CapPermitted, CapInheritable: x.CapInheritable}
	}
	p.cred = credentials(&x.T)
	e := d.actor(&x.H)
	now := credentials(&x.T)
	now.CapPermitted, now.CapInheritable = x.NewPermitted, x.NewInheritable
	e.Process.Credentials, e.CredentialsBefore = now, before
	e.Reason = callName(&x.H, x.H.Arg)
	return e, nil
}

func (d *decoder) namespace(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventNamespace](b)
	if err != nil {
		return nil, err
	}
	d.known(&x.H).mntns = x.Mnt
	e := d.actor(&x.H)
	e.Namespaces = &record.Namespaces{Mount: x.Mnt, Pid: x.Pid, Network: x.Net, Uts: x.Uts, Ipc: x.Ipc, Cgroup: x.Cgroup,
		Time: x.Time, User: x.User, Changed: x.H.Arg, Operation: callName(&x.H, x.Call)}
	return e, nil
}

// object is the process that was acted upon.
func (d *decoder) object(x *bpf.ProbeEventTarget) *record.Process {
	p := d.table.find(x.Tgid, x.Start)
	o := &record.Process{Pid: x.Tgid, Tid: x.Tid, Start: x.Start, Ppid: p.ppid, ParentStart: p.parentStart, ExecCount: p.execs,
		Name: p.image.Name, Executable: p.image.Executable, Flags: p.image.Flags, Credentials: p.cred, ContainerId: d.groups.find(p.cgroup).container}
	if len(o.Name) == 0 {
		o.Name = cstring(bytesOf(&x.Comm))
	}
	return o
}

func (d *decoder) signal(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventTarget](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	e.Object = d.object(&x)
	e.Reason = signalName(x.How)
	return e, nil
}

// signalName is a signal's name, such as "SIGKILL"; of those without a name
// its number.
func signalName(n uint32) string {
	if s := unix.SignalName(unix.Signal(n)); s != "" {
		return s
	}
	return fmt.Sprintf("signal %d", n)
}
