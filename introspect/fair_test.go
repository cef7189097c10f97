package introspect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
)

const everyBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "each" {
  on = ["file.modify"]
  action "alert" {
    message = "changed"
  }
}
`

// Each path comes twice, so that the window holds hundreds of keys and its state is not
// written with every run.
const pairsBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "pairs" {
  on = ["file.modify"]
  threshold {
    count  = 2
    window = "24h"
    by     = [file.path]
  }
  action "alert" {
    message = "${file.path}"
  }
}
`

// stepper is a store whose judge is stepped by hand, by a clock that counts entries.
type stepper struct {
	t      testing.TB
	store  *chain.Store
	engine *rules.Engine
	logs   []*chain.Log
	now    time.Duration
	each   time.Duration // what an entry costs
	judge  *Judge
	follow *chain.Follower
}

func newStepper(t testing.TB, engine *rules.Engine, vms int) *stepper {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "db"), Anchor: filepath.Join(dir, "anchor"), HostID: "test.host", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p := &stepper{t: t, store: s, engine: engine, each: time.Millisecond}
	t.Cleanup(func() {
		p.follow.Close()
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	for i := range vms {
		l, err := s.CreateLog(ctx, proof.VMOrigin("test.host", domain.UUID{byte(i + 1)}.String(), 1), &record.Genesis{Cause: "define"})
		if err != nil {
			t.Fatal(err)
		}
		p.logs = append(p.logs, l)
		e, err := s.Draft(record.OriginHost, record.ClassPolicyLoaded, p.engine.Activation())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	p.restart()
	return p
}

// restart begins with a new judge, as behind a crash: what is not in the store is lost.
func (p *stepper) restart() {
	p.t.Helper()
	if p.follow != nil {
		p.follow.Close()
	}
	p.judge = NewJudge(JudgeConfig{
		Store: p.store, Engine: func(a *record.BundleActivation) (*rules.Engine, error) { return p.engine.For(a) }, Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Duration { p.now += p.each; return p.now },
	})
	var err error
	if p.follow, err = p.store.Follow(JudgeName); err != nil {
		p.t.Fatal(err)
	}
}

func (p *stepper) round() (idle bool) {
	p.t.Helper()
	idle, err := p.judge.round(p.t.Context(), p.follow)
	if err != nil {
		p.t.Fatal(err)
	}
	return idle
}

func (p *stepper) drain() {
	p.t.Helper()
	for !p.round() {
	}
}

// modify seals changes of files in one log, and returns the first entry.
func (p *stepper) modify(l *chain.Log, paths ...string) uint64 {
	p.t.Helper()
	var entries []chain.Entry
	for i, path := range paths {
		payload, err := record.Encode(&record.Event{File: &record.File{Path: []byte(path)}, Process: &record.Process{Pid: 7}})
		if err != nil {
			p.t.Fatal(err)
		}
		n := l.Size() + uint64(i)
		seed := record.Seed{1, byte(n), byte(n >> 8)}
		salt := seed.Salt(n)
		entries = append(entries, chain.Entry{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1, Sequence: n, LaneSequence: n},
			Payload: payload, Seed: seed, Commitment: record.Commit(&salt, payload)})
	}
	sealed, err := p.store.Append(p.t.Context(), chain.Batch{Log: l, Entries: entries})
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed.First
}

// verdicts lists the causes of the verdicts of a log, in their order.
func (p *stepper) verdicts(l *chain.Log) (causes []uint64) {
	p.t.Helper()
	for it, err := range l.Read(p.t.Context(), 0, l.Size()) {
		if err != nil {
			p.t.Fatal(err)
		}
		if it.Leaf.Header.Class != record.ClassPolicyVerdict {
			continue
		}
		m, err := it.Decode()
		if err != nil {
			p.t.Fatal(err)
		}
		causes = append(causes, m.(*record.Verdict).CauseIndex)
	}
	return causes
}

func many(n int, path func(i int) string) (paths []string) {
	for i := range n {
		paths = append(paths, path(i))
	}
	return paths
}

// TestAFloodDelaysNobody has one guest send a thousand entries with verdicts, and a
// neighbour one behind them: its verdict is sealed within a run or two, and so is the
// next one that comes amid the flood (I8). Of each log every entry has its verdict, once
// and in order.
func TestAFloodDelaysNobody(t *testing.T) {
	p := newStepper(t, engineOf(t, everyBundle), 2)
	hostile, calm := p.logs[0], p.logs[1]
	p.drain()
	same := func(int) string { return "/tmp/x" }
	first := p.modify(hostile, many(1000, same)...)
	p.modify(calm, "/etc/passwd")
	runs := func(want int) {
		t.Helper()
		for n := 1; len(p.verdicts(calm)) < want; n++ {
			if n > 2 {
				t.Fatalf("the neighbour waits for verdict %d longer than 2 runs; the flood has %d", want, len(p.verdicts(hostile)))
			}
			p.round()
		}
	}
	runs(1)
	for range 10 {
		p.round()
	}
	p.modify(calm, "/etc/shadow")
	runs(2)
	if n := len(p.verdicts(hostile)); n > 200 {
		t.Fatalf("the flood is over: it has %d verdicts", n)
	}
	p.drain()
	got := p.verdicts(hostile)
	want := make([]uint64, 1000)
	for i := range want {
		want[i] = first + uint64(i)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the flood has %d verdicts, not one for each entry in order", len(got))
	}
	if commit, _, _ := p.judge.Judged(); commit+1 != p.store.End().Commit {
		t.Errorf("judged up to commit %d, the end is %v", commit, p.store.End())
	}
}

// TestFairShares floods from two guests, one with entries that cost five times as much:
// it gets a fifth of the entries judged, and the same time.
func TestFairShares(t *testing.T) {
	p := newStepper(t, engineOf(t, everyBundle), 2)
	p.drain()
	for _, l := range p.logs {
		p.modify(l, many(600, func(int) string { return "/tmp/x" })...)
	}
	counts := map[chain.LogID]int{}
	turns := &turns{}
	for _, l := range p.logs {
		turns.add(&chain.Span{Log: l, First: 2, Count: 600, Pos: chain.Position{Commit: 9}}, p.store.LogByOrigin)
	}
	for range 300 {
		q := turns.next()
		counts[q.log.ID()]++
		q.pass(q.next + 1)
		cost := time.Millisecond
		if q.log == p.logs[0] {
			cost *= 5
		}
		turns.charge(cost)
	}
	if dear, cheap := counts[p.logs[0].ID()], counts[p.logs[1].ID()]; dear < 45 || dear > 55 || dear+cheap != 300 {
		t.Errorf("%d of the dear ones, %d of the cheap", dear, cheap)
	}
	if low := turns.low(chain.Position{Commit: 99}); low != (chain.Position{Commit: 9}) {
		t.Errorf("low water is %v", low)
	}
	// A queue that is never empty moves its position on all the same.
	q := turns.byLog[p.logs[0].ID()]
	turns.add(&chain.Span{Log: q.log, First: 602, Count: 5, Pos: chain.Position{Commit: 20}}, p.store.LogByOrigin)
	turns.add(&chain.Span{Log: q.log, First: 607, Count: 5, Pos: chain.Position{Commit: 30}}, p.store.LogByOrigin)
	if q.pass(601); q.low.Commit != 9 {
		t.Errorf("entry 601 stands behind %v", q.low)
	}
	if q.pass(608); q.low.Commit != 20 || q.end != 612 {
		t.Errorf("entry 608 stands behind %v", q.low)
	}
}

// TestCrashAmidFloods ends the judge again and again while some logs are far ahead of
// others: no verdict is repeated, and none forgotten.
func TestCrashAmidFloods(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	p := newStepper(t, engineOf(t, pairsBundle), 3)
	p.each = 100 * time.Microsecond
	const pairs = 1000
	largest := 0
	sent := make([]int, len(p.logs))
	want := make([][]uint64, len(p.logs))
	send := func(i, n int) {
		first := p.modify(p.logs[i], many(n, func(k int) string {
			return fmt.Sprintf("/home/%d%s", (sent[i]+k)%pairs, strings.Repeat("x", 100))
		})...)
		for k := range n {
			if at := sent[i] + k; at/pairs%2 == 1 {
				want[i] = append(want[i], first+uint64(k))
			}
		}
		sent[i] += n
	}
	for range 12 {
		send(0, 700)
		send(1+rng.IntN(2), 1+rng.IntN(20))
		for range 1 + rng.IntN(8) {
			p.round()
			if st := p.judge.states[p.logs[0].ID()]; st != nil {
				largest = max(largest, st.Size())
			}
		}
		if rng.IntN(2) == 0 {
			p.restart()
		}
	}
	if n := len(p.verdicts(p.logs[0])); n == len(want[0]) {
		t.Fatal("no flood is left")
	}
	send(1, 2*pairs)
	p.restart()
	p.drain()
	for i, l := range p.logs {
		if got := p.verdicts(l); !slices.Equal(got, want[i]) {
			t.Errorf("log %d: verdicts on %d entries, want %d: %v, want %v", i, len(got), len(want[i]), got, want[i])
		}
	}
	if largest < smallState {
		t.Errorf("states have %d bytes at most: they were written with every run", largest)
	}
}

// TestRoom has a session wait while the judge is far behind its log, also where a run
// ends, and go on when it is near.
func TestRoom(t *testing.T) {
	p := newStepper(t, engineOf(t, everyBundle), 2)
	l := p.logs[0]
	p.drain()
	gone, cancel := context.WithCancelCause(t.Context())
	away := errors.New("away")
	cancel(away)
	if err := p.judge.Room(gone, l, nil); err != nil {
		t.Fatalf("nothing is left to judge: %v", err)
	}
	p.each = 100 * time.Millisecond
	p.modify(l, many(40, func(int) string { return "/tmp/x" })...)
	for range 20 {
		p.round()
	}
	if err := p.judge.Room(gone, l, nil); !errors.Is(err, away) {
		t.Fatalf("20 entries of 100 ms are left: %v", err)
	}
	if err := p.judge.Room(gone, p.logs[1], nil); err != nil {
		t.Errorf("the neighbour waits: %v", err)
	}
	let := make(chan error)
	go func() { let <- p.judge.Room(t.Context(), l, nil) }()
	p.drain()
	if err := <-let; err != nil {
		t.Error(err)
	}
	// What a slow log has on its way is waited for: it is not counted yet.
	if err := p.judge.Room(gone, l, make(chan struct{})); !errors.Is(err, away) {
		t.Errorf("frames on their way are let by: %v", err)
	}
	sealed := make(chan struct{})
	close(sealed)
	if err := p.judge.Room(t.Context(), l, sealed); err != nil {
		t.Error(err)
	}
}
