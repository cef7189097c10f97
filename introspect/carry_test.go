package introspect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/replay"
)

// rollNow has the domain go on in another shard, and returns that.
func (p *pipe) rollNow() *chain.Log {
	p.t.Helper()
	p.registry.cfg.ShardEntries = 2
	err := p.registry.rollShards(p.t.Context())
	if p.registry.cfg.ShardEntries = DefaultShardEntries; err != nil {
		p.t.Fatal(err)
	}
	return p.registry.Machines()[0].Log
}

func newCounting(t *testing.T) *pipe {
	p := newPipeWith(t, countingBundle)
	p.facts = virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: 10}, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: 10, Start: 10}}
	p.see("vm.start", "start", "booted", 10, domain.Running)
	return p
}

// counts wants the third change of a letter to be a verdict.
func (p *pipe) counts(l *chain.Log) {
	p.t.Helper()
	if _, v := p.verdictOn(l, p.modified(l, "/home/a")); v.Counted != 3 {
		p.t.Errorf("the verdict counts %d", v.Counted)
	}
}

// offline changes a row while the daemon is down.
func (p *pipe) offline(key string, value []byte) {
	p.t.Helper()
	p.stop()
	s, err := chain.Open(p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f, err := s.Follow("test")
	if err != nil {
		p.t.Fatal(err)
	}
	if err := f.SaveWith(ctx, f.Position(), nil, []chain.MetaWrite{{Key: key, Value: value}}); err != nil {
		p.t.Fatal(err)
	}
	f.Close()
	cancel()
	if err := errors.Join(<-done, s.Close()); err != nil {
		p.t.Fatal(err)
	}
	p.restartFrom()
}

// replayed evaluates the policies again over all shards, as a verifier does.
func (p *pipe) replayed() *replay.Report {
	p.t.Helper()
	c, err := replay.NewCheck(replay.Options{Bundles: []*policy.Bundle{p.engine.Bundle()}})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range p.store.Logs() {
		if l.Name().IsHost() {
			continue
		}
		for it, err := range l.Read(p.t.Context(), 0, l.Size()) {
			if err == nil {
				err = c.Entry(l.Origin(), it.Leaf, it.LeafHash, it.Payload)
			}
			if err != nil {
				p.t.Fatal(err)
			}
		}
	}
	return c.Report()
}

// TestShardsForgetNothing has a guest force one shard after the other, as it can by
// what it does: a count goes on over all of them, over restarts, and where a crash came
// between two. What is sealed about it verifies.
func TestShardsForgetNothing(t *testing.T) {
	p := newCounting(t)
	l, _ := p.store.LogByOrigin(p.registry.Machines()[0].Log.Origin())
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	p.counts(p.rollNow())

	p.modified(p.registry.Machines()[0].Log, "/home/a")
	p.modified(p.rollNow(), "/home/a")
	p.restart()
	p.counts(p.rollNow())

	// Closed, and then a crash: the state waits in the old log.
	l = p.registry.Machines()[0].Log
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	name := l.Name()
	name.Shard++
	if err := p.store.CloseLog(t.Context(), l, "a test", name.String()); err != nil {
		t.Fatal(err)
	}
	p.restart()
	p.see("vm.resume", "resume", "unpaused", 0, 0)
	p.counts(p.registry.Machines()[0].Log)
	p.counted(p.registry.Machines()[0].Log, 4)
	r := p.replayed()
	if len(r.Logs) != 5 || !r.Valid {
		t.Fatalf("%d logs, valid %v: %+v", len(r.Logs), r.Valid, r.Logs)
	}
	for _, l := range r.Logs[1:] {
		if l.Before == nil || !l.Before.Compared || l.Unsure != 0 {
			t.Errorf("%s: %+v, %d unsure", l.Origin, l.Before, l.Unsure)
		}
	}
}

// counted wants a number of entries that say what was carried, up to the shard.
func (p *pipe) counted(l *chain.Log, want int) {
	p.t.Helper()
	m := p.waitFor(record.ClassPolicyCarried, want).(*record.PolicyCarried)
	if m.Problem != "" || m.Origin != shardBefore(l) || len(m.Sha256) != 32 || m.Version != rules.StateVersion || m.ClosedIndex >= m.Size {
		p.t.Errorf("%v", m)
	}
}

// TestShardMadeAnew loses what was saved of a shard, and of the one before: both are
// judged again, with what was carried.
func TestShardMadeAnew(t *testing.T) {
	p := newCounting(t)
	l := p.registry.Machines()[0].Log
	p.modified(l, "/home/a")
	l = p.rollNow()
	p.modified(l, "/home/a")
	p.waitFor(record.ClassPolicyCarried, 1)
	id := l.ID()
	p.offline(StateKey(id), []byte("PVRS\x7f"))
	l, _ = p.store.LogByID(id)
	p.counts(l)

	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	p.offline(StateKey(id), []byte("PVRS\x7f"))
	p.counts(p.rollNow())
	if r := p.replayed(); !r.Valid {
		t.Errorf("%+v", r.Logs)
	}
}

// TestShardWithoutMemory loses for good what was remembered: that is sealed, alerted,
// and a finding of whoever verifies.
func TestShardWithoutMemory(t *testing.T) {
	p := newCounting(t)
	l := p.registry.Machines()[0].Log
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	name := l.Name()
	name.Shard++
	if err := p.store.CloseLog(t.Context(), l, "a test", name.String()); err != nil {
		t.Fatal(err)
	}
	closed, _ := l.Closed()
	st := &rules.State{}
	if _, err := p.engine.Eval(st, record.Leaf{Index: closed, Origin: record.OriginHost, Header: record.Header{Class: record.ClassClosed}}, record.Hash{}, &record.Closed{NextOrigin: "n"}); err != nil {
		t.Fatal(err)
	}
	st.Continue(1)
	b, err := st.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	p.offline(StateKey(l.ID()), b)
	p.see("vm.resume", "resume", "unpaused", 0, 0)
	if m := p.waitFor(record.ClassPolicyCarried, 1).(*record.PolicyCarried); !strings.Contains(m.Problem, fmt.Sprintf("entry %d, which closed it", closed)) || m.Sha256 != nil {
		t.Errorf("%v", m)
	}
	if v := p.waitFor(record.ClassPolicyError, 1).(*record.Verdict); !strings.Contains(v.Error, "policies begin without what they remembered") || len(v.Actions) != 1 {
		t.Errorf("%v", v)
	}
	if r := p.replayed(); r.Valid || len(r.Logs[1].Differences) != 1 || r.Logs[1].Differences[0].Kind != replay.KindCarried {
		t.Errorf("%+v", r.Logs[1])
	}
}

// TestHandedOver holds a log that the next shard has not taken over from.
func TestHandedOver(t *testing.T) {
	p := newCounting(t)
	l := p.registry.Machines()[0].Log
	if err := HandedOver(p.store, l); err != nil {
		t.Errorf("the last log: %v", err)
	}
	old := l.ID()
	next := p.rollNow().ID()
	p.waitFor(record.ClassPolicyCarried, 1)
	if err := HandedOver(p.store, l); err != nil {
		t.Errorf("it was taken over: %v", err)
	}
	p.offline(StateKey(next), nil) // as before the judge comes there
	l, _ = p.store.LogByID(old)
	if err := HandedOver(p.store, l); !errors.Is(err, record.ErrRetry) {
		t.Errorf("it was not taken over: %v", err)
	}
}
