package introspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/introspect/virt"
)

const (
	// imagesEvery is how often files to be hashed are looked for.
	imagesEvery = 5 * time.Second
	imageChunk  = 1 << 20
	// maxImageBytes is the largest file that is read: at the default rate, in 18 hours. A file
	// without data may claim any size, and those behind it wait.
	maxImageBytes = 4 << 40
	// DefaultImageRate is how many bytes of images are read in a second.
	DefaultImageRate = 64 << 20
)

// ImageStats counts what the hashing of images does.
type ImageStats struct {
	Pending atomic.Int64  // files still to be hashed
	Hashed  atomic.Uint64 // files read whole
	Cached  atomic.Uint64 // files whose digest was known
	Failed  atomic.Uint64 // files that could not be read, or changed meanwhile
	Bytes   atomic.Uint64 // bytes read
}

// hashed is what came of one file.
type hashed struct {
	file    virt.DiskFile
	sha256  []byte
	problem string
	cached  bool
	read    time.Time
}

// hash returns the digest of a file, from the cache if the file is the same. An
// error is the ledger's; what is wrong with the file is in the result.
func (r *Registry) hash(ctx context.Context, path string) (*hashed, error) {
	type result struct {
		h   *hashed
		err error
	}
	done := make(chan result, 1) // never blocks the reader
	go func() {
		// The thread keeps its low priority, so it ends with the goroutine.
		runtime.LockOSThread()
		lowPriority()
		h, err := r.digestOf(ctx, path)
		done <- result{h, err}
	}()
	select {
	case got := <-done:
		return got.h, got.err
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(2 * time.Second): // a look or a read that does not come back cannot be ended
			r.log.WarnContext(ctx, "reading an image does not end", "path", path)
		}
		return &hashed{}, nil
	}
}

// digestOf is hash in its thread: a file system that is gone may hold any of it.
func (r *Registry) digestOf(ctx context.Context, path string) (*hashed, error) {
	h := &hashed{file: virt.LookAt(path)}
	if h.file.Error != "" {
		r.imageStats.Failed.Add(1)
		h.problem = h.file.Error
		return h, nil
	}
	c, err := r.cached(&h.file)
	if err != nil {
		return nil, fmt.Errorf("look for the digest of %s: %w", path, err)
	}
	if c != nil {
		if sum, err := hex.DecodeString(c.SHA256); err == nil && len(sum) == sha256.Size {
			r.imageStats.Cached.Add(1)
			h.sha256, h.cached, h.read = sum, true, c.Read
			return h, nil
		}
	}
	sum, err := r.read(ctx, path, &h.file)
	h.read = r.cfg.Now()
	if err != nil {
		r.imageStats.Failed.Add(1)
		h.problem = err.Error()
		return h, nil
	}
	r.imageStats.Hashed.Add(1)
	h.sha256 = sum
	return h, nil
}

// errChanged says that a digest would be of no file that ever was.
var errChanged = errors.New("changed while it was read")

var errTooLarge = fmt.Errorf("more than %d bytes", int64(maxImageBytes))

// pseudo are file systems whose files do something when they are read, or have no end.
var pseudo = []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
	unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.SELINUX_MAGIC, unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, configfsMagic}

const configfsMagic = 0x62656570

// openImage opens a file that whoever describes a domain has named. It is looked at before
// it is opened: to open some devices is to use them, a watchdog for one.
func openImage(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
		return nil, err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFBLK || slices.Contains(pseudo, int64(fs.Type)) {
		return nil, errors.New("neither a file nor a block device")
	}
	if kind == unix.S_IFREG && st.Size > maxImageBytes {
		return nil, errTooLarge
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// read reads a file at the configured rate. as is what the file was like before.
func (r *Registry) read(ctx context.Context, path string, as *virt.DiskFile) ([]byte, error) {
	f, err := openImage(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum, buf, begin, total := sha256.New(), make([]byte, imageChunk), time.Now(), int64(0)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		dropCache(f, total, n)
		total += int64(n)
		r.imageStats.Bytes.Add(uint64(n))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if total > maxImageBytes {
			return nil, errTooLarge
		}
		due := time.Duration(float64(total) / float64(r.cfg.ImageRate) * float64(time.Second))
		pause.Reset(max(due-time.Since(begin), 0))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-pause.C:
		}
	}
	after := virt.LookAt(path)
	if !after.Same(as) {
		return nil, errChanged
	}
	return sum.Sum(nil), nil
}

// lowPriority has this thread's reads wait for everybody else's: class idle.
func lowPriority() {
	const whoProcess, classIdle = 1, 3 << 13
	_, _, _ = syscall.Syscall(syscall.SYS_IOPRIO_SET, whoProcess, 0, classIdle) // without it the rate alone bounds us
}

// dropCache gives back what was read: guests need the page cache more.
func dropCache(f *os.File, offset int64, n int) {
	const dontNeed = 4
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), uintptr(offset), uintptr(n), dontNeed, 0, 0) // advice only
}
