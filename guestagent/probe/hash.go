package probe

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fileKey is one content of one file, as far as the kernel tells without
// reading it. Whoever changes the content changes the time of change, unless
// they set the clock, or are so quick that the clock still shows the same: it
// goes by ticks of up to ten milliseconds.
type fileKey struct {
	device, inode, size uint64
	mtime, ctime        int64
}

func keyOf(st *unix.Stat_t) fileKey {
	return fileKey{device: st.Dev, inode: st.Ino, size: uint64(st.Size), mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// hashed is what became of a file: its SHA-256, or why there is none.
type hashed struct {
	sum    []byte
	reason string
}

// Reasons why a file has no digest.
const (
	reasonTooLarge = "too large"
	reasonGone     = "gone"    // no name leads to it any more
	reasonChanged  = "changed" // while it was read, or before
	reasonStopped  = "agent stops"
	reasonRemote   = "not local" // its file system may never answer
	reasonStuck    = "no answer" // of its file system, or too many that gave none are waited for
	// reasonUnsettled stands beside a digest: it is of what was read, and the
	// file may have held something else under the same times right before.
	reasonUnsettled = "unsettled"
)

const (
	// settleAge is how old the last change of a file must be when its reading
	// begins, so that whoever changes it from then on changes its times.
	settleAge = 2 * time.Second
	// grain is more than the clock of file systems lags behind. What ran that
	// soon after a change may have been changed once more behind it.
	grain = 20 * time.Millisecond
)

// remote are the file systems whose contents come from elsewhere, by their
// numbers in statfs(2): other machines, or a process of any user. Reading them
// may never end, and their times are what the other side says.
var remote = map[uint32]bool{
	0x65735546: true,                                 // FUSE and virtiofs
	0x6969:     true,                                 // NFS
	0xff534d42: true, 0xfe534d42: true, 0x517b: true, // CIFS and SMB
	0x01021997: true,                   // 9p
	0x00c36400: true,                   // Ceph
	0x5346414f: true, 0x6b414653: true, // AFS
	0xf15f:     true, // eCryptfs: whatever lies below it
	0x73757245: true, // Coda
	0x564c:     true, // NCP
	0x786f4256: true, // shared folders of VirtualBox
	0xbacbacbc: true, // those of VMware
	0x0bd00bd0: true, // Lustre
	0x19830326: true, // BeeGFS
}

// hasher reads files in a goroutine of its own. It takes no more than a
// quarter of one processor, and lets everything else go first at the disk.
type hasher struct {
	now   func() time.Time // wall clock: that of the files' times
	pause func(context.Context, time.Duration)
	open  func(name string, key fileKey) (*os.File, error)
	alive func() // called whenever something was answered
	sum   hash.Hash
	buf   []byte
}

func newHasher(now func() time.Time) *hasher {
	return &hasher{now: now, pause: pause, open: openSame, alive: func() {}, sum: sha256.New(), buf: make([]byte, 64<<10)}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// longestPause bounds what a slow disk costs.
const longestPause = 5 * time.Second

const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
)

// worker is a hasher at work on its queues, and what others see of it.
type worker struct {
	*hasher
	urgent, jobs <-chan hashJob
	answered     atomic.Uint64 // time of the newest sign of life, CLOCK_MONOTONIC; 0: it waits for work
	job          atomic.Pointer[hashJob]
	replaced     atomic.Bool // it was given up: it ends when it comes back
	back         atomic.Bool // it did
	// Of whoever looks at it: what the newest sign of life was at the first
	// look that found it too old, and when that was.
	suspect, since uint64
}

func newWorker(h *hasher, urgent, jobs <-chan hashJob, mono func() uint64) *worker {
	w := &worker{hasher: h, urgent: urgent, jobs: jobs}
	h.alive = func() { w.answered.Store(mono()) }
	return w
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("read CLOCK_MONOTONIC: " + err.Error()) // every kernel has it
	}
	return uint64(ts.Nano())
}

// overdue says whether a hasher gets no answer. The agent may have been stopped,
// and the hasher with it: so it is looked at twice.
func (w *worker) overdue(now uint64) bool {
	answered := w.answered.Load()
	if answered == 0 || now < answered || now-answered < uint64(stuckAfter) {
		return false
	}
	if w.suspect != answered {
		w.suspect, w.since = answered, now
		return false
	}
	return now-w.since >= uint64(lookAgain)
}

// run hashes what comes until ctx ends, first what is urgent.
func (w *worker) run(ctx context.Context, done chan<- hashDone) {
	// The priority is the thread's. It is not unlocked, so that the thread
	// ends with the goroutine and nobody else gets it.
	runtime.LockOSThread()
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle) // where it fails, the pauses remain
	for {
		var j hashJob
		select {
		case j = <-w.urgent:
		default:
			select {
			case <-ctx.Done():
				return
			case j = <-w.urgent:
			case j = <-w.jobs:
			}
		}
		w.job.Store(&j)
		w.alive()
		settled := w.now().UnixNano()-j.key.ctime >= int64(settleAge)
		d := hashDone{job: j, hashed: w.hash(ctx, j), settled: settled}
		w.answered.Store(0)
		if w.replaced.Load() {
			w.back.Store(true)
			return
		}
		select {
		case done <- d:
		case <-ctx.Done():
			return
		}
	}
}

// hashJob is a file and the names that may lead to it.
type hashJob struct {
	key   fileKey
	names []string
	queue int // which one it belongs to
}

// hashDone is what became of a job. Settled: its file had last been changed long
// enough ago when reading began.
type hashDone struct {
	job hashJob
	hashed
	settled bool
}

// names are those that a file may be opened by: that of the image, if a
// process has it; and its path, as this process sees it, or one that stands
// in the right mount namespace.
func fileNames(image bool, pid, relative uint32, path []byte) []string {
	var names []string
	if image {
		names = append(names, "/proc/"+strconv.Itoa(int(pid))+"/exe")
	}
	if len(path) == 0 || path[0] != '/' {
		return names
	}
	names = append(names, string(path))
	if !image {
		names = append(names, "/proc/"+strconv.Itoa(int(pid))+"/root"+string(path))
	}
	return append(names, "/proc/"+strconv.Itoa(int(relative))+"/root"+string(path))
}

// hash tries the names in turn. Whoever a name leads to by now, only the file
// with that key is read.
func (h *hasher) hash(ctx context.Context, j hashJob) hashed {
	reason := reasonGone
	for _, name := range j.names {
		h.alive()
		f, err := h.open(name, j.key)
		if err == nil {
			var sum []byte
			sum, err = h.read(ctx, f, j.key)
			_ = f.Close()
			if err == nil {
				return hashed{sum: sum}
			}
		}
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, errOther):
			reason = reasonChanged
		case ctx.Err() != nil:
			return hashed{reason: reasonStopped}
		default:
			reason = brief(err)
		}
	}
	return hashed{reason: reason}
}

// errOther says that a name leads to another file, or another content.
var errOther = errors.New("it is another file")

// openSame opens a name if it leads to the file of a key. To find out it opens
// nothing: a device would act, a pipe would wait.
func openSame(name string, key fileKey) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find file: %w", err)
	}
	defer unix.Close(fd)
	if err := same(fd, key); err != nil {
		return nil, err
	}
	again := "/proc/self/fd/" + strconv.Itoa(fd)
	f, err := os.OpenFile(again, os.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		// Only a file's owner, or CAP_FOWNER, may leave its time of access alone.
		f, err = os.OpenFile(again, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	return f, nil
}

// same compares an open file with a key. Two file systems show other numbers
// than they have: Btrfs its devices, overlayfs its devices and, where its layers
// lie in several file systems, those of files. A file's number is compared in
// any case: times and size alone make nothing the same.
func same(fd int, key fileKey) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("examine file: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errOther
	}
	k := keyOf(&st)
	if k == key {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("examine file system: %w", err)
	}
	switch fs.Type {
	case unix.OVERLAYFS_SUPER_MAGIC:
		if k.inode != key.inode {
			k.inode = numberOf(fd)
		}
		k.device = key.device
	case unix.BTRFS_SUPER_MAGIC:
		k.device = key.device
	}
	if k != key {
		return errOther
	}
	return nil
}

// numberOf is the kernel's own number of an open file, 0 where it does not tell:
// before 5.14.
func numberOf(fd int) uint64 {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "ino:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func (h *hasher) read(ctx context.Context, f *os.File, key fileKey) ([]byte, error) {
	h.sum.Reset()
	// Whoever makes the file grow meanwhile does not make this endless.
	r := io.LimitReader(f, int64(key.size)+1)
	for {
		began := h.now()
		n, err := r.Read(h.buf)
		h.sum.Write(h.buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read file: %w", err)
		}
		if took := h.now().Sub(began); took > 0 {
			h.pause(ctx, min(3*took, longestPause))
		}
		h.alive()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	// It was read as it is only if it still is what it was.
	if err := same(int(f.Fd()), key); err != nil {
		return nil, err
	}
	return h.sum.Sum(nil), nil
}
