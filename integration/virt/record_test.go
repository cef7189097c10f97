package virt

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

// recorder is a lab whose observations are sealed in a ledger, as the daemon does.
type recorder struct {
	*lab
	store    *chain.Store
	registry *introspect.Registry
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{}
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if r.store, err = chain.Create(chain.Config{Dir: filepath.Join(dir, "db"), Anchor: filepath.Join(dir, "anchor"), HostID: "test.host", Keys: k, Log: log}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.registry, err = introspect.NewRegistry(introspect.RegistryConfig{Store: r.store, HostID: "test.host", Log: log,
		Sessions: guest.New(guest.Config{Store: r.store, Log: log}),
		Inspect:  func(ctx context.Context, id domain.UUID) (virt.Snapshot, error) { return r.virt.Inspect(ctx, id) }})
	if err != nil {
		t.Fatal(err)
	}
	r.lab = newLabWith(t, harness.HostConfig{Network: true}, virt.Config{SweepEvery: 2 * time.Second},
		func(ctx context.Context, o virt.Observation) error { return r.registry.Observe(ctx, o) })
	return r
}

// lines are the entries of a log as people read them, each behind its class.
func (r *recorder) lines(l *chain.Log) []string {
	r.t.Helper()
	var all []string
	for i, err := range l.Read(r.ctx, 0, l.Size()) {
		if err != nil {
			r.t.Fatal(err)
		}
		m, err := i.Decode()
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, i.Leaf.Header.Class.String()+" "+record.Text(i.Leaf.Header.Class, m))
	}
	return all
}

func (r *recorder) log(id domain.UUID) *chain.Log {
	r.t.Helper()
	l, ok := r.store.LogByOrigin("test.host/vm/" + id.String() + "/1/1")
	if !ok {
		r.t.Fatalf("domain %s has no log", id)
	}
	return l
}

// sealed waits until an entry of a log has all the words, and returns how many have.
func (r *recorder) sealed(l *chain.Log, words ...string) int {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	defer cancel()
	for {
		n := 0
		all := r.lines(l)
		for _, line := range all {
			has := true
			for _, w := range words {
				has = has && strings.Contains(line, w)
			}
			if has {
				n++
			}
		}
		if n > 0 {
			return n
		}
		r.mu.Lock()
		wake := r.wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-time.After(500 * time.Millisecond): // an observation may have come between the look and the wait
		case <-ctx.Done():
			r.t.Fatalf("nothing was sealed with %q; there is:\n%s", words, strings.Join(all, "\n"))
		}
	}
}

func (r *recorder) virsh(args ...string) string {
	r.t.Helper()
	out, err := r.host.Virsh(r.ctx, args...)
	r.must(err)
	return out
}

const isolated = `<network><name>%s</name><bridge name='%s' stp='off' delay='0'/></network>`

// TestEverythingIsSealed has people do to a domain what libvirt lets them, and
// finds each act in the domain's log, those that libvirt does not announce too.
func TestEverythingIsSealed(t *testing.T) {
	r := newRecorder(t)
	images := r.host.Outside("/var/lib/libvirt/images")
	r.must(os.MkdirAll(images, 0o755))
	for _, name := range []string{"disk.qcow2", "more.qcow2"} {
		if out, err := r.host.Command(r.ctx, "qemu-img", "create", "-q", "-f", "qcow2", "/var/lib/libvirt/images/"+name, "10M").CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	r.must(os.WriteFile(filepath.Join(images, "cd.iso"), make([]byte, 1<<20), 0o644))
	for _, n := range []string{"first", "second"} {
		file := filepath.Join(r.host.Dir(), n+".xml")
		r.must(os.WriteFile(file, fmt.Appendf(nil, isolated, n, "pv"+n), 0o644))
		r.virsh("net-define", file)
	}
	r.virsh("net-start", "first")
	ports := `<controller type='pci' index='0' model='pcie-root'/>` // room to plug devices in
	for i := 1; i <= 12; i++ {
		ports += fmt.Sprintf(`<controller type='pci' index='%d' model='pcie-root-port'/>`, i)
	}
	g, id := r.define(harness.GuestConfig{Name: "g", AgentChannel: true, Devices: `
		<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/var/lib/libvirt/images/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>
		<disk type='file' device='cdrom'><source file='/var/lib/libvirt/images/cd.iso'/><target dev='sda' bus='sata'/><readonly/></disk>
		<interface type='network'><mac address='52:54:00:00:00:01'/><source network='first'/><model type='virtio'/></interface>
		` + ports + `
		<graphics type='vnc' port='-1' autoport='no' passwd='hunter2'><listen type='socket'/></graphics>`})
	r.word(id, "define")
	r.must(g.Start(r.ctx))
	r.word(id, "start")
	log := r.log(id)
	r.must(g.WaitReady(r.ctx))
	host := r.store.HostLog()
	r.sealed(host, "host.coverage", "qemu+unix:///system")

	t.Run("devices", func(t *testing.T) { r.t = t; r.devices(g, log) })
	t.Run("quiet changes", func(t *testing.T) { r.t = t; r.quiet(g, log, images) })
	t.Run("jobs", func(t *testing.T) { r.t = t; r.jobs(g, log, images) })
	t.Run("surroundings", func(t *testing.T) { r.t = t; r.surroundings(g, log) })
	t.Run("looking", func(t *testing.T) { r.t = t; r.looking(g, log) })
	r.t = t

	// A reset tells who wanted it, a managed save that it is there.
	r.must(g.Reset(r.ctx))
	r.sealed(log, "vm.reboot", "host-qmp-system-reset")
	r.virsh("managedsave", "g")
	r.sealed(log, "vm.config_changed", "saved configuration", "/managed-save: none -> ")
	r.sealed(log, "vm.job", "save")

	text := strings.Join(append(r.lines(log), r.lines(host)...), "\n")
	for _, secret := range []string{"hunter2", "hunter3", "geheim"} {
		if strings.Contains(text, secret) {
			t.Errorf("the secret %q is sealed", secret)
		}
	}
	if st := r.lab.virt.Stats(); st.CallbackPanics.Load()+st.LoopPanics.Load()+st.SweepErrors.Load() != 0 {
		t.Errorf("%d callback panics, %d loop panics, %d sweeps failed", st.CallbackPanics.Load(), st.LoopPanics.Load(), st.SweepErrors.Load())
	}
	if n := strings.Count(text, "file configuration"); n != 2 {
		t.Errorf("libvirt's file differed %d times, want once by hand and back", n)
	}
	t.Log("\n" + text)
}

// devices are changes that libvirt announces, and what they leave in the configuration.
func (r *recorder) devices(g *harness.Guest, log *chain.Log) {
	r.virsh("attach-disk", "g", "/var/lib/libvirt/images/more.qcow2", "vdb", "--driver", "qemu", "--subdriver", "qcow2", "--live")
	r.sealed(log, "vm.device_attach", "virtio-disk1")
	r.sealed(log, "vm.config_changed", "live configuration", "/devices/disk[vdb]: none -> ", "more.qcow2", "found by event")
	r.virsh("detach-disk", "g", "vdb", "--live")
	r.sealed(log, "vm.device_detach", "virtio-disk1")
	r.sealed(log, "vm.config_changed", "live configuration", "/devices/disk[vdb]", "-> none")
	r.virsh("change-media", "g", "sda", "--eject", "--live", "--force")
	r.sealed(log, "vm.tray", "open")
	r.sealed(log, "vm.config_changed", "/devices/disk[sda]/source/@file", "cd.iso -> none")
	r.virsh("metadata", "g", "urn:test", "--key", "t", "--set", "<zone>restricted</zone>", "--live", "--config")
	r.sealed(log, "vm.metadata", "element")
	r.sealed(log, "vm.config_changed", "persistent configuration", "/metadata/{urn:test}zone: none -> restricted")
	if _, err := g.Output(r.ctx, "head -c1 </dev/virtio-ports/"+virt.ChannelName+" >/dev/null & usleep 300000; kill $!; true"); err != nil {
		r.t.Fatal(err)
	}
	r.sealed(log, "vm.channel", "open", "port")
	r.sealed(log, "vm.channel", "closed", "port")
}

// quiet are changes of which libvirt says nothing.
func (r *recorder) quiet(g *harness.Guest, log *chain.Log, images string) {
	r.virsh("domif-setlink", "g", "52:54:00:00:00:01", "down")
	r.sealed(log, "vm.config_changed", "live configuration", "/devices/interface[52:54:00:00:00:01]/link/@state: none -> down")
	r.virsh("attach-disk", "g", "/var/lib/libvirt/images/more.qcow2", "vdc", "--driver", "qemu", "--subdriver", "qcow2", "--config")
	r.sealed(log, "vm.config_changed", "persistent configuration", "/devices/disk[vdc]: none -> ")
	r.virsh("autostart", "g")
	r.sealed(log, "vm.config_changed", "/autostart: false -> true", "found by sweep")
	// TUNABLE would follow: the binding cannot decode it, and anybody may cause it.
	r.virsh("schedinfo", "g", "--set", "cpu_shares=2000", "--config")
	r.sealed(log, "vm.config_changed", "persistent configuration", "/cputune/shares: none -> 2000")
	if _, err := r.host.Virsh(r.ctx, "schedinfo", "g", "--set", "cpu_shares=2000", "--live"); err == nil {
		r.sealed(log, "vm.config_changed", "live configuration", "/cputune/shares: none -> 2000")
	} else if _, err := r.host.Virsh(r.ctx, "blkdeviotune", "g", "vda", "--total-bytes-sec", "1000000", "--live"); err != nil {
		r.t.Errorf("no TUNABLE could be caused: %v", err)
	} else {
		r.sealed(log, "vm.config_changed", "live configuration", "/devices/disk[vda]/iotune/total_bytes_sec: none -> 1000000")
	}
	r.virsh("snapshot-create-as", "g", "overlay", "--disk-only", "--atomic", "--diskspec", "sda,snapshot=no")
	r.sealed(log, "vm.snapshot", "overlay", "created", "disk-only")
	r.sealed(log, "vm.job", "qemu-job", "concluded")
	r.virsh("snapshot-delete", "g", "overlay", "--metadata")
	r.sealed(log, "vm.snapshot", "overlay", "deleted")
	file := r.host.Outside("/etc/libvirt/qemu/g.xml")
	text, err := os.ReadFile(file)
	r.must(err)
	edited := strings.Replace(string(text), "<vcpu placement='static'>1</vcpu>", "<vcpu placement='static'>7</vcpu>", 1)
	edited = strings.Replace(edited, "hunter2", "hunter3", 1)
	if edited == string(text) || !strings.Contains(edited, "hunter3") {
		r.t.Fatalf("the file is not as expected:\n%s", text)
	}
	r.must(os.WriteFile(file, []byte(edited), 0o600))
	r.sealed(log, "vm.config_changed", "file configuration", "/vcpu: 1 -> 7")
	r.must(os.WriteFile(file, text, 0o600))
	r.sealed(log, "vm.config_changed", "file configuration", "agrees")
}

func (r *recorder) jobs(g *harness.Guest, log *chain.Log, images string) {
	r.virsh("blockcommit", "g", "vda", "--active", "--pivot", "--wait")
	r.sealed(log, "vm.block_job", "ready")
	r.sealed(log, "vm.block_job", "completed")
	r.virsh("dump", "g", "/var/lib/libvirt/images/core", "--memory-only")
	r.must(os.Remove(filepath.Join(images, "core")))
	r.sealed(log, "vm.job", "dump", "completed")
}

// surroundings are networks, pools, secrets and filters that domains use.
func (r *recorder) surroundings(g *harness.Guest, log *chain.Log) {
	host := r.store.HostLog()
	r.virsh("net-start", "second")
	r.sealed(host, "host.network", "second", "started")
	r.virsh("net-destroy", "first")
	r.sealed(host, "host.network", "first", "stopped")
	if n := r.sealed(log, "vm.environment", "first", "stopped"); n != 1 {
		r.t.Errorf("the end of the domain's network is sealed %d times in its log", n)
	}
	for _, line := range r.lines(log) {
		if strings.HasPrefix(line, "vm.environment ") && strings.Contains(line, "second") {
			r.t.Errorf("a network that the domain does not use is in its log: %s", line)
		}
	}
	r.virsh("pool-define-as", "p", "dir", "--target", "/var/lib/libvirt/images")
	r.sealed(host, "host.pool", "p", "defined")
	file := filepath.Join(r.host.Dir(), "secret.xml")
	r.must(os.WriteFile(file, []byte(`<secret ephemeral='yes' private='yes'><uuid>5ec5ec5e-0000-4000-8000-000000000001</uuid><usage type='volume'><volume>/x</volume></usage></secret>`), 0o644))
	r.virsh("secret-define", file)
	r.sealed(host, "host.secret", "5ec5ec5e-0000-4000-8000-000000000001", "defined")
	r.virsh("secret-set-value", "5ec5ec5e-0000-4000-8000-000000000001", "--base64", "Z2VoZWlt")
	r.sealed(host, "host.secret", "5ec5ec5e-0000-4000-8000-000000000001", "value-changed")
	filter := filepath.Join(r.host.Dir(), "filter.xml")
	define := func(action string) {
		r.must(os.WriteFile(filter, []byte(`<filter name='f' chain='root'><uuid>f11f11f1-0000-4000-8000-000000000001</uuid><rule action='`+action+`' direction='in' priority='500'/></filter>`), 0o644))
		r.virsh("nwfilter-define", filter)
	}
	define("accept")
	iface := filepath.Join(r.host.Dir(), "iface.xml")
	r.must(os.WriteFile(iface, []byte(`<interface type='network'><mac address='52:54:00:00:00:02'/><source network='second'/><model type='virtio'/><filterref filter='f'/></interface>`), 0o644))
	r.virsh("attach-device", "g", iface, "--config")
	r.sealed(log, "vm.config_changed", "filter configuration", "/filter[f]: none -> sha256:")
	define("drop")
	r.sealed(log, "vm.config_changed", "filter configuration", "/filter[f]: sha256:", "-> sha256:")
}

// looking is somebody who comes to the console.
func (r *recorder) looking(g *harness.Guest, log *chain.Log) {
	_, rest, _ := strings.Cut(r.virsh("dumpxml", "g"), "<listen type='socket' socket='")
	path, _, _ := strings.Cut(rest, "'")
	conn, err := net.Dial("unix", r.host.Outside(path))
	r.must(err)
	defer conn.Close()
	banner := make([]byte, 12)
	_, err = io.ReadFull(conn, banner)
	r.must(err)
	r.sealed(log, "vm.console", "connect")
	r.must(conn.Close())
	r.sealed(log, "vm.console", "disconnect")
}
