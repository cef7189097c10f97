package probe

import (
	"bytes"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	// maxDigests bounds how many files' digests are remembered.
	maxDigests = 4096
	// maxHashJobs bounds the files that wait to be read in each queue, and
	// maxAwaitingBytes the events that wait for digests. Beyond, digests are
	// told as lost.
	maxHashJobs      = 256
	maxAwaitingBytes = 2 << 20
	// smallFile is the size up to which programs are read by a hasher of their
	// own: they must not wait for large ones, because programs that are there
	// for a moment only are small.
	smallFile = 1 << 20
	// hashGrace is how long the end waits for a hasher. One that reads from a
	// file system that does not answer cannot be stopped, and must not stop
	// the agent from ending: it ends with the process, or when it is answered.
	hashGrace = time.Second
	// stuckAfter is how long a hasher may get no answer, and maxStuck how many
	// may be without one at a time: a thread each. Each hour one more is tried,
	// up to worstStuck.
	stuckAfter = 30 * time.Second
	maxStuck   = 3
	worstStuck = 12
	grantAfter = time.Hour
	// lookAgain is how long after the first look a second one finds a hasher
	// stuck: if the whole agent was stopped meanwhile, it has answered by then.
	lookAgain = 2 * time.Second
)

// Queues of files to read. Whoever writes many files does not push a program
// out: programs have their own, and go first.
const (
	queueSmall = iota
	queueLarge
	queueWritten
	queues
)

// digests gives executables, and files that were written, their SHA-256. An
// execution whose file is known carries it; else a record of its own follows
// when the file has been read. It never waits for that. All but the hashers
// belongs to the goroutine of Run.
//
// A file that was changed right before is read at once, since it may be gone
// soon, and again when it is old enough: only a sum that stands then is
// remembered, and told without a reason beside it.
type digests struct {
	limit    uint64 // size of the largest file that is read; 0: none is
	files    bool   // those that were written too
	boot     func() uint64
	wall     func() time.Time
	known    *lru[fileKey, hashed]
	awaiting map[fileKey]*waiting
	count    int     // of all events in awaiting
	bytes    int     // what they take
	later    []again // files to read again
	due      int64   // when the first of them is to be read, wall clock
	jobs     [queues]chan hashJob
	done     chan hashDone
	hasher   func() *hasher
	running  context.Context               // of start, for those who replace others
	workers  []*worker                     // those at work
	under    sync.WaitGroup                // all of them
	mono     func() uint64                 // CLOCK_MONOTONIC: stands while the guest is suspended
	lost     []*worker                     // those that were given up and have not come back
	vacant   []*worker                     // those of them whose queues nobody serves
	room     int                           // how many may be lost before no file is read
	lostAt   uint64                        // when the newest was, or room was made
	unread   *lru[fileKey, bool]           // files of which it was told that none is read
	changed  func(reading bool, sink Sink) // tells that no file is read any more, or again
}

// waiting are the events that wait for one file.
type waiting struct {
	all   []*awaited
	first []byte // what was read of it too early
	doubt bool   // see origin
}

// awaited is a record that lacks its digest.
type awaited struct {
	class record.Class
	event *record.Event
	// unsure: it happened so soon after the file's last change that another
	// change behind it would not show; or none shows.
	unsure bool
	bytes  int
}

// again is a file that is to be read again at a time of the wall clock.
type again struct {
	job hashJob
	due int64
}

func newDigests(limit uint64, files bool) *digests {
	d := &digests{limit: limit, files: files, boot: bootTime, wall: time.Now, mono: monotonic, known: newLRU[fileKey, hashed](maxDigests),
		room: maxStuck, unread: newLRU[fileKey, bool](maxDigests), changed: func(bool, Sink) {}, awaiting: map[fileKey]*waiting{}, done: make(chan hashDone, maxHashJobs)}
	d.hasher = func() *hasher { return newHasher(d.wall) }
	for i := range d.jobs {
		d.jobs[i] = make(chan hashJob, maxHashJobs)
	}
	return d
}

// start lets the hashers work until ctx ends; finish then waits for their end.
func (d *digests) start(ctx context.Context) {
	d.running = ctx
	d.workers = d.workers[:0]
	d.employ(d.jobs[queueSmall], nil)
	d.employ(d.jobs[queueLarge], d.jobs[queueWritten])
}

// employ adds a hasher.
func (d *digests) employ(urgent, jobs <-chan hashJob) {
	w := newWorker(d.hasher(), urgent, jobs, d.mono)
	d.workers = append(d.workers, w)
	d.under.Go(func() { w.run(d.running, d.done) })
}

// relieve replaces hashers that their file system does not answer: nothing can
// call them back. When too many are lost so, no file is read until one comes
// back, or the time has made room for another try.
func (d *digests) relieve(sink Sink) (n int) {
	now := d.mono()
	d.rehire(now, sink)
	for i, w := range d.workers {
		if !w.overdue(now) {
			continue
		}
		j := w.job.Load()
		w.replaced.Store(true)
		if wait := d.awaiting[j.key]; wait != nil {
			n += d.release(j.key, wait, hashed{reason: reasonStuck}, sink)
		}
		d.workers = slices.Delete(d.workers, i, i+1)
		d.lost = append(d.lost, w)
		d.lostAt = now
		if !d.full() {
			d.employ(w.urgent, w.jobs)
			return n // the other, if it is stuck too, in the next round
		}
		if d.vacant = append(d.vacant, w); len(d.vacant) == 1 {
			d.changed(false, sink)
		}
		return n + d.surrender(sink)
	}
	return n
}

// full says whether no file is read because of those that were lost.
func (d *digests) full() bool { return len(d.lost) >= d.room }

// rehire gives back the places of those that have come back.
func (d *digests) rehire(now uint64, sink Sink) {
	d.lost = slices.DeleteFunc(d.lost, func(w *worker) bool { return w.back.Load() })
	if len(d.lost) == 0 {
		d.room = maxStuck
	}
	if d.full() && d.room < worstStuck && now-d.lostAt >= uint64(grantAfter) {
		d.room++
		d.lostAt = now
	}
	if len(d.vacant) == 0 || d.full() {
		return
	}
	for _, w := range d.vacant {
		d.employ(w.urgent, w.jobs)
	}
	d.vacant = nil
	d.unread = newLRU[fileKey, bool](maxDigests)
	d.changed(true, sink)
}

// surrender tells everything that waits that it will not be read.
func (d *digests) surrender(sink Sink) (n int) {
	for _, jobs := range d.jobs {
		for len(jobs) > 0 {
			<-jobs
		}
	}
	d.later = nil
	for key, w := range d.awaiting {
		h := hashed{reason: reasonStuck}
		if w.first != nil {
			h = hashed{w.first, reasonUnsettled}
		}
		n += d.release(key, w, h, sink)
	}
	return n
}

// subject is what of an event digests need beside the record.
type subject struct {
	class record.Class
	time  uint64 // of the event, CLOCK_BOOTTIME
	origin
}

// origin is where the content of a file comes from.
type origin struct {
	magic uint32 // number of its file system; 0: one of another user namespace, or not known
	// doubt: its content may change while its times stay.
	doubt bool
}

const btrfs = 0x9123683e

// local says whether reading a file ends, and its times are the kernel's.
func (o origin) local() bool { return o.magic != 0 && !remote[o.magic] }

// doubtful files are read, but never known: the next reading may give another
// sum under the same key. On Btrfs any user makes two subvolumes with files
// that have the same number.
func (o origin) doubtful() bool { return o.doubt || o.magic == btrfs }

// elsewhere is set in the keys of files that are not local: whoever has mounted
// them chooses all of it, and must not hit upon the key of another's file.
const elsewhere = 1 << 63

func (o origin) key(device, inode, size uint64, mtime, ctime int64) fileKey {
	if !o.local() {
		device |= elsewhere
	}
	return fileKey{device, inode, size, mtime, ctime}
}

// soon says whether an event happened within the clock's grain of a time of
// change.
func (d *digests) soon(s subject, ctime int64) bool {
	then := d.wall().UnixNano() - int64(d.boot()-s.time)
	return then-ctime < int64(grain)
}

// observe looks at an event that is about to be encoded.
func (d *digests) observe(s subject, e *record.Event, sink Sink) {
	if d.limit == 0 {
		return
	}
	switch p, f := e.Process, e.File; {
	case s.class == record.ClassProcessExec:
		key := s.key(p.Device, p.Inode, p.Size, p.Mtime, p.Ctime)
		a := &awaited{class: record.ClassProcessDigest, unsure: s.doubtful() || d.soon(s, p.Ctime)}
		h, ok := d.known.get(key)
		if ok && (h.sum == nil || !a.unsure) {
			p.Sha256 = h.sum // none where the reason has been told
			return
		}
		a.event = &record.Event{Process: image(p), Parent: e.Parent, Ancestors: e.Ancestors}
		queue := queueSmall
		if p.Size > smallFile {
			queue = queueLarge
		}
		d.want(hashJob{key, fileNames(true, p.Pid, p.Ppid, p.Executable), queue}, a, s.origin, sink)
	case s.class == record.ClassFileClose && d.files && f != nil:
		key := s.key(f.Device, f.Inode, f.Size, f.Mtime, f.Ctime)
		a := &awaited{class: record.ClassFileDigest, unsure: s.doubtful(), event: &record.Event{Process: identityOf(p), Parent: e.Parent, Ancestors: e.Ancestors,
			File: &record.File{Path: bytes.Clone(f.Path), FilesystemPath: bytes.Clone(f.FilesystemPath),
				Device: f.Device, Inode: f.Inode, Size: f.Size, Mode: f.Mode, Mtime: f.Mtime, Ctime: f.Ctime, Flags: f.Flags}}}
		d.want(hashJob{key, fileNames(false, p.Pid, p.Ppid, f.Path), queueWritten}, a, s.origin, sink)
	}
}

// want has a file read, unless it is known, is being read, is too large, or
// lies where reading may never end.
func (d *digests) want(j hashJob, a *awaited, from origin, sink Sink) {
	switch h, ok := d.known.get(j.key); {
	case ok:
		d.tell(a, h, sink)
		return
	case d.full():
		// Not for long, perhaps: nothing is remembered of it then.
		if _, told := d.unread.get(j.key); !told || a.class != record.ClassProcessDigest {
			d.unread.put(j.key, true)
			d.tell(a, hashed{reason: reasonStuck}, sink)
		}
		return
	case !from.local():
		d.without(j.key, a, reasonRemote, sink)
		return
	case j.key.size > d.limit:
		d.without(j.key, a, reasonTooLarge, sink)
		return
	}
	a.bytes = awaitedBytes(a.event)
	for _, name := range j.names {
		a.bytes += len(name)
	}
	if d.bytes+a.bytes > maxAwaitingBytes {
		sink.Lose(record.NoLane, a.class, record.LossReason_LOSS_REASON_QUEUE_FULL, 1)
		return
	}
	w := d.awaiting[j.key]
	if w == nil {
		select {
		case d.jobs[j.queue] <- j:
		default:
			sink.Lose(record.NoLane, a.class, record.LossReason_LOSS_REASON_QUEUE_FULL, 1)
			return
		}
		w = &waiting{}
		d.awaiting[j.key] = w
	}
	w.all = append(w.all, a)
	w.doubt = w.doubt || from.doubtful()
	d.count++
	d.bytes += a.bytes
}

// without tells why a file is not read. Of its next executions nothing is told.
func (d *digests) without(key fileKey, a *awaited, reason string, sink Sink) {
	d.known.put(key, hashed{reason: reason})
	d.tell(a, hashed{reason: reason}, sink)
}

// awaitedBytes is about what an event takes that waits: its own messages, and
// what it does not share with the table of processes.
func awaitedBytes(e *record.Event) int {
	n := 1024 + len(e.Process.Name) + len(e.Process.Executable) + len(e.Process.FilesystemPath)
	if f := e.File; f != nil {
		n += len(f.Path) + len(f.FilesystemPath)
	}
	return n
}

// collect tells what has been read, and has read again what is due. It returns
// how many records that made.
func (d *digests) collect(sink Sink) (n int) {
	d.repeat()
	n = d.relieve(sink)
	for {
		select {
		case r := <-d.done:
			n += d.settle(r, sink)
		default:
			return n
		}
	}
}

// repeat queues the files that are old enough by now. Where a queue is full
// they wait for the next round.
func (d *digests) repeat() {
	now := d.wall().UnixNano()
	if len(d.later) == 0 || now < d.due {
		return
	}
	d.due = math.MaxInt64
	d.later = slices.DeleteFunc(d.later, func(x again) bool {
		if x.due <= now {
			select {
			case d.jobs[x.job.queue] <- x.job:
				return true
			default:
			}
		}
		d.due = min(d.due, x.due)
		return false
	})
}

// settle takes what a hasher found out.
func (d *digests) settle(r hashDone, sink Sink) int {
	w := d.awaiting[r.job.key]
	if w == nil {
		return 0
	}
	if w.first == nil && r.sum != nil && !r.settled {
		// Its times may be in the future, by a clock that was set: one more
		// try, whatever they say.
		now := d.wall().UnixNano()
		x := again{r.job, min(r.job.key.ctime, now) + int64(settleAge)}
		if len(d.later) == 0 || x.due < d.due {
			d.due = x.due
		}
		w.first, d.later = r.sum, append(d.later, x)
		return 0
	}
	h := r.hashed
	switch {
	case w.first == nil: // read once, late enough; or not at all
	case r.sum == nil:
		h = hashed{w.first, reasonUnsettled}
	case !bytes.Equal(r.sum, w.first):
		h = hashed{reason: reasonChanged} // within the clock's grain
	case !r.settled:
		h.reason = reasonUnsettled
	}
	// Who else has a written file open may change it through a mapping, while
	// nobody has one that is executed.
	if h.sum != nil && h.reason == "" && !w.doubt && r.job.queue != queueWritten {
		d.known.put(r.job.key, h)
	}
	return d.release(r.job.key, w, h, sink)
}

// release tells all that waited for a file.
func (d *digests) release(key fileKey, w *waiting, h hashed, sink Sink) int {
	delete(d.awaiting, key)
	for _, a := range w.all {
		d.count--
		d.bytes -= a.bytes
		d.tell(a, h, sink)
	}
	return len(w.all)
}

// tell makes a record of a digest, or of why there is none.
func (d *digests) tell(a *awaited, h hashed, sink Sink) {
	if h.sum != nil && a.unsure {
		h.reason = reasonUnsettled
	}
	if a.class == record.ClassProcessDigest {
		a.event.Process.Sha256 = h.sum
	} else {
		a.event.File.Sha256 = h.sum
	}
	a.event.Reason = h.reason
	payload, err := record.Encode(a.event)
	if err != nil {
		sink.Lose(record.NoLane, a.class, record.LossReason_LOSS_REASON_UNDECODABLE, 1)
		return
	}
	sink.Observe(record.Header{Class: a.class, Lane: record.NoLane, Time: d.boot()}, payload)
}

// finish waits for the hashers, whose ctx has ended, and tells what they did
// not come to.
func (d *digests) finish(sink Sink) {
	ended := make(chan struct{})
	go func() { // ends with the last of them
		d.under.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(hashGrace):
	}
	d.collect(sink)
	for _, jobs := range d.jobs {
		for len(jobs) > 0 {
			<-jobs
		}
	}
	d.later = nil
	for key, w := range d.awaiting {
		h := hashed{reason: reasonStopped}
		if w.first != nil {
			h = hashed{w.first, reasonUnsettled}
		}
		d.release(key, w, h, sink)
	}
}

// identityOf is what names a process and its image. It shares no memory with a
// sample.
func identityOf(p *record.Process) *record.Process {
	return &record.Process{Pid: p.Pid, Tid: p.Pid, Start: p.Start, Ppid: p.Ppid, ParentStart: p.ParentStart, ExecCount: p.ExecCount,
		Name: bytes.Clone(p.Name), Executable: bytes.Clone(p.Executable), Flags: p.Flags, Credentials: p.Credentials, CgroupId: p.CgroupId,
		ContainerId: p.ContainerId, MountNamespace: p.MountNamespace, SessionId: p.SessionId, LoginUid: p.LoginUid}
}

// image is a process's identity and the file of its image.
func image(p *record.Process) *record.Process {
	i := identityOf(p)
	i.FilesystemPath = bytes.Clone(p.FilesystemPath)
	i.Device, i.Inode, i.Size, i.Mtime, i.Ctime, i.Links = p.Device, p.Inode, p.Size, p.Mtime, p.Ctime, p.Links
	return i
}
