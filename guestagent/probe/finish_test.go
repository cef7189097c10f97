package probe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

// onMessage calls f for every line of the log that holds a text.
type onMessage struct {
	slog.Handler
	text string
	f    func()
}

func (h onMessage) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.f()
	}
	return nil
}

func (h onMessage) Enabled(context.Context, slog.Level) bool { return true }

// sockets returns both ends of a channel.
func sockets(t *testing.T) (guest, host net.Conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close() // FileConn has its own
	}
	return ends[0], ends[1]
}

func init() {
	// Names change until somebody kills the process, from a count on.
	actors["endless"] = func(dir string) error {
		if err := errors.Join(os.Chdir(dir), os.WriteFile("a", nil, 0o600)); err != nil {
			return err
		}
		for {
			if err := errors.Join(unix.Rename("a", "b"), unix.Rename("b", "a")); err != nil {
				return err
			}
		}
	}
}

// The whole agent ends in the middle of a storm that goes on, with a host that
// does not take its records: of what was done before the end each act is
// sealed or declared lost, and every lane closes.
func TestEndUnderLoad(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	p, err := Open(Config{Mode: Mode(*mode)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	release := make(chan struct{})
	guest, host := sockets(t)
	ports := make(chan guestagent.Port, 1)
	ports <- guest
	a, err := guestagent.New(guestagent.Config{
		Open: func() (guestagent.Port, error) {
			select {
			case p := <-ports:
				return p, nil
			default:
				return nil, errors.New("no other port")
			}
		},
		Source: func(ctx context.Context, a *guestagent.Agent) error {
			return errors.Join(p.Run(ctx, a), p.Finish(a))
		},
		Hooks: p.Hooks(), QueueBytes: 1 << 20, Grace: time.Minute + 50*time.Millisecond, Account: time.Minute,
		Log: slog.New(onMessage{slog.DiscardHandler, "the time is over", sync.OnceFunc(func() { close(release) })}),
	})
	if err != nil {
		t.Fatal(err)
	}
	books := agenttest.NewBooks()
	served, ran := make(chan error, 1), make(chan error, 1)
	h := agenttest.Host{Books: books, Welcome: wire.Welcome{WindowFrames: 2}, Answer: func(s *wire.Statement) (bool, string) {
		if s.Frame > 1 {
			<-release
		}
		return true, ""
	}}
	go func() { served <- h.Serve(context.Background(), host) }()
	go func() { ran <- a.Run(context.Background()) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := books.Until(ctx, func(v agenttest.View) bool { return v.Frame >= 1 }); err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	pid := uint32(actor(t, dir, "storm-names", dir).Process.Pid)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	endless := child(t, self, "act", "endless", workDir(t))
	a.Terminate(ctx, "terminated")
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	endless()
	_ = host.Close()
	<-served
	checkEnd(t, books.View(), pid)
}

// checkEnd holds the account against what was done.
func checkEnd(t *testing.T, v agenttest.View, pid uint32) {
	t.Helper()
	var told, lost, ended uint64
	for _, r := range v.Records {
		m, err := record.Decode(r.Header.Class, r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *record.Event:
			if r.Header.Class == record.ClassFileRename && m.Process.Pid == pid {
				told++
			}
		case *record.Lost:
			for _, c := range m.Counts {
				if record.Class(c.Class) == record.ClassFileRename {
					lost += c.Count
				}
				if c.Reason == record.LossReason_LOSS_REASON_AGENT_ENDED {
					ended += c.Count
				}
			}
		}
	}
	t.Logf("%d of %d told, %d of that class lost, %d because the agent ended", told, renames, lost, ended)
	if told > renames || told+lost < renames {
		t.Errorf("%d told and %d declared lost of %d", told, lost, renames)
	}
	if ended == 0 {
		t.Error("nothing was left at the end: the test does not show it")
	}
	for lane, l := range v.Lanes {
		if l.Counted != l.Arrived+l.Dropped {
			t.Errorf("lane %x does not close: %d counted, %d arrived, %d dropped", lane, l.Counted, l.Arrived, l.Dropped)
		}
	}
	if last := v.Records[len(v.Records)-1].Header.Class; last != record.ClassAgentStopped {
		t.Errorf("the last record is %s", last)
	}
}

// child starts a program and returns how to end it.
func child(t *testing.T, name string, args ...string) (end func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it has ended with an error, which Wait tells
		if err := cmd.Wait(); err == nil {
			t.Error("an endless storm ended by itself")
		}
	})
}
