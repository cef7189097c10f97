package probe

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func TestExec(t *testing.T) {
	_, c, _ := observe(t)
	truth, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "ln")
	resolved, err := filepath.EvalSymlinks(truth)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(resolved, link); err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: link, Args: []string{"true", "", "a\nb", "\xff\xfe"}, Dir: "/usr"}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	fork := c.find(t, "fork", func(s seen) bool { return s.h.Class == record.ClassProcessFork && s.e.Process.Pid == pid })
	x := c.find(t, "exec", func(s seen) bool { return s.h.Class == record.ClassProcessExec && s.e.Process.Pid == pid })
	exit := c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	p := x.e.Process
	var st unix.Stat_t
	if err := unix.Stat(resolved, &st); err != nil {
		t.Fatal(err)
	}
	if string(p.Executable) != resolved || string(p.Filename) != link || string(p.WorkingDirectory) != "/usr" || string(p.Name) != "ln" {
		t.Errorf("exec: executable %q filename %q cwd %q name %q", p.Executable, p.Filename, p.WorkingDirectory, p.Name)
	}
	if want := [][]byte{[]byte("true"), {}, []byte("a\nb"), {0xff, 0xfe}}; !slices.EqualFunc(p.Args, want, bytes.Equal) || p.ArgsTruncated {
		t.Errorf("exec: args %q truncated %v", p.Args, p.ArgsTruncated)
	}
	if p.Device != st.Dev || p.Inode != st.Ino {
		t.Errorf("exec: device %x inode %d, stat says %x %d", p.Device, p.Inode, st.Dev, st.Ino)
	}
	self, _ := os.Executable()
	if int(p.Ppid) != os.Getpid() || int(x.e.Parent.GetPid()) != os.Getpid() || string(x.e.Parent.GetExecutable()) != self {
		t.Errorf("exec: ppid %d, parent %v, want pid %d executable %s", p.Ppid, x.e.Parent, os.Getpid(), self)
	}
	if len(x.e.Ancestors) == 0 && os.Getppid() != 0 {
		t.Errorf("exec: no ancestors")
	}
	if p.Start == 0 || p.Start != fork.e.Process.Start || p.Start != exit.e.Process.Start {
		t.Errorf("start differs: fork %d exec %d exit %d", fork.e.Process.Start, p.Start, exit.e.Process.Start)
	}
	if e := exit.e.Exit; e.Code != 0 || e.Signal != 0 {
		t.Errorf("exit: %v", e)
	}
	if c := p.Credentials; c.Uid != 0 || c.CapEffective == 0 || p.CgroupId == 0 || p.MountNamespace == 0 {
		t.Errorf("exec: credentials %v cgroup %d mount namespace %d", c, p.CgroupId, p.MountNamespace)
	}
	for _, class := range []record.Class{record.ClassProcessFork, record.ClassProcessExec, record.ClassProcessExit} {
		if n := c.count(func(s seen) bool { return s.h.Class == class && s.e.Process.Pid == pid }); n != 1 {
			t.Errorf("%d events %s, want 1", n, class)
		}
	}
}

func TestExecScriptAndFailures(t *testing.T) {
	_, c, stop := observe(t)
	script := filepath.Join(t.TempDir(), "s.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nkill -9 $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(script, strings.Repeat("long", 2000))
	if err := cmd.Run(); err == nil {
		t.Fatal("script should have been killed")
	}
	pid := uint32(cmd.Process.Pid)
	x := c.find(t, "exec of script", func(s seen) bool { return s.h.Class == record.ClassProcessExec && s.e.Process.Pid == pid })
	p := x.e.Process
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if string(p.Script) != script || p.Flags&record.ProcessScript == 0 || string(p.Executable) != shell {
		t.Errorf("script %q flags %x executable %q", p.Script, p.Flags, p.Executable)
	}
	if !p.ArgsTruncated || p.ArgsLength < 8000 || len(bytes.Join(p.Args, []byte{0})) > 4096 {
		t.Errorf("arguments: truncated %v length %d", p.ArgsTruncated, p.ArgsLength)
	}
	exit := c.find(t, "exit of script", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	if exit.e.Exit.Signal != 9 {
		t.Errorf("exit %v, want signal 9", exit.e.Exit)
	}
	failed := actor(t, "", "missing", "x")
	pid = uint32(failed.Process.Pid)
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	stop()
	if n := c.count(func(s seen) bool { return s.h.Class == record.ClassProcessExec && s.e.Process.Pid == pid }); n != 1 {
		t.Errorf("%d exec events of a process whose second exec failed, want 1", n)
	}
}

func TestFiles(t *testing.T) {
	_, c, stop := observe(t)
	dir := workDir(t)
	lsm := *mode == string(ModeLSM)
	victim := filepath.Join(dir, "passwd")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(victim, &st); err != nil {
		t.Fatal(err)
	}
	pid := uint32(actor(t, dir, "files", dir).Process.Pid)
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	stop()
	one := func(class record.Class, path string) *record.Event {
		t.Helper()
		var got *record.Event
		n := c.count(func(s seen) bool {
			ok := s.h.Class == class && s.e.Process.Pid == pid && string(s.e.File.GetPath()) == filepath.Join(dir, path)
			if ok {
				got = s.e
			}
			return ok
		})
		if n != 1 {
			c.dump(t)
			t.Fatalf("%d events %s of %s, want 1", n, class, path)
		}
		self, _ := os.Executable()
		if string(got.Process.Executable) != self || int(got.Parent.GetPid()) != os.Getpid() {
			t.Errorf("%s of %s: by %v, child of %v", class, path, got.Process, got.Parent)
		}
		return got
	}
	create := one(record.ClassFileCreate, "passwd.tmp")
	if create.File.Device != st.Dev || create.File.Inode == 0 || create.File.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("create: %v, want device %x", create.File, st.Dev)
	}
	if w := one(record.ClassFileModify, "passwd.tmp"); w.File.Inode != create.File.Inode || w.File.How != "write" {
		t.Errorf("modify: %v", w.File)
	}
	r := one(record.ClassFileRename, "passwd.tmp")
	if string(r.Target.GetPath()) != victim {
		t.Errorf("rename to %q, want %q", r.Target.GetPath(), victim)
	}
	if lsm && (r.Replaced.GetInode() != st.Ino || r.File.Inode != create.File.Inode) {
		t.Errorf("rename: %v replaced %v, want inode %d replaced %d", r.File, r.Replaced, create.File.Inode, st.Ino)
	}
	if r := one(record.ClassFileRename, "soft"); string(r.Target.GetPath()) != filepath.Join(filepath.Dir(dir), "moved") {
		t.Errorf("rename by relative names: to %q", r.Target.GetPath())
	}
	one(record.ClassFileTruncate, "passwd.tmp")
	if e := one(record.ClassFileChmod, "passwd.tmp"); e.File.Mode&0o7777 != 0o640 {
		t.Errorf("chmod: mode %o", e.File.Mode)
	}
	if e := one(record.ClassFileChown, "passwd.tmp"); e.File.Uid != 1 || e.File.Gid != 2 {
		t.Errorf("chown: %v", e.File)
	}
	if l := one(record.ClassFileLink, "passwd"); string(l.Target.GetPath()) != filepath.Join(dir, "hard") {
		t.Errorf("link: %v", l.Target)
	}
	for path, mode := range map[string]uint32{"soft": unix.S_IFLNK, "sub": unix.S_IFDIR, "fifo": unix.S_IFIFO} {
		if e := one(record.ClassFileCreate, path); e.File.Mode&unix.S_IFMT != mode {
			t.Errorf("create %s: mode %o", path, e.File.Mode)
		}
	}
	one(record.ClassFileDelete, "hard")
	one(record.ClassFileDelete, "sub")
}

func TestDeepPath(t *testing.T) {
	// What others do on this machine may fill the ring, which is told: then
	// the act is done again.
	for tries := 1; ; tries++ {
		whole := false
		t.Run(fmt.Sprint("try ", tries), func(t *testing.T) { whole = deepPath(t, tries == 5) })
		if whole || t.Failed() {
			return
		}
	}
}

// deepPath says whether nothing was lost; with last that is no excuse.
func deepPath(t *testing.T, last bool) bool {
	_, c, stop := observe(t)
	dir := workDir(t)
	pid := uint32(actor(t, dir, "deep", dir).Process.Pid)
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	stop()
	want := dir + strings.Repeat("/"+strings.Repeat("d", 240), 20) + "/"
	n := c.count(func(s seen) bool {
		return s.h.Class == record.ClassFileCreate && s.e.Process.Pid == pid && s.e.File.Mode&unix.S_IFMT == unix.S_IFREG &&
			strings.HasPrefix(string(s.e.File.Path), want) && len(s.e.File.Path) == len(want)+254
	})
	if lost := c.classes[record.ClassFileCreate]; n == 0 && lost > 0 && !last {
		t.Logf("%d events of the class are lost", lost)
		return false
	}
	if n != 1 {
		c.dump(t)
		t.Errorf("%d events with the whole path, want 1; lost %v", n, c.classes)
	}
	return true
}

func TestConnect(t *testing.T) {
	_, c, _ := observe(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			if strings.Contains(address, "::1") {
				t.Logf("left out: no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		defer l.Close()
		a := l.Addr().(*net.TCPAddr)
		pid := uint32(actor(t, "", "connect", a.String()).Process.Pid)
		s := c.find(t, "connect", func(s seen) bool { return s.h.Class == record.ClassNetworkConnect && s.e.Process.Pid == pid })
		n := s.e.Network
		if !net.IP(n.DestinationIp).Equal(a.IP) || int(n.DestinationPort) != a.Port || n.Protocol != "tcp" || n.Direction != "egress" {
			t.Errorf("connect to %s: %v", a, n)
		}
		if *mode == string(ModeLSM) && (n.SourcePort == 0 || !net.IP(n.SourceIp).Equal(a.IP)) {
			t.Errorf("connect to %s: source %v:%d", a, net.IP(n.SourceIp), n.SourcePort)
		}
	}
}

// Every event of a storm is there, or its loss is counted; and each lane is
// without a hole that nobody owns up to (I4).
func TestStorm(t *testing.T) {
	p, c, stop := observe(t)
	truth, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	pids := map[uint32]int{}
	for range *storm {
		cmd := exec.Command(truth)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pids[uint32(cmd.Process.Pid)]++
	}
	stop()
	counted, err := p.stats.counted()
	if err != nil {
		t.Fatal(err)
	}
	events := map[record.Class]int{}
	for _, s := range c.all {
		if pids[s.e.Process.Pid] > 0 {
			events[s.h.Class]++
		}
	}
	var lost uint64
	for lane, n := range counted {
		arrived := uint64(len(tally.arrived[lane]))
		lost += tally.lost[lane]
		t.Logf("lane %x: counted %d, arrived %d, lost %d", lane, n, arrived, tally.lost[lane])
		// The counters were read after the last record, so they may be
		// ahead of it by what other processes did since.
		if arrived+tally.lost[lane] > n {
			t.Errorf("lane %x: arrived %d and lost %d, counted only %d", lane, arrived, tally.lost[lane], n)
		}
		for seq := range arrived {
			if !tally.arrived[lane][seq] && tally.lost[lane] == 0 {
				t.Errorf("lane %x: sequence %d is missing and nothing was lost", lane, seq)
				break
			}
		}
	}
	for _, h := range tally.twice {
		t.Errorf("lane %x: sequence %d came twice", h.Lane, h.LaneSequence)
	}
	for _, class := range []record.Class{record.ClassProcessFork, record.ClassProcessExec, record.ClassProcessExit} {
		if uint64(events[class])+lost < uint64(*storm) {
			t.Errorf("%d events %s of %d, %d lost on all lanes", events[class], class, *storm, lost)
		}
	}
}

func TestHooks(t *testing.T) {
	p, _, _ := observe(t)
	h := p.Hooks()
	covered := map[record.Class]bool{}
	for _, x := range h.Hooks {
		class := record.Class(x.Class)
		if _, twice := covered[class]; twice {
			t.Errorf("%s stands twice", class)
		}
		covered[class] = x.Name != ""
		t.Logf("%s: %q %q", class, x.Name, x.Error)
		if x.Name == "" && x.Error == "" {
			t.Errorf("%s: not covered, and no reason", class)
		}
	}
	for _, k := range kinds {
		if _, told := covered[k.class]; k.class != 0 && !told {
			t.Errorf("nothing is said about %s in mode %s", k.class, h.Mode)
		}
	}
	b, err := record.Encode(h)
	if err != nil || len(b) > 32<<10 {
		t.Errorf("hooks record of %d bytes: %v", len(b), err)
	}
	if h.Mode != *mode || h.Kernel == "" {
		t.Errorf("mode %q kernel %q", h.Mode, h.Kernel)
	}
}
