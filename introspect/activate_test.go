package introspect

import (
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// engineOf makes an engine of a bundle's text.
func engineOf(t testing.TB, text string) *rules.Engine {
	t.Helper()
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(text)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	e, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestActivationsDecide changes policies of a domain and holds that each entry is
// judged by what its log named last, across restarts and by a judge that is behind,
// and that an unchanged policy keeps its cooldown.
func TestActivationsDecide(t *testing.T) {
	p := newPipe(t)
	next := engineOf(t, bundle+`
policy "started" {
  on = ["vm.start"]
  action "alert" {
    message = "${vm.name} started"
  }
}
`)
	p.stop()
	p.known = append(p.known, next)
	p.restartFrom()
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	stop := p.newest(l, record.ClassVMStop)
	if _, v := p.verdictOn(l, stop); v.Policy != "stopped" || string(v.BundleDigest) != string(digestOf(p.known[0])) {
		t.Errorf("the verdict before the change: %v", v)
	}
	p.engine = next
	if done, err := p.registry.Activate(t.Context()); err != nil || len(done) != 1 || !done[0].Sealed {
		t.Fatalf("%+v, %v", done, err)
	}
	if done, err := p.registry.Activate(t.Context()); err != nil || len(done) != 1 || done[0].Sealed {
		t.Errorf("what is in force is sealed again: %+v, %v", done, err)
	}
	p.see("vm.start", "start", "booted", 11, domain.Running)
	start := p.newest(l, record.ClassVMStart)
	if _, v := p.verdictOn(l, start); v.Policy != "started" || string(v.BundleDigest) != string(digestOf(next)) {
		t.Errorf("the verdict behind the change: %v", v)
	}
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	p.see("vm.start", "start", "booted", 12, domain.Running)
	p.verdictOn(l, p.newest(l, record.ClassVMStart))
	p.expectVerdicts(l, 1, "stopped")

	// A judge that starts from the very beginning comes to the same.
	verdicts := p.triggered(l)
	p.restart()
	l, _ = p.store.LogByOrigin(l.Origin())
	p.see("vm.start", "start", "booted", 13, domain.Running)
	_, v := p.verdictOn(l, p.newest(l, record.ClassVMStart))
	if string(v.BundleDigest) != string(digestOf(next)) {
		t.Errorf("behind a restart the verdict names bundle %x", v.BundleDigest)
	}
	if got := p.triggered(l); !strings.HasPrefix(strings.Join(got, " "), strings.Join(verdicts, " ")) {
		t.Errorf("verdicts were %v, are %v", verdicts, got)
	}
}

// TestAMissingBundleIsTold has the judge come to an activation whose bundle is gone.
func TestAMissingBundleIsTold(t *testing.T) {
	p := newPipe(t)
	p.engine = engineOf(t, strings.Replace(bundle, "version  = \"1\"", "version  = \"2\"", 1)) // p.find does not know it
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	if _, v := p.verdictOn(l, p.newest(l, record.ClassVMStop)); string(v.BundleDigest) != string(digestOf(p.known[0])) {
		t.Errorf("the verdict names bundle %x", v.BundleDigest)
	}
	found := 0
	for i, err := range l.Read(t.Context(), 0, l.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		if i.Leaf.Header.Class != record.ClassPolicyError {
			continue
		}
		m, err := i.Decode()
		if v, ok := m.(*record.Verdict); err != nil || !ok || !strings.Contains(v.Error, "its bundle is gone") || !strings.Contains(v.Error, p.known[0].Bundle().Digest.String()) {
			t.Errorf("%v (%v)", m, err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("it is told %d times", found)
	}
}

func digestOf(e *rules.Engine) []byte { d := e.Bundle().Digest; return d[:] }

// newest returns the index of the newest entry of a class.
func (p *pipe) newest(l *chain.Log, c record.Class) uint64 {
	p.t.Helper()
	for i := l.Size(); i > 0; i-- {
		if item, err := l.Item(i - 1); err != nil {
			p.t.Fatal(err)
		} else if item.Leaf.Header.Class == c {
			return i - 1
		}
	}
	p.t.Fatalf("%s has no %s", l.Origin(), c)
	return 0
}

// triggered lists the verdicts of a log: their policies.
func (p *pipe) triggered(l *chain.Log) (all []string) {
	p.t.Helper()
	for i, err := range l.Read(p.t.Context(), 0, l.Size()) {
		if err != nil {
			p.t.Fatal(err)
		}
		if m, err := i.Decode(); err != nil {
			p.t.Fatal(err)
		} else if v, ok := m.(*record.Verdict); ok {
			all = append(all, v.Policy)
		}
	}
	return all
}

func (p *pipe) expectVerdicts(l *chain.Log, want int, policy string) {
	p.t.Helper()
	n := 0
	for _, name := range p.triggered(l) {
		if name == policy {
			n++
		}
	}
	if n != want {
		p.t.Errorf("%d verdicts of %s, want %d: %v", n, policy, want, p.triggered(l))
	}
}

// restartFrom goes on behind stop.
func (p *pipe) restartFrom() {
	p.t.Helper()
	s, err := chain.Open(p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.run(s)
}

// TestStatesWithoutActivation goes on with a ledger whose judge did not keep which
// policies are in force: what its logs say last is.
func TestStatesWithoutActivation(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 10, domain.Running)
	p.see("vm.stop", "stop", "shutdown", 0, domain.Shutoff)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	p.verdictOn(l, p.newest(l, record.ClassVMStop))
	size := l.Size()
	for _, next := range []uint64{size, 2} {
		got, err := lastActivation(l, next)
		if err != nil {
			t.Fatal(err)
		}
		m, err := record.Decode(record.ClassPolicyLoaded, got)
		if a, ok := m.(*record.BundleActivation); err != nil || !ok || string(a.Digest) != string(digestOf(p.engine)) {
			t.Errorf("ahead of entry %d stands %v (%v)", next, m, err)
		}
	}
	if got, err := lastActivation(l, 1); err != nil || got != nil {
		t.Errorf("ahead of the first activation stands %q (%v)", got, err)
	}
	j := NewJudge(JudgeConfig{Store: p.store, Engine: p.find, Log: slog.New(slog.DiscardHandler)})
	e, err := p.store.Draft(record.OriginHost, record.ClassTick, &record.Event{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: ActivationKey(l.ID())}}}); err != nil {
		t.Fatal(err)
	}
	if st, err := j.state(l); err != nil || st.engine.Bundle() != p.engine.Bundle() || !st.unsaved {
		t.Errorf("nothing judges the log: %v", err)
	}
}
