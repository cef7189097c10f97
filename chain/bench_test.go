package chain

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	randv2 "math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

var results = flag.Bool("results", false, "measure and print RESULT lines")

const benchPayload = 200 // bytes

// diskConfig is a store on the real disk.
func diskConfig(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	return Config{
		Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), PayloadKeys: filepath.Join(dir, "payload-keys"), HostID: "kvm1.example", Keys: testKeys(t),
		CheckpointEvery: time.Second, HostEvery: time.Second, WitnessEvery: 10 * time.Second,
	}
}

// frames are n records of a guest, with half-compressible payloads. Their
// commitments are there: the session has checked them before it submits.
func frames(t testing.TB, n int) []Entry {
	t.Helper()
	entries := make([]Entry, n)
	for i := range entries {
		path := make([]byte, benchPayload-6) // two headers of three bytes each
		_, _ = rand.Read(path[:benchPayload/2])
		payload, err := record.Encode(&record.Event{File: &record.File{Path: path}})
		if err != nil || len(payload) != benchPayload {
			t.Fatalf("payload of %d bytes: %v", len(payload), err)
		}
		salt := record.Salt{1, byte(i), byte(i >> 8)}
		entries[i] = Entry{
			Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1, Sequence: uint64(i)},
			Payload: payload, Salt: salt, Commitment: record.Commit(&salt, payload),
		}
	}
	return entries
}

// rawWriter writes to Pebble what the ledger would write, without being one:
// the same keys and values of the same sizes, one synced batch for each frame.
type rawWriter struct {
	db   *pebble.DB
	n    uint64
	c    uint64
	head []byte
	tile []byte
}

func newRaw(t testing.TB) *rawWriter {
	t.Helper()
	cfg, err := Config{Dir: t.TempDir(), Anchor: filepath.Join(t.TempDir(), "anchor"), HostID: "h", Keys: testKeys(t)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(cfg.Dir, pebbleOptions(cfg, false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &rawWriter{db: db, head: make([]byte, headFixed+10*32), tile: make([]byte, tileWidth*32)}
	_, _ = rand.Read(w.head)
	_, _ = rand.Read(w.tile)
	return w
}

func (w *rawWriter) write(t testing.TB, entries []Entry) {
	b := w.db.NewBatch()
	first := w.n
	for i := range entries {
		op := b.SetDeferred(keySeqSize, record.LeafSize)
		putKeySeq(op.Key, tableEntry, 1, w.n)
		copy(op.Value[104:], entries[i].Commitment[:])
		copy(op.Value[32:], entries[i].Commitment[:])
		_ = op.Finish()
		if w.n++; w.n%tileWidth == 0 {
			_ = b.Set(keyTile(1, 0, w.n/tileWidth), w.tile, nil)
		}
	}
	for i := range entries {
		_ = (*Store)(nil).writePayload(b, 1, first+uint64(i), &entries[i], nil)
	}
	_ = b.Set(keyLog(tableHead, 1), w.head, nil)
	w.c++
	_ = b.Set(keyCommit(w.c), appendCommit(nil, []span{{1, w.n, 1}}), nil)
	if err := b.Commit(pebble.Sync); err != nil {
		t.Error(err)
	}
}

// timed runs f for about d and returns records per second and the latencies of
// its calls.
func timed(d time.Duration, records int, f func()) (rate float64, lat []time.Duration) {
	start := time.Now()
	for time.Since(start) < d {
		t := time.Now()
		f()
		lat = append(lat, time.Since(t))
	}
	return float64(records*len(lat)) / time.Since(start).Seconds(), lat
}

func quantile(lat []time.Duration, q float64) float64 {
	slices.Sort(lat)
	return float64(lat[int(q*float64(len(lat)-1))].Nanoseconds()) / 1e3
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint("batch", n), func(b *testing.B) {
			s := mustCreate(b, diskConfig(b))
			stop := run(b, s)
			defer shutdown(b, s, stop)
			l := mustCreateLog(b, s, 1)
			entries := frames(b, n)
			for b.Loop() {
				mustAppend(b, s, Batch{Log: l, Entries: entries})
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkProveInclusion(b *testing.B) {
	s := mustCreate(b, diskConfig(b))
	stop := run(b, s)
	defer shutdown(b, s, stop)
	l := mustCreateLog(b, s, 1)
	fill(b, s, l, 50_000)
	rng := randv2.New(randv2.NewPCG(1, 2))
	for b.Loop() {
		if _, err := l.ProveInclusion(rng.Uint64N(l.Size()), l.Size()); err != nil {
			b.Fatal(err)
		}
	}
}

// fill appends n records with several batches on their way.
func fill(t testing.TB, s *Store, l *Log, n int) {
	t.Helper()
	entries := frames(t, 1000)
	var pending []*Pending
	for range n / len(entries) {
		p, err := s.Submit(context.Background(), Batch{Log: l, Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for _, p := range pending {
		if _, err := p.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestResults prints the figures that `make bench-chain` shows. Ledger and raw
// Pebble take turns on the same disk, so that their ratio means something where
// the disk itself is unsteady.
func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	report := func(name string, value float64, unit, target string) {
		fmt.Printf("RESULT %s %.4g %s %s\n", name, value, unit, target)
	}
	s := mustCreate(t, diskConfig(t))
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	raw := newRaw(t)
	measureAppends(t, s, l, raw, report)
	measureWriters(t, s, report)
	measureLogs(t, s, l, report)
	big := mustCreateLog(t, s, 5000)
	const size = 300_000
	fill(t, s, big, size)
	measureProofs(t, big, report)
	cfg, origin := s.cfg, big.origin
	start := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	report("chain.stop", float64(time.Since(start).Milliseconds()), "ms", "target<=1000")
	entries := uint64(0)
	for _, l := range s.Logs() {
		entries += l.Size()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	s = mustOpen(t, cfg)
	report(fmt.Sprintf("chain.open.%dk", entries/1000), float64(time.Since(start).Milliseconds()), "ms", "target<=1000")
	if l, ok := s.LogByOrigin(origin); !ok || l.Size() < size {
		t.Fatal("the log is not what was filled")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	r, err := Fsck(context.Background(), cfg, FsckOptions{})
	if err != nil || !r.OK() {
		t.Fatalf("%d findings, %v", len(r.Findings), err)
	}
	report("chain.fsck", float64(r.Entries)/time.Since(start).Seconds(), "entries/s", "target>=200000")
}

type reporter func(name string, value float64, unit, target string)

func measureAppends(t *testing.T, s *Store, l *Log, raw *rawWriter, report reporter) {
	targets := map[int]string{1: "target>=1000", 64: "target>=50000", 1024: "target>=100000"}
	for _, n := range []int{1, 64, 1024} {
		entries := frames(t, n)
		var ledger, pebble []float64
		var lat []time.Duration
		for range 4 {
			rate, _ := timed(800*time.Millisecond, n, func() { raw.write(t, entries) })
			pebble = append(pebble, rate)
			rate, some := timed(800*time.Millisecond, n, func() { mustAppend(t, s, Batch{Log: l, Entries: entries}) })
			ledger, lat = append(ledger, rate), append(lat, some...)
		}
		name := fmt.Sprintf("chain.append.batch%d", n)
		report(name, mean(ledger), "records/s", targets[n])
		report(name+".ack_p50", quantile(lat, 0.5), "us", "target<=2000")
		report(name+".ack_p99", quantile(lat, 0.99), "us", "target<=20000")
		report(name+".raw", mean(pebble), "records/s", "target>=0")
		report(name+".over_raw", mean(ledger)/mean(pebble), "times", "target>=0.7")
	}
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// measureWriters has 64 sessions that each wait for their ack, as 64 domains
// with little to say do.
func measureWriters(t *testing.T, s *Store, report reporter) {
	const writers = 64
	var mu sync.Mutex
	var lat []time.Duration
	total := 0.0
	var wg sync.WaitGroup
	for i := range writers {
		l := mustCreateLog(t, s, 100+i)
		entries := frames(t, 1)
		wg.Go(func() {
			rate, some := timed(2*time.Second, 1, func() {
				if _, err := s.Append(context.Background(), Batch{Log: l, Entries: entries}); err != nil {
					t.Error(err)
				}
			})
			mu.Lock()
			total, lat = total+rate, append(lat, some...)
			mu.Unlock()
		})
	}
	wg.Wait()
	report("chain.append.64_logs_of_batch1", total, "records/s", "target>=20000")
	report("chain.append.64_logs_of_batch1.ack_p50", quantile(lat, 0.5), "us", "target<=5000")
	report("chain.append.64_logs_of_batch1.ack_p99", quantile(lat, 0.99), "us", "target<=50000")
}

// measureLogs compares the cost of the same records in one log and over 500.
func measureLogs(t *testing.T, s *Store, one *Log, report reporter) {
	var logs []*Log
	for i := range 500 {
		logs = append(logs, mustCreateLog(t, s, 1000+i))
	}
	entries := frames(t, 32)
	round := func(pick func(i int) *Log) float64 {
		start := time.Now()
		var pending []*Pending
		for i := range 500 {
			p, err := s.Submit(context.Background(), Batch{Log: pick(i), Entries: entries})
			if err != nil {
				t.Fatal(err)
			}
			pending = append(pending, p)
		}
		for _, p := range pending {
			if _, err := p.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(start).Seconds()
	}
	var single, many []float64
	for range 6 {
		single = append(single, round(func(int) *Log { return one }))
		many = append(many, round(func(i int) *Log { return logs[i] }))
	}
	report("chain.append.500_logs", 500*32/mean(many), "records/s", "target>=50000")
	report("chain.append.500_logs_over_one", mean(many)/mean(single), "times", "target<=1.3")
}

func measureProofs(t *testing.T, l *Log, report reporter) {
	rng := randv2.New(randv2.NewPCG(1, 2))
	size := l.Size()
	measure := func(name, target string, f func()) {
		_, lat := timed(2*time.Second, 1, f)
		report(name+".p50", quantile(lat, 0.5), "us", target)
		report(name+".p99", quantile(lat, 0.99), "us", "target<=5000")
	}
	measure("chain.prove.inclusion", "target<=300", func() {
		if _, err := l.ProveInclusion(rng.Uint64N(size), size); err != nil {
			t.Fatal(err)
		}
	})
	measure("chain.prove.consistency", "target<=300", func() {
		if _, err := l.ProveConsistency(1+rng.Uint64N(size), size); err != nil {
			t.Fatal(err)
		}
	})
}
