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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/provostd/provost/introspect/virt"
)

const (
	// imagesEvery is how often files to be hashed are looked for.
	imagesEvery = 5 * time.Second
	imageChunk  = 1 << 20
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
	type result struct {
		sum []byte
		err error
	}
	done := make(chan result, 1) // never blocks the reader
	go func() {
		// The thread keeps its low priority, so it ends with the goroutine.
		runtime.LockOSThread()
		lowPriority()
		sum, err := r.read(ctx, path, &h.file)
		done <- result{sum, err}
	}()
	var got result
	select {
	case got = <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(2 * time.Second): // a read that does not come back cannot be ended
			r.log.WarnContext(ctx, "reading an image does not end", "path", path)
		}
		return h, nil
	}
	h.read = r.cfg.Now()
	if got.err != nil {
		r.imageStats.Failed.Add(1)
		h.problem = got.err.Error()
		return h, nil
	}
	r.imageStats.Hashed.Add(1)
	h.sha256 = got.sum
	return h, nil
}

// errChanged says that a digest would be of no file that ever was.
var errChanged = errors.New("changed while it was read")

// read reads a file at the configured rate. as is what the file was like before.
func (r *Registry) read(ctx context.Context, path string, as *virt.DiskFile) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() && st.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return nil, errors.New("neither a file nor a block device")
	}
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
