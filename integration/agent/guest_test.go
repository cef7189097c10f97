package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/integration/harness"
)

// host keeps a connection to the agent's socket, as the daemon does.
type host struct {
	books *agenttest.Books
	path  string

	mu   sync.Mutex
	errs []error
	stop func()
}

// connect serves until disconnect is called.
func (h *host) connect(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			c, err := net.Dial("unix", h.path)
			if err == nil {
				p := agenttest.Host{Books: h.books, Beat: wire.HeartbeatEvery}
				err = p.Serve(ctx, c)
				_ = c.Close()
			}
			if err != nil && ctx.Err() == nil {
				h.mu.Lock()
				h.errs = append(h.errs, err)
				h.mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	h.stop = func() {
		cancel()
		done.Wait()
	}
}

// event is a sealed event of a guest.
type event struct {
	h record.Header
	e *record.Event
}

func events(t *testing.T, v agenttest.View) []event {
	var all []event
	for _, r := range v.Records {
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := m.(*record.Event); ok {
			all = append(all, event{r.Header, e})
		}
	}
	return all
}

type guest struct {
	*testing.T
	ctx context.Context
	vm  *harness.VM
	h   *host
}

// sh runs a script and returns what it prints.
func (g *guest) sh(script string) string {
	g.Helper()
	out, err := g.vm.Output(g.ctx, script)
	if err != nil {
		g.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// find waits for a sealed event.
func (g *guest) find(what string, match func(event) bool) *record.Event {
	g.Helper()
	ctx, cancel := context.WithTimeout(g.ctx, time.Minute)
	defer cancel()
	var found *record.Event
	err := g.h.books.Until(ctx, func(v agenttest.View) bool {
		for _, e := range events(g.T, v) {
			if match(e) {
				found = e.e
				return true
			}
		}
		return false
	})
	if err != nil {
		log, _ := g.vm.Output(g.ctx, "agentctl log")
		g.h.mu.Lock()
		defer g.h.mu.Unlock()
		g.Fatalf("%s: %v\nagent: %s\nhost: %v", what, err, log, errors.Join(g.h.errs...))
	}
	return found
}

func (g *guest) count(match func(event) bool) (n int) {
	for _, e := range events(g.T, g.h.books.View()) {
		if match(e) {
			n++
		}
	}
	return n
}

func (g *guest) pid() int {
	g.Helper()
	pid, err := strconv.Atoi(g.sh("cat /run/provost-agent.pid"))
	if err != nil {
		g.Fatal(err)
	}
	return pid
}

// ticks is the processor time of the agent, in hundredths of a second.
func (g *guest) ticks() int {
	g.Helper()
	out := g.sh(fmt.Sprintf("cat /proc/%d/stat", g.pid()))
	f := strings.Fields(out[strings.LastIndexByte(out, ')')+1:])
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		g.Fatal(err)
	}
	return user + system
}
