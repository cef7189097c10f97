package introspect

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// pipe is a store on disk with a registry and a judge, which can be ended as by
// a crash and built again.
type pipe struct {
	t        *testing.T
	cfg      chain.Config
	engine   *rules.Engine   // in force
	known    []*rules.Engine // of what was in force, too
	store    *chain.Store
	registry *Registry
	stop     func()
	facts    virt.Snapshot // what Inspect tells
}

const bundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "stopped" {
  title    = "The domain was stopped"
  severity = "high"
  mode     = "enforce"
  on        = ["vm.stop"]
  condition = event.origin == "host"
  cooldown {
    period = "1h"
    by     = [vm.uuid]
  }
  action "alert" {
    message = "${vm.name} stopped"
  }
}
`

func newPipe(t *testing.T) *pipe { return newPipeWith(t, bundle) }

func newPipeWith(t *testing.T, bundle string) *pipe {
	t.Helper()
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(bundle)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	engine, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{t: t, engine: engine, known: []*rules.Engine{engine}, cfg: chain.Config{Dir: filepath.Join(dir, "db"), Anchor: filepath.Join(dir, "anchor"), HostID: "test.host", Keys: k}}
	s, err := chain.Create(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.run(s)
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *pipe) run(s *chain.Store) {
	p.t.Helper()
	p.store = s
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	jctx, jcancel := context.WithCancel(context.Background())
	done, judged := make(chan error, 1), make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	j := NewJudge(JudgeConfig{Store: s, Engine: p.find, Log: log})
	go func() { judged <- j.Run(jctx) }()
	var err error
	p.registry, err = NewRegistry(RegistryConfig{Store: s, Sessions: guest.New(guest.Config{Store: s, Log: log}), HostID: "test.host",
		Activation: func(uuid string) *record.BundleActivation { return p.engine.ActivationFor(uuid) }, Log: log,
		Inspect: func(context.Context, domain.UUID) (virt.Snapshot, error) { return p.facts, nil }})
	if err != nil {
		p.t.Fatal(err)
	}
	p.stop = func() {
		jcancel()
		err := <-judged
		cancel()
		if err := errors.Join(err, <-done, s.Close()); err != nil {
			p.t.Error(err)
		}
	}
}

// find returns the engine of an activation.
func (p *pipe) find(a *record.BundleActivation) (*rules.Engine, error) {
	for _, e := range p.known {
		if bytes.Equal(a.Digest, e.Bundle().Digest[:]) {
			return e.For(a)
		}
	}
	return p.known[0], errors.New("its bundle is gone")
}

func (p *pipe) restart() {
	p.t.Helper()
	p.stop()
	p.restartFrom()
}

var vm = domain.UUID{1, 2, 3}

// see has the registry observe an event, with facts where state is active.
func (p *pipe) see(typ, word, reason string, pid int, state domain.State) {
	p.t.Helper()
	o := virt.Observation{Kind: virt.KindLifecycle, Type: typ, Word: word, Reason: reason, Event: 1, Detail: 1,
		Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now()}
	if word == "reboot" {
		o.Kind = virt.KindReboot
	} else if word != "undefine" && word != "pause" && word != "resume" {
		o.Snapshot = &virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: state, ID: pid},
			ConfigXML: "<domain/>", QEMU: virt.Process{Pid: pid, Start: uint64(pid)}}
	}
	if err := p.registry.Observe(p.t.Context(), o); err != nil {
		p.t.Fatal(err)
	}
}

// history is the log of the domain as words: classes, causes of epochs.
func (p *pipe) history(incarnation string) []string {
	p.t.Helper()
	return p.historyOf(incarnation + "/1")
}

// historyOf is the history of one shard, named by its incarnation and number.
func (p *pipe) historyOf(shard string) []string {
	p.t.Helper()
	l, ok := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/" + shard)
	if !ok {
		p.t.Fatalf("there is no log %s", shard)
	}
	var words []string
	for i, err := range l.Read(p.t.Context(), 0, l.Size()) {
		if err != nil {
			p.t.Fatal(err)
		}
		w := i.Leaf.Header.Class.String()
		if m, err := i.Decode(); err != nil {
			p.t.Fatal(err)
		} else if e, ok := m.(*record.Epoch); ok {
			w += ":" + e.Cause
			if len(e.Parent) > 0 {
				w += "+parent"
			}
		} else if g, ok := m.(*record.Genesis); ok && len(g.PreviousCheckpoint) > 0 {
			w += "+previous"
		}
		if i.Leaf.Header.Class != record.ClassPolicyVerdict { // whose place depends on timing
			words = append(words, w)
		}
	}
	return words
}

func (p *pipe) expect(incarnation string, want ...string) {
	p.t.Helper()
	if got := strings.Join(p.history(incarnation), " "); got != strings.Join(want, " ") {
		p.t.Errorf("incarnation %s\n got %s\nwant %s", incarnation, got, strings.Join(want, " "))
	}
}

// TestLifeOfADomain follows incarnations and epochs over a restart of the
// daemon in the middle.
func TestLifeOfADomain(t *testing.T) {
	p := newPipe(t)
	p.see("vm.define", "define", "added", 0, domain.Shutoff)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.pause", "pause", "user", 0, 0)
	p.see("vm.resume", "resume", "unpaused", 0, 0)
	p.see("vm.reboot", "reboot", "", 10, domain.Running)
	p.restart()
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	p.see("vm.start", "start", "restored", 11, domain.Running)
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	p.expect("1", "log.genesis", "policy.loaded", "vm.define", "vm.epoch:start", "vm.start", "vm.pause", "vm.resume",
		"vm.epoch:reset+parent", "vm.reboot", "vm.stop", "vm.epoch:restore+parent", "vm.start", "vm.stop", "vm.undefine", "log.closed")
	if got := p.registry.Machines(); len(got) != 0 {
		t.Errorf("an undefined domain is listed: %v", got)
	}
	p.see("vm.define", "define", "added", 0, domain.Shutoff)
	p.expect("2", "log.genesis+previous", "policy.loaded", "vm.define")
}

// TestEndsWithoutUndefine follows domains whose end libvirt calls a stop:
// transient ones, and those that migrate away.
func TestEndsWithoutUndefine(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.gone("stop", "shutdown", nil)
	if n := len(p.registry.Machines()); n != 0 {
		t.Fatalf("%d domains are left of a transient one that stopped", n)
	}
	p.see("vm.start", "start", "migrated", 11, domain.Running)
	p.expect("2", "log.genesis+previous", "policy.loaded", "vm.epoch:arrival", "vm.start")
	p.see("vm.migrate", "stop", "migrated", 0, domain.Shutoff)
	p.see("vm.migrate", "start", "migrated", 12, domain.Running)
	p.see("vm.migrate", "start", "migrated", 13, domain.Running) // its departure was missed
	p.expect("3", "log.genesis+previous", "policy.loaded", "vm.epoch:arrival", "vm.migrate", "vm.change", "log.closed")
	p.expect("4", "log.genesis+previous", "policy.loaded", "vm.epoch:arrival", "vm.migrate")
}

// TestUnreadFacts loses the facts of a start: they are asked for again, and the
// run gets its epoch (I4).
func TestUnreadFacts(t *testing.T) {
	p := newPipe(t)
	p.see("vm.define", "define", "added", 0, domain.Shutoff)
	p.gone("start", "booted", errors.New("libvirt does not answer"))
	if n := len(p.registry.unread()); n != 1 {
		t.Fatalf("%d domains have facts missing, want 1", n)
	}
	p.facts = virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: 4}, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: 4, Start: 4}}
	if err := p.registry.reread(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	p.expect("1", "log.genesis", "policy.loaded", "vm.define", "vm.start", "vm.epoch:found", "vm.change")
	if n := len(p.registry.unread()); n != 0 {
		t.Errorf("%d domains have facts missing afterwards", n)
	}
}

// gone has the registry observe an event without facts.
func (p *pipe) gone(word, reason string, err error) {
	p.t.Helper()
	o := virt.Observation{Kind: virt.KindLifecycle, Type: "vm." + word, Word: word, Reason: reason, Event: 1, Detail: 1,
		Domain: domain.Domain{UUID: vm, Name: "vm"}, Time: time.Now(), SnapshotErr: err}
	if err := p.registry.Observe(p.t.Context(), o); err != nil {
		p.t.Fatal(err)
	}
}

// TestVerdictsAreSealedOnce restarts between entries: no verdict is repeated or
// forgotten, and a cooldown outlives the restart (I2, I5).
func TestVerdictsAreSealedOnce(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	p.verdicts(1)
	p.restart()
	p.see("vm.start", "start", "booted", 12, domain.Running)
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff) // within the cooldown
	p.restart()
	p.see("vm.start", "start", "booted", 13, domain.Running)
	p.stop()
	s, err := chain.Open(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.run(s)
	p.verdicts(1)
}

// verdicts waits until the judge has seen everything and counts.
func (p *pipe) verdicts(want int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	f := p.store.Tail(chain.Position{})
	defer f.Close()
	n := 0
	for n < want {
		i, err := f.Next(ctx)
		if err != nil {
			p.t.Fatalf("%d verdicts are sealed, want %d: %v", n, want, err)
		}
		if i.Leaf.Header.Class == record.ClassPolicyVerdict {
			n++
		}
	}
	for {
		i, ok, err := f.TryNext()
		if err != nil {
			p.t.Fatal(err)
		}
		if !ok {
			return
		}
		if i.Leaf.Header.Class == record.ClassPolicyVerdict {
			p.t.Errorf("verdict %d is one too many", i.Index)
		}
	}
}
