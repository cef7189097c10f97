package chain

import (
	"fmt"
	randv2 "math/rand/v2"
	"testing"
	"time"
)

// measureMillion measures proofs, opening and checking at a million entries.
func measureMillion(t *testing.T, report reporter) {
	cfg := diskConfig(t)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	origin := l.origin
	fill(t, s, l, scaled(1_000_000))
	waitPacked(t, s)
	shutdown(t, s, stop)
	measureCold(t, cfg, origin, report)
	s = mustOpen(t, cfg)
	l, ok := s.LogByOrigin(origin)
	if !ok {
		t.Fatal("the log is gone")
	}
	measureProofs(t, l, report)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r, err := Fsck(t.Context(), cfg, FsckOptions{})
	if err != nil || !r.OK() {
		t.Fatalf("%d findings, %v", len(r.Findings), err)
	}
	report("chain.fsck", float64(r.Entries)/time.Since(start).Seconds(), "entries/s", "target>=200000")
}

// measureCold opens the store anew for each proof: nothing that it needs is in
// the memory of the process. The operating system's own cache is as it is.
func measureCold(t *testing.T, cfg Config, origin string, report reporter) {
	rng := randv2.New(randv2.NewPCG(1, 2))
	var prove, open []time.Duration
	for range scaled(200) {
		start := time.Now()
		s := mustOpen(t, cfg)
		open = append(open, time.Since(start))
		l, ok := s.LogByOrigin(origin)
		if !ok {
			t.Fatal("the log is gone")
		}
		size := l.Size()
		start = time.Now()
		if _, err := l.ProveInclusion(rng.Uint64N(size), size); err != nil {
			t.Fatal(err)
		}
		prove = append(prove, time.Since(start))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	report("chain.prove.inclusion.cold.p50", quantile(prove, 0.5), "us", "target<=300")
	report("chain.prove.inclusion.cold.p99", quantile(prove, 0.99), "us", "")
	report("chain.open.million", quantile(open, 0.5)/1e3, "ms", "target<=1000")
}

// measureProofs takes proofs of entries all over the log, of which the cache of
// tiles has a part, and warm ones: of entries whose tiles proofs have used.
func measureProofs(t *testing.T, l *Log, report reporter) {
	rng := randv2.New(randv2.NewPCG(1, 2))
	size := l.Size()
	inclusion := func(within uint64) func() {
		return func() {
			if _, err := l.ProveInclusion(rng.Uint64N(within), size); err != nil {
				t.Fatal(err)
			}
		}
	}
	measure := func(name, target string, f func()) {
		_, lat := timed(lasting(2*time.Second), 1, f)
		report(name+".p50", quantile(lat, 0.5), "us", target)
		report(name+".p99", quantile(lat, 0.99), "us", "target<=5000")
	}
	const warm = 100_000
	near := min(warm, size)
	for i := uint64(0); i < near; i += tileWidth {
		if _, err := l.ProveInclusion(i, size); err != nil {
			t.Fatal(err)
		}
	}
	measure("chain.prove.inclusion.warm", "target<=50", inclusion(near))
	measure("chain.prove.inclusion", "target<=300", inclusion(size))
	measure("chain.prove.consistency", "target<=300", func() {
		if _, err := l.ProveConsistency(1+rng.Uint64N(size), size); err != nil {
			t.Fatal(err)
		}
	})
	if *scale != 1 {
		fmt.Printf("# proofs at %d entries\n", size)
	}
}
