package probe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// listed is an event about a file as exec or close would tell it.
func listed(t *testing.T, path string) (fileKey, *record.Process, *record.File) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	k := keyOf(&st)
	return k, &record.Process{Pid: uint32(os.Getpid()), Ppid: uint32(os.Getppid()), Start: 9, Executable: []byte(path), Device: k.device, Inode: k.inode, Size: k.size, Mtime: k.mtime, Ctime: k.ctime},
		&record.File{Path: []byte(path), Device: k.device, Inode: k.inode, Size: k.size, Mtime: k.mtime, Ctime: k.ctime}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

// onDisk is where files lie whose times mean something.
var onDisk = origin{magic: 0xef53}

// of is an event of a class on a local file system, that happens now.
func of(d *digests, c record.Class) subject { return subject{class: c, time: d.boot(), origin: onDisk} }

// old makes the wall clock of d and of the hashers of it that much later than
// the changes of files.
func old(d *digests) { d.wall = func() time.Time { return time.Now().Add(time.Hour) } }

// running starts digests and returns how to wait for n records, and to end.
func running(t *testing.T, d *digests) (c *collector, wait func(n int) []seen, stop func()) {
	t.Helper()
	c = &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	d.start(ctx)
	stop = func() { cancel(); d.finish(c) }
	wait = func(n int) []seen {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); len(c.all) < n; <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d records, want %d", len(c.all), n)
			}
			d.collect(c)
		}
		return c.all
	}
	return c, wait, stop
}

func TestDigests(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	write(t, path, "hello")
	want := sha256.Sum256([]byte("hello"))
	d := newDigests(100, true)
	old(d)
	c, wait, stop := running(t, d)
	defer stop()

	// Not known yet: the exec has none, and a record follows, for each exec.
	for range 2 {
		_, p, _ := listed(t, path)
		e := &record.Event{Process: p}
		d.observe(of(d, record.ClassProcessExec), e, c)
		if e.Process.Sha256 != nil {
			t.Error("digest of a file that nobody read")
		}
	}
	for _, s := range wait(2) {
		p := s.e.Process
		if s.h.Class != record.ClassProcessDigest || s.h.Lane != record.NoLane || !bytes.Equal(p.Sha256, want[:]) || p.Start != 9 ||
			string(p.Executable) != path || p.Size != 5 || s.e.Reason != "" {
			t.Errorf("digest: %v %v", s.h, s.e)
		}
	}
	// Known: the exec carries it, and nothing follows.
	_, p, f := listed(t, path)
	e := &record.Event{Process: p}
	d.observe(of(d, record.ClassProcessExec), e, c)
	if !bytes.Equal(e.Process.Sha256, want[:]) || d.count != 0 {
		t.Errorf("digest of a known file: %x, %d awaited", e.Process.Sha256, d.count)
	}
	// A file that was written: the record is its own, at once where it is known.
	d.observe(of(d, record.ClassFileClose), &record.Event{Process: p, File: f}, c)
	if s := wait(3)[2]; s.h.Class != record.ClassFileDigest || !bytes.Equal(s.e.File.Sha256, want[:]) || string(s.e.File.Path) != path || s.e.Process.Start != 9 {
		t.Errorf("digest of a written file: %v", s.e)
	}
	// Other classes have none.
	d.observe(of(d, record.ClassFileModify), &record.Event{Process: p, File: f}, c)

	// Too large: told once.
	big := filepath.Join(dir, "big")
	write(t, big, string(make([]byte, 101)))
	for range 2 {
		_, p, _ := listed(t, big)
		d.observe(of(d, record.ClassProcessExec), &record.Event{Process: p}, c)
	}
	if all := wait(4); len(all) != 4 || all[3].e.Reason != reasonTooLarge || all[3].e.Process.Sha256 != nil {
		t.Errorf("large file: %v", all[3:])
	}
	if len(c.lost) != 0 || d.count != 0 {
		t.Errorf("lost %v, awaited %d", c.lost, d.count)
	}
}

// What a name leads to by now is read only if it is the file that was meant,
// with the content that it had.
func TestHash(t *testing.T) {
	dir := t.TempDir()
	x := filepath.Join(dir, "x")
	h := newHasher(time.Now)
	make := func(content string) fileKey {
		write(t, x, content)
		k, _, _ := listed(t, x)
		return k
	}
	hash := func(k fileKey, names ...string) hashed { return h.hash(t.Context(), hashJob{k, names, 0}) }

	k := make("one")
	if got := hash(k, filepath.Join(dir, "none"), x); len(got.sum) != 32 {
		t.Errorf("second name: %+v", got)
	}
	if err := os.Rename(x, filepath.Join(dir, "y")); err != nil {
		t.Fatal(err)
	}
	if got := hash(k, x); got.reason != reasonGone {
		t.Errorf("no name: %+v", got)
	}
	make("two")
	if got := hash(k, x); got.reason != reasonChanged {
		t.Errorf("another file: %+v", got)
	}
	if err := os.Remove(x); err != nil {
		t.Fatal(err)
	}
	// Opening a pipe for reading would wait for ever.
	if err := unix.Mkfifo(x, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := hash(k, x); got.reason != reasonChanged {
		t.Errorf("a pipe: %+v", got)
	}
	if err := os.Remove(x); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", x); err != nil {
		t.Fatal(err)
	}
	if got := hash(k, x); got.reason != reasonChanged {
		t.Errorf("a device: %+v", got)
	}
	// Changed while it is read.
	if err := os.Remove(x); err != nil {
		t.Fatal(err)
	}
	k = make("three")
	h.now = func() func() time.Time {
		var n atomic.Int64
		return func() time.Time { return time.Unix(n.Add(1), 0) }
	}()
	paused := time.Duration(0)
	h.pause = func(_ context.Context, took time.Duration) {
		paused += took
		if err := errors.Join(os.Truncate(x, 1), os.Chtimes(x, time.Unix(0, k.mtime), time.Unix(0, k.mtime))); err != nil {
			t.Error(err)
		}
	}
	if got := hash(k, x); got.reason != reasonChanged {
		t.Errorf("changed: %+v", got)
	}
	if paused != 3*time.Second {
		t.Errorf("paused %v after a second of work, want 3 s", paused)
	}
}

// A file that is rewritten within one tick of the clock keeps its key. Its sum
// is not remembered, and what is told of it says so.
func TestDigestsYoung(t *testing.T) {
	c := &collector{lost: map[uint32]uint64{}}
	d := newDigests(1000, false)
	now := time.Unix(1000, 0)
	d.wall = func() time.Time { return now }
	d.boot = func() uint64 { return uint64(now.UnixNano()) }
	one, two := []byte("one"), []byte("two")
	exec := func(inode uint64, changed time.Duration) (fileKey, *record.Process) {
		p := &record.Process{Pid: 1, Inode: inode, Executable: []byte("/x"), Ctime: now.Add(-changed).UnixNano()}
		d.observe(of(d, record.ClassProcessExec), &record.Event{Process: p}, c)
		return fileKey{inode: inode, ctime: p.Ctime}, p
	}
	// read answers the job that is queued, as a hasher would.
	read := func(h hashed) {
		t.Helper()
		select {
		case j := <-d.jobs[queueSmall]:
			d.settle(hashDone{j, h, now.UnixNano()-j.key.ctime >= int64(settleAge)}, c)
		default:
			t.Fatal("nothing is to be read")
		}
	}
	idle := func() {
		t.Helper()
		d.collect(c)
		if n := len(d.jobs[queueSmall]); n > 0 {
			t.Fatalf("%d files are to be read too early", n)
		}
	}
	told := func(sum []byte, reason string) {
		t.Helper()
		if len(c.all) != 1 || !bytes.Equal(c.all[0].e.Process.Sha256, sum) || c.all[0].e.Reason != reason {
			t.Errorf("told %v, want %q %q", c.all, sum, reason)
		}
		c.all = nil
		if d.count != 0 || d.bytes != 0 || len(d.awaiting) != 0 || len(d.later) != 0 {
			t.Errorf("%d events of %d bytes still wait", d.count, d.bytes)
		}
	}
	known := func(k fileKey, want bool) {
		t.Helper()
		if _, ok := d.known.get(k); ok != want {
			t.Errorf("remembered %v, want %v", ok, want)
		}
	}
	later := func() { now = now.Add(settleAge); d.collect(c) }

	k, _ := exec(1, 50*time.Millisecond) // stands: told when that is certain
	read(hashed{sum: one})
	known(k, false)
	idle()
	later()
	read(hashed{sum: one})
	known(k, true)
	told(one, "")

	k, _ = exec(2, 50*time.Millisecond) // rewritten under the same times
	read(hashed{sum: one})
	later()
	read(hashed{sum: two})
	known(k, false)
	told(nil, reasonChanged)

	k, _ = exec(3, 50*time.Millisecond) // gone meanwhile: what was read is told as what it is
	read(hashed{sum: one})
	later()
	read(hashed{reason: reasonGone})
	known(k, false)
	told(one, reasonUnsettled)

	k, _ = exec(4, time.Millisecond) // ran within the tick: another may have run than was read
	read(hashed{sum: one})
	later()
	read(hashed{sum: one})
	known(k, true)
	told(one, reasonUnsettled)

	k, _ = exec(5, -time.Hour) // from the future: the clock was set back
	read(hashed{sum: one})
	later()
	read(hashed{sum: one})
	known(k, false)
	told(one, reasonUnsettled)

	k, _ = exec(6, settleAge)
	read(hashed{sum: one})
	known(k, true)
	told(one, "")

	exec(7, 50*time.Millisecond)
	read(hashed{sum: one})
	d.finish(c)
	told(one, reasonUnsettled)

	// A file system that a process of the guest answers for is not read,
	// which is told once.
	for range 2 {
		d.observe(subject{record.ClassProcessExec, d.boot(), origin{magic: 0x65735546}}, &record.Event{Process: &record.Process{Pid: 1, Inode: 8}}, c)
		idle()
	}
	told(nil, reasonRemote)
}

// hung are digests whose hashers get no answer for files from number 100 on,
// until hang is closed, and whose clock the test sets.
type hung struct {
	*digests
	c      *collector
	now    atomic.Uint64
	hang   chan struct{}
	opened chan uint64
	states []bool // what the hooks record was sealed to say
	wait   func(n int) []seen
	stop   func()
}

func newHung(t *testing.T) *hung {
	x := &hung{digests: newDigests(1000, false), hang: make(chan struct{}), opened: make(chan uint64, 100)}
	x.now.Store(uint64(time.Hour))
	old(x.digests)
	x.mono = x.now.Load
	x.changed = func(reading bool, _ Sink) { x.states = append(x.states, reading) }
	hang := x.hang
	x.hasher = func() *hasher {
		h := newHasher(x.wall)
		h.open = func(name string, key fileKey) (*os.File, error) {
			x.opened <- key.inode
			if key.inode >= 100 {
				<-hang
			}
			return nil, unix.ENOENT
		}
		return h
	}
	x.c, x.wait, x.stop = running(t, x.digests)
	return x
}

func (x *hung) exec(inode uint64) {
	x.observe(of(x.digests, record.ClassProcessExec), &record.Event{Process: &record.Process{Pid: 1, Inode: inode, Ctime: int64(inode)}}, x.c)
}

// executes until a hasher is at work upon the file.
func (x *hung) reading(inode uint64) {
	x.exec(inode)
	for got := range x.opened {
		if got == inode {
			return
		}
	}
}

// pass lets time go by and looks.
func (x *hung) pass(d time.Duration) {
	x.now.Add(uint64(d))
	x.collect(x.c)
}

func (x *hung) last(t *testing.T, n int, inode uint64, want string) {
	t.Helper()
	if s := x.wait(n)[n-1]; s.e.Process.Inode != inode || s.e.Reason != want {
		t.Errorf("%v, want %s of %d", s.e, want, inode)
	}
}

// A file system that does not answer costs a few hashers, and then all digests,
// which is sealed: it does not hold up the others, nor the agent. When it
// answers, or an hour has gone by, files are read again.
func TestDigestsStuck(t *testing.T) {
	x := newHung(t)
	n := 0
	for i := range uint64(maxStuck) {
		x.reading(100 + i)
		x.exec(1 + i) // behind it
		x.pass(stuckAfter)
		x.pass(lookAgain)
		n++
		if i == maxStuck-1 {
			x.wait(n + 1)
			break
		}
		x.last(t, n, 100+i, reasonStuck)
		n++
		x.last(t, n, 1+i, reasonGone) // by another hasher
	}
	for _, s := range x.c.all[n-1:] {
		if s.e.Reason != reasonStuck {
			t.Errorf("%v, want %s", s.e, reasonStuck)
		}
	}
	n++
	x.exec(50)
	n++
	x.last(t, n, 50, reasonStuck)
	x.exec(50) // told once
	x.pass(grantAfter - time.Second)
	if len(x.c.all) != n || len(x.states) != 1 || x.states[0] {
		t.Fatalf("%d told, want %d, states %v", len(x.c.all), n, x.states)
	}
	x.pass(time.Second) // one more is tried, and lost
	x.exec(50)
	n++
	x.last(t, n, 50, reasonGone)
	x.reading(110)
	x.pass(stuckAfter)
	x.pass(lookAgain)
	n++
	x.last(t, n, 110, reasonStuck)
	x.exec(51)
	n++
	x.last(t, n, 51, reasonStuck)
	close(x.hang) // all come back
	for x.full() {
		x.collect(x.c)
	}
	x.exec(51)
	n++
	x.last(t, n, 51, reasonGone)
	x.stop()
	if d := x.digests; d.count != 0 || d.bytes != 0 || len(x.c.all) != n {
		t.Errorf("%d wait, %d are told, want %d", d.count, len(x.c.all), n)
	}
	if len(x.states) != 4 || x.states[0] || !x.states[1] || x.states[2] || !x.states[3] {
		t.Errorf("states %v, want off, on, off, on", x.states)
	}
}

// An agent that was stopped itself gives nobody up: whoever answers at the
// second look was only stopped too.
func TestDigestsStopped(t *testing.T) {
	x := newHung(t)
	x.reading(100)
	x.pass(10 * stuckAfter)
	x.collect(x.c)
	w := x.workers[0]
	if w.suspect == 0 {
		t.Fatal("nobody has looked")
	}
	w.alive()
	x.pass(lookAgain)
	if len(x.lost) != 0 || len(x.c.all) != 0 {
		t.Errorf("%d given up, told %v", len(x.lost), x.c.all)
	}
	close(x.hang)
	x.stop()
}

// Whoever mounts a file system of their own chooses its numbers and times: it is
// not taken for one that is known.
func TestDigestsForged(t *testing.T) {
	c := &collector{lost: map[uint32]uint64{}}
	d := newDigests(1000, false)
	old(d)
	sum := bytes.Repeat([]byte{1}, 32)
	d.known.put(fileKey{device: 7, inode: 8, ctime: 1}, hashed{sum: sum})
	exec := func(from origin) []byte {
		e := &record.Event{Process: &record.Process{Pid: 1, Device: 7, Inode: 8, Ctime: 1}}
		d.observe(subject{record.ClassProcessExec, d.boot(), from}, e, c)
		return e.Process.Sha256
	}
	if !bytes.Equal(exec(onDisk), sum) {
		t.Error("a known file has no digest")
	}
	for _, o := range []origin{{magic: 0}, {magic: 0x65735546}, {magic: 0xef53, doubt: true}, {magic: btrfs}} {
		if got := exec(o); got != nil {
			t.Errorf("%+v: told to be what is known", o)
		}
	}
	if len(c.all) != 3 || c.all[0].e.Reason != reasonRemote || c.all[1].e.Reason != reasonUnsettled || c.all[2].e.Reason != reasonUnsettled {
		t.Errorf("told %v", c.all)
	}
}

// What may change unseen is read each time, and certain never.
func TestDigestsDoubt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write(t, path, "hello")
	want := sha256.Sum256([]byte("hello"))
	d := newDigests(100, false)
	old(d)
	c, wait, stop := running(t, d)
	defer stop()
	for i := range 2 {
		_, p, _ := listed(t, path)
		e := &record.Event{Process: p}
		d.observe(subject{record.ClassProcessExec, d.boot(), origin{magic: 0xef53, doubt: true}}, e, c)
		if s := wait(i + 1)[i]; e.Process.Sha256 != nil || !bytes.Equal(s.e.Process.Sha256, want[:]) || s.e.Reason != reasonUnsettled {
			t.Errorf("%d: %v", i, s.e)
		}
	}
}

// Whoever writes files without end pushes no program out, and what waits is
// bounded by bytes.
func TestDigestsFlood(t *testing.T) {
	c := &collector{lost: map[uint32]uint64{}}
	d := newDigests(1000, true)
	long := bytes.Repeat([]byte("x"), 6000)
	p := &record.Process{Pid: 1, Executable: long, FilesystemPath: long}
	for i := range uint64(2000) {
		d.observe(of(d, record.ClassFileClose), &record.Event{Process: p, File: &record.File{Inode: i % 200, Path: long, Ctime: 1}}, c)
	}
	if d.bytes > maxAwaitingBytes || d.bytes < maxAwaitingBytes/2 || c.lost[record.NoLane] != uint64(2000-d.count) {
		t.Errorf("%d events of %d bytes wait, lost %v", d.count, d.bytes, c.lost)
	}
	if d.bytes > maxAwaitingBytes-100<<10 {
		for key, w := range d.awaiting { // room for one
			d.release(key, w, hashed{}, c)
			break
		}
	}
	d.observe(of(d, record.ClassProcessExec), &record.Event{Process: &record.Process{Pid: 2, Inode: 9}}, c)
	if len(d.jobs[queueSmall]) != 1 || len(d.jobs[queueWritten]) == 0 {
		t.Errorf("%d programs are to be read and %d files", len(d.jobs[queueSmall]), len(d.jobs[queueWritten]))
	}
	// Programs first.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.jobs[queueLarge] <- hashJob{key: fileKey{inode: 77}}
	go newWorker(newHasher(time.Now), d.jobs[queueLarge], d.jobs[queueWritten], d.boot).run(ctx, d.done)
	if first := <-d.done; first.job.key.inode != 77 {
		t.Errorf("inode %d is read before a program", first.job.key.inode)
	}
}

// A queue that is full is told as loss, and what nobody came to at the end is
// told too.
func TestDigestsFull(t *testing.T) {
	d := newDigests(1000, false)
	c := &collector{lost: map[uint32]uint64{}}
	observe := func(inode uint64) {
		d.observe(of(d, record.ClassProcessExec), &record.Event{Process: &record.Process{Pid: 1, Inode: inode, Executable: []byte("/x")}}, c)
	}
	for i := range uint64(maxHashJobs + 10) {
		observe(i)
	}
	if c.lost[record.NoLane] != 10 || d.count != maxHashJobs {
		t.Errorf("lost %v, %d awaited", c.lost, d.count)
	}
	before, most := d.count, maxAwaitingBytes/1024
	for range most {
		observe(0) // of one file: no further job
	}
	told := d.count
	if d.bytes > maxAwaitingBytes || told <= before || c.lost[record.NoLane] != uint64(10+before+most-told) {
		t.Errorf("lost %v, %d awaited", c.lost, d.count)
	}
	d.finish(c) // the hashers never ran
	if len(c.all) != told || c.all[0].e.Reason != reasonStopped || d.count != 0 || d.bytes != 0 || len(d.awaiting) != 0 || len(d.jobs[queueSmall]) != 0 {
		t.Errorf("%d told at the end", len(c.all))
	}
}
