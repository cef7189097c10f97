package virt

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"libvirt.org/go/libvirt"
)

// eventLoop is libvirt's event loop. There is one for each process, as libvirt has it; Hosts share
// it and the last to leave stops it.
var eventLoop struct {
	once  sync.Once
	setup error
	timer int // a timer that never fires by itself; setting it to 0 wakes the loop

	mu    sync.Mutex
	users int
	stop  *atomic.Bool
	done  chan struct{}
}

// enterLoop makes sure that the loop runs. Libvirt wants the loop's implementation registered
// before the first connection is made; later connections would get events only while a call is
// under way.
func enterLoop(stats *Stats) error {
	l := &eventLoop
	l.once.Do(func() {
		if l.setup = libvirt.EventRegisterDefaultImpl(); l.setup != nil {
			return
		}
		l.timer, l.setup = libvirt.EventAddTimeout(-1, func(int) {
			libvirt.EventUpdateTimeout(l.timer, -1)
		})
	})
	if l.setup != nil {
		return fmt.Errorf("set up libvirt's event loop: %w", l.setup)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	if l.users == 1 {
		l.stop, l.done = new(atomic.Bool), make(chan struct{})
		go runLoop(l.stop, l.done, stats)
	}
	return nil
}

// leaveLoop ends one use; the last waits for the loop's end.
func leaveLoop() {
	l := &eventLoop
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	if l.users > 0 {
		return
	}
	l.stop.Store(true)
	for {
		libvirt.EventUpdateTimeout(l.timer, 0)
		select {
		case <-l.done:
			return
		case <-time.After(50 * time.Millisecond): // the wake-up came just before the loop went to sleep
		}
	}
}

// runLoop owns its thread: libvirt's callbacks run on it.
func runLoop(stop *atomic.Bool, done chan struct{}, stats *Stats) {
	defer close(done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !stop.Load() {
		turnLoop(stats)
		stats.LoopTurns.Add(1)
	}
}

// WakeLoop has the event loop turn once, which Stats.LoopTurns shows: an idle loop may
// sleep for as long as it likes, and only one that was woken and does not turn is stuck.
// Where no Host runs it does nothing.
func WakeLoop() {
	l := &eventLoop
	l.mu.Lock()
	runs := l.users > 0
	l.mu.Unlock()
	if runs {
		libvirt.EventUpdateTimeout(l.timer, 0)
	}
}

// turnLoop runs the loop once. A panic in the binding loses the event at hand and not the process;
// it is counted, and the resync of the next connection finds what it hid.
func turnLoop(stats *Stats) {
	defer func() {
		if r := recover(); r != nil {
			stats.LoopPanics.Add(1)
		}
	}()
	if err := libvirt.EventRunDefaultImpl(); err != nil {
		stats.LoopErrors.Add(1)
		time.Sleep(10 * time.Millisecond) // never spin on a poll that fails
	}
}
