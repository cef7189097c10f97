package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

const stormActs = 4000

func init() {
	actors["storm-network"] = func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for range stormActs {
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
				return err
			}
		}
		return unix.Close(fd)
	}
	actors["storm-files"] = func(dir string) error {
		if err := os.Chdir(dir); err != nil {
			return err
		}
		for i := range stormActs {
			// Mode tracepoint tells acts by name, and folds those whose name
			// shows that the directory is theirs.
			name := fmt.Sprint(i)
			if err := errors.Join(os.WriteFile(name, []byte("x"), 0o600), os.Rename(name, name+".new"), os.Remove(name+".new")); err != nil {
				return err
			}
		}
		// In the storm one act upon a file of somebody else's.
		return os.WriteFile(filepath.Join(dir, "victim"), []byte("x"), 0o600)
	}
	actors["storm-absolute"] = func(dir string) error {
		for i := range stormActs {
			name := filepath.Join(dir, fmt.Sprint(i))
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Remove(name)); err != nil {
				return err
			}
		}
		return nil
	}
	actors["storm-memory"] = func(string) error {
		for range stormActs {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err == nil {
				err = unix.Munmap(m)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	actors["storm-spray"] = func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for i := range destinations {
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(i >> 8), byte(i)}, Port: 9}); err != nil {
				return err
			}
		}
		return unix.Close(fd)
	}
	actors["storm-names"] = func(dir string) error {
		if err := errors.Join(os.Chdir(dir), os.WriteFile("a", nil, 0o600)); err != nil {
			return err
		}
		for range renames / 2 {
			if err := errors.Join(unix.Rename("a", "b"), unix.Rename("b", "a")); err != nil {
				return err
			}
		}
		return nil
	}
	actors["storm-ids"] = func(string) error {
		for i := range idChanges {
			// Its result is the id before. Each is a change, the first as well.
			_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr((i+1)&1), 0, 0)
		}
		return nil
	}
	actors["ask"] = func(who string) error {
		if who == "nobody" {
			if err := unix.Setuid(65534); err != nil {
				return err
			}
		}
		id := [2]uint64{0xfffffff0} // of no program
		for range attempts {
			if _, _, e := unix.RawSyscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&id)), unsafe.Sizeof(id)); e == 0 {
				return errors.New("there is a program of that number")
			}
		}
		return nil
	}
	actors["descriptions"] = func(dir string) error {
		var files []*os.File
		for i := range manyDescriptions {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		for range 3 {
			for _, f := range files {
				if _, err := f.Write([]byte("x")); err != nil {
					return err
				}
			}
		}
		for _, f := range files {
			if err := f.Close(); err != nil {
				return err
			}
		}
		return nil
	}
	actors["bystander"] = func(dir string) error {
		for i := range bystanderFiles {
			if err := os.WriteFile(filepath.Join(dir, "bystander"+fmt.Sprint(i)), nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	}
}

const (
	idChanges      = 120_000
	attempts       = 50
	renames        = 30_000 // more than half of the ring holds
	destinations   = 65_000 // the same
	bystanderFiles = 300    // within the budget of two seconds at once
)

// covers says whether the hooks record names a hook for a class.
func covers(p *Probe, class record.Class) bool {
	return slices.ContainsFunc(p.Hooks().Hooks, func(h *record.Hook) bool { return record.Class(h.Class) == class && h.Name != "" })
}

// A process beyond its budget is folded, not dropped: its events, the sums and
// what is declared lost make up what it did, to the last act.
func TestBudget(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	p, err := Open(Config{Mode: Mode(*mode), Budget: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	tracepoint := Mode(*mode) == ModeTracepoint
	for _, x := range []struct {
		actor   string
		classes []record.Class
		whole   []record.Class // told one by one whatever the budget
	}{
		{"storm-network", []record.Class{record.ClassNetworkConnect}, nil},
		{"storm-files", []record.Class{record.ClassFileCreate, record.ClassFileModify, record.ClassFileClose, record.ClassFileDelete},
			[]record.Class{record.ClassFileRename}},
		{"storm-absolute", []record.Class{record.ClassFileCreate, record.ClassFileDelete}, nil},
		{"storm-memory", []record.Class{record.ClassMemoryMap}, nil},
	} {
		if x.actor == "storm-absolute" && tracepoint {
			x.classes, x.whole = x.classes[:1], x.classes[1:]
		}
		t.Run(x.actor, func(t *testing.T) {
			c := &collector{lost: map[uint32]uint64{}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx, c) }()
			dir := workDir(t)
			victim := filepath.Join(dir, "victim")
			if err := os.WriteFile(victim, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			pid := uint32(actor(t, dir, x.actor, dir).Process.Pid)
			c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			hit := func(s seen) bool {
				return s.h.Class == record.ClassFileModify && s.e.Process.Pid == pid && string(s.e.File.Path) == victim
			}
			if x.actor == "storm-files" && c.count(hit) != 1 {
				t.Errorf("%d events of the write to another's file, want 1", c.count(hit))
			}
			var lost uint64
			for _, n := range c.lost {
				lost += n
			}
			if n := c.count(func(s seen) bool {
				return s.h.Class == record.ClassAgentAggregating && s.e.Process.Pid == pid && s.e.Reason == "began"
			}); n == 0 {
				t.Error("nothing says that the process is over its budget")
			}
			for _, class := range slices.Concat(x.classes, x.whole) {
				if !covers(p, class) {
					t.Logf("%s is not covered here", class)
					continue
				}
				var whole, folded uint64
				for _, s := range c.all {
					switch {
					case string(s.e.File.GetPath()) == victim: // beside the storm
					case s.h.Class != class || s.e.Process.Pid != pid:
					case class == record.ClassMemoryMap && s.e.File != nil: // its own program and libraries
					case s.e.Flags&record.EventAggregated == 0:
						whole++
					default:
						folded += s.e.Count
						if s.e.Until < s.h.Time || len(s.e.Process.Executable) == 0 {
							t.Errorf("sum %v", s.e)
						}
						if f := s.e.File; f != nil && f.Flags&record.FileUserPath == 0 && string(f.Path) != dir {
							t.Errorf("sum of directory %q, want %q", f.Path, dir)
						}
					}
				}
				t.Logf("%s: %d told, %d folded, %d lost of all classes", class, whole, folded, lost)
				if whole+folded > stormActs || whole+folded+lost < stormActs {
					t.Errorf("%s: %d told and %d folded and %d lost of %d", class, whole, folded, lost, stormActs)
				}
				if single := slices.Contains(x.whole, class); single && folded > 0 {
					t.Errorf("%s: %d folded, want each told", class, folded)
				} else if !single && folded < stormActs/2 {
					t.Errorf("%s: only %d of %d folded", class, folded, stormActs)
				}
				if x.actor != "storm-network" && whole < 256 && lost == 0 {
					t.Errorf("%s: %d told whole, want the first 256 at least", class, whole)
				}
			}
		})
	}
}

// Acts that are not folded, by their kind or since each is the first to its
// destination, still cannot push out others': a storm of them, which nobody
// reads, is dropped to the last that finds the ring half full, with its count,
// and what another process does then is all there.
func TestHeavyGivesWay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	p, err := Open(Config{Mode: Mode(*mode), Budget: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("names", func(t *testing.T) { givesWay(t, p, "storm-names", record.ClassFileRename, renames) })
	t.Run("credentials", func(t *testing.T) { givesWay(t, p, "storm-ids", record.ClassProcessCreds, idChanges) })
	t.Run("spray", func(t *testing.T) { givesWay(t, p, "storm-spray", record.ClassNetworkConnect, destinations) })
}

func givesWay(t *testing.T, p *Probe, act string, class record.Class, acts uint64) {
	t.Helper()
	dir := workDir(t)
	storm := uint32(actor(t, dir, act, dir).Process.Pid)
	other := uint32(actor(t, dir, "bystander", dir).Process.Pid)
	c := &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, c) }()
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == other })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	told := uint64(c.count(func(s seen) bool { return s.h.Class == class && s.e.Process.Pid == storm }))
	lost := c.classes[class]
	t.Logf("%d of %d acts told, %d lost", told, acts, lost)
	// Others on this machine may have lost some too.
	if told > acts || told+lost < acts || lost == 0 {
		t.Errorf("%d told and %d declared lost of %d", told, lost, acts)
	}
	if n := c.count(func(s seen) bool { return s.h.Class == record.ClassFileCreate && s.e.Process.Pid == other }); n != bystanderFiles {
		t.Errorf("%d of the other process's %d files are told: the storm pushed them out", n, bystanderFiles)
	}
}

// Who has no right to reach for what others have loaded is told so once, whoever
// has it each time.
func TestAskedInVain(t *testing.T) {
	p, c, _ := observe(t)
	if !covers(p, record.ClassKernelBPF) {
		t.Fatal("acts upon BPF are not covered, which every kernel allows")
	}
	// Before 5.19 the kernel refuses whoever has no right before it asks the hook.
	early := p.Mode() == ModeLSM
	for who, want := range map[string]int{"nobody": 1, "root": attempts} {
		pid := uint32(actor(t, workDir(t), "ask", who).Process.Pid)
		c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
		if n := c.count(func(s seen) bool {
			return s.h.Class == record.ClassKernelBPF && s.e.Process.Pid == pid && s.e.Kernel.Operation == "prog_get_fd_by_id"
		}); n != want && (n != 0 || who == "root" || !early) {
			t.Errorf("%s: %d attempts are told, want %d", who, n, want)
		}
	}
}

const (
	manyDescriptions = 200
	summedUp         = 50
)

// More descriptions than the kernel sums up are no flood: the first write
// through each is told, and each end that cannot be is declared lost, once,
// for the right reason.
func TestTooManyDescriptions(t *testing.T) {
	if Mode(*mode) == ModeTracepoint {
		t.Skip("mode tracepoint has no ends of descriptions, and so no sums")
	}
	p, err := Open(Config{Mode: Mode(*mode), written: summedUp})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, c) }()
	dir := workDir(t)
	pid := uint32(actor(t, dir, "descriptions", dir).Process.Pid)
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	of := func(class record.Class) func(seen) bool {
		return func(s seen) bool {
			return s.h.Class == class && s.e.Process.Pid == pid && filepath.Dir(string(s.e.File.GetPath())) == dir
		}
	}
	if n := c.count(of(record.ClassFileModify)); n != manyDescriptions {
		t.Errorf("%d first writes are told, want %d", n, manyDescriptions)
	}
	closes, lost := c.count(of(record.ClassFileClose)), int(c.classes[record.ClassFileClose])
	if closes+lost != manyDescriptions || closes > summedUp || closes == 0 {
		t.Errorf("%d ends are told and %d declared lost of %d, with room for %d", closes, lost, manyDescriptions, summedUp)
	}
}
