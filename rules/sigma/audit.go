package sigma

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/event"
)

// maxArguments is how many of the fields a0, a1, ... of an execution are known.
const maxArguments = 64

// auditActor are the fields of an audit record that tell who did it.
var auditActor = map[string]target{
	"exe":     pathField("process.executable"),
	"comm":    pathField("process.name"),
	"pid":     field("process.pid"),
	"ppid":    field("process.parent.pid"),
	"uid":     field("user.id"),
	"gid":     field("user.group.id"),
	"euid":    field("user.effective.id"),
	"egid":    field("user.effective.group.id"),
	"suid":    field("user.saved.id"),
	"fsuid":   field("user.filesystem.id"),
	"auid":    {expr: "user.login.id", kind: event.KindNumber, unset: []string{"unset", "-1", "4294967295"}},
	"success": {expr: "event.outcome", kind: event.KindString, names: map[string]string{"yes": "success", "no": "failure"}},
}

// auditArguments are a0, a1, ... of an execution.
var auditArguments = func() map[string]target {
	m := make(map[string]target, maxArguments)
	for i := range maxArguments {
		m[fmt.Sprintf("a%d", i)] = target{expr: fmt.Sprintf("argv(%d)", i), kind: event.KindString}
	}
	return m
}()

// auditCalls are the system calls that an event type stands for.
var auditCalls = []struct {
	calls []string
	on    []string
	guard *node
}{
	{calls: []string{"execve", "execveat"}, on: []string{"process.exec"}},
	{calls: []string{"fork", "vfork", "clone", "clone3"}, on: []string{"process.fork"}},
	{calls: []string{"kill", "tkill", "tgkill"}, on: []string{"process.signal"}},
	{calls: []string{"ptrace"}, on: []string{"process.trace"}},
	{calls: []string{"unshare", "setns"}, on: []string{"process.namespace"}},
	{calls: []string{"chroot", "pivot_root"}, on: []string{"process.chroot"}},
	{calls: []string{"mknod", "mknodat"}, on: []string{"file.create"}, guard: leaf("has(file.rdev)")},
	{calls: []string{"unlink", "unlinkat", "rmdir"}, on: []string{"file.delete"}},
	{calls: []string{"rename", "renameat", "renameat2"}, on: []string{"file.rename"}},
	{calls: []string{"link", "linkat"}, on: []string{"file.link"}},
	{calls: []string{"chmod", "fchmod", "fchmodat", "fchmodat2"}, on: []string{"file.chmod"}},
	{calls: []string{"chown", "fchown", "lchown", "fchownat"}, on: []string{"file.chown"}},
	{calls: []string{"truncate", "ftruncate"}, on: []string{"file.truncate"}},
	{calls: []string{"setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"}, on: []string{"file.xattr"}},
	{calls: []string{"mount", "move_mount"}, on: []string{"file.mount"}},
	{calls: []string{"umount", "umount2"}, on: []string{"file.unmount"}},
	{calls: []string{"connect"}, on: []string{"network.connect"}},
	{calls: []string{"accept", "accept4"}, on: []string{"network.accept"}},
	{calls: []string{"bind"}, on: []string{"network.bind"}},
	{calls: []string{"listen"}, on: []string{"network.listen"}},
	{calls: []string{"memfd_create"}, on: []string{"memory.file"}},
	{calls: []string{"init_module", "finit_module"}, on: []string{"kernel.module_load"}},
	{calls: []string{"delete_module"}, on: []string{"kernel.module_unload"}},
	{calls: []string{"bpf"}, on: []string{"kernel.bpf"}},
	{calls: []string{"perf_event_open"}, on: []string{"kernel.perf"}},
	{calls: []string{"kexec_load", "kexec_file_load"}, on: []string{"kernel.kexec"}},
	{calls: []string{"userfaultfd"}, on: []string{"kernel.userfaultfd"}},
}

// auditPaths are the events that stand for a PATH record: audit writes one for
// each path of a call, so that a renamed file has two.
var auditPaths = []view{
	{on: []string{"file.create"}, fields: auditName("file.path"), fixed: pathRecord("create")},
	{on: []string{"file.delete", "file.rename"}, fields: auditName("file.path"), fixed: pathRecord("delete")},
	{on: []string{"file.modify", "file.chmod", "file.chown", "file.link", "file.truncate"}, fields: auditName("file.path"), fixed: pathRecord("normal")},
	{suffix: "renamed", on: []string{"file.rename", "file.link"}, fields: auditName("file.target_path"), fixed: pathRecord("create")},
	{suffix: "executed", on: []string{"process.exec"}, fields: auditName("process.filename"), fixed: pathRecord("normal")},
}

const (
	noteReads = "audit can also watch who reads a file; reading is no event"
	noteCall  = "the rule names no system call and is taken to mean the execution of the program"
)

func auditName(path string) map[string]target {
	return map[string]target{"name": pathField(path)}
}

func pathRecord(kind string) map[string][]string {
	return map[string][]string{"type": {"path"}, "nametype": {kind}}
}

// auditViews returns the records that a rule on audit may speak of. A SYSCALL
// record of which the rule does not say the call is one of an execution: every
// program that does anything was executed.
func auditViews(d *detection) []view {
	views := []view{{on: []string{"process.exec"}, fields: auditArguments, fixed: map[string][]string{"type": {"execve"}}, words: "process.command_line"}}
	for _, c := range auditCalls {
		if c.calls[0] != "execve" && !d.mentions("SYSCALL") {
			continue
		}
		v := view{on: c.on, fields: auditActor, guard: c.guard, fixed: map[string][]string{"type": {"syscall"}, "SYSCALL": c.calls}}
		if c.calls[0] != "execve" {
			_, v.suffix, _ = strings.Cut(c.on[0], ".")
		}
		if !d.mentions("SYSCALL") {
			v.note = noteCall
		}
		views = append(views, v)
	}
	for _, v := range auditPaths {
		if v.fixed["nametype"][0] == "normal" {
			v.note = noteReads
		}
		views = append(views, v)
	}
	return views
}

// mentions reports whether a selection of the rule has the field.
func (d *detection) mentions(name string) bool {
	for _, n := range d.names {
		if d.selections[n].mentions(name) {
			return true
		}
	}
	return false
}

func (s *selection) mentions(name string) bool {
	return slices.ContainsFunc(s.item, func(i item) bool { return i.field == name }) ||
		slices.ContainsFunc(s.any, func(m *selection) bool { return m.mentions(name) })
}
