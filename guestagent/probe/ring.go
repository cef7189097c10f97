package probe

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// busyPoll is how long the reader lets a busy ring fill. The programs
	// wake it earlier when a quarter is full. Records may wait for it twice:
	// those of an instant come together, so that their order is certain.
	busyPoll = 5 * time.Millisecond
	// idlePoll is how long it sleeps when nothing happens: the first event
	// wakes it. It only matters if that wake-up got lost.
	idlePoll = 100 * time.Millisecond
	// roundBytes bounds what is read of one ring in one round, and so the
	// memory that rounds take.
	roundBytes = 256 << 10
	// releaseBytes is how much is read before the programs get the room back.
	releaseBytes = 64 << 10
)

// sample is one record of a ring, in a round's memory.
type sample struct {
	time     uint64
	ring     int
	from, to int
}

// rings reads both rings and gives their records in the order of their times.
type rings struct {
	told  uint64 // everything up to this time has been given
	maps  [2]*ringMap
	epoll *os.File
	poll  syscall.RawConn // of epoll
	wake  int             // eventfd: stop waiting
	cur   round
	old   round
}

type round struct {
	mem     []byte
	samples []sample
}

func newRings(k *kernel) (*rings, error) {
	r := &rings{wake: -1}
	if err := r.makePoll(); err != nil {
		return nil, err
	}
	var err error
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		r.Close()
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	if err := r.add(r.wake, unix.EPOLLIN); err != nil {
		r.Close()
		return nil, err
	}
	for i, name := range []string{"crit", "bulk"} {
		if r.maps[i], err = mapRing(k.maps[name]); err != nil {
			r.Close()
			return nil, fmt.Errorf("read ring %s: %w", name, err)
		}
		// Edge: only a wake-up of the programs counts, not that data is
		// there. Else a busy ring would be read record by record.
		if err := r.add(k.maps[name].FD(), unix.EPOLLIN|unix.EPOLLET); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// makePoll makes an epoll that Go's own poller waits for. A thread that slept
// in a system call instead would have Go's monitor look after it every few
// microseconds: more wake-ups and more time than the events take.
func (r *rings) makePoll() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // how os knows that it can be polled
		_ = unix.Close(fd)
		return fmt.Errorf("make epoll: %w", err)
	}
	r.epoll = os.NewFile(uintptr(fd), "rings")
	if r.poll, err = r.epoll.SyscallConn(); err == nil {
		err = r.epoll.SetReadDeadline(time.Time{}) // fails where it is not polled
	}
	if err != nil {
		_ = r.epoll.Close()
		return fmt.Errorf("make epoll: %w", err)
	}
	return nil
}

func (r *rings) add(fd int, events uint32) error {
	var err error
	if e := r.poll.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	}); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("watch ring: %w", err)
	}
	return nil
}

// Close unmaps the rings. No other method may run.
func (r *rings) Close() error {
	var errs []error
	for _, m := range r.maps {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	if r.wake >= 0 {
		errs = append(errs, unix.Close(r.wake))
	}
	if r.epoll != nil {
		errs = append(errs, r.epoll.Close())
	}
	return errors.Join(errs...)
}

// stop ends a wait, now or the next. It may be called from any goroutine.
func (r *rings) stop() {
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // can only fail when it is set already
}

// start forgets a stop that has been obeyed.
func (r *rings) start() {
	var b [8]byte
	_, _ = unix.Read(r.wake, b[:]) // fails when nobody had called stop
}

// wait returns when a program woke us, on stop, or after d.
func (r *rings) wait(d time.Duration) {
	_ = r.epoll.SetReadDeadline(time.Now().Add(d)) // makePoll saw that it can be set
	_ = r.poll.Read(func(epoll uintptr) bool {     // fails at the deadline
		var ev [4]unix.EpollEvent
		n, err := unix.EpollWait(int(epoll), ev[:], 0)
		return n > 0 || err != nil // EINTR: as good as a wake-up
	})
}

func bootTime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // every kernel with BPF has it
	}
	return uint64(ts.Nano())
}

// drain reads a ring into the current round. It returns whether the ring was
// emptied, and the time of the newest record otherwise.
func (r *rings) drain(i int) (empty bool, newest uint64, err error) {
	limit, released := len(r.cur.mem)+roundBytes, len(r.cur.mem)
	defer r.maps[i].release()
	for len(r.cur.mem) < limit {
		from := len(r.cur.mem)
		if from-released > releaseBytes {
			r.maps[i].release()
			released = from
		}
		mem, ok, err := r.maps[i].next(r.cur.mem)
		if err != nil {
			return false, 0, fmt.Errorf("read ring: %w", err)
		}
		if !ok {
			return true, 0, nil
		}
		r.cur.mem = mem
		s := sample{ring: i, from: from, to: len(mem)}
		s.time = timeOf(mem[from:])
		newest = max(newest, s.time)
		r.cur.samples = append(r.cur.samples, s)
	}
	return false, newest, nil
}

// next does one round: it reads what is there and calls f for every record
// that no older one can follow any more, in the order of their times. Records
// read before their order is certain are kept for the next round (see holds).
// More says that there is something to do at once.
func (r *rings) next(final bool, f func(ring int, b []byte)) (n int, more bool, err error) {
	// All records with a time up to now have been reserved, so both rings
	// give everything that old, except what a program that was interrupted
	// between its clock and its ring still brings.
	horizon := bootTime()
	r.cur, r.old = r.old, r.cur
	r.cur.mem, r.cur.samples = r.cur.mem[:0], r.cur.samples[:0]
	var held [2]int
	for _, s := range r.old.samples {
		from := len(r.cur.mem)
		r.cur.mem = append(r.cur.mem, r.old.mem[s.from:s.to]...)
		held[s.ring] += s.to - s.from
		r.cur.samples = append(r.cur.samples, sample{s.time, s.ring, from, len(r.cur.mem)})
	}
	for i := range r.maps {
		if held[i] > roundBytes {
			// The other ring lags behind: read that one first.
			horizon = min(horizon, r.newestOf(i))
			more = true
			continue
		}
		empty, newest, err := r.drain(i)
		if err != nil {
			return n, false, err
		}
		if !empty {
			horizon = min(horizon, newest)
			more = true
		}
	}
	slices.SortStableFunc(r.cur.samples, func(a, b sample) int { return cmp.Compare(a.time, b.time) })
	r.told = horizon
	for n < len(r.cur.samples) && (final || r.cur.samples[n].time <= horizon) {
		s := r.cur.samples[n]
		f(s.ring, r.cur.mem[s.from:s.to:s.to])
		n++
	}
	r.cur.samples = slices.Delete(r.cur.samples, 0, n)
	return n, more, nil
}

// holds reports whether records were read whose order is not certain yet.
func (r *rings) holds() bool { return len(r.cur.samples) > 0 }

func (r *rings) newestOf(ring int) uint64 {
	var t uint64
	for _, s := range r.cur.samples {
		if s.ring == ring {
			t = max(t, s.time)
		}
	}
	return t
}
