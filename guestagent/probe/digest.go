package probe

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	// maxDigests bounds how many files' digests are remembered.
	maxDigests = 4096
	// maxHashJobs bounds the files that wait to be read, and maxAwaiting the
	// events that wait for digests. Beyond, digests are told as lost.
	maxHashJobs = 256
	maxAwaiting = 1024
	// smallFile is the size up to which files are read by a hasher of their
	// own: they must not wait for large ones, because programs that are there
	// for a moment only are small.
	smallFile = 1 << 20
	// hashGrace is how long the end waits for a hasher. One that reads from a
	// file system that does not answer cannot be stopped, and must not stop
	// the agent from ending: it ends with the process, or when it is answered.
	hashGrace = time.Second
)

// digests gives executables, and files that were written, their SHA-256. An
// execution whose file is known carries it; else a record of its own follows
// when the file has been read. It never waits for that. All but the hashers
// belongs to the goroutine of Run.
type digests struct {
	limit    uint64 // size of the largest file that is read; 0: none is
	files    bool   // those that were written too
	boot     func() uint64
	known    *lru[fileKey, hashed]
	awaiting map[fileKey][]*awaited
	count    int             // of all in awaiting
	jobs     [2]chan hashJob // small files, and others; a hasher for each
	done     chan hashDone
	ended    chan struct{} // closed when the hashers have ended; nil: none was started
}

// awaited is a record that lacks its digest.
type awaited struct {
	class record.Class
	event *record.Event
}

func newDigests(limit uint64, files bool) *digests {
	return &digests{limit: limit, files: files, boot: bootTime, known: newLRU[fileKey, hashed](maxDigests),
		awaiting: map[fileKey][]*awaited{}, done: make(chan hashDone, maxHashJobs),
		jobs: [2]chan hashJob{make(chan hashJob, maxHashJobs), make(chan hashJob, maxHashJobs)}}
}

// start lets the hashers work until ctx ends; finish then waits for their end.
func (d *digests) start(ctx context.Context) {
	var workers sync.WaitGroup
	for _, jobs := range d.jobs {
		workers.Go(func() { newHasher().run(ctx, jobs, d.done) })
	}
	ended := make(chan struct{})
	d.ended = ended
	go func() {
		workers.Wait()
		close(ended)
	}()
}

// queue is the one for a file's size.
func (d *digests) queue(size uint64) chan hashJob {
	if size <= smallFile {
		return d.jobs[0]
	}
	return d.jobs[1]
}

// observe looks at an event that is about to be encoded.
func (d *digests) observe(class record.Class, e *record.Event, sink Sink) {
	if d.limit == 0 {
		return
	}
	switch p, f := e.Process, e.File; {
	case class == record.ClassProcessExec:
		key := fileKey{p.Device, p.Inode, p.Size, p.Mtime, p.Ctime}
		h, ok := d.known.get(key)
		switch {
		case ok:
			p.Sha256 = h.sum // none where the reason has been told
		default:
			d.want(key, record.ClassProcessDigest, &record.Event{Process: image(p), Parent: e.Parent, Ancestors: e.Ancestors}, fileNames(true, p.Pid, p.Ppid, p.Executable), sink)
		}
	case class == record.ClassFileClose && d.files && f != nil:
		key := fileKey{f.Device, f.Inode, f.Size, f.Mtime, f.Ctime}
		about := &record.Event{Process: identityOf(p), Parent: e.Parent, Ancestors: e.Ancestors, File: &record.File{Path: bytes.Clone(f.Path), FilesystemPath: bytes.Clone(f.FilesystemPath),
			Device: f.Device, Inode: f.Inode, Size: f.Size, Mode: f.Mode, Mtime: f.Mtime, Ctime: f.Ctime, Flags: f.Flags}}
		if h, ok := d.known.get(key); ok {
			d.tell(&awaited{record.ClassFileDigest, about}, h, sink)
			return
		}
		d.want(key, record.ClassFileDigest, about, fileNames(false, p.Pid, p.Ppid, f.Path), sink)
	}
}

// want has a file read, unless it is being read, or is too large.
func (d *digests) want(key fileKey, class record.Class, e *record.Event, names []string, sink Sink) {
	a := &awaited{class, e}
	if key.size > d.limit {
		d.known.put(key, hashed{reason: reasonTooLarge})
		d.tell(a, hashed{reason: reasonTooLarge}, sink)
		return
	}
	if d.count >= maxAwaiting {
		sink.Lose(record.NoLane, class, record.LossReason_LOSS_REASON_QUEUE_FULL, 1)
		return
	}
	if d.awaiting[key] == nil {
		select {
		case d.queue(key.size) <- hashJob{key, names}:
		default:
			sink.Lose(record.NoLane, class, record.LossReason_LOSS_REASON_QUEUE_FULL, 1)
			return
		}
	}
	d.awaiting[key] = append(d.awaiting[key], a)
	d.count++
}

// collect tells what has been read. It returns how many records that made.
func (d *digests) collect(sink Sink) (n int) {
	for {
		select {
		case r := <-d.done:
			n += d.settle(r, sink)
		default:
			return n
		}
	}
}

func (d *digests) settle(r hashDone, sink Sink) int {
	all := d.awaiting[r.key]
	delete(d.awaiting, r.key)
	d.count -= len(all)
	if r.sum != nil {
		d.known.put(r.key, r.hashed)
	}
	for _, a := range all {
		d.tell(a, r.hashed, sink)
	}
	return len(all)
}

// tell makes a record of a digest, or of why there is none.
func (d *digests) tell(a *awaited, h hashed, sink Sink) {
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
	if d.ended != nil {
		select {
		case <-d.ended:
		case <-time.After(hashGrace):
		}
	}
	d.collect(sink)
	for _, jobs := range d.jobs {
		for len(jobs) > 0 {
			<-jobs
		}
	}
	for key, all := range d.awaiting {
		for _, a := range all {
			d.tell(a, hashed{reason: reasonStopped}, sink)
		}
		delete(d.awaiting, key)
	}
	d.count = 0
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
