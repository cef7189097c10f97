package virt

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/introspect/domain"
)

// attempt is one NewConnect under way. It cannot be interrupted: against a libvirtd that is stopped
// it hangs for as long as that lasts. So there is never more than one, and a later round waits on it
// again instead of starting another.
type attempt struct {
	done      chan struct{} // closed when conn and err are set
	conn      *libvirt.Connect
	err       error
	abandoned atomic.Int32 // 0 under way, 1 nobody wants it, 2 finished
}

func (h *Host) connect(ctx context.Context) (*libvirt.Connect, error) {
	if h.attempt == nil {
		a := &attempt{done: make(chan struct{})}
		h.attempt = a
		go func() {
			a.conn, a.err = libvirt.NewConnect(h.cfg.URI)
			close(a.done)
			if !a.abandoned.CompareAndSwap(0, 2) && a.err == nil {
				_, _ = a.conn.Close()
			}
		}()
	}
	a := h.attempt
	t := time.NewTimer(h.cfg.ConnectTimeout)
	defer t.Stop()
	select {
	case <-a.done:
		h.attempt = nil
		if a.err != nil {
			return nil, fmt.Errorf("connect to %s: %w", h.cfg.URI, a.err)
		}
		return a.conn, nil
	case <-t.C:
		return nil, fmt.Errorf("connect to %s: no answer within %v; is libvirtd stopped?", h.cfg.URI, h.cfg.ConnectTimeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// abandon gives up an attempt still under way; whoever comes second closes its connection.
func (h *Host) abandon() {
	a := h.attempt
	if a == nil || a.abandoned.CompareAndSwap(0, 1) {
		return
	}
	<-a.done
	if a.err == nil {
		_, _ = a.conn.Close()
	}
}

// listen serves one connection: register, resync, wait for its end. It returns why it ended.
func (h *Host) listen(ctx context.Context, conn *libvirt.Connect) (cause, detail string) {
	l := &link{conn: conn, users: 1}
	closed := make(chan libvirt.ConnectCloseReason, 1) // one connection is closed once
	if err := conn.RegisterCloseCallback(func(_ *libvirt.Connect, reason libvirt.ConnectCloseReason) {
		select {
		case closed <- reason:
		default:
		}
	}); err != nil {
		h.giveBack(l, nil)
		return "error", err.Error()
	}
	cov := &Coverage{URI: h.cfg.URI, Missing: map[string]string{}}
	// The test driver has no keepalive; everything else works there.
	cov.KeepAlive = h.keepAlive(conn)
	h.queue.hold()
	off := h.register(conn, cov)
	h.setLink(l)
	first, err := h.resync(ctx, cov)
	if _, missing := cov.Missing["lifecycle"]; missing && err == nil {
		err = fmt.Errorf("listen to libvirt: lifecycle events cannot be had: %s", cov.Missing["lifecycle"])
	}
	h.queue.release(first) // nil after an error: events heard meanwhile are told all the same
	cause, detail = "error", ""
	if err == nil {
		h.gap = nil
		h.stats.Connected.Store(1)
		h.cfg.Log.InfoContext(ctx, "libvirt is heard", "uri", cov.URI, "version", cov.LibvirtVersion, "domains", len(first)-1)
		watch, stop := context.WithCancel(ctx)
		dead := h.probe(watch)
		select {
		case <-ctx.Done():
			cause = "stop"
		case reason := <-closed:
			cause = closeCause(reason)
		case <-dead:
			cause, detail = "keepalive", "calls get no answer"
		}
		stop()
		h.stats.Connected.Store(0)
	} else {
		detail = err.Error()
	}
	h.setLink(nil)
	h.hangUp(l, off, cause)
	return cause, detail
}

// probe asks libvirt something from time to time, and closes the channel it returns when
// no answer comes for as long as keepalive would wait. Keepalive alone is not enough: libvirtd
// answers it also when all that would answer calls hang.
func (h *Host) probe(ctx context.Context) <-chan struct{} {
	dead := make(chan struct{})
	patience := h.cfg.KeepAliveInterval * time.Duration(h.cfg.KeepAliveCount+1)
	_ = h.calls.start(func() { // refused only when the adapter has stopped
		tick := time.NewTicker(h.cfg.KeepAliveInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := do(ctx, h.calls, domain.UUID{}, true, patience, func() (uint32, error) {
				return lent(h, func(c *libvirt.Connect) (uint32, error) { return c.GetLibVersion() })
			})
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				close(dead)
				return
			}
		}
	})
	return dead
}

func closeCause(r libvirt.ConnectCloseReason) string {
	switch r {
	case libvirt.CONNECT_CLOSE_REASON_EOF:
		return "libvirtd-exit"
	case libvirt.CONNECT_CLOSE_REASON_KEEPALIVE:
		return "keepalive"
	default:
		return "error"
	}
}

// hangUp takes the callbacks off and closes the connection, in the background and with a deadline:
// on a connection that is broken the calls fail at once, on one that hangs they do not come back.
func (h *Host) hangUp(l *link, off []func() error, cause string) {
	_, _ = do(context.Background(), h.calls, domain.UUID{}, true, h.cfg.CallTimeout, func() (struct{}, error) {
		if cause == "stop" {
			for _, f := range off {
				_ = f() // closing drops what is left
			}
		}
		_ = l.conn.UnregisterCloseCallback()
		h.giveBack(l, nil)
		return struct{}{}, nil
	})
}

func (h *Host) setLink(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.link = l
	close(h.changed)
	h.changed = make(chan struct{})
}

// resync reads the facts of every domain and compares them with what was known before.
func (h *Host) resync(ctx context.Context, cov *Coverage) ([]pending, error) {
	version, err := withConn(ctx, h, domain.UUID{}, false, func(c *libvirt.Connect) (uint32, error) { return c.GetLibVersion() })
	if err != nil {
		return nil, fmt.Errorf("ask libvirt for its version: %w", err)
	}
	cov.LibvirtVersion = fmt.Sprintf("%d.%d.%d", version/1000000, version/1000%1000, version%1000)
	list, err := h.List(ctx)
	if err != nil {
		return nil, err
	}
	now := h.cfg.Now()
	snaps := make([]facts, len(list))
	next := make(chan int)
	done := make(chan struct{})
	const workers = 8
	for range workers {
		go func() {
			for i := range next {
				snaps[i] = h.facts(ctx, list[i].UUID)
			}
			done <- struct{}{}
		}()
	}
	for i := range list {
		next <- i
	}
	close(next)
	for range workers {
		<-done
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	fresh := map[domain.UUID]Known{}
	out := []pending{{}}
	for i, d := range list {
		if errors.Is(snaps[i].err, ErrNotFound) {
			continue // it went away between the list and the look; its event is held back and follows
		}
		o := Observation{Kind: KindResync, Type: "vm.change", Word: "resync", Event: -1, Detail: -1, Domain: d, Time: now}
		fresh[d.UUID] = Known{Domain: d}
		ready := make(chan facts, 1)
		ready <- snaps[i]
		if s := snaps[i].snap; s != nil {
			fresh[d.UUID], o.Domain = s.Known(), s.Domain
		}
		out = append(out, pending{obs: o, facts: ready})
	}
	out[0] = pending{obs: Observation{Kind: KindConnected, Type: "vm.gap", Word: "connected", Event: -1, Detail: -1, Time: now,
		Coverage: cov, Gap: h.endGap(now, fresh)}}
	return out, nil
}

// endGap closes the open gap, if any, with what has changed, and takes over the fresh knowledge.
func (h *Host) endGap(now time.Time, fresh map[domain.UUID]Known) *Gap {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.known
	h.known = fresh
	if h.gap == nil {
		return nil
	}
	g := *h.gap
	g.To, g.Changes = now, compare(before, fresh)
	return &g
}
