package matrix

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// native is the agent on this machine with a host of its own.
type native struct {
	t       *testing.T
	peer    *agenttest.Books
	records []*Sealed // of peer, decoded; of the test's goroutine
	ended   []agenttest.View
	start   func() (*exec.Cmd, error)
	agent   *exec.Cmd
	gate    gate

	mu   sync.Mutex
	errs []error
}

// gate is the host's end of the port. Closed, nobody reads.
type gate struct {
	*os.File
	mu sync.RWMutex // held for writing while the gate is closed
}

func (g *gate) Read(b []byte) (int, error) {
	g.mu.RLock()
	//lint:ignore SA2001 it only waits for the gate to open: a reader that already waits for bytes may take some more
	g.mu.RUnlock()
	return g.File.Read(b)
}

// startNative starts the agent with a raw terminal as its port: it can be
// opened by its path, and carries bytes both ways.
func startNative(t *testing.T, ctx context.Context, agent string) *native {
	t.Helper()
	master, slave, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(t.TempDir() + "/agent.log")
	if err != nil {
		t.Fatal(err)
	}
	n := &native{t: t, peer: agenttest.NewBooks(), gate: gate{File: master}, start: func() (*exec.Cmd, error) {
		cmd := exec.Command(agent, append([]string{"-mode", "tracepoint", "-port", slave.Name(), "-log-level", "debug",
			// What others do on this machine must not push the rows out of the queue.
			"-queue-bytes", strconv.Itoa(256 << 20)}, agentArgs...)...)
		cmd.Stdout, cmd.Stderr = log, log
		return cmd, cmd.Start()
	}}
	if n.agent, err = n.start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		h := agenttest.Host{Books: n.peer, Beat: wire.HeartbeatEvery}
		if err := h.Serve(ctx, &n.gate); err != nil && ctx.Err() == nil {
			n.mu.Lock()
			n.errs = append(n.errs, err)
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		err := n.stop()
		cancel()
		wg.Wait()
		_ = slave.Close()
		_ = master.Close() // closed by the host's end already
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, e := range n.errs {
			t.Errorf("host: %v", e)
		}
		if err != nil {
			t.Errorf("agent: %v", err)
		}
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("agent:\n%s", b[max(0, len(b)-4000):])
		}
	})
	if err := n.enrolled(ctx, 0); err != nil {
		t.Fatal(err)
	}
	return n
}

// enrolled waits for the first frame of a session other than the one before.
func (n *native) enrolled(ctx context.Context, before uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := n.peer.Until(ctx, func(v agenttest.View) bool { return v.Session != before && v.Frame > 0 }); err != nil {
		return fmt.Errorf("wait for the agent's first frame: %w", err)
	}
	return nil
}

// stop ends the agent as a service manager does.
func (n *native) stop() error {
	_ = n.agent.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait tells
	ended := make(chan error, 1)
	go func() { ended <- n.agent.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		_ = n.agent.Process.Kill()
		return fmt.Errorf("it did not end within 10 s of SIGTERM: %w", <-ended)
	}
}

func (n *native) StopReading(context.Context) error { n.gate.mu.Lock(); return nil }

func (n *native) Read(context.Context) error { n.gate.mu.Unlock(); return nil }

func (n *native) Settle(ctx context.Context) error {
	for {
		nonce := newNonce()
		if err := exec.CommandContext(ctx, "/bin/true", nonce).Run(); err != nil {
			return err
		}
		// Others may be busy here, and push it out.
		for range 100 {
			b, err := n.books(ctx)
			if err != nil {
				return err
			}
			if _, e := b.Exec(nonce); e != nil {
				return nil
			}
			if !pause(ctx, 100*time.Millisecond) {
				return fmt.Errorf("wait for what has happened to be sealed: %w", ctx.Err())
			}
		}
	}
}

func (n *native) RestartAgent(ctx context.Context) error {
	// What waits for the host when an agent ends is taken for about a second
	// only, and others may be busy here: all of the row up to now comes first.
	if err := n.Settle(ctx); err != nil {
		return err
	}
	before := n.peer.View().Session
	if err := n.stop(); err != nil {
		return fmt.Errorf("end agent: %w", err)
	}
	n.ended = append(n.ended, n.peer.View())
	var err error
	if n.agent, err = n.start(); err != nil {
		return err
	}
	return n.enrolled(ctx, before)
}

func (n *native) Shell(ctx context.Context, script string) error {
	if out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("run %q: %w: %s", script, err, out)
	}
	return nil
}

// openTerminal is a pair of a pseudo terminal that changes no byte.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	c, err := master.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	number := 0
	cerr := c.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL}
		raw.Cc[unix.VMIN] = 1
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &raw)
	})
	if cerr != nil || err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w, %w", cerr, err)
	}
	// It stays open here too, so that the master outlives the agent's opening and closing.
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	return master, slave, err
}

// books are what the host has verified.
func (n *native) books(context.Context) (*Books, error) {
	v := n.peer.View()
	for _, r := range v.Records[len(n.records):] {
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			return nil, err
		}
		n.records = append(n.records, &Sealed{Header: r.Header, Msg: m})
	}
	b, err := NewBooks(n.records, nil)
	if err != nil {
		return nil, err
	}
	for _, v := range append(slices.Clip(n.ended), v) {
		for lane, l := range v.Lanes {
			*b.lane(v.Session, lane) = Lane{Counted: l.Counted, Arrived: l.Arrived, Dropped: l.Dropped}
		}
	}
	return b, nil
}
