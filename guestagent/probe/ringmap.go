package probe

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ringMap is one BPF ring in this process's memory. The kernel would show the
// data twice in a row, so that no record has to be read in two pieces; here it
// is mapped once, because every page that is mapped counts as the agent's, and
// a record that goes over the end is put together where it is copied anyway.
//
// Layout, part of the kernel's interface: a page with the consumer's position,
// a page with the producer's, the data. A record is a header of 8 bytes and
// its sample, rounded up to 8; the header's first 4 bytes are the sample's
// length with two flags.
type ringMap struct {
	consumer []byte // one page, written by us
	producer []byte // one page, and the data behind it, read only
	data     []byte
	position uint64 // read up to here
}

const (
	ringBusy      = 1 << 31 // reserved and not submitted yet
	ringDiscarded = 1 << 30
	ringHeader    = 8
)

// errBadRing says that the ring holds what no kernel writes.
var errBadRing = errors.New("ring is not readable")

func mapRing(m *ebpf.Map) (*ringMap, error) {
	page := os.Getpagesize()
	size := int(m.MaxEntries())
	r := &ringMap{}
	var err error
	if r.consumer, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map consumer page of ring: %w", err)
	}
	if r.producer, err = unix.Mmap(m.FD(), int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, errors.Join(fmt.Errorf("map data of ring: %w", err), unix.Munmap(r.consumer))
	}
	r.data = r.producer[page:]
	r.position = atomic.LoadUint64(positionOf(r.consumer))
	return r, nil
}

// Close unmaps the ring. What was read of it is copied.
func (r *ringMap) Close() error {
	if err := errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.producer)); err != nil {
		return fmt.Errorf("unmap ring: %w", err)
	}
	return nil
}

func positionOf(page []byte) *uint64 { return (*uint64)(unsafe.Pointer(&page[0])) }

// next appends the oldest sample to mem. ok is false when there is none: the
// ring is empty, or its oldest record is still being written. What was read
// stays the ring's until release.
func (r *ringMap) next(mem []byte) (_ []byte, ok bool, err error) {
	mask := uint64(len(r.data) - 1)
	for r.position < atomic.LoadUint64(positionOf(r.producer)) {
		at := r.position & mask // of a header: 8 aligned, so never in two pieces
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[at])))
		if header&ringBusy != 0 {
			return mem, false, nil
		}
		n := uint64(header &^ (ringBusy | ringDiscarded))
		if n > mask-ringHeader {
			return mem, false, fmt.Errorf("%w: a sample of %d bytes at %d in a ring of %d", errBadRing, n, r.position, len(r.data))
		}
		r.position += (ringHeader + n + 7) &^ 7
		if header&ringDiscarded != 0 {
			continue
		}
		from := (at + ringHeader) & mask
		first := min(n, uint64(len(r.data))-from)
		mem = append(mem, r.data[from:from+first]...)
		return append(mem, r.data[:n-first]...), true, nil
	}
	return mem, false, nil
}

// release gives the room of what was read back to the programs.
func (r *ringMap) release() { atomic.StoreUint64(positionOf(r.consumer), r.position) }
