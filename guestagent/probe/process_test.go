package probe

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// forked enters a child of pid 1 with an executable.
func forked(t *testing.T, d *decoder, pid uint32, executable string) *record.Event {
	t.Helper()
	h := testHead(bpf.ProbeEventTypeEV_FORK, 1)
	if _, err := d.decode(&h, raw(bpf.ProbeEventFork{H: h, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10, Ppid: 1, ParentStart: 10}}, "")); err != nil {
		t.Fatal(err)
	}
	names := executable + "\x00"
	h = testHead(bpf.ProbeEventTypeEV_EXEC, pid)
	e, err := d.decode(&h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10}, PathLen: uint16(len(names))}, names))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// weigh checks the table's books against what it holds.
func weigh(t *testing.T, tab *table) {
	t.Helper()
	n := 0
	for _, m := range []map[uint32]*process{tab.live, tab.gone} {
		for pid, p := range m {
			if p.cost != p.size() {
				t.Fatalf("process %d is booked with %d bytes and takes %d", pid, p.cost, p.size())
			}
			n += p.cost
		}
	}
	if n != tab.bytes || n > maxTableBytes {
		t.Errorf("the table holds %d bytes, booked %d, limit %d", n, tab.bytes, maxTableBytes)
	}
}

// Lost ends of processes do not leave the table full for good.
func TestLostExits(t *testing.T) {
	asked := 0
	tab := newTable(func(pid uint32, start uint64) *process { asked++; return nil })
	now := uint64(time.Hour)
	tab.lookups.now = func() uint64 { return now }
	d := newDecoder(tab, newGroups(nil))
	h := testHead(bpf.ProbeEventTypeEV_EXEC, 1)
	if _, err := d.decode(&h, raw(bpf.ProbeEventExec{H: h, T: bpf.ProbeEventTask{Tgid: 1, Start: 10}, PathLen: 5}, "init\x00")); err != nil {
		t.Fatal(err)
	}
	for pid := uint32(2); pid < 40000; pid++ {
		forked(t, &d, pid, "dead")
	}
	weigh(t, tab)
	if !tab.sweep.wanted {
		t.Fatal("a full table does not ask to be compared with what runs")
	}
	asked = 0
	sees := func(pid uint32, want string) {
		t.Helper()
		h := testHead(bpf.ProbeEventTypeEV_WRITE, pid)
		e, err := d.decode(&h, raw(bpf.ProbeEventFile{H: h, PathLen: 2}, "f\x00"))
		if err != nil || string(e.Process.Executable) != want {
			t.Errorf("process %d: %v %v, want %s", pid, e.Process, err, want)
		}
	}
	// What finds no room is known for a while all the same.
	forked(t, &d, 40000, "late")
	sees(40000, "/late")
	// The kernel lists pid 1 and one other; a third begins meanwhile.
	if !tab.sweep.begin(500000) {
		t.Fatal("no listing")
	}
	tab.listed(&bpf.ProbeEventTask{Tgid: 1, Start: 10})
	tab.listed(&bpf.ProbeEventTask{Tgid: 3, Start: 30})
	tab.listed(&bpf.ProbeEventTask{Tgid: 4, Start: 41}) // another process by now
	if n := tab.bury(499999); n != 0 {
		t.Errorf("%d processes are forgotten before their last events", n)
	}
	if n := tab.bury(500000); n < 1000 || len(tab.live) != 2 {
		t.Errorf("%d forgotten, %d left", n, len(tab.live))
	}
	weigh(t, tab)
	sees(3, "/dead")
	for pid := uint32(50001); pid < 51000; pid++ {
		forked(t, &d, pid, "new")
		sees(pid, "/new")
	}
	if len(tab.live) != 1001 {
		t.Errorf("%d processes, want 1001", len(tab.live))
	}
	if tab.sweep.wanted = true; tab.sweep.begin(500001) {
		t.Error("listed again at once")
	}
	// Asking /proc is bounded, and nobody is asked for twice.
	asked = 0
	for range 3 {
		for pid := uint32(100000); pid < 100010; pid++ {
			sees(pid, "")
		}
	}
	if asked != 10 {
		t.Errorf("/proc is asked %d times for 10 processes", asked)
	}
	for pid := uint32(200000); pid < 210000; pid++ {
		sees(pid, "")
	}
	if asked < lookupsPerSecond/2 || asked > lookupsPerSecond {
		t.Errorf("/proc is asked %d times in an instant, want at most %d", asked, lookupsPerSecond)
	}
	now += uint64(time.Second)
	asked = 0
	sees(300000, "")
	if asked != 1 {
		t.Error("/proc is not asked a second later")
	}
}

// However long the paths, the table keeps within its bytes, and each execution
// is told with all of its path.
func TestTableBytes(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	deep := strings.Repeat("x", 6000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for pid := uint32(2); pid < 8000; pid++ {
		path := deep + strconv.Itoa(int(pid))
		if e := forked(t, &d, pid, path); string(e.Process.Executable) != "/"+path || e.Process.Flags&record.ProcessPathTruncated != 0 {
			t.Fatalf("exec of process %d: path of %d bytes, flags %#x", pid, len(e.Process.Executable), e.Process.Flags)
		}
		if pid%1000 == 0 {
			weigh(t, d.table)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 2*maxTableBytes {
		t.Errorf("a full table takes %d bytes of memory, and counts %d", n, d.table.bytes)
	}
	h := testHead(bpf.ProbeEventTypeEV_WRITE, 2000)
	e, err := d.decode(&h, raw(bpf.ProbeEventFile{H: h, PathLen: 2}, "f\x00"))
	if err != nil || !bytes.HasSuffix(e.Process.Executable, []byte("x2000")) || len(e.Process.Executable) != shortPath || e.Process.Flags&record.ProcessPathTruncated == 0 {
		t.Errorf("a process of a full table: %v %v", e.Process, err)
	}
	for pid := uint32(2); pid < 8000; pid++ {
		h := testHead(bpf.ProbeEventTypeEV_EXIT, pid)
		if _, err := d.decode(&h, raw(bpf.ProbeEventExit{H: h}, "")); err != nil {
			t.Fatal(err)
		}
	}
	weigh(t, d.table)
	if len(d.table.gone) > maxGone {
		t.Errorf("%d processes are remembered that are gone", len(d.table.gone))
	}
}

// Ancestors that are gone are kept for their descendants only within bounds.
func TestOrphanedImages(t *testing.T) {
	d := newDecoder(newTable(nil), newGroups(nil))
	pid := uint32(1)
	for range 1500 { // chains of daemons: each leaves one process with eight dead ancestors of its own
		for range maxAncestors + 1 {
			pid++
			h := testHead(bpf.ProbeEventTypeEV_FORK, pid)
			names := strings.Repeat("y", 500) + "\x00"
			x := testHead(bpf.ProbeEventTypeEV_EXEC, pid)
			for _, s := range []struct {
				h bpf.ProbeEventHead
				b []byte
			}{
				{x, raw(bpf.ProbeEventExec{H: x, T: bpf.ProbeEventTask{Tgid: pid, Start: uint64(pid) * 10}, PathLen: uint16(len(names))}, names)},
				{h, raw(bpf.ProbeEventFork{H: h, T: bpf.ProbeEventTask{Tgid: pid + 1, Start: uint64(pid+1) * 10, Ppid: pid, ParentStart: uint64(pid) * 10}}, "")},
			} {
				if _, err := d.decode(&s.h, s.b); err != nil {
					t.Fatal(err)
				}
			}
			end := testHead(bpf.ProbeEventTypeEV_EXIT, pid)
			if _, err := d.decode(&end, raw(bpf.ProbeEventExit{H: end}, "")); err != nil {
				t.Fatal(err)
			}
		}
		pid++
	}
	weigh(t, d.table)
	seen := map[*record.Process]bool{}
	n := 0
	for _, p := range d.table.live {
		for _, i := range p.lineage {
			if !seen[i] {
				seen[i] = true
				n += imageBytes + len(i.Executable)
			}
		}
	}
	if n > maxTableBytes/2 {
		t.Errorf("images of %d bytes are kept for %d processes", n, len(d.table.live))
	}
}

// A process whose memory cannot be read holds nothing up but its own reader.
func TestCommandsHang(t *testing.T) {
	proc := t.TempDir()
	stat := func(pid int) string { return strconv.Itoa(pid) + " (x) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 0 0 1 0 5 0 0" }
	var all []oldProcess
	for pid := 1; pid <= 5; pid++ {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/stat", stat(pid))
		if err := os.Symlink("/bin/x", dir+"/exe"); err != nil {
			t.Fatal(err)
		}
		if pid == 2 {
			// Opening it to read waits for somebody who writes.
			if err := unix.Mkfifo(dir+"/cmdline", 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, dir+"/cmdline", "x\x00"+strconv.Itoa(pid)+"\x00")
		}
		all = append(all, oldProcess{identity{uint32(pid), 5 * userTick}, []byte("/bin/x")})
	}
	all[4].executable = []byte("/bin/y") // it runs something else by now
	all = append(all, oldProcess{identity{6, 5 * userTick}, nil})
	got := map[uint32]string{}
	take := func(c *command) {
		if c.read {
			got[c.id.pid] = string(bytes.Join(c.args, []byte(" ")))
		}
	}
	commands(t.Context(), proc, all, 20*time.Millisecond, 20*time.Second, take)
	if len(got) != 3 || got[1] != "x 1" || got[3] != "x 3" || got[4] != "x 4" {
		t.Errorf("arguments %v", got)
	}
	// A second and a third: the rest goes without.
	for _, pid := range []string{"1", "3"} {
		name := filepath.Join(proc, pid, "cmdline")
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clear(got)
	commands(t.Context(), proc, all, 20*time.Millisecond, 20*time.Second, take)
	if len(got) != 0 {
		t.Errorf("arguments %v behind two processes that hang", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	commands(ended, proc, all, time.Hour, time.Hour, take)
	// Whoever hangs is let go.
	for _, pid := range []string{"1", "2", "3"} {
		f, err := os.OpenFile(filepath.Join(proc, pid, "cmdline"), os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
}

// A process that ran before the agent did is told without its arguments while
// they are not known, and that says so.
func TestToldBefore(t *testing.T) {
	s := &record.Process{}
	(&before{}).tell(s)
	if !s.ArgsTruncated || s.Args != nil {
		t.Errorf("%v", s)
	}
	s = &record.Process{}
	(&before{read: true, args: [][]byte{[]byte("x")}, length: 2}).tell(s)
	if s.ArgsTruncated || len(s.Args) != 1 || s.ArgsLength != 2 {
		t.Errorf("%v", s)
	}
}

// A listing speaks of what the table had then: what enters before the rings
// have caught up with it, by a fork or as a new image, is not forgotten.
func TestBurySparesWhatEnters(t *testing.T) {
	tab := newTable(nil)
	tab.put(10, bare(10, 100))
	tab.put(12, bare(12, 120))
	tab.sweep.wanted = true
	if !tab.sweep.begin(1000) {
		t.Fatal("it is no time for a listing")
	}
	tab.listed(&bpf.ProbeEventTask{Tgid: 10, Start: 100})
	tab.listed(&bpf.ProbeEventTask{Tgid: 11, Start: 990}) // the event of whose fork is in the ring still
	tab.put(11, bare(11, 990))                            // it comes
	tab.put(10, bare(10, 100))                            // and one of a new image
	if n := tab.bury(1001); n != 1 || tab.live[10] == nil || tab.live[11] == nil || tab.live[12] != nil {
		t.Errorf("%d forgotten, left %v; want 10 and 11", n, tab.live)
	}
}

// A program that took another's place unseen, because that was lost, is told
// under its own name once a listing has it.
func TestRenew(t *testing.T) {
	tab := newTable(nil)
	self := uint32(os.Getpid())
	old := bare(self, 100)
	old.setImage(self, []byte("login"), []byte("/bin/login"))
	old.number, old.execs = 3, 2
	tab.put(self, old)
	told := bare(12, 120)
	told.number = 1
	tab.put(12, told)
	tab.sweep.wanted = true
	if !tab.sweep.begin(1000) {
		t.Fatal("it is no time for a listing")
	}
	tab.listed(&bpf.ProbeEventTask{Tgid: self, Start: 100, Flags: 5 << 1, Uid: 7})
	tab.listed(&bpf.ProbeEventTask{Tgid: 12, Start: 120, Flags: 2 << 1})
	later := bare(12, 120) // its execution comes from the ring
	later.number = 2
	tab.put(12, later)
	tab.bury(1001)
	p := tab.live[self]
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if p == old || string(p.executable) != exe || p.execs != 4 || p.number != 5 || p.cred.Uid != 7 || p.flags&record.ProcessSnapshot == 0 {
		t.Errorf("the image is %+v, want that of %s", p, exe)
	}
	if tab.live[12] != later {
		t.Error("one whose execution was told is renewed")
	}
}
