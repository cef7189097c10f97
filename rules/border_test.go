package rules

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

// shards judges a feed as it would be sealed in several shards: each but the first
// begins with a genesis and the policies that judge, and each but the last is closed.
type shards struct {
	t     testing.TB
	e     *Engine
	none  *Engine
	st    *State
	shard uint32
	at    map[place]uint64 // entries of the feed
	r     *rand.Rand       // saves and restores now and then; nil: never
}

func newShards(t testing.TB, e *Engine, r *rand.Rand) *shards {
	return &shards{t: t, e: e, none: engine(t, &policy.Bundle{Name: "none"}, Options{}), st: &State{}, shard: 1, at: map[place]uint64{}, r: r}
}

// entry judges entry i of the feed, with its own hash.
func (s *shards) entry(f *feed, i int) []*record.Verdict {
	s.t.Helper()
	s.at[placed(s.shard, s.st.Next())] = uint64(i)
	return s.eval(s.e, f.leaves[i], f.hashes[i], f.payloads[i])
}

func (s *shards) eval(e *Engine, leaf record.Leaf, hash record.Hash, m record.Message) []*record.Verdict {
	s.t.Helper()
	leaf.Index = s.st.Next()
	v, err := e.Eval(s.st, leaf, hash, m)
	if err != nil {
		s.t.Fatalf("entry %d of shard %d: %v", leaf.Index, s.shard, err)
	}
	if s.r != nil && s.r.IntN(3) == 0 {
		s.restore()
	}
	return v
}

func (s *shards) restore() {
	s.t.Helper()
	b, err := s.st.MarshalBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	recall := s.st.Recall
	s.st = &State{Recall: recall}
	if err := s.st.UnmarshalBinary(b); err != nil {
		s.t.Fatal(err)
	}
	if again, err := s.st.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
		s.t.Fatalf("a restored state saves differently: %v", err)
	}
}

// next closes the shard behind entry i of the feed, and begins the next one.
func (s *shards) next(f *feed, i int) {
	s.t.Helper()
	host := func(c record.Class) record.Leaf {
		return record.Leaf{Origin: record.OriginHost, Mono: f.leaves[i].Mono, Wall: f.leaves[i].Wall, Header: record.Header{Class: c}}
	}
	if v := s.eval(s.e, host(record.ClassClosed), record.Hash{1}, &record.Closed{NextOrigin: "next"}); len(v) != 0 {
		s.t.Fatalf("the end of a log gives %v", v)
	}
	old := s.st
	s.st = old.Continue(s.shard)
	if s.st == nil || old.Continue(s.shard) != nil || old.Keys() != 0 || old.Cooldowns() != 0 {
		s.t.Fatal("what is remembered does not go on, once")
	}
	s.shard++
	s.restore()
	g := &record.Genesis{DomainUuid: testUUID, DomainName: "web-1", DomainXml: []byte(tagged), Cause: "shard"}
	v := s.eval(s.none, host(record.ClassGenesis), record.Hash{2}, g)
	v = append(v, s.eval(s.none, host(record.ClassPolicyLoaded), record.Hash{3}, s.e.ActivationFor(testUUID))...)
	if len(v) != 0 {
		s.t.Fatalf("the beginning of a log gives %v", v)
	}
}

// whole names the entries of verdicts by their places in the feed.
func (s *shards) whole(all []*record.Verdict) []*record.Verdict {
	s.t.Helper()
	of := func(shard *uint32, index *uint64) {
		if *shard == 0 {
			*shard = s.shard
		}
		i, ok := s.at[placed(*shard, *index)]
		if !ok {
			s.t.Fatalf("a verdict names entry %d of shard %d", *index, *shard)
		}
		*shard, *index = 0, i
	}
	for _, v := range all {
		of(&v.CauseShard, &v.CauseIndex)
		for _, step := range v.Steps {
			of(&step.Shard, &step.Index)
		}
	}
	return all
}

// TestShardsAreOneLog splits logs into shards wherever it may: policies decide as if
// there had been one, whatever they remember.
func TestShardsAreOneLog(t *testing.T) {
	rounds := 15
	if *long {
		rounds = 1_000
	} else {
		t.Logf("short run: %d logs; -long judges 1000", rounds)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	b := load(t, replayPolicies)
	over := map[string]int{}
	for range rounds {
		f := randomFeed(t, r, 150)
		want := run(t, engine(t, b, Options{}), &State{}, f)
		s := newShards(t, engine(t, b, Options{}), r)
		var got []*record.Verdict
		for i := range f.leaves {
			vs := s.entry(f, i)
			for _, v := range vs {
				if v.CauseShard > 0 || slices.ContainsFunc(v.Steps, func(s *record.VerdictStep) bool { return s.Shard > 0 }) {
					over[v.Policy]++
				}
			}
			got = append(got, s.whole(vs)...)
			if i > 0 && r.IntN(10) == 0 {
				s.next(f, i)
			}
		}
		if !bytes.Equal(encodeAll(t, got), encodeAll(t, want)) {
			for i := range min(len(got), len(want)) {
				if got[i].String() != want[i].String() {
					t.Fatalf("verdict %d of %d and %d:\n got %v\nwant %v", i, len(got), len(want), got[i], want[i])
				}
			}
			t.Fatalf("%d verdicts, want %d", len(got), len(want))
		}
	}
	for _, name := range []string{"by_path", "two", "steps"} {
		if over[name] == 0 && (*long || name != "steps") { // which is rare
			t.Errorf("no verdict of %s names an entry of an earlier shard", name)
		}
	}
}

const borderPolicies = approvalPolicies + `
policy "chain" {
  sequence {
    by     = [process.pid]
    within = "1h"
    step "get" {
      on = ["file.create"]
    }
    step "run" {
      on = ["process.exec"]
    }
  }
  action "alert" {
    message = "${step.get.file.path} was run"
  }
}
`

// TestBorderErasure erases a record of the shard before, ahead of the next shard, in
// it, and in one behind that: no word of it is quoted any more.
func TestBorderErasure(t *testing.T) {
	e := engine(t, load(t, borderPolicies), Options{})
	for _, when := range []string{"never", "old", "new", "another shard", "another entry"} {
		f := &feed{}
		f.genesis(t, tagged)
		create := f.guest(t, record.ClassFileCreate, &record.Event{Process: vim(), File: file("/home/secret")})
		exec := f.guest(t, record.ClassProcessExec, &record.Event{Process: vim()})
		s := newShards(t, e, nil)
		for i := range exec {
			s.entry(f, i)
		}
		erase := func(m *record.Erased) {
			leaf := record.Leaf{Origin: record.OriginOperator, Mono: f.leaves[create].Mono, Wall: f.leaves[create].Wall, Header: record.Header{Class: record.ClassErased}}
			s.eval(e, leaf, record.Hash{4}, m)
		}
		named := []*record.EntryRange{{First: uint64(create), Last: uint64(create)}}
		if when == "old" {
			end := record.Leaf{Origin: record.OriginHost, Mono: f.mono, Header: record.Header{Class: record.ClassClosed}}
			s.eval(e, end, record.Hash{1}, &record.Closed{NextOrigin: "next"})
			s.restore()
			erase(&record.Erased{Ranges: named})
			s.st, s.shard = s.st.Continue(1), 2
			s.eval(s.none, record.Leaf{Origin: record.OriginHost, Mono: f.mono, Header: record.Header{Class: record.ClassPolicyLoaded}}, record.Hash{2}, e.ActivationFor(testUUID))
		} else {
			s.next(f, create)
		}
		switch when {
		case "new":
			erase(&record.Erased{EarlierShard: 1, Earlier: named})
		case "another shard":
			erase(&record.Erased{EarlierShard: 2, Earlier: named})
		case "another entry":
			erase(&record.Erased{Ranges: named})
		}
		saved, err := s.st.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		gone := when == "old" || when == "new"
		if held := bytes.Contains(saved, []byte("/home/secret")); held == gone {
			t.Errorf("%s: the state holds the word: %v", when, held)
		}
		if v := s.entry(f, exec); len(v) != 0 == gone {
			t.Errorf("%s: %v", when, v)
		} else if !gone && (v[0].Steps[0].Shard != 1 || v[0].Steps[0].Index != uint64(create) || !strings.Contains(v[0].Actions[0].Message, "/home/secret")) {
			t.Errorf("%s: %v", when, v[0])
		}
	}
}

// TestBorderApprovals has approvals go on with their uses, be revoked where they have
// gone on, and come late to what an earlier shard holds.
func TestBorderApprovals(t *testing.T) {
	for _, known := range []bool{true, false} {
		f := &feed{}
		f.genesis(t, tagged)
		f.add(t, time.Millisecond, record.OriginOperator, record.ClassApprovalLoaded, approve(t, f, "CHG-1", func(a *approval.Statement) {
			a.Scope = approval.Scope{On: []string{"file.modify"}, Condition: `under(file.path, "/etc/nginx")`}
		}))
		used := f.modify(t, "/etc/nginx/a")
		cause := f.modify(t, "/etc/passwd")
		s := newShards(t, engine(t, load(t, borderPolicies), Options{}), nil)
		var v *record.Verdict
		for i := range f.leaves {
			vs := s.entry(f, i)
			if i == used && (len(vs) != 1 || vs[0].Approval.Uses != 1) {
				t.Fatalf("%v", vs)
			}
			if i == cause {
				v = vs[0]
			}
		}
		var at uint64
		if known {
			at = s.st.Next()
			s.eval(s.e, record.Leaf{Origin: record.OriginPolicy, Mono: f.mono, Header: record.Header{Class: record.ClassPolicyVerdict}}, record.Hash{9}, v)
		}
		s.next(f, cause)
		s.next(f, cause)
		s.restore()
		s.st.Recall = func(shard uint32, i uint64) (record.Leaf, record.Message, error) {
			if shard != 1 || i != uint64(cause) {
				return record.Leaf{}, nil, fmt.Errorf("entry %d of shard %d is asked for", i, shard)
			}
			return f.leaves[cause], f.payloads[cause], nil
		}
		if all := s.st.Approvals(); len(all) != 1 || all[0] != (Approval{ID: "CHG-1", Shard: 1, Loaded: 2, Uses: 1}) {
			t.Errorf("%+v", all)
		}
		again := s.entry(f, f.modify(t, "/etc/nginx/b"))
		if len(again) != 1 || again[0].Approval.Uses != 2 || again[0].Approval.LoadedShard != 1 || again[0].Approval.LoadedIndex != 2 {
			t.Errorf("the next use: %v", again)
		}
		late := s.entry(f, f.add(t, time.Millisecond, record.OriginOperator, record.ClassApprovalLoaded, approve(t, f, "CHG-2", nil)))
		if len(late) != 1 || late[0].CauseShard != 1 || late[0].CauseIndex != uint64(cause) || late[0].Approval.State != ApprovalLate || late[0].Approval.VerdictShard != 1 ||
			late[0].Approval.VerdictIndex != at || len(late[0].Approval.VerdictHash) > 0 != known {
			t.Errorf("known %v: late: %v", known, late)
		}
		r := &approval.Revocation{Type: approval.RevocationType, ID: "CHG-1", Host: "h", Group: "security-team", RevokedBy: "alice", Reason: "r",
			Issued: approval.At(feedWall), Nonce: strings.Repeat("0", 32)}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.entry(f, f.add(t, 0, record.OriginOperator, record.ClassApprovalRevoked, &record.Revocation{Statement: b}))
		if all := s.st.Approvals(); len(all) != 1 || all[0].ID != "CHG-2" {
			t.Errorf("revoked: %+v", all)
		}
	}
}

// TestBorderFacts has the domain's tags go where the genesis of the next shard has none.
func TestBorderFacts(t *testing.T) {
	f := &feed{}
	f.genesis(t, tagged)
	s := newShards(t, engine(t, load(t, borderPolicies), Options{}), nil)
	s.entry(f, 0)
	s.entry(f, 1)
	s.next(f, 1)
	if vm := s.st.VM(); vm.State != "running" || len(vm.Metadata) == 0 {
		t.Errorf("%+v", vm)
	}
	s.eval(s.e, record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: record.ClassGenesis}}, record.Hash{}, &record.Genesis{DomainXml: []byte("<domain/>")})
	if vm := s.st.VM(); len(vm.Metadata)+len(vm.Tags) != 0 {
		t.Errorf("%+v", vm)
	}
}

// TestPlaces holds the places of entries in order over shards.
func TestPlaces(t *testing.T) {
	inOrder := []place{placed(1, 5), placed(1, 6), placed(2, 0), placed(MaxShard, maxIndex-1), here(0), here(7)}
	for i, p := range inOrder {
		for k, o := range inOrder {
			if p.before(o) != (i < k) {
				t.Errorf("%s before %s: %v", p, o, p.before(o))
			}
		}
		if placed(p.shard(), p.index()) != p {
			t.Errorf("%s is not itself", p)
		}
	}
	if _, err := engine(t, load(t, borderPolicies), Options{}).Eval(&State{}, record.Leaf{Index: maxIndex}, record.Hash{}, nil); err == nil {
		t.Error("an index beyond all places is taken")
	}
	if st := (&State{over: true, heir: &State{}}); st.Continue(0) != nil || st.Continue(MaxShard+1) != nil {
		t.Error("a shard without a number goes on")
	}
}
