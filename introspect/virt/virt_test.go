package virt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// collector is a sink that keeps what it gets.
type collector struct {
	mu   sync.Mutex
	all  []Observation
	wake chan struct{} // closed and replaced at each observation
	fail func(Observation) error
}

func newCollector() *collector { return &collector{wake: make(chan struct{})} }

func (c *collector) sink(_ context.Context, o Observation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(o); err != nil {
			return err
		}
	}
	c.all = append(c.all, o)
	close(c.wake)
	c.wake = make(chan struct{})
	return nil
}

func (c *collector) snapshot() []Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Observation(nil), c.all...)
}

// wait returns the first observation for which match says yes, from the index on, and the index after it.
func (c *collector) wait(t *testing.T, ctx context.Context, from int, what string, match func(Observation) bool) (Observation, int) {
	t.Helper()
	for {
		c.mu.Lock()
		all, wake := c.all, c.wake
		c.mu.Unlock()
		for i := from; i < len(all); i++ {
			if match(all[i]) {
				return all[i], i + 1
			}
		}
		select {
		case <-wake:
		case <-ctx.Done():
			for _, o := range all[min(from, len(all)):] {
				t.Logf("got %d %s %s/%s %s (%d/%d)", o.Number, o.Kind, o.Word, o.Reason, o.Domain.Name, o.Event, o.Detail)
			}
			t.Fatalf("no observation came for: %s", what)
		}
	}
}

func ofWord(id domain.UUID, word string) func(Observation) bool {
	return func(o Observation) bool { return o.Domain.UUID == id && o.Word == word }
}

func testContext(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// startHost runs a Host until the test ends.
func startHost(t *testing.T, ctx context.Context, cfg Config) *Host {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := h.stats.CallsRunning.Load(); n != 0 {
			t.Errorf("%d calls still under way after Run", n)
		}
	})
	return h
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// direct is a second connection, as an administrator's.
func direct(t *testing.T) *libvirt.Connect {
	t.Helper()
	c, err := libvirt.NewConnect("test:///default")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func defineOnTestDriver(t *testing.T, c *libvirt.Connect, name string, id domain.UUID, devices string) *libvirt.Domain {
	t.Helper()
	d, err := c.DomainDefineXML(fmt.Sprintf(`<domain type='test'><name>%s</name><uuid>%s</uuid><memory>65536</memory>
		<os><type>hvm</type></os><devices>%s</devices></domain>`, name, id, devices))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.Destroy()
		_ = d.Undefine()
		_ = d.Free()
	})
	return d
}

func TestLifecycleOnTestDriver(t *testing.T) {
	ctx := testContext(t, 20*time.Second)
	got := newCollector()
	h := startHost(t, ctx, Config{URI: "test:///default", Sink: got.sink, RunDir: t.TempDir()})
	first, at := got.wait(t, ctx, 0, "connected", func(o Observation) bool { return o.Kind == KindConnected })
	if first.Gap != nil || first.Coverage == nil || len(first.Coverage.Events) < 2 || first.Coverage.KeepAlive {
		t.Errorf("connected: gap %v, coverage %+v; want no gap, events, and no keepalive on the test driver", first.Gap, first.Coverage)
	}
	got.wait(t, ctx, at, "resync of the driver's own domain", func(o Observation) bool {
		return o.Kind == KindResync && o.Domain.Name == "test" && o.Snapshot != nil && o.Snapshot.Status.State == domain.Running
	})

	conn := direct(t)
	id := domain.UUID{0xaa, 15: 1}
	dom := defineOnTestDriver(t, conn, "life", id, `<channel type='unix'><target type='virtio' name='org.provost.0'/></channel>
		<disk type='file'><driver name='qemu' type='qcow2'/><source file='/etc/hostname'/><target dev='vda'/></disk>`)
	o, at := got.wait(t, ctx, at, "define", ofWord(id, "define"))
	if o.Snapshot == nil || !o.Snapshot.Enrolled || o.Snapshot.ConfigXML == "" || o.Snapshot.LiveXML != "" || o.Type != "vm.define" || o.Reason != "added" {
		t.Errorf("define: %+v, snapshot %+v", o, o.Snapshot)
	}
	if d := o.Snapshot.Disks; len(d) != 1 || d[0].Target != "vda" || !d[0].Partial || len(d[0].Chain) != 1 || d[0].Chain[0].Inode == 0 {
		t.Errorf("disks: %+v", d)
	}
	if err := dom.Create(); err != nil {
		t.Fatal(err)
	}
	o, at = got.wait(t, ctx, at, "start", ofWord(id, "start"))
	if o.Event != 2 || o.Detail != 0 || o.Domain.ID < 0 || o.Snapshot == nil || o.Snapshot.LiveXML == "" {
		t.Errorf("start: %+v", o)
	}
	// No QEMU here: that is said, not guessed.
	if o.Snapshot.QEMU != (Process{}) || len(o.Snapshot.Errors) != 1 || !strings.Contains(o.Snapshot.Errors[0], "QEMU") {
		t.Errorf("QEMU of the test driver: %+v, %q", o.Snapshot.QEMU, o.Snapshot.Errors)
	}
	before, after, err := h.Pause(ctx, id)
	if err != nil || before.State != domain.Running || after.State != domain.Paused || after.Reason != "user" {
		t.Fatalf("pause: %+v, %+v, %v", before, after, err)
	}
	before, after, err = h.Pause(ctx, id)
	if err != nil || before.State != domain.Paused || before.Reason != "user" || after != before {
		t.Fatalf("second pause: %+v, %+v, %v", before, after, err)
	}
	_, at = got.wait(t, ctx, at, "pause", ofWord(id, "pause"))
	if _, after, err = h.Resume(ctx, id); err != nil || after.State != domain.Running {
		t.Fatalf("resume: %+v, %v", after, err)
	}
	if _, after, err = h.Resume(ctx, id); err != nil || after.State != domain.Running {
		t.Fatalf("second resume: %+v, %v", after, err)
	}
	_, at = got.wait(t, ctx, at, "resume", ofWord(id, "resume"))
	if err := dom.Destroy(); err != nil {
		t.Fatal(err)
	}
	o, at = got.wait(t, ctx, at, "stop", ofWord(id, "stop"))
	if o.Reason != "destroyed" {
		t.Errorf("stop: %+v", o)
	}
	if before, _, err = h.Pause(ctx, id); !errors.Is(err, ErrInactive) || !errors.Is(err, record.ErrReject) || before.State != domain.Shutoff {
		t.Errorf("pause of a stopped domain: %+v, %v", before, err)
	}
	if err := dom.Undefine(); err != nil {
		t.Fatal(err)
	}
	o, _ = got.wait(t, ctx, at, "undefine", ofWord(id, "undefine"))
	if o.Snapshot != nil || o.SnapshotErr != nil {
		t.Errorf("undefine: snapshot %+v, error %v; want neither, the domain is gone", o.Snapshot, o.SnapshotErr)
	}
	if _, err := h.Inspect(ctx, id); !errors.Is(err, ErrNotFound) || !errors.Is(err, record.ErrReject) {
		t.Errorf("inspect of a domain that is gone: %v", err)
	}
	for _, k := range h.Known() {
		if k.UUID == id {
			t.Errorf("a domain that is gone is still known: %+v", k)
		}
	}
	var last uint64
	paused := 0
	for _, o := range got.snapshot() {
		if o.Number != last+1 {
			t.Errorf("observation %d follows %d", o.Number, last)
		}
		last = o.Number
		if o.Domain.UUID == id && o.Word == "pause" {
			paused++
		}
	}
	if paused != 1 {
		t.Errorf("two calls of Pause made %d pauses", paused)
	}
}

func TestGapSinceEarlierRun(t *testing.T) {
	ctx := testContext(t, 20*time.Second)
	conn := direct(t)
	same, other, gone := domain.UUID{0xbb, 15: 1}, domain.UUID{0xbb, 15: 2}, domain.UUID{0xbb, 15: 3}
	defineOnTestDriver(t, conn, "same", same, "")
	d := defineOnTestDriver(t, conn, "other", other, "")
	got := newCollector()
	h, err := New(Config{URI: "test:///default", Sink: got.sink, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(run) }()
	got.wait(t, ctx, 0, "resync", ofWord(other, "resync"))
	got.wait(t, ctx, 0, "resync", ofWord(same, "resync"))
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	known := append(h.Known(), Known{Domain: domain.Domain{UUID: gone, Name: "gone"}})
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	since := time.Now().Add(-time.Hour)
	again := newCollector()
	startHost(t, ctx, Config{URI: "test:///default", Sink: again.sink, RunDir: t.TempDir(), Known: known, Since: since})
	o, _ := again.wait(t, ctx, 0, "connected", func(o Observation) bool { return o.Kind == KindConnected })
	if o.Gap == nil || !o.Gap.From.Equal(since) || o.Gap.Cause != "daemon-restart" || o.Gap.To.Before(since) {
		t.Fatalf("gap %+v", o.Gap)
	}
	what := map[domain.UUID][]string{}
	for _, c := range o.Gap.Changes {
		what[c.id()] = c.What
	}
	want := map[domain.UUID][]string{other: {"started"}, gone: {"vanished"}}
	if !reflect.DeepEqual(what, want) {
		t.Errorf("changes %v, want %v", what, want)
	}
}

// TestCallbackFault checks that a fault while an event is copied costs that event and is counted,
// and that the events after it arrive.
func TestCallbackFault(t *testing.T) {
	ctx := testContext(t, 20*time.Second)
	got := newCollector()
	var bad atomic.Bool
	h := startHost(t, ctx, Config{URI: "test:///default", Sink: got.sink, RunDir: t.TempDir(), Now: func() time.Time {
		// Others than the event's callback ask for the time, too.
		if strings.Contains(string(debug.Stack()), "onLifecycle") && bad.CompareAndSwap(true, false) {
			panic("clock broke")
		}
		return time.Now()
	}})
	got.wait(t, ctx, 0, "connected", func(o Observation) bool { return o.Kind == KindConnected })
	id := domain.UUID{0xcc, 15: 1}
	dom := defineOnTestDriver(t, direct(t), "fault", id, "")
	_, at := got.wait(t, ctx, 0, "define", ofWord(id, "define"))
	bad.Store(true)
	if err := dom.Create(); err != nil {
		t.Fatal(err)
	}
	if err := dom.Suspend(); err != nil {
		t.Fatal(err)
	}
	got.wait(t, ctx, at, "pause after the lost start", ofWord(id, "pause"))
	if n := h.Stats().CallbackPanics.Load(); n != 1 {
		t.Errorf("%d callback panics counted, want 1", n)
	}
}

func TestSinkErrors(t *testing.T) {
	ctx := testContext(t, 20*time.Second)
	got := newCollector()
	tries := 0
	broken := errors.New("disk on fire")
	got.fail = func(o Observation) error {
		if o.Kind != KindConnected {
			return broken
		}
		if tries++; tries < 3 {
			return fmt.Errorf("busy: %w", record.ErrRetry)
		}
		return nil
	}
	h, err := New(Config{URI: "test:///default", Sink: got.sink, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(ctx); !errors.Is(err, broken) {
		t.Errorf("Run ended with %v", err)
	}
	if all := got.snapshot(); len(all) != 1 || tries != 3 || h.Stats().SinkRetries.Load() != 2 {
		t.Errorf("%d observations, %d tries, %d retries counted", len(all), tries, h.Stats().SinkRetries.Load())
	}
	if err := h.Run(ctx); err == nil {
		t.Error("Run ran twice")
	}
}

// TestSilentDaemon connects to a socket that accepts and never answers, as a stopped libvirtd does.
func TestSilentDaemon(t *testing.T) {
	ctx := testContext(t, 20*time.Second)
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int32
	conns := make(chan net.Conn, 100)
	go func() {
		defer close(conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			conns <- c
		}
	}()
	got := newCollector()
	h, err := New(Config{URI: "qemu+unix:///system?socket=" + sock, Sink: got.sink, RunDir: t.TempDir(),
		ConnectTimeout: 50 * time.Millisecond, ReconnectMax: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(run) }()
	o, _ := got.wait(t, ctx, 0, "gap", func(o Observation) bool { return o.Kind == KindGapBegin })
	if o.Reason != "connect" || !strings.Contains(o.Gap.Detail, "no answer") {
		t.Errorf("gap: %+v", o.Gap)
	}
	if _, err := h.List(ctx); !errors.Is(err, record.ErrRetry) {
		t.Errorf("List without a connection: %v", err)
	}
	for h.Stats().ConnectErrors.Load() < 5 && ctx.Err() == nil {
		if _, _, err := h.Pause(ctx, domain.UUID{1}); !errors.Is(err, ErrDisconnected) {
			t.Fatalf("Pause without a connection: %v", err)
		}
	}
	if n := accepted.Load(); n != 1 {
		t.Errorf("%d connections are pending on a daemon that hangs, want 1", n)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.Close()
	for c := range conns { // lets the attempt end
		c.Close()
	}
	if n := len(got.snapshot()); n != 1 {
		t.Errorf("one gap made %d observations", n)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a Host without a sink was made")
	}
	if _, err := New(Config{Sink: newCollector().sink, KeepAliveInterval: 1500 * time.Millisecond}); err == nil {
		t.Error("a keepalive interval that libvirt cannot count was taken")
	}
}
