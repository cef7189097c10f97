package introspect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

// shardWords is the history of a shard of the first incarnation, without the entry on
// what policies remember, which the judge seals in its own time.
func (p *pipe) shardWords(shard string) string {
	p.t.Helper()
	words := slices.DeleteFunc(p.historyOf("1/"+shard), func(w string) bool { return w == "policy.carried" })
	return strings.Join(words, " ")
}

// TestShards lets a log grow large, and old: it is closed and goes on in another
// shard, over a restart, and where a crash came between the two. At the end of the
// incarnation the last one is closed.
func TestShards(t *testing.T) {
	p := newPipe(t)
	p.facts = virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: 10}, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: 10, Start: 10}}
	roll := func() {
		t.Helper()
		if err := p.registry.rollShards(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.see("vm.start", "start", "booted", 10, domain.Running)
	if roll(); p.registry.Machines()[0].Log.Name().Shard != 1 {
		t.Fatal("a small young log is closed")
	}
	first := p.registry.Machines()[0].Log
	epoch := p.registry.Machines()[0].Epoch
	e, err := p.store.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "progress"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Append(t.Context(), chain.Batch{Log: first, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: guest.ProgressKey(first), Value: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	p.registry.cfg.ShardEntries = 4
	roll()
	p.registry.cfg.ShardEntries = DefaultShardEntries
	m := p.registry.Machines()[0]
	second := m.Log
	if second.Name().Shard != 2 || m.Epoch != epoch || !p.registry.Current(first) || !p.registry.Current(second) {
		t.Fatalf("the domain goes on in %s, epoch %x", second.Origin(), m.Epoch)
	}
	if got, want := p.shardWords("1"), "log.genesis policy.loaded vm.epoch:start vm.start vm.change log.closed"; got != want {
		t.Errorf("shard 1\n got %s\nwant %s", got, want)
	}
	if got, want := p.shardWords("2"), "log.genesis+previous policy.loaded vm.epoch:shard vm.change"; got != want {
		t.Errorf("shard 2\n got %s\nwant %s", got, want)
	}
	closed, ok := first.Closed()
	if c, signed := first.Checkpoint(); !ok || !signed || c.Size != closed+1 {
		t.Errorf("shard 1 is closed by entry %d and signed at size %d", closed, c.Size)
	}
	if _, ok, err := p.store.Meta(guest.ProgressKey(second)); !ok || err != nil {
		t.Errorf("how far the agent is was left behind: %v", err)
	}
	if _, err := p.store.Append(t.Context(), chain.Batch{Log: first, Entries: []chain.Entry{e}}); !errors.Is(err, chain.ErrLogClosed) || !errors.Is(err, record.ErrReject) {
		t.Errorf("an entry of the host in a closed log: %v", err)
	}
	v, err := p.store.Draft(record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{Kind: "alert"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Append(t.Context(), chain.Batch{Log: first, Entries: []chain.Entry{v}}); err != nil {
		t.Errorf("an outcome in a closed log: %v", err)
	}

	p.restart()
	if l := p.registry.Machines()[0].Log; l.Name().Shard != 2 {
		t.Fatalf("after a restart the domain is in %s", l.Origin())
	}
	second = p.registry.Machines()[0].Log
	if err := p.store.CloseLog(t.Context(), second, "a test", "next"); err != nil { // and then a crash
		t.Fatal(err)
	}
	p.restart()
	p.see("vm.pause", "pause", "user", 0, 0)
	third := p.registry.Machines()[0].Log
	if got, want := p.shardWords("3"), "log.genesis+previous policy.loaded vm.epoch:shard vm.change vm.pause"; third.Name().Shard != 3 || got != want {
		t.Errorf("behind a crash, shard %d\n got %s\nwant %s", third.Name().Shard, got, want)
	}
	p.registry.cfg.Now = func() time.Time { return time.Now().Add(DefaultShardAge) }
	roll()
	p.registry.cfg.Now = time.Now
	fourth := p.registry.Machines()[0].Log
	if fourth.Name().Shard != 4 {
		t.Fatalf("an old log goes on in %s", fourth.Origin())
	}
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	if _, ok := fourth.Closed(); !ok {
		t.Error("the log of an incarnation that has ended is open")
	}
	size := fourth.Size()
	if roll(); fourth.Size() != size {
		t.Error("it is closed again")
	}
	var logs []*chain.Log
	for _, l := range p.store.Logs() {
		if !l.Name().IsHost() {
			logs = append(logs, l)
		}
	}
	links, err := p.store.Links(t.Context(), logs)
	if err != nil || len(links) != 4 {
		t.Fatalf("%d links, %v", len(links), err)
	}
	for i, k := range links[1:] {
		if k.State != chain.LinkWhole || k.Cause != "shard" {
			t.Errorf("shard %d hangs on the one before as %s (%s): %s", i+2, k.State, k.Cause, k.Problem)
		}
	}
	p.restart()
	p.stop()
	report, err := chain.Fsck(t.Context(), p.cfg, chain.FsckOptions{})
	if err != nil || !report.OK() {
		t.Fatalf("fsck: %v %v", err, report.Findings)
	}
	s, err := chain.Open(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.run(s)
}

// TestShardsWithoutKey loses the key of a log's genesis: the log grows old all the
// same, and goes on in another shard, also while libvirt tells nothing.
func TestShardsWithoutKey(t *testing.T) {
	p := newPipe(t)
	p.stop()
	p.cfg.Dir, p.cfg.Anchor, p.cfg.PayloadKeys = p.cfg.Dir+"2", p.cfg.Anchor+"2", p.cfg.Dir+"-payload-keys"
	s, err := chain.Create(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.run(s)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.stop()
	files, err := filepath.Glob(filepath.Join(p.cfg.PayloadKeys, "keys-*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = chain.Open(p.cfg); err != nil {
		t.Fatal(err)
	}
	p.run(s)
	if _, err := p.registry.Machines()[0].Log.Item(0); !errors.Is(err, chain.ErrUnreadable) {
		t.Fatalf("the genesis can be read: %v", err)
	}
	p.registry.cfg.Inspect = func(context.Context, domain.UUID) (virt.Snapshot, error) {
		return virt.Snapshot{}, errors.New("libvirt is not there")
	}
	p.registry.cfg.Now = func() time.Time { return time.Now().Add(DefaultShardAge) }
	if err := p.registry.rollShards(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := p.registry.Machines()[0].Log; l.Name().Shard != 2 {
		t.Errorf("it goes on in %s", l.Origin())
	}
}
