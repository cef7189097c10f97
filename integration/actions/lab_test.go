package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// lab is a host of its own, and an adapter connected to it.
type lab struct {
	t    *testing.T
	ctx  context.Context
	host *harness.Host
	virt *virt.Host
	img  harness.Image
	dir  string // the same inside and outside of the host's namespaces
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests start libvirtd and QEMU in namespaces: run them as root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	l := &lab{t: t, ctx: ctx}
	var err error
	if l.img, err = harness.BuildImage(ctx, harness.ImageConfig{}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/run", "pva-")
	if err != nil {
		t.Fatal(err)
	}
	if l.host, err = harness.NewHost(ctx, harness.HostConfig{Dir: dir, Name: "acthost", Network: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.host.Close(); err != nil {
			t.Error(err)
		}
	})
	// QEMU's own user looks for images here, and the host's directory is hidden from it.
	if l.dir, err = os.MkdirTemp("/var/tmp", "pva-images-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(l.dir) })
	l.must(os.Chmod(l.dir, 0o755))
	l.virt = l.connect()
	return l
}

// connect returns an adapter of its own.
func (l *lab) connect() *virt.Host {
	l.t.Helper()
	h, err := virt.New(virt.Config{URI: l.host.URI(), RunDir: filepath.Join(l.host.Dir(), "run/qemu"),
		Sink: func(context.Context, virt.Observation) error { return nil }})
	l.must(err)
	run, stop := context.WithCancel(context.WithoutCancel(l.ctx))
	done := make(chan error, 1)
	go func() { done <- h.Run(run) }()
	l.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.must(h.WaitConnected(l.ctx))
	return h
}

func (l *lab) must(errs ...error) {
	l.t.Helper()
	if err := errors.Join(errs...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) sh(argv ...string) string {
	l.t.Helper()
	out, err := l.host.Command(l.ctx, argv...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// disk makes an image and returns the XML of a disk on it.
func (l *lab) disk(target, format string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, target+"."+format)
	l.sh("qemu-img", "create", "-q", "-f", format, path, "16M")
	return fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='%s'/><source file='%s'/><target dev='%s' bus='virtio'/></disk>", format, path, target)
}

// network defines and starts a libvirt network on a bridge without addresses.
func (l *lab) network(name string) {
	l.t.Helper()
	file := filepath.Join(l.dir, name+".xml")
	l.must(os.WriteFile(file, []byte(fmt.Sprintf("<network><name>%s</name><bridge name='%sbr' stp='off' delay='0'/></network>", name, name)), 0o644))
	for _, args := range [][]string{{"net-define", file}, {"net-start", name}} {
		if _, err := l.host.Virsh(l.ctx, args...); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) define(name, devices string) (*harness.Guest, domain.UUID) {
	l.t.Helper()
	g, err := l.host.DefineGuest(l.ctx, harness.GuestConfig{Name: name, Image: l.img, MemoryMiB: 128, Devices: devices})
	l.must(err)
	l.t.Cleanup(func() { g.Close() })
	id, err := domain.ParseUUID(g.UUID())
	l.must(err)
	return g, id
}
