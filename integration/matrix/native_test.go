package matrix

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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
	peer *agenttest.Books

	mu   sync.Mutex
	errs []error
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
	cmd := exec.Command(agent, "-mode", "tracepoint", "-port", slave.Name(), "-log-level", "debug")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &native{peer: agenttest.NewBooks()}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		h := agenttest.Host{Books: n.peer, Beat: wire.HeartbeatEvery}
		if err := h.Serve(ctx, master); err != nil && ctx.Err() == nil {
			n.mu.Lock()
			n.errs = append(n.errs, err)
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait tells
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err = <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			err = fmt.Errorf("it did not end within 10 s of SIGTERM: %w", <-ended)
		}
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
	begin, cancelBegin := context.WithTimeout(ctx, time.Minute)
	defer cancelBegin()
	if err := n.peer.Until(begin, func(v agenttest.View) bool { return v.Frame > 0 }); err != nil {
		t.Fatalf("wait for the agent's first frame: %v", err)
	}
	return n
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
	var records []*Sealed
	for _, r := range v.Records {
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			return nil, err
		}
		records = append(records, &Sealed{Header: r.Header, Msg: m})
	}
	b, err := NewBooks(records, nil)
	if err != nil {
		return nil, err
	}
	for lane, l := range v.Lanes {
		*b.lane(lane) = Lane{Counted: l.Counted, Arrived: l.Arrived, Dropped: l.Dropped}
	}
	return b, nil
}
