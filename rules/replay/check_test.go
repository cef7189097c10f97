package replay

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const head = `bundle {
  name     = "b"
  version  = "1"
  language = 1
}
`

const etc = `policy "etc" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  action "alert" {
    message  = "${file.path}"
  }
}
`

const cooled = `policy "cooled" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  cooldown {
    period = "1m"
  }
  action "alert" {
    message = "${file.path}"
  }
}
`

func bundle(t testing.TB, text string) *policy.Bundle {
	t.Helper()
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(text)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return b
}

// tape is a log as a host seals it: entries, and the verdicts on them behind.
type tape struct {
	t       testing.TB
	leaves  []record.Leaf
	hashes  []record.Hash
	payload [][]byte
	state   rules.State
	engine  *rules.Engine
	wall    int64
}

const origin = "kvm1.example/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/1"

func newTape(t testing.TB, b *policy.Bundle) *tape {
	t.Helper()
	p := &tape{t: t, wall: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixNano()}
	p.engine = p.of(&policy.Bundle{Name: "none"})
	p.add(record.OriginHost, record.ClassGenesis, &record.Genesis{DomainUuid: "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", DomainName: "web"})
	p.load(b)
	return p
}

func (p *tape) of(b *policy.Bundle) *rules.Engine {
	p.t.Helper()
	e, err := rules.New(b, rules.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// load seals an activation and goes on with its bundle.
func (p *tape) load(b *policy.Bundle) {
	p.t.Helper()
	next := p.of(b)
	p.add(record.OriginHost, record.ClassPolicyLoaded, next.ActivationFor(""))
	p.engine = next
}

// add seals an entry, a second behind the last one, and the verdicts on it.
func (p *tape) add(o record.Origin, c record.Class, m record.Message) {
	p.t.Helper()
	for _, v := range p.seal(o, c, m) {
		p.seal(record.OriginPolicy, rules.ClassOf(v), v)
	}
}

func (p *tape) seal(o record.Origin, c record.Class, m record.Message) []*record.Verdict {
	p.t.Helper()
	b, err := record.Encode(m)
	if err != nil {
		p.t.Fatal(err)
	}
	i := uint64(len(p.leaves))
	leaf := record.Leaf{Index: i, Mono: int64(i) * int64(time.Second), Wall: p.wall + int64(i)*int64(time.Second), Origin: o, Header: record.Header{Class: c}}
	hash := record.Hash{byte(i), byte(i >> 8), 1}
	p.leaves, p.hashes, p.payload = append(p.leaves, leaf), append(p.hashes, hash), append(p.payload, b)
	verdicts, err := p.engine.Eval(&p.state, leaf, hash, m)
	if err != nil {
		p.t.Fatal(err)
	}
	return verdicts
}

func (p *tape) modify(path string) uint64 {
	p.t.Helper()
	p.add(record.OriginGuest, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(path)}})
	for i := len(p.leaves) - 1; ; i-- {
		if p.leaves[i].Header.Class == record.ClassFileModify {
			return uint64(i)
		}
	}
}

// ticks lets time go by.
func (p *tape) ticks(n int) {
	p.t.Helper()
	for range n {
		p.add(record.OriginHost, record.ClassTick, &record.Event{})
	}
}

// check replays the tape without the entries in leave.
func (p *tape) check(opts Options, leave ...uint64) *LogReport {
	p.t.Helper()
	c, err := NewCheck(opts)
	if err != nil {
		p.t.Fatal(err)
	}
	left := map[uint64]bool{}
	for _, i := range leave {
		left[i] = true
	}
	for i := range p.leaves {
		if left[uint64(i)] {
			continue
		}
		if err := c.Entry(origin, p.leaves[i], p.hashes[i], p.payload[i]); err != nil {
			p.t.Fatal(err)
		}
	}
	r := c.Report()
	l := r.Logs[0]
	if bad := len(l.Differences) > 0 || len(r.Missing) > 0; r.Valid == bad {
		p.t.Errorf("valid is %v with %+v, %v", r.Valid, l.Differences, r.Missing)
	}
	return l
}

func (p *tape) given(b ...*policy.Bundle) Options { return Options{Bundles: b} }

// verdictOf returns the entry of the verdict on a cause.
func (p *tape) verdictOf(cause uint64, name string) uint64 {
	p.t.Helper()
	for i := range p.leaves {
		if p.leaves[i].Origin != record.OriginPolicy {
			continue
		}
		v := &record.Verdict{}
		if err := v.UnmarshalVT(p.payload[i]); err == nil && v.CauseIndex == cause && v.Policy == name {
			return uint64(i)
		}
	}
	p.t.Fatalf("no verdict of %s on entry %d", name, cause)
	return 0
}

// drop takes an entry out and numbers those behind anew: as a host does that never
// sealed it.
func (p *tape) drop(index uint64) {
	p.leaves = append(p.leaves[:index:index], p.leaves[index+1:]...)
	p.hashes = append(p.hashes[:index:index], p.hashes[index+1:]...)
	p.payload = append(p.payload[:index:index], p.payload[index+1:]...)
	for i := index; i < uint64(len(p.leaves)); i++ {
		p.leaves[i].Index = i
	}
}

// TestHonestLogs replays what a host has judged, over a change of bundles.
func TestHonestLogs(t *testing.T) {
	first, second := bundle(t, head+etc+cooled), bundle(t, strings.Replace(head, "\"1\"", "\"2\"", 1)+etc+cooled+strings.Replace(etc, "\"etc\"", "\"again\"", 1))
	p := newTape(t, first)
	for range 3 {
		p.modify("/etc/a")
		p.modify("/tmp/b")
	}
	p.load(second)
	p.modify("/etc/c")
	p.ticks(100)
	p.modify("/etc/d")
	l := p.check(p.given(first, second))
	// etc: 5; cooled: 1, and 1 with what it has swallowed; again: 2.
	if len(l.Differences) != 0 || l.Verdicts < 9 || len(l.Activations) != 2 || l.Activations[1].Version != "2" || l.Unsure+l.Pending+l.Skipped != 0 {
		t.Errorf("%+v", l)
	}
	counts := map[string]PolicyReport{}
	for _, c := range l.Policies {
		counts[c.Name] = *c
	}
	if c := counts["etc"]; c.Judged != 8 || c.Verdicts != 5 {
		t.Errorf("etc: %+v", c)
	}
	if c := counts["again"]; c.Judged != 2 || c.Verdicts != 2 {
		t.Errorf("again: %+v", c)
	}
	// Of a time only what was sealed in it is counted.
	since := time.Unix(0, p.leaves[len(p.leaves)-5].Wall)
	if l := p.check(Options{Bundles: []*policy.Bundle{first, second}, Since: since}); l.Entries != 5 || l.Verdicts == 0 || l.Verdicts > 3 || len(l.Differences) != 0 {
		t.Errorf("since %s: %+v", since, l)
	}
}

// TestLiesAreNamed changes what a host sealed in every way that matters.
func TestLiesAreNamed(t *testing.T) {
	b := bundle(t, head+etc)
	tapeOf := func() (*tape, uint64, uint64) {
		p := newTape(t, b)
		cause := p.modify("/etc/a")
		at := p.verdictOf(cause, "etc")
		p.ticks(100)
		return p, cause, at
	}
	t.Run("missing", func(t *testing.T) {
		p, cause, at := tapeOf()
		p.drop(at)
		if l := p.check(p.given(b)); len(l.Differences) != 1 || l.Differences[0].Kind != KindMissing || l.Differences[0].Cause != cause {
			t.Errorf("%+v", l)
		}
	})
	t.Run("not sealed yet", func(t *testing.T) {
		p := newTape(t, b)
		p.seal(record.OriginGuest, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/etc/a")}})
		if l := p.check(p.given(b)); len(l.Differences) != 0 || l.Pending != 1 {
			t.Errorf("%+v", l)
		}
	})
	t.Run("extra", func(t *testing.T) {
		p, _, at := tapeOf()
		v := &record.Verdict{}
		if err := v.UnmarshalVT(p.payload[at]); err != nil {
			t.Fatal(err)
		}
		p.seal(record.OriginPolicy, record.ClassPolicyVerdict, v)
		if l := p.check(p.given(b)); len(l.Differences) != 1 || l.Differences[0].Kind != KindExtra || *l.Differences[0].Entry != uint64(len(p.leaves)-1) {
			t.Errorf("%+v", l)
		}
	})
	t.Run("weaker", func(t *testing.T) {
		p, _, at := tapeOf()
		v := &record.Verdict{}
		if err := v.UnmarshalVT(p.payload[at]); err != nil {
			t.Fatal(err)
		}
		v.Actions = nil
		var err error
		if p.payload[at], err = record.Encode(v); err != nil {
			t.Fatal(err)
		}
		if l := p.check(p.given(b)); len(l.Differences) != 1 || l.Differences[0].Kind != KindDiffers || !strings.Contains(l.Differences[0].Problem, "no action, want alert") {
			t.Errorf("%+v", l)
		}
	})
	t.Run("another bundle", func(t *testing.T) {
		p, _, _ := tapeOf()
		c, err := NewCheck(p.given(bundle(t, head+cooled)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.leaves {
			if err := c.Entry(origin, p.leaves[i], p.hashes[i], p.payload[i]); err != nil {
				t.Fatal(err)
			}
		}
		r := c.Report()
		var text bytes.Buffer
		if err := r.WriteText(&text); err != nil || r.Valid || len(r.Missing) != 1 || r.Missing[0] != b.Digest.String() || !strings.Contains(text.String(), "--bundle") {
			t.Errorf("%v %+v\n%s", err, r, text.String())
		}
		if len(r.Logs[0].Differences) != 0 {
			t.Errorf("what is not known is a difference: %+v", r.Logs[0].Differences)
		}
	})
	t.Run("modes of the activation", func(t *testing.T) {
		p, _, _ := tapeOf()
		a := p.engine.ActivationFor("")
		a.Policies[0].Mode = "off"
		m, err := record.Encode(a)
		if err != nil {
			t.Fatal(err)
		}
		p.payload[1] = m
		if l := p.check(p.given(b)); len(l.Differences) != 1 || l.Differences[0].Kind != KindExtra {
			t.Errorf("%+v", l)
		}
	})
}

// TestErasedIsNotNoVerdict erases a cause: nothing is claimed of it, nor of what
// depends on it, and everything else is compared.
func TestErasedIsNotNoVerdict(t *testing.T) {
	b := bundle(t, head+etc+cooled)
	p := newTape(t, b)
	cause := p.modify("/etc/a") // both policies fire
	p.modify("/etc/b")          // cooled swallows it
	last := p.modify("/etc/c")
	p.ticks(100)
	erase := func(i uint64) { p.payload[i] = nil }
	erase(p.verdictOf(cause, "etc"))
	erase(p.verdictOf(cause, "cooled"))
	erase(cause)
	p.add(record.OriginHost, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: cause, Last: cause}}})
	l := p.check(p.given(b))
	if len(l.Differences) != 0 || l.Erased != 1 || l.Withheld != 0 || l.Unopened != 2 || l.Unsure == 0 {
		t.Errorf("%+v", l)
	}
	for _, c := range l.Policies {
		if c.Name == "etc" && (c.Judged != 2 || c.NotJudged != 1 || c.Verdicts != 2) {
			t.Errorf("%+v", c)
		}
	}
	// A policy that remembers nothing is held to its verdicts behind it.
	p.drop(p.verdictOf(last, "etc"))
	if l := p.check(p.given(b)); len(l.Differences) != 1 || l.Differences[0].Kind != KindMissing || l.Differences[0].Cause != last {
		t.Errorf("%+v", l)
	}
}

// TestHoles leaves entries out: behind them nothing is claimed until the log says
// which policies are in force.
func TestHoles(t *testing.T) {
	b := bundle(t, head+etc)
	p := newTape(t, b)
	first := p.modify("/etc/a")
	p.modify("/etc/b")
	p.load(bundle(t, head+cooled))
	p.load(b)
	p.modify("/etc/c")
	p.ticks(100)
	l := p.check(p.given(b, bundle(t, head+cooled)), first, first+1)
	if l.Skipped != 2 || len(l.Differences) != 0 || l.Unknown == 0 || l.Verdicts != 1 || l.Unsure != 1 {
		t.Errorf("%+v", l)
	}
}
