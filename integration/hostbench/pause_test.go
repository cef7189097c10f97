package hostbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/enforce"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

// actor is libvirt, with the time at which a pause has come back.
type actor struct {
	*virt.Host
	paused chan time.Time // cap 1
}

func (a *actor) Pause(ctx context.Context, id domain.UUID) (before, after virt.Status, err error) {
	before, after, err = a.Host.Pause(ctx, id)
	a.paused <- time.Now()
	return before, after, err
}

// machine is a real domain on a libvirtd of its own.
type machine struct {
	uuid  domain.UUID
	guest *harness.Guest
	virt  *actor
	conn  *libvirt.Connect
	dom   *libvirt.Domain
}

func newMachine(t *testing.T, h *host) *machine {
	t.Helper()
	ctx := t.Context()
	img, err := harness.BuildImage(ctx, harness.ImageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/run", "pvb-")
	if err != nil {
		t.Fatal(err)
	}
	host, err := harness.NewHost(ctx, harness.HostConfig{Dir: dir, Name: "benchhost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	m := &machine{virt: &actor{paused: make(chan time.Time, 1)}}
	if m.guest, err = host.DefineGuest(ctx, harness.GuestConfig{Name: "bench", Image: img}); err != nil {
		t.Fatal(err)
	}
	if err := m.guest.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if m.uuid, err = domain.ParseUUID(m.guest.UUID()); err != nil {
		t.Fatal(err)
	}
	m.virt.Host, err = virt.New(virt.Config{URI: host.URI(), RunDir: filepath.Join(dir, "run/qemu"), Sink: func(context.Context, virt.Observation) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	h.start(m.virt.Run)
	if err := m.virt.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	if m.conn, err = libvirt.NewConnect(host.URI()); err != nil {
		t.Fatal(err)
	}
	if m.dom, err = m.conn.LookupDomainByUUIDString(m.guest.UUID()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.dom.Free(); err != nil {
			t.Error(err)
		}
		if _, err := m.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// fsyncs writes twice what a small commit writes and has each made durable, in
// the directory of the ledger.
func fsyncs(f *os.File) (time.Duration, error) {
	block := make([]byte, 4096)
	began := time.Now()
	for range 2 {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// bare suspends the domain through the binding alone.
func (m *machine) bare() (time.Duration, error) {
	began := time.Now()
	err := m.dom.Suspend()
	took := time.Since(began)
	return took, errors.Join(err, m.dom.Resume())
}

// pauses measures from the last byte of a frame to virDomainSuspend having
// come back, beside the two syncs and the call itself that it cannot do without.
func pauses(t *testing.T) {
	const rounds = 300
	if os.Geteuid() != 0 {
		t.Fatal("this section starts libvirtd and QEMU in namespaces: run it as root")
	}
	h := newHost(t, thousand(1000), guest.Config{})
	m := newMachine(t, h)
	e, err := enforce.New(enforce.Config{Store: h.store, Actor: m.virt, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Alert:   func(context.Context, enforce.Alert) (enforce.Handed, error) { return enforce.Handed{}, nil },
		Current: func(*chain.Log) bool { return true }, Running: func() []domain.UUID { return nil },
		Seal: func(context.Context, domain.UUID, []chain.MetaWrite, func() (chain.Entry, error)) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	h.start(e.Run)
	a, err := h.local(t.Context(), m.uuid)
	if err != nil {
		t.Fatal(err)
	}
	sync, err := os.Create(filepath.Join(h.dir, "sync"))
	if err != nil {
		t.Fatal(err)
	}
	defer sync.Close()
	payload, err := record.Encode(&record.Event{Process: &record.Process{Pid: 4711, Name: []byte("xmrig"), Executable: []byte("/tmp/xmrig")}})
	if err != nil {
		t.Fatal(err)
	}
	var whole, bare, added, suspend, synced []time.Duration
	for i := range rounds {
		frame, err := a.frame([]event{{record.ClassProcessExec, payload}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now() // the frame fits into the socket: its last byte is there when send returns
		if err := a.send(frame); err != nil {
			t.Fatal(err)
		}
		var at time.Time
		select {
		case at = <-m.virt.paused:
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: the domain is not paused", i)
		}
		if err := a.acked(); err != nil {
			t.Fatal(err)
		}
		if err := m.dom.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := h.settled(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		b, err := m.bare()
		if err != nil {
			t.Fatal(err)
		}
		s, err := fsyncs(sync)
		if err != nil {
			t.Fatal(err)
		}
		took := at.Sub(began)
		whole, bare, added, suspend, synced = append(whole, took), append(bare, b+s), append(added, took-b-s), append(suspend, b), append(synced, s)
	}
	for _, q := range []float64{0.5, 0.99} {
		result(fmt.Sprintf("host.pause.whole.p%g", 100*q), ms(quantile(whole, q)), "ms", "-")
		result(fmt.Sprintf("host.pause.suspend.p%g", 100*q), ms(quantile(suspend, q)), "ms", "-")
		result(fmt.Sprintf("host.pause.fsyncs.p%g", 100*q), ms(quantile(synced, q)), "ms", "-")
		// Both sides have rounds in which disk or QEMU were slow, and not the same
		// ones: at the ends of the distributions their difference says what we add,
		// while that of each round holds the noise of both.
		target := "-"
		if q == 0.99 {
			target = "target<=5"
		}
		result(fmt.Sprintf("host.pause.added.p%g", 100*q), ms(quantile(whole, q)-quantile(bare, q)), "ms", target)
		result(fmt.Sprintf("host.pause.paired.p%g", 100*q), ms(quantile(added, q)), "ms", "-")
	}
}

// settled waits until no action is under way.
func (h *host) settled(ctx context.Context, e *enforce.Enforcer) error {
	for e.InFlight() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// local connects an agent of this process for a domain.
func (h *host) local(ctx context.Context, id domain.UUID) (*agent, error) {
	l, err := h.newLog(ctx, id)
	if err != nil {
		return nil, err
	}
	a, err := newAgent(id, epoch, 0x77)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(h.dir, "local")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	start, err := guest.ProcessStart(os.Getpid())
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { err = a.accept(listener) })
	h.sessions.Set(&guest.Domain{UUID: id, Name: "bench", Socket: path, QEMU: guest.QEMU{Pid: os.Getpid(), Start: start}, Log: l, Incarnation: 1, Epoch: epoch})
	wg.Wait()
	return a, err
}
