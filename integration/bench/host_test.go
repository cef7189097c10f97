package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// gate is the host's end of a channel. Shut, it reads nothing.
type gate struct {
	net.Conn
	mu    sync.Mutex
	open  *sync.Cond
	shut  bool
	gone  bool
	bytes uint64 // read so far
}

func newGate(c net.Conn) *gate {
	g := &gate{Conn: c}
	g.open = sync.NewCond(&g.mu)
	return g
}

func (g *gate) Read(b []byte) (int, error) {
	g.mu.Lock()
	for g.shut && !g.gone {
		g.open.Wait()
	}
	g.mu.Unlock()
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	g.bytes += uint64(n)
	g.mu.Unlock()
	return n, err
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	g.shut = shut
	g.mu.Unlock()
	g.open.Broadcast()
}

func (g *gate) Close() error {
	g.mu.Lock()
	g.gone = true
	g.mu.Unlock()
	g.open.Broadcast()
	return g.Conn.Close()
}

func (g *gate) read() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bytes
}

// names are the classes that the workloads count.
var names = map[record.Class]string{
	record.ClassProcessFork: "fork", record.ClassProcessExec: "exec", record.ClassProcessExit: "exit",
	record.ClassFileCreate: "create", record.ClassFileModify: "modify", record.ClassFileDelete: "delete", record.ClassFileChmod: "chmod",
	record.ClassNetworkConnect: "connect", record.ClassNetworkAccept: "accept",
}

// acts is how often processes did something, by class.
type acts map[record.Class]uint64

// host is the host's end of one agent, and its books. One goroutine uses it.
type host struct {
	l    net.Listener
	gate *gate
	h    *agenttest.Host
	done chan error

	hooks   *record.Hooks
	records uint64 // from rings
	payload uint64 // bytes of their payloads
	folded  uint64 // acts that came in sums
	lost    acts   // declared
	anyLost uint64
	direct  map[uint32]acts // by process
	below   map[uint32]acts // by parent
	ended   map[uint32]bool
	bad     error
}

func listen(path string) (*host, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	h := &host{l: l, done: make(chan error, 1), lost: acts{}}
	h.forget()
	h.h = &agenttest.Host{Books: agenttest.NewBooks(), Late: true, OnRecord: h.observe}
	return h, nil
}

// forget begins anew with what processes did; books go on.
func (h *host) forget() {
	h.direct, h.below, h.ended = map[uint32]acts{}, map[uint32]acts{}, map[uint32]bool{}
}

// accept waits for the agent and serves it until the connection ends.
func (h *host) accept(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = h.l.Close() })
	c, err := h.l.Accept()
	stop()
	if err != nil {
		return fmt.Errorf("await agent: %w", errOr(ctx.Err(), err))
	}
	h.gate = newGate(c)
	go func() { h.done <- h.h.Serve(context.Background(), h.gate) }()
	return nil
}

// close waits for the end of what accept began.
func (h *host) close() error {
	err := h.l.Close()
	if h.gate != nil {
		_ = h.gate.Close()
		if e := <-h.done; !errors.Is(e, io.EOF) && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (h *host) observe(o wire.Opened) {
	m, err := record.Decode(o.Header.Class, o.Payload)
	if err != nil {
		h.bad = errors.Join(h.bad, err)
		return
	}
	switch m := m.(type) {
	case *record.Hooks:
		h.hooks = m
	case *record.Lost:
		for _, c := range m.Counts {
			h.lost[record.Class(c.Class)] += c.Count
			h.anyLost += c.Count
		}
	case *record.Event:
		n := uint64(1)
		switch {
		case o.Header.Lane != record.NoLane:
			h.records++
			h.payload += uint64(len(o.Payload))
		case m.Flags&record.EventAggregated == 0:
			return // the agent's own
		default: // what a process did beyond its budget
			n = m.Count
			h.folded += n
		}
		p := m.Process
		if p == nil {
			return
		}
		count(h.direct, p.Pid, o.Header.Class, n)
		count(h.below, p.Ppid, o.Header.Class, n)
		if o.Header.Class == record.ClassProcessExit {
			h.ended[p.Pid] = true
		}
	}
}

func count(m map[uint32]acts, pid uint32, c record.Class, n uint64) {
	if m[pid] == nil {
		m[pid] = acts{}
	}
	m[pid][c] += n
}

// settle takes in what has arrived.
func (h *host) settle() error {
	if err := h.h.Settle(); err != nil {
		return err
	}
	select {
	case err := <-h.done:
		h.done <- err
		return fmt.Errorf("agent has left: %w", errOr(err, io.EOF))
	default:
	}
	return h.bad
}

// until settles until f holds.
func (h *host) until(ctx context.Context, what string, f func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := h.settle(); err != nil {
			return fmt.Errorf("await %s: %w", what, err)
		}
		if f() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// covers says whether the agent reports a class.
func (h *host) covers(c record.Class) bool {
	for _, x := range h.hooks.GetHooks() {
		if record.Class(x.Class) == c {
			return x.Name != ""
		}
	}
	return false
}

// check compares what a workload did with what arrived, one by one or in sums.
// lost is what had been declared before it began.
func (h *host) check(d *done, lost acts) error {
	var errs []error
	for c, name := range names {
		want, counted := d.counts[name]
		if !counted || !h.covers(c) {
			continue
		}
		got := h.direct[d.pid][c] + h.below[d.pid][c]
		missing := h.lost[c] - lost[c] + h.lost[0] - lost[0]
		// Others' events of the class may be among the lost ones.
		if got > want || got+missing < want {
			errs = append(errs, fmt.Errorf("%s: workload did it %d times, %d arrived and %d are declared lost", c, want, got, missing))
		}
	}
	return errors.Join(errs...)
}

// balanced says whether every lane is accounted for to the last event.
func (h *host) balanced() error {
	var errs []error
	for n, l := range h.h.Books.View().Lanes {
		if l.Counted != l.Arrived+l.Dropped {
			errs = append(errs, fmt.Errorf("lane %x: %d counted, %d arrived, %d declared lost", n, l.Counted, l.Arrived, l.Dropped))
		}
	}
	return errors.Join(errs...)
}
