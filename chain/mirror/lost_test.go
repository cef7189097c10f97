package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// damagedEntry is an entry to be damaged: its payload, and its leaf where leaf says so.
type damagedEntry struct {
	index uint64
	leaf  bool
}

// damagedShard closes a log with two frames of n records, damages entries of it, has the
// ledger repaired, and archives it. It returns which entries lack in the archive.
func damagedShard(t testing.TB, n int, withhold bool, damage ...damagedEntry) (key string, archive []byte, lost []uint64) {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/", 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := chain.Config{Dir: "/store", Anchor: "/anchor", PayloadKeys: "/payload-keys", HostID: hostID, Keys: newKeys(t), FS: fs,
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour}
	start := func(open func(chain.Config) (*chain.Store, error)) (*host, func()) {
		t.Helper()
		s, err := open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return &host{s, t, cfg.Keys}, func() {
			cancel()
			if err := errors.Join(<-done, s.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, stop := start(chain.Create)
	l := h.log(1, 1, nil)
	a := h.agent(l, 1, nil)
	a.frame(n)
	a.frame(n)
	other := h.log(2, 1, nil) // whose damage is not to be told in the archive
	h.agent(other, 2, nil).frame(5)
	h.must(h.CloseLog(t.Context(), l, "it is large", ""))
	stop()
	for _, d := range damage {
		chaintest.Spoil(t, cfg, l.ID(), d.index, d.leaf)
	}
	chaintest.Spoil(t, cfg, other.ID(), 3, true)
	if r, err := chain.Repair(t.Context(), cfg, chain.FsckOptions{}); err != nil || !r.Fenced() {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	h, stop = start(chain.Open)
	defer stop()
	l, _ = h.LogByOrigin(l.Origin())
	for i := range l.Size() {
		item, err := l.Look(i)
		h.must(err)
		if item.LeafBytes == nil {
			lost = append(lost, i)
		}
	}
	var b bytes.Buffer
	_, err := h.Archive(t.Context(), l, &b, chain.ArchiveOptions{Withhold: withhold})
	h.must(err)
	return h.HostLog().VerifierKey(), b.Bytes(), lost
}

// lacks wants the gaps of an archive named as the host log tells of them, and all else
// verified.
func lacks(t *testing.T, archive []byte, key string, lost []uint64, want ...string) *mirror.Report {
	t.Helper()
	r, err := verifyArchive(t, archive, key, mirror.Options{})
	var invalid *mirror.InvalidError
	if !errors.As(err, &invalid) || r.Valid || len(r.Proved) > 0 || len(r.Rest) == 0 || r.Checkpoint != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, f := range r.Failures {
		if f.Kind != mirror.KindGap || f.Index == nil {
			t.Errorf("%s", f)
		}
	}
	var have []uint64
	for _, l := range r.Lost {
		for i := l.First; i <= l.Last; i++ {
			have = append(have, i)
		}
	}
	if !slices.Equal(have, lost) {
		t.Errorf("entries %d lack, want %d", have, lost)
	}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, w := range append(want, "fenced off as damaged", "of the host log says", "All else holds:", "gaps that the host log tells of") {
		if !strings.Contains(b.String(), w) {
			t.Errorf("it does not say %q: %s", w, b.String())
		}
	}
	return r
}

// TestArchiveOfDamaged archives logs of which entries are fenced: what lacks is named
// with the entry of the host log that tells of it, and the rest verifies.
func TestArchiveOfDamaged(t *testing.T) {
	t.Run("record", func(t *testing.T) {
		key, archive, lost := damagedShard(t, 40, false, damagedEntry{10, true}, damagedEntry{12, true})
		lacks(t, archive, key, lost, "gap: entry 10")
	})
	t.Run("frame", func(t *testing.T) {
		key, archive, lost := damagedShard(t, 40, true, damagedEntry{42, true})
		lacks(t, archive, key, lost, "gap: entry 42")
	})
	t.Run("payload of a frame", func(t *testing.T) {
		key, archive, lost := damagedShard(t, 40, false, damagedEntry{42, false})
		if lost != nil {
			t.Fatalf("leaves of %d are lost", lost)
		}
		lacks(t, archive, key, []uint64{42}, "the payload of this agent.frame was not given", "40 entries of the guest are signed")
	})
	t.Run("key", func(t *testing.T) {
		key, archive, lost := damagedShard(t, 40, false, damagedEntry{1, true})
		r := lacks(t, archive, key, lost, "no known key verifies this frame, and 2 in all")
		if text := strings.Join(r.Rest, "\n"); strings.Contains(text, "signed by enrolled agents") {
			t.Errorf("no frame was verified: %s", text)
		}
	})
	t.Run("bundles", func(t *testing.T) {
		key, archive, lost := damagedShard(t, 400, false, damagedEntry{300, true}, damagedEntry{790, true})
		if len(lost) < 2 {
			t.Fatalf("%d are lost", lost)
		}
		lacks(t, archive, key, lost, "gap: entry 790")
	})
	t.Run("payload alone", func(t *testing.T) { // is no gap: verification does not need it
		key, archive, lost := damagedShard(t, 40, false, damagedEntry{10, false})
		r, err := verifyArchive(t, archive, key, mirror.Options{})
		if lost != nil || err != nil || !r.Valid || r.Rest != nil || r.Lost != nil || r.Logs[0].Unopened != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if !strings.Contains(strings.Join(r.Unclaimed, "\n"), "damaged and fenced off, of which 1 entries of "+proof.HostOrigin(hostID)+" tell") {
			t.Errorf("unclaimed: %q", r.Unclaimed)
		}
	})
}

// TestArchiveOfDamagedTampered has somebody make use of the gaps of an archive: nothing
// more may lack than what the host log tells of.
func TestArchiveOfDamagedTampered(t *testing.T) {
	key, archive, _ := damagedShard(t, 40, false, damagedEntry{10, true})
	members := unpacked(t, archive)
	lacks(t, packed(t, members), key, []uint64{10})
	damage := ""
	for name := range members {
		if base, ok := strings.CutSuffix(name, ".leaf"); ok && strings.HasPrefix(name, "damage/") {
			damage = base
		}
	}
	foreignKey, foreign, _ := damagedShard(t, 41, false, damagedEntry{10, true})
	if foreignKey == key {
		t.Fatal("two hosts have one key")
	}
	others := unpacked(t, foreign)
	entries := "tile/entries/000.p/85"
	if members[entries] == nil {
		t.Fatalf("there is no %s", entries)
	}
	// without returns the entry bundle without the leaf of entry 20.
	without := func(b []byte) []byte {
		at := 20*(2+record.LeafSize) - record.LeafSize // entry 10 has no bytes
		b = slices.Delete(bytes.Clone(b), at+2, at+2+record.LeafSize)
		b[at], b[at+1] = 0, 0
		return b
	}
	for _, c := range []struct {
		name, want string
		change     func(m map[string][]byte)
	}{
		{"one more is left out", "entry 20 of", func(m map[string][]byte) {
			m[entries] = without(m[entries])
		}},
		{"no tile", "does not have their hashes", func(m map[string][]byte) { delete(m, "tile/0/000.p/85") }},
		{"tile", "its entries make root", func(m map[string][]byte) { m["tile/0/000.p/85"][10*32] ^= 1 }},
		{"payload of what lacks", "a payload of an entry that is left out", func(m map[string][]byte) {
			b := m["tile/openings/000.p/85"]
			at := 0
			for range 10 {
				at += 4 + int(b[at])<<24 + int(b[at+1])<<16 + int(b[at+2])<<8 + int(b[at+3])
			}
			m["tile/openings/000.p/85"] = slices.Insert(b, at+4, make([]byte, 40)...)
			m["tile/openings/000.p/85"][at+3] = 40
		}},
		{"nobody tells", "is to tell of damage", func(m map[string][]byte) { delete(m, damage+".payload") }},
		{"told otherwise", "not what its leaf commits to", func(m map[string][]byte) { m[damage+".payload"][40] ^= 1 }},
		{"leaf of it", "is to tell of damage", func(m map[string][]byte) { m[damage+".leaf"][80] ^= 1 }},
		{"proof of it", "is to tell of damage", func(m map[string][]byte) { m[damage+".tlog-proof"][60] ^= 1 }},
		{"told by another host", "is to tell of damage", func(m map[string][]byte) {
			for name, data := range others {
				if strings.HasPrefix(name, "damage/") {
					m[damage+name[strings.LastIndex(name, "."):]] = data
				}
			}
		}},
		{"told twice", "not told in the order", func(m map[string][]byte) {
			n := strings.TrimLeft(strings.TrimPrefix(damage, "damage/"), "0")
			m["shard.json"] = bytes.Replace(m["shard.json"], []byte("    "+n+"\n"), []byte("    "+n+",\n    "+n+"\n"), 1)
		}},
		{"an archive without gaps", "version 1", func(m map[string][]byte) {
			m["shard.json"] = bytes.Replace(m["shard.json"], []byte(`"version": 2`), []byte(`"version": 1`), 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := map[string][]byte{}
			for name, data := range members {
				m[name] = bytes.Clone(data)
			}
			c.change(m)
			r, err := verifyArchive(t, packed(t, m), key, mirror.Options{})
			if !errors.Is(err, record.ErrReject) || r != nil && (r.Valid || len(r.Rest) > 0) {
				t.Fatalf("accepted: %+v, %v", r, err)
			}
			text := err.Error()
			if r != nil {
				var b strings.Builder
				if err := r.WriteText(&b); err != nil {
					t.Fatal(err)
				}
				text += b.String()
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("%q is not named: %s", c.want, text)
			}
		})
	}
}

// TestArchiveOfMuchDamage opens an archive with as many entries on damage as it may have,
// and none with one more.
func TestArchiveOfMuchDamage(t *testing.T) {
	for _, n := range []int{mirror.MaxArchiveDamage, mirror.MaxArchiveDamage + 1} {
		m := mirror.Manifest{Host: proof.HostOrigin(hostID), Origin: proof.VMOrigin(hostID, domain(1), 1), Size: 1}
		for i := range uint64(n) {
			m.Damage = append(m.Damage, 1<<63+i)
		}
		var b bytes.Buffer
		z, err := mirror.NewArchiveWriter(&b, m, nil)
		if err == nil {
			err = z.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		a, err := mirror.OpenArchive(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if n > mirror.MaxArchiveDamage {
			if !errors.Is(err, record.ErrReject) {
				t.Errorf("%d entries on damage: %v", n, err)
			}
		} else if err != nil || !slices.Equal(a.Damage, m.Damage) {
			t.Errorf("%d entries on damage: %v", n, err)
		}
	}
}
