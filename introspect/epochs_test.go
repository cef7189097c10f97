package introspect

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// marked is see with the marker that comes with memory.
func (p *pipe) marked(word, reason string, pid int, mark *virt.Mark) {
	p.t.Helper()
	typ := "vm." + word
	if err := p.registry.Observe(p.t.Context(), virt.Observation{Kind: virt.KindLifecycle, Type: typ, Word: word, Reason: reason, Event: 2, Detail: 2,
		Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now(), Snapshot: &virt.Snapshot{
			Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: pid}, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: pid, Start: uint64(pid)}, Mark: mark}}); err != nil {
		p.t.Fatal(err)
	}
}

// mark has the registry mark the domain's epoch, and returns what it wrote.
func (p *pipe) mark() *virt.Mark {
	p.t.Helper()
	var got *virt.Mark
	p.registry.cfg.Mark = func(_ context.Context, id domain.UUID, m *virt.Mark) error {
		if id != vm {
			p.t.Errorf("domain %s is marked", id)
		}
		got = m
		return nil
	}
	p.registry.hears(true)
	due := p.registry.unmarked()
	if len(due) != 1 {
		p.t.Fatalf("%d markers are due, want 1", len(due))
	}
	if err := p.registry.mark(p.t.Context(), due[0]); err != nil || got == nil {
		p.t.Fatalf("mark: %v", err)
	}
	if n := len(p.registry.unmarked()); n != 0 {
		p.t.Errorf("%d markers are due behind it", n)
	}
	return got
}

// epochs returns the epochs of an incarnation's first shard, with their leaves.
func (p *pipe) epochs(incarnation uint64) (all []*record.Epoch, leaves []chain.Item) {
	p.t.Helper()
	l, ok := p.store.LogByOrigin(proof.VMOrigin("test.host", vm.String(), incarnation))
	if !ok {
		p.t.Fatal("no such log")
	}
	for item, err := range l.Read(p.t.Context(), 0, l.Size()) {
		if err != nil {
			p.t.Fatal(err)
		}
		if m, err := item.Decode(); err == nil {
			if e, ok := m.(*record.Epoch); ok {
				all, leaves = append(all, e), append(leaves, item)
			}
		}
	}
	return all, leaves
}

func (p *pipe) count(class record.Class) (n int) {
	p.t.Helper()
	for _, l := range p.store.Logs() {
		for item, err := range l.Read(p.t.Context(), 0, l.Size()) {
			if err != nil {
				p.t.Fatal(err)
			}
			if item.Leaf.Header.Class == class {
				n++
			}
		}
	}
	return n
}

// TestSecondRestoreIsAFork restores one save file twice, with a restart of the daemon
// between: both epochs hang on the leaf at which memory was saved, and the second
// says that it is a fork, and of what.
func TestSecondRestoreIsAFork(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	saved := p.mark()
	log, _ := p.store.LogByOrigin(saved.Origin)
	at := log.Head()
	p.see("vm.stop", "stop", "saved", 0, domain.Shutoff)
	p.marked("start", "restored", 11, saved)
	p.see("vm.resume", "resume", "from-snapshot", 0, 0) // as libvirt has it
	p.restart()
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	p.marked("start", "restored", 12, saved)
	all, leaves := p.epochs(1)
	if len(all) != 3 {
		t.Fatalf("%d epochs, want 3", len(all))
	}
	if saved.Index != leaves[0].Index || saved.Hash != leaves[0].LeafHash || !bytes.Equal(saved.Epoch[:], all[0].Epoch) {
		t.Errorf("the marker names entry %d of epoch %x", saved.Index, saved.Epoch)
	}
	if c, err := proof.OpenCheckpoint(saved.Note, log.Verifier()); err != nil || c.Size <= saved.Index {
		t.Errorf("its note: size %d, %v", c.Size, err)
	}
	for i, e := range all[1:] {
		if !bytes.Equal(e.Parent, all[0].Epoch) || e.ParentIndex != at.Size-1 || !bytes.Equal(e.ParentHash, at.LastHash[:]) || e.ParentOrigin != saved.Origin ||
			e.ImageUses != uint64(i+1) || e.Presumed {
			t.Errorf("restore %d: %s", i+1, record.Text(record.ClassVMEpoch, e))
		}
	}
	if len(all[1].Abandoned) != 0 || !bytes.Equal(all[2].Abandoned, all[1].Epoch) || all[2].AbandonedIndex <= leaves[1].Index {
		t.Errorf("the second restore abandons %x", all[2].Abandoned)
	}
	if n := p.count(record.ClassVMFork); n != 1 {
		t.Errorf("%d forks are sealed, want 1", n)
	}
}

// TestRevertBranches reverts a domain to a snapshot, once in another QEMU and once in
// the one that runs: each opens one epoch, at the pause by which the snapshot was taken.
func TestRevertBranches(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	first := p.mark()
	log, _ := p.store.LogByOrigin(first.Origin)
	taken := time.Unix(0, log.Head().Wall+1)
	p.see("vm.pause", "pause", "user", 0, 0)
	pause := log.Head()
	p.see("vm.resume", "resume", "unpaused", 0, 0)
	p.registry.cfg.Reverted = func(context.Context, domain.UUID) (*virt.Image, error) {
		return &virt.Image{Name: "s1", Created: taken}, nil
	}
	p.see("vm.stop", "stop", "from-snapshot", 0, domain.Shutoff)
	p.marked("start", "from-snapshot", 11, first)
	p.see("vm.resume", "resume", "from-snapshot", 0, 0)
	if all, _ := p.epochs(1); len(all) != 2 {
		t.Fatalf("%d epochs behind a revert in another process, want 2", len(all))
	}
	p.see("vm.pause", "pause", "from-snapshot", 0, 0)
	p.see("vm.resume", "resume", "from-snapshot", 0, 0)
	all, _ := p.epochs(1)
	if len(all) != 3 {
		t.Fatalf("%d epochs behind a revert in the same process, want 3", len(all))
	}
	for i, e := range all[1:] {
		if e.Cause != "revert" || !bytes.Equal(e.Parent, all[0].Epoch) || e.ParentIndex != pause.Size-1 || !bytes.Equal(e.ParentHash, pause.LastHash[:]) ||
			!bytes.Equal(e.Abandoned, all[i].Epoch) || e.ImageUses != uint64(i+1) || !strings.Contains(e.Image, `"s1"`) {
			t.Errorf("revert %d: %s", i+1, record.Text(record.ClassVMEpoch, e))
		}
	}
	if n := p.count(record.ClassVMFork); n != 2 {
		t.Errorf("%d forks are sealed, want 2", n)
	}
}

// TestArrivalContinues follows memory from another host, and away again.
func TestArrivalContinues(t *testing.T) {
	p := newPipe(t)
	epoch := [16]byte{7}
	origin := proof.VMOrigin("other.host", vm.String(), 4)
	note := proof.Checkpoint{Origin: origin, Size: 9, Root: record.Hash{3}}.Text() + "\n"
	mark := &virt.Mark{Origin: origin, Epoch: epoch, Index: 2, Hash: record.Hash{2}, Note: []byte(note)}
	p.marked("start", "migrated", 10, mark)
	all, _ := p.epochs(1)
	if len(all) != 1 || all[0].Cause != "arrival" || !bytes.Equal(all[0].Parent, epoch[:]) || all[0].ParentOrigin != origin || all[0].ParentIndex != 2 {
		t.Fatalf("epochs %v", all)
	}
	l := p.registry.Machines()[0].Log
	item, err := l.Look(0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if g := m.(*record.Genesis); g.Cause != "arrival" || g.Source.GetOrigin() != origin || !bytes.Equal(g.Source.GetNote(), mark.Note) {
		t.Errorf("genesis %s, source %v", record.Text(record.ClassGenesis, g), g.Source)
	}
	size, root := l.Root()
	p.see("vm.migrate", "stop", "migrated", 0, domain.Shutoff)
	if _, closed := l.Closed(); !closed {
		t.Error("the log of a domain that has left is open")
	}
	host := p.store.HostLog().Size()
	if err := p.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindNotice, Type: "vm.change", Word: "job-completed", Event: -1, Detail: -1,
		Domain: domain.Domain{UUID: vm, Name: "vm", ID: -1}, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, begun := p.store.LogByOrigin(proof.VMOrigin("test.host", vm.String(), 2)); begun || p.store.HostLog().Size() == host {
		t.Error("what is told behind a departure begins a log, or is lost")
	}
	item, err = l.Look(size)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = item.Decode(); err != nil || item.Leaf.Header.Class != record.ClassVMHandover {
		t.Fatalf("entry %d is a %s: %v", size, item.Leaf.Header.Class, err)
	}
	if h := m.(*record.Handover); h.Index != size-1 || !bytes.Equal(h.Root, root[:]) || !bytes.Equal(h.Epoch, all[0].Epoch) {
		t.Errorf("handover %v", h)
	}
}

// TestMarkersThatFail is refused by libvirt, and cannot find the leaf of an epoch: neither
// ends the daemon, and both are tried again later.
func TestMarkersThatFail(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	now := time.Now()
	p.registry.cfg.Now = func() time.Time { return now }
	tries := 0
	p.registry.cfg.Mark = func(context.Context, domain.UUID, *virt.Mark) error { tries++; return record.ErrRetry }
	p.registry.hears(true)
	for range 3 {
		for _, m := range p.registry.unmarked() {
			if err := p.registry.mark(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tries != 1 {
		t.Errorf("%d tries at once, want 1", tries)
	}
	now = now.Add(markPause)
	due := p.registry.unmarked()
	if len(due) != 1 {
		t.Fatalf("%d markers are due later, want 1", len(due))
	}
	due[0].EpochAfter = due[0].log.Size() // as where its leaf is not kept any longer
	if err := p.registry.mark(t.Context(), due[0]); err != nil || tries != 1 {
		t.Errorf("without a leaf: %v, %d tries", err, tries)
	}
	if n := len(p.registry.unmarked()); n != 0 {
		t.Errorf("%d markers are due at once behind that", n)
	}
	now = now.Add(markMax)
	if n := len(p.registry.unmarked()); n != 1 {
		t.Errorf("%d markers are due in the end, want 1", n)
	}
}

// TestMarkerOfAClone begins a domain with the memory of another one.
func TestMarkerOfAClone(t *testing.T) {
	p := newPipe(t)
	p.marked("start", "restored", 10, &virt.Mark{Origin: proof.VMOrigin("test.host", domain.UUID{9}.String(), 1), Epoch: [16]byte{7}, Index: 2})
	if n := p.count(record.ClassVMFork); n != 1 {
		t.Errorf("%d forks are sealed, want 1: the memory is another domain's", n)
	}
}

// TestSecondRestoreFromElsewhereIsAFork restores a file of another host twice.
func TestSecondRestoreFromElsewhereIsAFork(t *testing.T) {
	p := newPipe(t)
	mark := &virt.Mark{Origin: proof.VMOrigin("other.host", vm.String(), 1), Epoch: [16]byte{7}, Index: 2, Hash: record.Hash{2}}
	p.marked("start", "restored", 10, mark)
	if n := p.count(record.ClassVMFork); n != 0 {
		t.Errorf("%d forks behind the first restore, want none", n)
	}
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	p.restart()
	p.marked("start", "restored", 11, mark)
	all, _ := p.epochs(1)
	if n := p.count(record.ClassVMFork); n != 1 || len(all) != 2 || all[1].ImageUses != 2 || !bytes.Equal(all[1].Parent, mark.Epoch[:]) || all[1].ParentIndex != 2 {
		t.Errorf("%d forks behind the second restore, want 1: %v", n, all)
	}
}

// TestRestoreWithoutMarkerIsPresumed saves a domain twice and takes the marker away: nobody
// knows which file is restored.
func TestRestoreWithoutMarkerIsPresumed(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.stop", "stop", "saved", 0, domain.Shutoff)
	p.see("vm.start", "start", "booted", 11, domain.Running)
	p.see("vm.stop", "stop", "saved", 0, domain.Shutoff)
	p.marked("start", "restored", 12, nil)
	if all, _ := p.epochs(1); len(all) != 3 || !all[2].Presumed {
		t.Errorf("epochs %v", all)
	}
}

// TestForgedMarkers: whoever may change a domain writes what they like into its metadata. It
// is told, and no epoch hangs on it.
func TestForgedMarkers(t *testing.T) {
	for name, forge := range map[string]func(*virt.Mark){
		"another leaf":  func(k *virt.Mark) { k.Index-- },
		"no leaf":       func(k *virt.Mark) { k.Index += 1000 },
		"another hash":  func(k *virt.Mark) { k.Hash[0]++ },
		"another epoch": func(k *virt.Mark) { k.Epoch[0]++ },
		"no log":        func(k *virt.Mark) { k.Origin = "x\ny" },
	} {
		p := newPipe(t)
		p.see("vm.start", "start", "booted", 10, domain.Running)
		mark := p.mark()
		p.see("vm.stop", "stop", "saved", 0, domain.Shutoff)
		forge(mark)
		p.marked("start", "restored", 11, mark)
		all, leaves := p.epochs(1)
		if len(all) != 2 || !all[1].Presumed || !bytes.Equal(all[1].Parent, all[0].Epoch) || all[1].ParentIndex <= leaves[0].Index {
			t.Errorf("%s: epochs %v", name, all)
		}
		if n := p.count(record.ClassVMFork); n != 1 {
			t.Errorf("%s: %d entries tell of it, want 1", name, n)
		}
	}
}

// TestMarkerIsWrittenAnew takes the marker of a running domain away.
func TestMarkerIsWrittenAnew(t *testing.T) {
	p := newPipe(t)
	now := time.Now()
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.registry.cfg.Now = func() time.Time { return now }
	p.mark()
	p.marked("metadata", "element", 10, nil)
	if n := len(p.registry.unmarked()); n != 0 {
		t.Errorf("%d markers are due at once, want none: libvirt tells of each that is written", n)
	}
	now = now.Add(markPause)
	mark := p.mark()
	p.marked("metadata", "element", 10, mark)
	now = now.Add(markMax)
	if n := len(p.registry.unmarked()); n != 0 {
		t.Errorf("%d markers are due where there is one", n)
	}
}

// TestEpochOfALaterShard: an epoch goes on in the next shard, where only later ones are
// opened.
func TestEpochOfALaterShard(t *testing.T) {
	shard := func(n uint32) string {
		return proof.Origin{HostID: "h", Domain: vm.String(), Incarnation: 1, Shard: n}.String()
	}
	l := lineage{Opened: []opened{{epochID{1}, shard(1), 5}, {epochID{2}, shard(3), 20}, {epochID{3}, shard(4), 2}}}
	for _, c := range []struct {
		at   point
		want epochID
	}{{point{Origin: shard(1), Index: 6}, epochID{1}}, {point{Origin: shard(2), Index: 0}, epochID{1}}, {point{Origin: shard(3), Index: 10}, epochID{1}},
		{point{Origin: shard(3), Index: 20}, epochID{2}}, {point{Origin: shard(4), Index: 1}, epochID{2}}} {
		if got, ok := l.epochAt(c.at); !ok || got != c.want {
			t.Errorf("%+v is in epoch %x, want %x", c.at, got, c.want)
		}
	}
	if _, ok := l.epochAt(point{Origin: shard(1), Index: 4}); ok {
		t.Error("there is no epoch before the first")
	}
}
