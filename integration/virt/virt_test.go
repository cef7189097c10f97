package virt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// lab is a host, an adapter connected to it and what the adapter has told.
type lab struct {
	t    *testing.T
	ctx  context.Context
	host *harness.Host
	virt *virt.Host
	img  harness.Image

	mu   sync.Mutex
	all  []virt.Observation
	wake chan struct{} // closed and replaced at each observation
	at   int           // the next observation to look at

	forward func(context.Context, virt.Observation) error // sees each observation before the lab does
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabWith(t, harness.HostConfig{}, virt.Config{}, func(context.Context, virt.Observation) error { return nil })
}

// newLabWith sets up a lab whose observations go to forward first.
func newLabWith(t *testing.T, host harness.HostConfig, cfg virt.Config, forward func(context.Context, virt.Observation) error) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests start libvirtd and QEMU in namespaces: run them as root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	l := &lab{t: t, ctx: ctx, wake: make(chan struct{}), forward: forward}
	var err error
	if l.img, err = harness.BuildImage(ctx, harness.ImageConfig{}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/run", "pvv-")
	if err != nil {
		t.Fatal(err)
	}
	host.Dir, host.Name = dir, "virthost"
	if l.host, err = harness.NewHost(ctx, host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.host.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg.URI, cfg.RunDir, cfg.Sink = l.host.URI(), filepath.Join(dir, "run/qemu"), l.sink
	cfg.ConfigDir, cfg.SaveDir = l.host.Outside("/etc/libvirt/qemu"), l.host.Outside("/var/lib/libvirt/qemu/save")
	cfg.KeepAliveInterval, cfg.KeepAliveCount, cfg.CallTimeout, cfg.ReconnectMax = time.Second, 2, 5*time.Second, 300*time.Millisecond
	l.virt, err = virt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.virt.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	o := l.next("connected", func(o virt.Observation) bool { return o.Kind == virt.KindConnected })
	if !o.Coverage.KeepAlive || o.Coverage.Missing["lifecycle"] != "" || o.Coverage.Missing["reboot"] != "" || strings.Count(o.Coverage.LibvirtVersion, ".") != 2 {
		t.Fatalf("coverage %+v", o.Coverage)
	}
	return l
}

func (l *lab) sink(ctx context.Context, o virt.Observation) error {
	if err := l.forward(ctx, o); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, o)
	close(l.wake)
	l.wake = make(chan struct{})
	return nil
}

// next skips to the next observation that matches.
func (l *lab) next(what string, match func(virt.Observation) bool) virt.Observation {
	l.t.Helper()
	from := l.at
	for {
		l.mu.Lock()
		all, wake := l.all, l.wake
		l.mu.Unlock()
		for ; l.at < len(all); l.at++ {
			if match(all[l.at]) {
				l.at++
				return all[l.at-1]
			}
		}
		select {
		case <-wake:
		case <-l.ctx.Done():
			for _, o := range all[from:] {
				l.t.Logf("got %d %s %s/%s %s (%d/%d) %v", o.Number, o.Kind, o.Word, o.Reason, o.Domain.Name, o.Event, o.Detail, o.SnapshotErr)
			}
			l.t.Fatalf("no observation came for: %s", what)
		}
	}
}

func (l *lab) word(id domain.UUID, word string) virt.Observation {
	l.t.Helper()
	return l.next(word, func(o virt.Observation) bool { return o.Domain.UUID == id && o.Word == word })
}

func (l *lab) define(cfg harness.GuestConfig) (*harness.Guest, domain.UUID) {
	l.t.Helper()
	cfg.Image, cfg.MemoryMiB = l.img, 256
	g, err := l.host.DefineGuest(l.ctx, cfg)
	l.must(err)
	l.t.Cleanup(func() { g.Close() })
	id, err := domain.ParseUUID(g.UUID())
	l.must(err)
	return g, id
}

func (l *lab) must(errs ...error) {
	l.t.Helper()
	if err := errors.Join(errs...); err != nil {
		l.t.Fatal(err)
	}
}

func TestLifecycle(t *testing.T) {
	l := newLab(t)
	disk := "/var/lib/libvirt/images/top.qcow2"
	l.must(os.MkdirAll(l.host.Outside("/var/lib/libvirt/images"), 0o755))
	qemuImg := func(args ...string) {
		out, err := l.host.Command(l.ctx, append([]string{"qemu-img"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	qemuImg("create", "-q", "-f", "qcow2", "/var/lib/libvirt/images/base.qcow2", "10M")
	qemuImg("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", disk)
	g, id := l.define(harness.GuestConfig{Name: "g", AgentChannel: true, Devices: `<disk type='file' device='disk'>
		<driver name='qemu' type='qcow2'/><source file='` + disk + `'/><target dev='vda' bus='virtio'/></disk>`})
	l.word(id, "define")
	l.must(g.Start(l.ctx))
	o := l.word(id, "start")
	s := o.Snapshot
	if s == nil || s.QEMU.Pid == 0 || s.QEMU.Start == 0 || !s.Enrolled || s.GenerationID == "" || s.Domain.ID < 1 {
		t.Fatalf("facts of the start: %+v", s)
	}
	if want, err := g.Channel(l.ctx, harness.AgentPort); err != nil || l.host.Outside(s.ChannelPath) != want {
		t.Errorf("channel %q, virsh says %q (%v)", s.ChannelPath, want, err)
	}
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(s.QEMU.Pid) + "/exe"); err != nil || !strings.Contains(exe, "qemu-system") {
		t.Errorf("the domain's process is %q (%v)", exe, err)
	}
	// The paths are the host's own: the caller stands outside its mount namespace, so only they are compared.
	if len(s.Disks) != 1 || len(s.Disks[0].Chain) != 2 || s.Disks[0].Partial || s.Disks[0].Chain[0].Path != disk ||
		s.Disks[0].Chain[1].Path != "/var/lib/libvirt/images/base.qcow2" {
		t.Errorf("disks %+v", s.Disks)
	}
	l.must(g.WaitReady(l.ctx))

	before, after, err := l.virt.Pause(l.ctx, id)
	if err != nil || before.State != domain.Running || after.State != domain.Paused {
		t.Fatalf("pause: %+v %+v %v", before, after, err)
	}
	if state, err := g.State(l.ctx); err != nil || state != "paused" {
		t.Fatalf("virsh domstate says %q (%v)", state, err)
	}
	l.word(id, "pause")
	_, _, err = l.virt.Resume(l.ctx, id)
	l.must(err)
	l.word(id, "resume")
	// Paused by its owner: the pause finds it so and says so.
	l.must(g.Pause(l.ctx))
	if before, after, err = l.virt.Pause(l.ctx, id); err != nil || before.State != domain.Paused || before.Reason != "user" || after != before {
		t.Fatalf("pause of a paused domain: %+v %+v %v", before, after, err)
	}
	l.must(g.Resume(l.ctx))

	// An event the binding cannot decode must not reach it. Not every machine lets the setting be made.
	if _, err := l.host.Virsh(l.ctx, "schedinfo", g.UUID(), "--set", "cpu_shares=2000", "--live"); err != nil {
		t.Logf("TUNABLE left out: %v", err)
	}
	l.must(g.Reboot(l.ctx))
	if o := l.word(id, "reboot"); o.Repeat || o.Type != "vm.reboot" {
		t.Errorf("first reboot event: %+v", o)
	}
	qemu := s.QEMU
	l.must(syscall.Kill(qemu.Pid, syscall.SIGKILL))
	if o := l.word(id, "stop"); o.Type != "vm.crash" || o.Snapshot == nil || o.Snapshot.QEMU != (virt.Process{}) {
		t.Errorf("after kill -9 of QEMU: %+v", o)
	}
	l.must(g.Start(l.ctx))
	if o := l.word(id, "start"); o.Snapshot == nil || o.Snapshot.QEMU == qemu || o.Snapshot.ChannelPath == s.ChannelPath {
		t.Errorf("the second run looks like the first: %+v", o.Snapshot)
	}
	l.must(g.Destroy(l.ctx), g.Undefine(l.ctx))
	if o := l.word(id, "undefine"); o.Snapshot != nil || o.SnapshotErr != nil {
		t.Errorf("undefine: %+v", o)
	}
	if st := l.virt.Stats(); st.CallbackPanics.Load()+st.LoopPanics.Load()+st.SnapshotErrors.Load() != 0 {
		t.Errorf("%d callback panics, %d loop panics, %d snapshots missing", st.CallbackPanics.Load(), st.LoopPanics.Load(), st.SnapshotErrors.Load())
	}
}

func TestEnroll(t *testing.T) {
	l := newLab(t)
	g, id := l.define(harness.GuestConfig{Name: "bare"})
	r, err := l.virt.Enroll(l.ctx, "bare")
	if err != nil || !r.Config || r.Live || r.ChannelPath != "" {
		t.Fatalf("enroll a stopped domain: %+v, %v", r, err)
	}
	if r, err = l.virt.Enroll(l.ctx, g.UUID()); err != nil || r.Config || r.Live {
		t.Fatalf("enroll again: %+v, %v", r, err)
	}
	if r, err = l.virt.Unenroll(l.ctx, "bare"); err != nil || !r.Config || r.Live {
		t.Fatalf("unenroll: %+v, %v", r, err)
	}
	l.must(g.Boot(l.ctx))
	if r, err = l.virt.Enroll(l.ctx, "bare"); err != nil || !r.Config || !r.Live || r.ChannelPath == "" {
		t.Fatalf("enroll a running domain: %+v, %v", r, err)
	}
	l.next("the channel plugged in", func(o virt.Observation) bool {
		return o.Domain.UUID == id && o.Type == "vm.device_attach" && o.Snapshot != nil && o.Snapshot.ChannelPath == r.ChannelPath
	})
	// Both ends really exist: what the host writes arrives at the guest's port.
	if _, err := g.Output(l.ctx, "until [ -e /dev/virtio-ports/"+virt.ChannelName+" ]; do /bin/usleep 50000; done"); err != nil {
		t.Fatal(err)
	}
	conn, err := harness.DialUnix(l.ctx, l.host.Outside(r.ChannelPath))
	l.must(err)
	defer conn.Close()
	if _, err := conn.Write([]byte("hello from the host\n")); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Output(l.ctx, "head -n1 </dev/virtio-ports/"+virt.ChannelName); err != nil || out != "hello from the host\n" {
		t.Fatalf("the guest read %q (%v)", out, err)
	}
	if again, err := l.virt.Enroll(l.ctx, "bare"); err != nil || again.Config || again.Live || again.ChannelPath != r.ChannelPath {
		t.Fatalf("enroll again: %+v, %v", again, err)
	}
	if r, err = l.virt.Unenroll(l.ctx, "bare"); err != nil || !r.Config || !r.Live {
		t.Fatalf("unenroll a running domain: %+v, %v", r, err)
	}
	if _, err := l.virt.Enroll(l.ctx, "nobody"); !errors.Is(err, virt.ErrNotFound) || !errors.Is(err, record.ErrReject) {
		t.Errorf("enroll a domain that does not exist: %v", err)
	}
}

// TestLibvirtdGoesAndComes: what happens while libvirtd is away is told afterwards (I4), and a
// restart alone changes nothing.
func TestLibvirtdGoesAndComes(t *testing.T) {
	l := newLab(t)
	stays, staysID := l.define(harness.GuestConfig{Name: "stays"})
	dies, diesID := l.define(harness.GuestConfig{Name: "dies"})
	l.must(stays.Start(l.ctx), dies.Start(l.ctx))
	qemu := l.word(diesID, "start").Snapshot.QEMU

	l.must(l.host.StopLibvirtd(true))
	o := l.next("gap", func(o virt.Observation) bool { return o.Kind == virt.KindGapBegin })
	if o.Reason != "libvirtd-exit" || o.Type != "vm.gap" {
		t.Errorf("gap: %+v", o)
	}
	if _, _, err := l.virt.Pause(l.ctx, staysID); !errors.Is(err, record.ErrRetry) {
		t.Errorf("pause without libvirtd: %v", err)
	}
	l.must(syscall.Kill(qemu.Pid, syscall.SIGKILL))
	l.must(l.host.StartLibvirtd(l.ctx))
	c := l.next("connected", func(o virt.Observation) bool { return o.Kind == virt.KindConnected })
	if c.Gap == nil || !c.Gap.From.Equal(o.Gap.From) || c.Gap.To.Before(c.Gap.From) || c.Gap.Cause != "libvirtd-exit" {
		t.Fatalf("gap at its end: %+v", c.Gap)
	}
	if n := len(c.Gap.Changes); n != 1 || c.Gap.Changes[0].Before.UUID != diesID || strings.Join(c.Gap.Changes[0].What, " ") != "stopped" {
		t.Errorf("changes: %+v", c.Gap.Changes)
	}
	if r := l.word(staysID, "resync"); r.Snapshot == nil || r.Snapshot.Domain.State != domain.Running {
		t.Errorf("resync: %+v", r.Snapshot)
	}
	// Operations and events work on the new connection.
	_, _, err := l.virt.Pause(l.ctx, staysID)
	l.must(err)
	l.word(staysID, "pause")
}

// TestLibvirtdHangs: a libvirtd that is stopped is noticed by keepalive, and calls come back at
// their deadline.
func TestLibvirtdHangs(t *testing.T) {
	l := newLab(t)
	g, id := l.define(harness.GuestConfig{Name: "g"})
	l.must(g.Start(l.ctx))
	l.word(id, "start")
	l.must(syscall.Kill(l.host.Libvirtd(), syscall.SIGSTOP))
	cont := func() error { return syscall.Kill(l.host.Libvirtd(), syscall.SIGCONT) }
	t.Cleanup(func() { _ = cont() })
	short, cancel := context.WithTimeout(l.ctx, 200*time.Millisecond)
	defer cancel()
	if _, _, err := l.virt.Pause(short, id); !errors.Is(err, record.ErrRetry) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("pause with libvirtd hanging: %v", err)
	}
	if o := l.next("gap", func(o virt.Observation) bool { return o.Kind == virt.KindGapBegin }); o.Reason != "keepalive" {
		t.Errorf("gap: %+v", o)
	}
	l.must(cont())
	c := l.next("connected", func(o virt.Observation) bool { return o.Kind == virt.KindConnected })
	// Whether the pause that was given up took place depends on how far it had come; the resync says which.
	r := l.word(id, "resync")
	if now, err := l.virt.State(l.ctx, id); err != nil || r.Snapshot == nil || r.Snapshot.Status.State != now.State {
		t.Errorf("resync says %+v, libvirt %+v (%v)", r.Snapshot, now, err)
	}
	if _, after, err := l.virt.Pause(l.ctx, id); err != nil || after.State != domain.Paused {
		t.Errorf("pause once libvirtd is back: %+v, %v", after, err)
	}
	if c.Gap == nil {
		t.Error("connected again without a gap")
	}
}
