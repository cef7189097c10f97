package introspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// start has the registry observe the start of a domain with these files.
func (p *pipe) startWith(pid int, layers []string, firmware string) {
	p.t.Helper()
	d := virt.Disk{Target: "vda", Format: "qcow2"}
	for _, path := range layers {
		d.Chain = append(d.Chain, virt.LookAt(path))
	}
	if err := p.registry.Observe(p.t.Context(), virt.Observation{Kind: virt.KindLifecycle, Type: "vm.start", Word: "start", Reason: "booted", Event: 2,
		Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now(), Snapshot: &virt.Snapshot{
			Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: pid}, ConfigXML: "<domain/>", LiveXML: "<domain id='1'/>",
			QEMU: virt.Process{Pid: pid, Start: uint64(pid)}, Disks: []virt.Disk{d}, Machine: "pc-q35-7.2", Architecture: "x86_64",
			CPUXML: "<cpu/>", Boot: []virt.BootFile{{Role: "firmware", DiskFile: virt.LookAt(firmware)}}}}); err != nil {
		p.t.Fatal(err)
	}
}

// digests are the entries about files, by path, once there are n of them.
func (p *pipe) digests(origin string, n int) map[string]*record.Image {
	p.t.Helper()
	l, ok := p.store.LogByOrigin("test.host/vm/" + vm.String() + origin)
	if !ok {
		p.t.Fatalf("there is no log %s", origin)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.registry.RunImages(ctx) }()
	all := map[string]*record.Image{}
	for i := uint64(0); len(all) < n && ctx.Err() == nil; {
		for size := l.Size(); i < size; i++ {
			item, err := l.Item(i)
			if err != nil {
				p.t.Fatal(err)
			}
			if m, err := item.Decode(); err == nil && item.Leaf.Header.Class == record.ClassVMImageDigest {
				x := m.(*record.Event).Vm.Hypervisor.Image
				if all[x.Path] != nil {
					p.t.Errorf("%s is told twice", x.Path)
				}
				all[x.Path] = x
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		p.t.Error(err)
	}
	if len(all) != n {
		p.t.Fatalf("%d digests in %s, want %d", len(all), origin, n)
	}
	return all
}

// TestImageDigests: what a domain only reads is hashed, once, and told with the
// genesis that names it; another incarnation has it from the cache, and a file that
// has changed is read again.
func TestImageDigests(t *testing.T) {
	p := newPipe(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	top, base, gone, fw := file("top", "mine"), file("base", "golden"), filepath.Join(dir, "gone"), file("fw", "firmware")
	p.startWith(10, []string{top, base, gone}, fw)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	item, err := l.Item(0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if err != nil {
		t.Fatal(err)
	}
	g := m.(*record.Genesis)
	if g.Machine != "pc-q35-7.2" || g.Architecture != "x86_64" || string(g.CpuXml) != "<cpu/>" || string(g.LiveXml) == "" || len(g.Boot) != 1 || g.Boot[0].Size != 8 || g.Boot[0].Ctime == 0 {
		t.Errorf("genesis: %v", g)
	}
	all := p.digests("/1/1", 3)
	sum := func(s string) string { d := sha256.Sum256([]byte(s)); return hex.EncodeToString(d[:]) }
	if x := all[base]; hex.EncodeToString(x.Sha256) != sum("golden") || x.Depth != 1 || x.Target != "vda" || x.Cached || string(x.GenesisHash) != string(item.LeafHash[:]) {
		t.Errorf("base: %v", x)
	}
	if x := all[fw]; hex.EncodeToString(x.Sha256) != sum("firmware") || x.Role != "firmware" {
		t.Errorf("firmware: %v", x)
	}
	if x := all[gone]; len(x.Sha256) != 0 || x.Error == "" {
		t.Errorf("a file that is not there: %v", x)
	}
	p.restart()
	p.startWith(11, []string{top, base, gone}, fw)
	p.digests("/1/1", 3) // and no more
	if n := p.registry.ImageStats().Hashed.Load(); n != 0 {
		t.Errorf("%d files were read again after a restart", n)
	}
	p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	if len(p.registry.Machines()) != 0 {
		p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	}
	file("fw", "firmwarf")
	p.startWith(12, []string{top, base}, fw)
	again := p.digests("/2/1", 2)
	if x := again[base]; !x.Cached || hex.EncodeToString(x.Sha256) != sum("golden") {
		t.Errorf("base in the next incarnation: %v", x)
	}
	if x := again[fw]; x.Cached || hex.EncodeToString(x.Sha256) != sum("firmwarf") {
		t.Errorf("changed firmware: %v", x)
	}
}

// TestChangedWhileRead: a digest of what never was is not told.
func TestChangedWhileRead(t *testing.T) {
	p := newPipe(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	before := virt.LookAt(path)
	if err := os.WriteFile(path, make([]byte, 200), 0o600); err != nil {
		t.Fatal(err)
	}
	if sum, err := p.registry.read(t.Context(), path, &before); err != errChanged || sum != nil {
		t.Errorf("%x, %v", sum, err)
	}
	if h, err := p.registry.hash(t.Context(), t.TempDir()); err != nil || h.problem == "" || h.sha256 != nil {
		t.Errorf("a directory: %+v, %v", h, err)
	}
}

// TestLargeConfigurationBeginsALog: whoever may describe one domain must not keep the
// others from being heard.
func TestLargeConfigurationBeginsALog(t *testing.T) {
	p := newPipe(t)
	large := "<domain>" + strings.Repeat("x", 5<<20) + "</domain>"
	disk := virt.Disk{Target: "vda", ReadOnly: true, Chain: []virt.DiskFile{virt.LookAt("/" + strings.Repeat("y", 3<<20))}}
	s := &virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: 1}, ConfigXML: large, LiveXML: large, CPUXML: large,
		QEMU: virt.Process{Pid: 1, Start: 1}, Disks: []virt.Disk{disk}, Boot: []virt.BootFile{{Role: "kernel", DiskFile: disk.Chain[0]}}, Errors: []string{large}}
	for range 100000 {
		s.Disks = append(s.Disks, virt.Disk{Target: "vdb", Chain: []virt.DiskFile{{Path: "/none", Error: "stat /none: there is no such file or directory"}}})
	}
	if err := p.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindLifecycle, Type: "vm.start", Word: "start", Reason: "booted", Event: 2,
		Domain: s.Domain, Time: time.Now(), Snapshot: s}); err != nil {
		t.Fatal(err)
	}
	item, err := p.registry.Machines()[0].Log.Item(0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if g := m.(*record.Genesis); len(g.DomainXml)+len(g.LiveXml) != 0 || !strings.Contains(strings.Join(g.Unread, "; "), "live configuration: 5242") || len(g.Disks) != maxGenesisFiles {
		t.Errorf("%d disks, unread %.300q", len(g.Disks), g.Unread)
	}
	if _, _, pending := p.registry.nextImage(); pending != 0 {
		t.Errorf("%d files with impossible names are to be hashed", pending)
	}
}

// TestWhatIsNoImageIsNotOpened: a path that a domain names may be anything.
func TestWhatIsNoImageIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	fifo, sparse, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "sparse"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	tried := map[string]string{fifo: "neither", link: "neither", "/dev/zero": "neither", "/proc/self/status": "neither", dir: "neither", filepath.Join(dir, "gone"): "no such"}
	if err := os.Truncate(sparse, maxImageBytes+1); err == nil {
		tried[sparse] = "more than"
	} else {
		t.Logf("this file system has no such files: %v", err)
	}
	for path, want := range tried {
		f, err := openImage(path)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestDigestIsTriedAgain: what cannot be sealed now is told later, and not as done.
func TestDigestIsTriedAgain(t *testing.T) {
	p := newPipe(t)
	path := filepath.Join(t.TempDir(), "fw")
	if err := os.WriteFile(path, []byte("firmware"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.startWith(10, nil, path)
	m, i, pending := p.registry.nextImage()
	if pending != 1 {
		t.Fatalf("%d files are pending, want 1", pending)
	}
	h, err := p.registry.hash(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.registry.sealImage(over, m, i, h); err == nil {
		t.Fatal("it was sealed by a context that is over")
	}
	if _, _, pending := p.registry.nextImage(); pending != 1 {
		t.Errorf("%d files are pending behind a failure, want 1", pending)
	}
}
