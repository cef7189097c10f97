package introspect

import (
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// look has the registry take what a look at the domain has found.
func (p *pipe) look(learned string, f *virt.Facts) {
	p.t.Helper()
	if err := p.registry.Observe(p.t.Context(), virt.Observation{Kind: virt.KindSweep, Type: "vm.config_changed", Word: "sweep", Reason: learned,
		Event: -1, Detail: -1, Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now(), Facts: f}); err != nil {
		p.t.Fatal(err)
	}
}

// told are the entries that looks have made, as people read them.
func (p *pipe) told() []string {
	p.t.Helper()
	l, ok := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	if !ok {
		p.t.Fatal("there is no log")
	}
	var all []string
	for i, err := range l.Read(p.t.Context(), 0, l.Size()) {
		if err != nil {
			p.t.Fatal(err)
		}
		m, err := i.Decode()
		if err != nil {
			p.t.Fatal(err)
		}
		if e, ok := m.(*record.Event); ok && e.Vm != nil && e.Vm.Source == string(virt.KindSweep) {
			all = append(all, i.Leaf.Header.Class.String()+" "+record.Text(i.Leaf.Header.Class, m))
		}
	}
	return all
}

func (p *pipe) toldSo(want ...string) {
	p.t.Helper()
	got := p.told()
	if len(got) != len(want) {
		p.t.Fatalf("%d entries, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, w := range want {
		if !strings.Contains(got[i], w) {
			p.t.Errorf("entry %d is %q, want %q in it", i, got[i], w)
		}
	}
}

// TestDriftIsToldOnce follows what looks find, over restarts of the daemon and
// looks that could not see everything.
func TestDriftIsToldOnce(t *testing.T) {
	p := newPipe(t)
	p.see("vm.define", "define", "added", 0, domain.Shutoff) // whose configuration is <domain/>
	facts := func(config string, groups map[string]map[string]string) *virt.Facts {
		return &virt.Facts{Config: virt.Normalize(config), Groups: groups}
	}
	none := map[string]map[string]string{virt.GroupSnapshots: {}, virt.GroupAutostart: {"autostart": "false"}, virt.GroupFile: {}}
	p.look(virt.LearnedEvent, facts("<domain/>", none))
	p.toldSo()
	p.look(virt.LearnedSweep, facts("<domain><memory>5</memory></domain>", none))
	p.look(virt.LearnedSweep, facts("<domain><memory>5</memory></domain>", none))
	p.toldSo("vm.config_changed vm is shutoff persistent configuration: /memory: none -> 5; (found by sweep)")

	p.restart() // what is known survives; what changed meanwhile is told, once
	more := map[string]map[string]string{virt.GroupSnapshots: {"s1": "disk-only"}, virt.GroupAutostart: {"autostart": "true"}, virt.GroupFile: {}}
	p.look(virt.LearnedBlind, facts("<domain><memory>6</memory></domain>", more))
	p.restart()
	p.look(virt.LearnedBlind, facts("<domain><memory>6</memory></domain>", more))
	want := []string{"/memory: none -> 5", "/memory: 5 -> 6; (found by blind)", "/autostart: false -> true", "vm.snapshot vm is shutoff s1 none -> disk-only created"}
	p.toldSo(want...)

	// A look that could not read the snapshots says nothing of them.
	p.look(virt.LearnedSweep, facts("<domain><memory>6</memory></domain>", map[string]map[string]string{}))
	p.look(virt.LearnedSweep, facts("<domain><memory>6</memory></domain>", none))
	want = append(want, "/autostart: true -> false", "s1 disk-only -> none deleted")
	p.toldSo(want...)

	edited := facts("<domain><memory>6</memory></domain>", none)
	file := virt.Normalize("<domain><memory>7</memory></domain>")
	edited.File = &file
	p.look(virt.LearnedSweep, edited)
	p.look(virt.LearnedSweep, edited)
	p.look(virt.LearnedSweep, facts("<domain><memory>6</memory></domain>", map[string]map[string]string{})) // the file cannot be read
	p.look(virt.LearnedSweep, facts("<domain><memory>6</memory></domain>", none))
	p.toldSo(append(want, "file configuration: /memory: 6 -> 7", "agrees file configuration")...)
}

// TestRunsAreNotCompared: a start begins another live configuration.
func TestRunsAreNotCompared(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	live := func(pid int, text string) *virt.Facts {
		return &virt.Facts{Run: virt.Process{Pid: pid, Start: uint64(pid)}, Live: virt.Normalize(text), Config: virt.Normalize("<domain/>")}
	}
	p.look(virt.LearnedEvent, live(10, "<domain><a>1</a></domain>"))
	p.look(virt.LearnedEvent, live(11, "<domain><a>2</a></domain>"))
	p.toldSo()
	p.look(virt.LearnedSweep, live(11, "<domain><a>3</a></domain>"))
	p.toldSo("live configuration: /a: 2 -> 3; (found by sweep)")
}

// TestNoticeBehindTheEnd: what libvirt says of a domain that has gone begins no
// incarnation, and is not lost.
func TestNoticeBehindTheEnd(t *testing.T) {
	p := newPipe(t)
	p.see("vm.define", "define", "added", 0, domain.Shutoff)
	p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	size := p.store.HostLog().Size()
	if err := p.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindNotice, Type: "vm.job", Word: "job-completed", Event: -1, Detail: -1,
		Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now(), Hypervisor: &record.Hypervisor{Word: "job-completed", Device: "migration-out"}}); err != nil {
		t.Fatal(err)
	}
	if n := len(p.registry.Machines()); n != 0 {
		t.Errorf("%d domains are known", n)
	}
	if got := p.store.HostLog().Size(); got != size+1 {
		t.Errorf("the host log has %d entries, want %d", got, size+1)
	}
	if err := p.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindConnected, Time: time.Now(), Coverage: &virt.Coverage{URI: "x", Missing: map[string]string{"a": "b"}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindConnected, Time: time.Now(), Coverage: &virt.Coverage{URI: "x", Missing: map[string]string{"a": "b"}}}); err != nil {
		t.Fatal(err)
	}
	if got := p.store.HostLog().Size(); got != size+2 {
		t.Errorf("the same coverage is sealed at each connection: %d entries, want %d", got, size+2)
	}
}
