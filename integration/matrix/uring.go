package matrix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of io_uring that acts use.
const (
	uringSQPoll   = 1 << 1 // setup
	uringAsync    = 1 << 4 // request
	uringWaitDone = 1 << 0 // enter
	uringWakeUp   = 1 << 1
	opFallocate   = 17
	opOpenat      = 18
	opClose       = 19
	opWrite       = 23
	offCQRing     = 0x8000000
	offSQEs       = 0x10000000
)

// uring is a ring of one process, for one request at a time.
type uring struct {
	fd       int
	sqpoll   bool
	params   [120]byte
	sq, cq   []byte
	requests []byte
}

func newUring(flags uint32) (*uring, error) {
	u := &uring{sqpoll: flags&uringSQPoll != 0}
	binary.NativeEndian.PutUint32(u.params[8:], flags)
	binary.NativeEndian.PutUint32(u.params[16:], 2000) // idle milliseconds of the kernel's thread
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&u.params[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w", errno)
	}
	u.fd = int(fd)
	sqes, cqes := u.u32(0), u.u32(4)
	var err error
	for _, m := range []struct {
		at     *[]byte
		offset int64
		size   uint32
	}{{&u.sq, 0, u.u32(40+24) + 4*sqes}, {&u.cq, offCQRing, u.u32(80+20) + 16*cqes}, {&u.requests, offSQEs, 64 * sqes}} {
		if *m.at, err = unix.Mmap(u.fd, m.offset, int(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			return nil, fmt.Errorf("map io_uring: %w", err)
		}
	}
	return u, nil
}

func (u *uring) u32(at int) uint32 { return binary.NativeEndian.Uint32(u.params[at:]) }

func word(b []byte, at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[at])) }

// request is what an entry of the ring says.
type request struct {
	op, flags byte
	fd        int
	off, addr uint64
	length    uint32
	opFlags   uint32
}

// do has the kernel do a request, and returns its result.
func (u *uring) do(r request) (int, error) {
	b := u.requests[:64]
	clear(b)
	b[0], b[1] = r.op, r.flags
	binary.NativeEndian.PutUint32(b[4:], uint32(r.fd))
	binary.NativeEndian.PutUint64(b[8:], r.off)
	binary.NativeEndian.PutUint64(b[16:], r.addr)
	binary.NativeEndian.PutUint32(b[24:], r.length)
	binary.NativeEndian.PutUint32(b[28:], r.opFlags)
	tail := word(u.sq, u.u32(40+4))
	*word(u.sq, u.u32(40+24)+4*(*tail&*word(u.sq, u.u32(40+8)))) = 0
	atomic.AddUint32(tail, 1)
	flags := uintptr(uringWaitDone)
	if u.sqpoll {
		flags |= uringWakeUp
	}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, flags, 0, 0); errno != 0 {
		return 0, fmt.Errorf("enter io_uring: %w", errno)
	}
	head := word(u.cq, u.u32(80))
	if atomic.LoadUint32(word(u.cq, u.u32(80+4))) == *head {
		return 0, errors.New("io_uring came back with nothing done")
	}
	res := int32(*word(u.cq, u.u32(80+20)+16*(*head&*word(u.cq, u.u32(80+8)))+8))
	atomic.AddUint32(head, 1)
	if res < 0 {
		return 0, fmt.Errorf("request %d of io_uring: %w", r.op, unix.Errno(-res))
	}
	return int(res), nil
}

func (u *uring) Close() error {
	return errors.Join(unix.Munmap(u.sq), unix.Munmap(u.cq), unix.Munmap(u.requests), unix.Close(u.fd))
}

// uringFile makes, writes and closes file f by requests alone.
func uringFile(e *Env, setup uint32, flags byte) error {
	u, err := newUring(setup)
	if err != nil {
		return err
	}
	addr, path := CString(e.Path("f"))
	fd, err := u.do(request{op: opOpenat, flags: flags, fd: unix.AT_FDCWD, addr: uint64(addr), length: 0o600, opFlags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY})
	if err != nil {
		return err
	}
	text := []byte("uring")
	if _, err = u.do(request{op: opWrite, flags: flags, fd: fd, addr: uint64(uintptr(unsafe.Pointer(&text[0]))), length: uint32(len(text))}); err != nil {
		return err
	}
	_, err = u.do(request{op: opClose, flags: flags, fd: fd})
	_ = path
	return errors.Join(err, e.Stat("f", e.Path("f")), u.Close())
}
