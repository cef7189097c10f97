package replay

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const counted = `policy "counted" {
  on = ["file.modify"]
  threshold {
    count  = 3
    window = "1h"
  }
  action "alert" {
    message = "${threshold.count}"
  }
}
`

const second = "kvm1.example/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/2"

// shard closes a tape and begins the one of the next shard, as a host does. change may
// lie about what was carried; nil for an honest host.
func (p *tape) shard(b *policy.Bundle, change func(*record.PolicyCarried)) *tape {
	p.t.Helper()
	p.seal(record.OriginHost, record.ClassClosed, &record.Closed{Reason: "size", NextOrigin: second})
	end := len(p.leaves) - 1
	heir := p.state.Continue(1)
	saved, err := heir.MarshalBinary()
	if err != nil {
		p.t.Fatal(err)
	}
	n := &tape{t: p.t, wall: p.wall, state: *heir}
	if err := n.state.UnmarshalBinary(saved); err != nil { // its own copy
		p.t.Fatal(err)
	}
	n.engine = n.of(&policy.Bundle{Name: "none"})
	n.add(record.OriginHost, record.ClassGenesis, &record.Genesis{DomainUuid: "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", DomainName: "web", Cause: "shard"})
	sum := sha256.Sum256(saved)
	m := &record.PolicyCarried{Origin: origin, Size: uint64(end) + 1, ClosedIndex: uint64(end), ClosedHash: p.hashes[end][:], Version: rules.StateVersion, Sha256: sum[:]}
	if change != nil {
		change(m)
	}
	if m.Origin != "" {
		n.add(record.OriginPolicy, record.ClassPolicyCarried, m)
	}
	n.load(b)
	return n
}

// both checks the first shard, if it is given, and the second.
func both(t *testing.T, b *policy.Bundle, first, next *tape) (*Report, string) {
	t.Helper()
	c, err := NewCheck(Options{Bundles: []*policy.Bundle{b}})
	if err != nil {
		t.Fatal(err)
	}
	feed := func(p *tape, name string) {
		for i := range p.leaves {
			if err := c.Entry(name, p.leaves[i], p.hashes[i], p.payload[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if first != nil {
		feed(first, origin)
	}
	feed(next, second)
	r := c.Report()
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	return r, text.String()
}

// twoShards counts two changes in the first shard, and one in the second.
func twoShards(t *testing.T, b *policy.Bundle, change func(*record.PolicyCarried)) (first, next *tape, cause uint64) {
	first = newTape(t, b)
	first.modify("/etc/a")
	first.modify("/etc/b")
	next = first.shard(b, change)
	cause = next.modify("/etc/c")
	next.ticks(100)
	return first, next, cause
}

// TestOverTheBorder replays a count that goes on in another shard.
func TestOverTheBorder(t *testing.T) {
	b := bundle(t, head+etc+counted)
	first, next, cause := twoShards(t, b, nil)
	r, text := both(t, b, first, next)
	if l := r.Logs[1]; !r.Valid || !l.Before.Compared || l.Verdicts != 2 || l.Unsure != 0 || !strings.Contains(text, "it is what that gives, by entry 1") {
		t.Errorf("both shards: %s", text)
	}
	if r.Logs[0].Before != nil {
		t.Errorf("the first shard: %+v", r.Logs[0].Before)
	}

	// With the new shard alone: what remembers nothing is compared, and the rest named.
	r, text = both(t, b, nil, next)
	l := r.Logs[0]
	if !r.Valid || l.Before.Compared || l.Verdicts != 1 || l.Unsure != 1 || !strings.Contains(l.Before.Problem, "give the evidence") || !strings.Contains(text, "policy counted: 1 records judged, 0 verdicts; not evaluated again: it remembers") || strings.Contains(text, "policy etc: 1 records judged, 1 verdicts;") {
		t.Errorf("the new shard alone: %s", text)
	}
	dropped := *next
	dropped.drop(next.verdictOf(cause, "etc"))
	if r, text = both(t, b, nil, &dropped); r.Valid || r.Logs[0].Differences[0].Kind != KindMissing || r.Logs[0].Differences[0].Policy != "etc" {
		t.Errorf("a verdict of what remembers nothing lacks: %s", text)
	}

	// A verdict over the border that lacks is found with both.
	first, next, cause = twoShards(t, b, nil)
	next.drop(next.verdictOf(cause, "counted"))
	if r, text = both(t, b, first, next); r.Valid || len(r.Logs[1].Differences) != 1 || r.Logs[1].Differences[0].Policy != "counted" {
		t.Errorf("a verdict over the border lacks: %s", text)
	}
}

// TestForgedBorders has a host say something else of what policies began with.
func TestForgedBorders(t *testing.T) {
	b := bundle(t, head+etc+counted)
	for want, change := range map[string]func(*record.PolicyCarried){
		"they were made to forget":             func(m *record.PolicyCarried) { m.Sha256[3] ^= 1 },
		"is the shard before, and that is":     func(m *record.PolicyCarried) { m.Origin += "1" },
		"closed the shard before, and entry":   func(m *record.PolicyCarried) { m.ClosedIndex-- },
		"leaf hash":                            func(m *record.PolicyCarried) { m.ClosedHash = make([]byte, 32) },
		"policies began without what they had": func(m *record.PolicyCarried) { m.Problem, m.Sha256 = "a pity", nil },
		"and no entry before it says what":     func(m *record.PolicyCarried) { m.Origin = "" },
	} {
		first, next, _ := twoShards(t, b, change)
		r, text := both(t, b, first, next)
		if l := r.Logs[1]; r.Valid || len(l.Differences) != 1 || l.Differences[0].Kind != KindCarried || !strings.Contains(text, want) || l.Before.Compared {
			t.Errorf("%s: %s", want, text)
		}
	}
	// A host whose policies did forget: the verdict lacks, whatever it says was carried.
	first, next, cause := twoShards(t, b, nil)
	next.payload[next.verdictOf(cause, "counted")] = next.payload[next.verdictOf(cause, "etc")]
	if r, text := both(t, b, first, next); r.Valid {
		t.Errorf("%s", text)
	}
	// Twice, and where nothing can have been carried.
	first, next, _ = twoShards(t, b, nil)
	next.add(record.OriginPolicy, record.ClassPolicyCarried, &record.PolicyCarried{Origin: origin})
	if r, text := both(t, b, first, next); r.Valid || !strings.Contains(text, "says again") {
		t.Errorf("%s", text)
	}
	first.add(record.OriginPolicy, record.ClassPolicyCarried, &record.PolicyCarried{Origin: second})
	if l := first.check(first.given(b)); len(l.Differences) != 1 || !strings.Contains(l.Differences[0].Problem, "begins with nothing") {
		t.Errorf("%+v", l)
	}
}

// TestBorderNotEvaluable takes records of the first shard away: what cannot be
// evaluated any more is said to be that, and is no difference.
func TestBorderNotEvaluable(t *testing.T) {
	b := bundle(t, head+etc+counted)
	for what, change := range map[string]func(first, next *tape){
		"erased, or are not given": func(first, _ *tape) { first.payload[2] = nil },
		"erased behind its end": func(first, _ *tape) {
			first.add(record.OriginOperator, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: 90, Last: 90}}})
		},
		"not all of that is given": func(first, _ *tape) { // an entry lacks
			first.leaves, first.hashes, first.payload = slices.Delete(first.leaves, 3, 4), slices.Delete(first.hashes, 3, 4), slices.Delete(first.payload, 3, 4)
		},
		"this program compares version": func(_, next *tape) {
			m := &record.PolicyCarried{}
			if err := m.UnmarshalVT(next.payload[1]); err != nil {
				t.Fatal(err)
			}
			m.Version++
			next.payload[1], _ = record.Encode(m)
		},
		"entries of that log were judged before": func(_, next *tape) {
			m := &record.PolicyCarried{}
			if err := m.UnmarshalVT(next.payload[1]); err != nil {
				t.Fatal(err)
			}
			m.Size += 2
			next.payload[1], _ = record.Encode(m)
		},
		"the payload of the entry that says so": func(_, next *tape) { next.payload[1] = nil },
	} {
		first, next, _ := twoShards(t, b, nil)
		change(first, next)
		r, text := both(t, b, first, next)
		if l := r.Logs[1]; !r.Valid || l.Before.Compared || !strings.Contains(text, what) {
			t.Errorf("%s: %s", what, text)
		}
	}
}

// TestTrialOverTheBorder has a candidate count over shards.
func TestTrialOverTheBorder(t *testing.T) {
	b := bundle(t, head+counted)
	first, next, _ := twoShards(t, b, nil)
	tr := NewTrial(first.of(b), first.of(bundle(t, head+etc)), time.Unix(0, 0), nil)
	trial(t, tr, origin, first)
	trial(t, tr, second, next)
	for _, c := range tr.Report().Policies {
		if c.Name == "counted" && c.Matches != 1 {
			t.Errorf("%+v", c)
		}
	}
}

func trial(t *testing.T, tr *Trial, name string, p *tape) {
	t.Helper()
	tr.Begin(name, "d", "d")
	for i := range p.leaves {
		m, err := record.Decode(p.leaves[i].Header.Class, p.payload[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Entry(p.leaves[i], p.hashes[i], m); err != nil {
			t.Fatal(err)
		}
	}
}
