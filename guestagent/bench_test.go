package guestagent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
)

// bench is an agent with a source in the test's hands and a port that the test
// connects and disconnects.
type bench struct {
	t     *testing.T
	a     *guestagent.Agent
	books *agenttest.Books
	ports chan guestagent.Port
	end   func() error
	next  map[uint32]uint64
}

func start(t *testing.T, change func(*guestagent.Config)) *bench {
	t.Helper()
	b := &bench{t: t, books: agenttest.NewBooks(), ports: make(chan guestagent.Port, 1), next: map[uint32]uint64{}}
	cfg := guestagent.Config{
		Open: func() (guestagent.Port, error) {
			select {
			case p := <-b.ports:
				return p, nil
			default:
				return nil, errors.New("no port is plugged in")
			}
		},
		Source:  func(ctx context.Context, _ *guestagent.Agent) error { <-ctx.Done(); return nil },
		Hooks:   &record.Hooks{Os: "linux", Mode: "test"},
		Version: "test",
		Retry:   time.Millisecond,
		Grace:   time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.a, err = guestagent.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.a.Run(ctx) }()
	b.end = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// connect plugs a port in and serves it as a host. The returned function cuts
// the connection and returns what the host had to say.
func (b *bench) connect(h *agenttest.Host) func() error {
	b.t.Helper()
	h.Books = b.books
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	guest, host := conn(b.t, pair[0]), conn(b.t, pair[1])
	done := make(chan error, 1)
	var cut atomic.Bool
	go func() {
		err := h.Serve(context.Background(), host)
		if cut.Load() {
			err = nil
		}
		done <- err
	}()
	b.ports <- guest
	disconnect := sync.OnceValue(func() error {
		cut.Store(true)
		host.Close()
		return <-done
	})
	b.t.Cleanup(func() { _ = disconnect() })
	return disconnect
}

func conn(t *testing.T, fd int) net.Conn {
	f := osFile(fd)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// observe gives the agent n records of a lane.
func (b *bench) observe(lane uint32, n int) {
	for range n {
		p, err := record.Encode(&record.Event{Reason: fmt.Sprint(b.next[lane])})
		if err != nil {
			b.t.Fatal(err)
		}
		b.a.Observe(record.Header{Class: classOf(lane), Lane: lane, LaneSequence: b.next[lane]}, p)
		b.next[lane]++
	}
	b.a.Flush()
}

func (b *bench) until(what string, f func(agenttest.View) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	if err := b.books.Until(ctx, f); err != nil {
		v := b.books.View()
		b.t.Fatalf("%s: %v; frame %d, %d records, lanes %v", what, err, v.Frame, len(v.Records), v.Lanes)
	}
}

// reasons are the numbers of the sealed events of a lane, in order.
func reasons(t *testing.T, v agenttest.View, lane uint32) []string {
	var all []string
	for _, r := range v.Records {
		if r.Header.Lane != lane {
			continue
		}
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m.(*record.Event).Reason)
	}
	return all
}

func inOrder(t *testing.T, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, r := range got {
		if r != fmt.Sprint(i) {
			t.Fatalf("record %d is number %s", i, r)
		}
	}
}

func osFile(fd int) *os.File { return os.NewFile(uintptr(fd), "socket") }

// classOf is what the test's records of a lane are: the kernel's first ring
// carries processes, the second files.
func classOf(lane uint32) record.Class {
	if lane>>16 == 0 {
		return record.ClassProcessFork
	}
	return record.ClassFileModify
}
