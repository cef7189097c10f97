package chain

import (
	"context"
	"crypto/rand"
	"fmt"
	randv2 "math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

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
		op := b.SetDeferred(keySeqSize, 1+32+len(entries[i].Payload)+sealedRowExtra)
		putKeySeq(op.Key, tablePayload, 1, first+uint64(i))
		copy(op.Value, w.head)
		copy(op.Value[sealedRowExtra:], entries[i].Payload)
		_ = op.Finish()
	}
	_ = b.Set(keyLog(tableHead, 1), w.head, nil)
	w.c++
	_ = b.Set(keyCommit(w.c), appendCommit(nil, []span{{1, w.n, 1}}), nil)
	if err := b.Commit(pebble.Sync); err != nil {
		t.Error(err)
	}
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
