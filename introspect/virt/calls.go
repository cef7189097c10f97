package virt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Bounds on calls to libvirt. Each blocked call holds a thread, and calls that need a domain's job
// lock can block for as long as a migration takes.
const (
	maxCalls       = 24 // at a time, on all domains
	maxDomainCalls = 4  // at a time, on one domain
)

// calls bounds calls to libvirt, in number for each domain and in time. A call that misses its
// deadline goes on in the background until libvirt answers or the connection breaks; it keeps its
// place in the bounds, so a stuck domain uses up its own share and nobody else's (I8).
type calls struct {
	stats *Stats
	slots chan struct{} // one element for each ordinary call

	mu      sync.Mutex
	domains map[domain.UUID]*share // domains with calls under way or waiting
	running int                    // goroutines under way, also those of calls given up
	closed  bool                   // no more may begin
	idle    chan struct{}          // closed when closed is set and running is 0
}

// share is one domain's part of the calls.
type share struct {
	slots chan struct{}
	users int
}

func newCalls(stats *Stats) *calls {
	return &calls{stats: stats, slots: make(chan struct{}, maxCalls), domains: map[domain.UUID]*share{}, idle: make(chan struct{})}
}

// start runs f in a goroutine that close waits for; it refuses after close.
func (c *calls) start(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("call libvirt: %w: %w: the adapter has stopped", record.ErrRetry, ErrDisconnected)
	}
	c.running++
	go func() {
		f()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running--; c.closed && c.running == 0 {
			close(c.idle)
		}
	}()
	return nil
}

// close refuses further calls; the channel it returns is closed when all have come back.
func (c *calls) close() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		if c.running == 0 {
			close(c.idle)
		}
	}
	return c.idle
}

// do runs f with a deadline. An urgent call (a pause) passes the bounds: it must never wait behind
// other calls for the same domain. f must not touch the caller's variables after do has returned
// an error; results travel through its return value.
func do[T any](ctx context.Context, c *calls, id domain.UUID, urgent bool, limit time.Duration, f func() (T, error)) (T, error) {
	var zero T
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !urgent {
		if err := c.enter(ctx, id); err != nil {
			return zero, err
		}
	}
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1) // never blocks the call: one result
	done := func() {
		c.stats.CallsRunning.Add(-1)
		if !urgent {
			c.leave(id)
		}
	}
	c.stats.Calls.Add(1)
	c.stats.CallsRunning.Add(1)
	if err := c.start(func() {
		defer done()
		v, err := f()
		ch <- result{v, err}
	}); err != nil {
		done()
		return zero, err
	}
	select {
	case r := <-ch:
		return r.v, classify(r.err)
	case <-ctx.Done():
		c.stats.CallTimeouts.Add(1)
		return zero, fmt.Errorf("wait for libvirt: %w: %w", record.ErrRetry, ctx.Err())
	}
}

// enter waits for the domain's share first, so calls for a stuck domain hold no place of others.
func (c *calls) enter(ctx context.Context, id domain.UUID) error {
	c.mu.Lock()
	sh := c.domains[id]
	if sh == nil {
		sh = &share{slots: make(chan struct{}, maxDomainCalls)}
		c.domains[id] = sh
	}
	sh.users++
	c.mu.Unlock()
	select {
	case sh.slots <- struct{}{}:
	case <-ctx.Done():
		c.forget(id, sh)
		return fmt.Errorf("call libvirt: %w: %w: %w", record.ErrRetry, ErrBusy, ctx.Err())
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-sh.slots
		c.forget(id, sh)
		return fmt.Errorf("call libvirt: %w: %w: %w", record.ErrRetry, ErrBusy, ctx.Err())
	}
}

func (c *calls) leave(id domain.UUID) {
	<-c.slots
	c.mu.Lock()
	sh := c.domains[id]
	c.mu.Unlock()
	<-sh.slots
	c.forget(id, sh)
}

func (c *calls) forget(id domain.UUID, sh *share) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sh.users--; sh.users == 0 {
		delete(c.domains, id)
	}
}

// withConn runs f with a connection of its own, which stays open until f returns.
func withConn[T any](ctx context.Context, h *Host, id domain.UUID, urgent bool, f func(*libvirt.Connect) (T, error)) (T, error) {
	return do(ctx, h.calls, id, urgent, h.cfg.CallTimeout, func() (T, error) { return lent(h, f) })
}

// lent runs f with a connection that nobody else makes calls on until f returns.
func lent[T any](h *Host, f func(*libvirt.Connect) (T, error)) (T, error) {
	var zero T
	l, conn, err := h.borrow()
	if err != nil {
		return zero, err
	}
	v, err := f(conn)
	h.giveBack(l, conn)
	return v, err
}

// withDomain runs f with a domain found by its UUID and frees it.
func withDomain[T any](ctx context.Context, h *Host, id domain.UUID, urgent bool, f func(*libvirt.Domain) (T, error)) (T, error) {
	return withConn(ctx, h, id, urgent, func(conn *libvirt.Connect) (T, error) {
		dom, err := conn.LookupDomainByUUID(id[:])
		if err != nil {
			var zero T
			return zero, err
		}
		defer dom.Free()
		return f(dom)
	})
}

// maxSpare is how many connections wait for calls to come.
const maxSpare = 8

// link is the connection on which libvirt is heard, and those for calls beside it. Each
// call has a connection of its own: in libvirt's client (seen with 9.0, CVE-2024-4418) two threads
// that wait for answers on one connection can be given each other's memory when it breaks, and
// may not notice that it did. They are closed when the last user has left: a
// libvirt connection closed under a call would take the call's memory with it.
type link struct {
	conn *libvirt.Connect // for events; nobody makes calls on it while it hears
	// Guarded by Host.mu.
	users int
	spare []*libvirt.Connect
}

// borrow takes a connection of the present link; the caller gives it back. It may
// take as long as libvirtd hangs.
func (h *Host) borrow() (*link, *libvirt.Connect, error) {
	h.mu.Lock()
	l := h.link
	if l == nil {
		h.mu.Unlock()
		return nil, nil, fmt.Errorf("%w: %w", record.ErrRetry, ErrDisconnected)
	}
	l.users++
	if n := len(l.spare); n > 0 {
		conn := l.spare[n-1]
		l.spare = l.spare[:n-1]
		h.mu.Unlock()
		return l, conn, nil
	}
	h.mu.Unlock()
	conn, err := libvirt.NewConnect(h.cfg.URI)
	if err != nil {
		h.giveBack(l, nil)
		return nil, nil, fmt.Errorf("connect to %s for a call: %w", h.cfg.URI, err)
	}
	h.keepAlive(conn)
	return l, conn, nil
}

// keepAlive has a connection noticed that is dead. The test driver has no such thing.
func (h *Host) keepAlive(conn *libvirt.Connect) bool {
	return conn.SetKeepAlive(int(h.cfg.KeepAliveInterval/time.Second), h.cfg.KeepAliveCount) == nil
}

// giveBack ends the use of a link, and of a connection of it; nil: of none.
func (h *Host) giveBack(l *link, conn *libvirt.Connect) {
	if conn != nil {
		if alive, err := conn.IsAlive(); err != nil || !alive {
			h.hangUpOn(conn)
			conn = nil
		}
	}
	h.mu.Lock()
	if conn != nil && h.link == l && len(l.spare) < maxSpare {
		l.spare, conn = append(l.spare, conn), nil
	}
	var over []*libvirt.Connect
	if l.users--; l.users == 0 {
		over = append(l.spare, l.conn)
		l.spare = nil
	}
	h.mu.Unlock()
	if conn != nil {
		over = append(over, conn)
	}
	for _, c := range over {
		h.hangUpOn(c)
	}
}

// hangUpOn closes a connection. One that is broken already says so; there is nothing left to do.
func (h *Host) hangUpOn(conn *libvirt.Connect) { _, _ = conn.Close() }
