package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// packNow packs every full bundle of a store.
func packNow(t testing.TB, s *Store) (bundles uint64) {
	t.Helper()
	for _, l := range s.Logs() {
		for {
			n, err := s.packSome(l, packBundles)
			if err != nil {
				t.Fatal(err)
			}
			if bundles += n; n == 0 {
				break
			}
		}
	}
	return bundles
}

// randomRows are the entries of a bundle as nobody would write them.
func randomRows(rng *rand.Rand, first uint64) []packRow {
	rows := make([]packRow, tileWidth)
	pick := func(values ...uint64) uint64 { return values[rng.IntN(len(values))] }
	var secrets [3][32]byte
	for i := range secrets {
		binary.BigEndian.PutUint64(secrets[i][:], rng.Uint64())
	}
	for i := range rows {
		rows[i].leaf = record.Leaf{
			Origin: record.Origin(1 + rng.IntN(4)), Index: first + uint64(i), Mono: int64(rng.Uint64()), Wall: int64(pick(0, 1<<63, rng.Uint64())),
			Header: record.Header{
				Class: record.Class(rng.Uint32()), Lane: uint32(pick(0, 1, record.NoLane, rng.Uint64())), Session: pick(0, 7, rng.Uint64()),
				Sequence: pick(0, uint64(i), 1<<64-1, rng.Uint64()), LaneSequence: pick(uint64(i), rng.Uint64()), Time: rng.Uint64(),
			},
		}
		o := opening{kind: byte(kindSalt + rng.IntN(3))}
		if o.kind != kindOutside {
			o.secret = secrets[rng.IntN(len(secrets))]
			o.payload = bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(3000))
		}
		rows[i].open = o
	}
	return rows
}

func TestPackRoundTrip(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 5))
		first := tileWidth * (seed + 1)
		rows := randomRows(rng, first)
		row, err := packBundle(rows, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseBundle(0, first, row)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range rows {
			o, err := b.opening(i, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b.rows[i].leaf != rows[i].leaf {
				t.Fatalf("seed %d: leaf %d is %+v, packed was %+v", seed, i, b.rows[i].leaf, rows[i].leaf)
			}
			if want := rows[i].open; o.kind != want.kind || o.secret != want.secret || !bytes.Equal(o.payload, want.payload) {
				t.Fatalf("seed %d: opening %d is of kind %d, packed was %d", seed, i, o.kind, want.kind)
			}
		}
	}
}

// FuzzParseBundle: whatever the bytes, parsing ends with an error or with 256
// entries that can be opened or refused; it never panics and never takes more
// memory than maxPacked allows.
func FuzzParseBundle(f *testing.F) {
	row, err := packBundle(randomRows(rand.New(rand.NewPCG(1, 5)), 0), nil, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row)
	f.Add(row[:len(row)/2])
	f.Add([]byte(packMagic))
	f.Fuzz(func(t *testing.T, row []byte) {
		b, err := parseBundle(1, 0, row)
		if err != nil {
			return
		}
		for i := range b.rows {
			if o, err := b.opening(i, nil); err == nil && len(o.payload) != b.rows[i].length && o.kind != kindOutside {
				t.Fatalf("payload %d has %d bytes, want %d", i, len(o.payload), b.rows[i].length)
			}
		}
	})
}

// variety fills a log over several bundles with entries of all kinds: of guests
// with salts and with seeds, of the host, and with payloads too large to pack.
func variety(t testing.TB, s *Store, l *Log) {
	t.Helper()
	a := newTestAgent(t, s, l, 1)
	for i := range 20 {
		a.frame(1 + 13*i%50)
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, fmt.Sprint("change ", i))}})
	}
	for i := range 3 {
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, strings.Repeat(string(rune('a'+i)), outsideBytes+i))}})
	}
	for i := range 20 {
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, fmt.Sprint("later ", i))}})
		a.frame(31)
	}
}

// contents reads all entries of a log.
func contents(t testing.TB, l *Log) []Item {
	t.Helper()
	var all []Item
	for i, err := range l.Read(t.Context(), 0, l.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		i.Log = nil
		all = append(all, i)
	}
	return all
}

// TestPackedIsTheSame reads every entry, tile and bundle of a store before and
// after packing, and after opening it again.
func TestPackedIsTheSame(t *testing.T) {
	t.Run("plain", func(t *testing.T) { packedIsTheSame(t, "") })
	t.Run("encrypted", func(t *testing.T) { packedIsTheSame(t, "/payload-keys") })
}

func packedIsTheSame(t *testing.T, keys string) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked, cfg.PayloadKeys = true, keys
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	variety(t, s, l)
	if err := s.CheckpointNow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	before := contents(t, l)
	var bundles [][]byte
	for k := range l.Size() / tileWidth {
		for _, width := range []int{1, 100, tileWidth} {
			b, err := l.Bundle(k, width)
			if err != nil {
				t.Fatal(err)
			}
			bundles = append(bundles, b)
		}
	}
	check := func(l *Log) {
		t.Helper()
		if !reflect.DeepEqual(contents(t, l), before) {
			t.Fatal("the entries differ")
		}
		for i, want := range bundles {
			got, err := l.Bundle(uint64(i/3), []int{1, 100, tileWidth}[i%3])
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("entry bundle %d differs: %v", i, err)
			}
		}
	}
	n := packNow(t, s)
	if want := l.Size() / tileWidth; n != want || l.packed.Load() != n || n < 3 {
		t.Fatalf("%d bundles are packed, want %d", n, want)
	}
	check(l)
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() || r.Packed != n*tileWidth || r.Payloads != r.Entries {
		t.Fatalf("fsck: %d of %d entries packed, %d payloads, findings %v", r.Packed, r.Entries, r.Payloads, r.Findings)
	}
	s = mustOpen(t, cfg)
	l, _ = s.LogByOrigin(l.origin)
	if l.packed.Load() != n {
		t.Fatalf("%d bundles are packed after opening, %d were", l.packed.Load(), n)
	}
	check(l)
	rows := 0
	if err := scan(s.db, keyLog(tableEntry, l.id), func(_, _ []byte) error { rows++; return nil }); err != nil || rows != int(l.Size()-n*tileWidth) {
		t.Fatalf("%d leaves have rows of their own (%v)", rows, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadersWhilePacking has readers at work while their rows are replaced.
func TestReadersWhilePacking(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for n := range uint64(3) {
		go func() {
			rng := rand.New(rand.NewPCG(n, 3))
			for ctx.Err() == nil {
				i := rng.Uint64N(l.Size())
				if item, err := l.Item(i); err != nil || item.Index != i {
					done <- fmt.Errorf("entry %d: %w", i, err)
					return
				}
			}
			done <- nil
		}()
	}
	a := newTestAgent(t, s, l, 1)
	for range 30 {
		a.frame(100)
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.After(time.Minute); l.packed.Load() < l.Size()/tileWidth; {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%d of %d bundles are packed after a minute", l.packed.Load(), l.Size()/tileWidth)
		}
	}
	cancel()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestUnpackable damages rows before they are packed: the packer passes over their
// bundle, and each row of it stays as it was.
func TestUnpackable(t *testing.T) {
	for name, key := range map[string][]byte{"leaf": keySeq(tableEntry, 1, 9), "payload": keySeq(tablePayload, 1, 9), "tile": keyTile(1, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := closedStore(t, vfs.NewMem())
			s := mustOpen(t, cfg)
			flipRow(t, s.db, key, -1)
			l, _ := s.LogByID(1)
			before := rowsOf(t, s.db, 1)
			if n, err := s.packSome(l, packBundles); err != nil || n != 1 {
				t.Fatalf("the packer has come on by %d bundles, %v", n, err)
			}
			if after := rowsOf(t, s.db, 1); !maps.Equal(before, after) {
				t.Fatalf("%d rows of the log were %d and others", len(after), len(before))
			}
			if _, ok, err := get(s.db, keySeq(tableBundle, 1, 0)); err != nil || ok {
				t.Fatalf("the bundle is packed: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestEmptyPayloadRow: a row that somebody emptied is no erased one, and no crash.
func TestEmptyPayloadRow(t *testing.T) {
	cfg, _ := closedStore(t, vfs.NewMem())
	s := mustOpen(t, cfg)
	if err := s.db.Set(keySeq(tablePayload, 1, 9), nil, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	l, _ := s.LogByID(1)
	if gone, err := l.isErased(9); gone || err != nil {
		t.Errorf("the entry is erased: %v, %v", gone, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// rowsOf returns the leaves, payloads, bundles and tiles of a log.
func rowsOf(t *testing.T, db *pebble.DB, id LogID) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, table := range []byte{tableEntry, tablePayload, tableBundle, tableTile} {
		if err := scan(db, keyLog(table, id), func(key, value []byte) error { rows[string(key)] = string(value); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// TestFsckFindsPackedRows damages a packed bundle and its surroundings.
func TestFsckFindsPackedRows(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(t *testing.T, db *pebble.DB) error
		table string
		index uint64
	}{
		"magic":  {func(t *testing.T, db *pebble.DB) error { flipRow(t, db, keySeq(tableBundle, 1, 0), 0); return nil }, "bundle", 0},
		"column": {func(t *testing.T, db *pebble.DB) error { return recode(t, db, func(r []packRow) { r[9].leaf.Wall++ }) }, "bundle", 9},
		"payload": {func(t *testing.T, db *pebble.DB) error {
			return recode(t, db, func(r []packRow) { r[9].open.payload[3] ^= 1 })
		}, "bundle", 9},
		"seed": {func(t *testing.T, db *pebble.DB) error {
			return recode(t, db, func(r []packRow) { r[9].open.secret[3] ^= 1 })
		}, "bundle", 9},
		"tile":    {func(t *testing.T, db *pebble.DB) error { flipRow(t, db, keyTile(1, 0, 0), 32*17+3); return nil }, "bundle", 17},
		"missing": {func(_ *testing.T, db *pebble.DB) error { return db.Delete(keySeq(tableBundle, 1, 0), pebble.Sync) }, "leaf", 0},
		"second leaf": {func(_ *testing.T, db *pebble.DB) error {
			return db.Set(keySeq(tableEntry, 1, 9), []byte{1}, pebble.Sync)
		}, "leaf", 9},
		"second payload": {func(_ *testing.T, db *pebble.DB) error {
			return db.Set(keySeq(tablePayload, 1, 9), []byte{1}, pebble.Sync)
		}, "payload", 9},
		"behind the head": {func(_ *testing.T, db *pebble.DB) error {
			return db.Set(keySeq(tableBundle, 1, 99), []byte{1}, pebble.Sync)
		}, "bundle", 99 * tileWidth},
		"stray": {func(_ *testing.T, db *pebble.DB) error {
			return db.Set(keySeq(tableBundle, 77, 0), []byte{1}, pebble.Sync)
		}, "row", 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := closedStore(t, vfs.NewMem(), plain)
			s := mustOpen(t, cfg)
			if packNow(t, s) == 0 {
				t.Fatal("nothing was packed")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, cfg, func(db *pebble.DB) {
				if err := c.edit(t, db); err != nil {
					t.Fatal(err)
				}
			})
			r := mustFsck(t, cfg)
			for _, f := range r.Findings {
				if f.Table == c.table && (f.Index == nil || *f.Index == c.index) {
					return
				}
			}
			t.Errorf("not named; findings: %v", r.Findings)
		})
	}
}

// recode changes entries of bundle 0 of log 1.
func recode(t *testing.T, db *pebble.DB, change func([]packRow)) error {
	row, ok, err := get(db, keySeq(tableBundle, 1, 0))
	if err != nil || !ok {
		return errors.Join(errors.New("no bundle"), err)
	}
	b, err := parseBundle(1, 0, row)
	if err != nil {
		return err
	}
	rows := make([]packRow, tileWidth)
	for i := range rows {
		if rows[i].open, err = b.opening(i, nil); err != nil {
			return err
		}
		rows[i].leaf = b.rows[i].leaf
		rows[i].open.payload = bytes.Clone(rows[i].open.payload)
	}
	change(rows)
	if row, err = packBundle(rows, nil, 0); err != nil {
		return err
	}
	return db.Set(keySeq(tableBundle, 1, 0), row, pebble.Sync)
}
