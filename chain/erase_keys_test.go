package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// checkRetired wants every erasable key that was in use before entry by to be
// destroyed in its file: tests here live within one hour.
func checkRetired(t testing.TB, s *Store, l *Log, by uint64) {
	t.Helper()
	leaf, err := l.readHeader(by)
	if err != nil {
		t.Fatal(err)
	}
	hour := hourOf(leaf.Wall)
	slots, err := s.keys.read(s.keys.path(hour), payloadKeyMagic, payloadKeySlot)
	if err != nil {
		t.Fatal(err)
	}
	destroyed := 0
	for ; len(slots) > 0; slots = slots[payloadKeySlot:] {
		name, key, ok := parseSlot(hour, slots[:payloadKeySlot])
		if name.log != l.id || name.kind != keyErasable || !ok {
			continue
		}
		if name.generation == 1 {
			if destroyed++; key != ([32]byte{}) {
				t.Error("the first key of the hour is still there")
			}
		} else if key == ([32]byte{}) {
			t.Errorf("key of generation %d is gone", name.generation)
		}
	}
	if destroyed != 1 {
		t.Errorf("%d keys of the hour's first generation", destroyed)
	}
}

// copyOf returns a file system with a copy of the store as it is on disk now.
func copyOf(t testing.TB, cfg Config) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	for _, dir := range []string{cfg.Dir, cfg.PayloadKeys, cfg.Anchor} {
		if ok, err := vfs.Clone(cfg.FS, to, dir, dir); !ok || err != nil {
			t.Fatalf("%s: %v %v", dir, ok, err)
		}
	}
	return to
}

// withKeysOf puts the payload keys of one file system into another one.
func withKeysOf(t testing.TB, cfg Config, to vfs.FS) {
	t.Helper()
	if err := to.RemoveAll(cfg.PayloadKeys); err != nil {
		t.Fatal(err)
	}
	if ok, err := vfs.Clone(cfg.FS, to, cfg.PayloadKeys, cfg.PayloadKeys); !ok || err != nil {
		t.Fatal(err)
	}
}

// TestEraseReachesCopies copies a store with guests' records of three hours,
// erases all of one hour and part of another, and looks what the copy is worth
// with the keys that are left.
func TestEraseReachesCopies(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed=%v", packed), func(t *testing.T) {
			cfg := testConfig(t, vfs.NewMem())
			cfg.unpacked = true
			now := time.Date(2026, 5, 1, 0, 30, 0, 0, time.UTC)
			cfg.Now = func() time.Time { return now }
			s := mustCreate(t, cfg)
			stop := run(t, s)
			l := mustCreateLog(t, s, 1)
			a := newTestAgent(t, s, l, 1)
			for range 3 {
				a.frame(300)
				verdicts(t, s, l, l.Size()-5)
				now = now.Add(time.Hour)
			}
			if packed {
				packNow(t, s)
			}
			before := contents(t, l)
			shutdown(t, s, stop)
			old := copyOf(t, cfg)

			now = time.Date(2026, 5, 1, 2, 50, 0, 0, time.UTC) // the third hour goes on
			s = mustOpen(t, cfg)
			stop = run(t, s)
			l, _ = s.LogByID(l.id)
			hour := func(n int) time.Time { return time.Date(2026, 5, 1, n, 0, 0, 0, time.UTC) }
			if done, err := s.Erase(t.Context(), EraseSelection{Log: l, From: hour(0), To: hour(1)}, "r", "a"); err != nil || done[0].Records != 300 || done[0].Verdicts != 1 {
				t.Fatalf("%+v %v", done, err)
			}
			last := before[len(before)-40].Index
			if done, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: last, Last: last}}, "r", "a"); err != nil || done[0].Records != 1 {
				t.Fatalf("%+v %v", done, err)
			}
			a = newTestAgent(t, s, l, 2)
			a.frame(20) // under the key that has followed
			gone := func(i *Item) bool {
				return i.Leaf.Origin != record.OriginHost && time.Unix(0, i.Leaf.Wall).Before(hour(1)) || i.Index == last
			}
			check := func() {
				t.Helper()
				for i, item := range contents(t, l) {
					if i >= len(before) {
						if _, err := item.Decode(); err != nil {
							t.Fatalf("entry %d, sealed later: %v", i, err)
						}
					} else if gone(&before[i]) != item.Erased || !item.Erased && string(item.Payload) != string(before[i].Payload) {
						t.Fatalf("entry %d: erased %v", i, item.Erased)
					}
				}
			}
			check()
			if packed {
				packNow(t, s)
				check()
			}
			shutdown(t, s, stop)
			if r := mustFsck(t, cfg); !r.OK() {
				t.Fatalf("fsck: %v", r.Findings)
			}
			s = mustOpen(t, cfg)
			l, _ = s.LogByID(l.id)
			check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}

			// The copy, with the keys as they are now. Of the hours that were
			// touched it gives nothing of guests any more, of the other all.
			withKeysOf(t, cfg, old)
			cfg.FS = old
			s = mustOpen(t, cfg)
			l, _ = s.LogByID(l.id)
			for i := range before {
				item, err := l.Item(uint64(i))
				touched := before[i].Leaf.Origin != record.OriginHost && hourOf(before[i].Leaf.Wall) != hourOf(hour(1).UnixNano())
				if touched && !errors.Is(err, errKeyDestroyed) || !touched && (err != nil || string(item.Payload) != string(before[i].Payload)) {
					t.Fatalf("entry %d (%s) of the copy, touched %v: %v", i, before[i].Leaf.Origin, touched, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// sharedStore writes the files of a store as they were made before authors had
// keys of their own: one key for log and hour, rows of form 3.
func sharedStore(t testing.TB, cfg Config, id LogID) {
	t.Helper()
	edit(t, cfg, func(db *pebble.DB) {
		s := &Store{cfg: cfg, db: db}
		if err := s.loadStoreRow(); err != nil {
			t.Fatal(err)
		}
		key := [32]byte{1, 2, 3}
		shared, err := s.keys.derive(keyName{log: id, kind: keyShared}, key)
		if err != nil {
			t.Fatal(err)
		}
		hour := int64(0)
		rows := map[string][]byte{}
		l := &Log{store: s, id: id}
		l.state.Store(&logState{})
		err = scan(db, keyLog(tableEntry, id), func(k, row []byte) error {
			leaf, err := record.ParseLeaf(row)
			if err != nil {
				return err
			}
			hour = hourOf(leaf.Wall)
			sealed, _, err := get(db, keySeq(tablePayload, id, leaf.Index))
			if err != nil {
				return err
			}
			plain, err := s.keys.openRow(sealed, id, &leaf)
			if err != nil {
				return err
			}
			b := append([]byte{payloadSealed}, s.keys.run[:]...)
			rows[string(keySeq(tablePayload, id, leaf.Index))] = shared.row.Seal(b, rowNonce(id, leaf.Index), plain, s.keys.store[:])
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for k, row := range rows {
			if err := db.Set([]byte(k), row, pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}
		slot := append(binary.BigEndian.AppendUint32(nil, uint32(id)), key[:]...)
		data := append(s.keys.head(sharedKeyMagic, sharedKeySlot), append(slot, slotSum(hour, slot)...)...)
		f, err := cfg.FS.Create(s.keys.sharedPath(hour), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestEraseSharedKeys reads a store of before, and erases from it: the key that
// served everybody goes, and what is kept moves under others.
func TestEraseSharedKeys(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	now := time.Date(2026, 5, 1, 0, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(300)
	before := contents(t, l)
	shutdown(t, s, stop)
	sharedStore(t, cfg, l.id)
	old := copyOf(t, cfg)

	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	for i, item := range contents(t, l) {
		if string(item.Payload) != string(before[i].Payload) {
			t.Fatalf("entry %d of a store of before differs", i)
		}
	}
	r := proof.Range{First: 10, Last: 10}
	done, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "r", "a")
	if err != nil {
		t.Fatal(err)
	}
	checkErasure(t, l, before, func(i *Item) bool { return i.Index == 10 }, done[0].Entry)
	shutdown(t, s, stop)
	if rep := mustFsck(t, cfg); !rep.OK() {
		t.Fatalf("fsck: %v", rep.Findings)
	}
	if found := filesWith(t, cfg.FS, cfg.PayloadKeys, string([]byte{1, 2, 3, 0, 0, 0, 0, 0})); found != nil {
		t.Errorf("the shared key stands in %v", found)
	}
	withKeysOf(t, cfg, old)
	cfg.FS = old
	s = mustOpen(t, cfg)
	l, _ = s.LogByID(l.id)
	if _, err := l.Item(10); !errors.Is(err, errNoKey) {
		t.Errorf("the erased entry in a copy: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDestroyAgain cuts the overwriting of a key short at every byte: done again
// it leaves nothing of the key.
func TestDestroyAgain(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/k", 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{FS: fs, PayloadKeys: "/k"}
	k := newPayloadKeys(cfg, [16]byte{1})
	p, err := k.use(3, keyErasable, 7)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := k.use(4, keyErasable, 7)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.flush(); err != nil {
		t.Fatal(err)
	}
	by := appendSlot(nil, 7, p.keyName, [32]byte{})
	for n := range by {
		f, err := fs.OpenReadWrite(k.path(7), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(appendSlot(nil, 7, p.keyName, p.key), payloadKeySlot)
		if err == nil {
			_, err = f.WriteAt(by[:n], payloadKeySlot)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		k := newPayloadKeys(cfg, [16]byte{1})
		k.retireUpTo(3, 7, 1)
		if err := k.destroy(3, 7, 1); err != nil {
			t.Fatal(err)
		}
		if found := filesWith(t, fs, "/k", string(p.key[24:])); found != nil {
			t.Fatalf("cut at %d: the key's end is still there", n)
		}
		k = newPayloadKeys(cfg, [16]byte{1})
		if _, err := k.find(p.keyName, 7); !errors.Is(err, errKeyDestroyed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if o, err := k.find(kept.keyName, 7); err != nil || o.key != kept.key {
			t.Fatalf("cut at %d: another log's key: %v", n, err)
		}
		if next, err := k.use(3, keyErasable, 7); err != nil || next.generation != 2 {
			t.Fatalf("cut at %d: the next key is %+v: %v", n, next, err)
		}
	}
}

// TestEraseOverDamage erases where a row under the same keys is damaged: it cannot
// be finished, which keeps nobody from sealing and shows nobody what was erased.
func TestEraseOverDamage(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	now := time.Date(2026, 5, 1, 0, 10, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(3 * tileWidth)
	packNow(t, s)
	shutdown(t, s, stop)
	var was []byte
	key := keySeq(tableBundle, l.id, 0)
	edit(t, cfg, func(db *pebble.DB) {
		row, _, err := get(db, key)
		was = append(was, row...)
		if row[len(row)-1] ^= 1; err == nil {
			err = db.Set(key, row, pebble.Sync)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	const at = 2*tileWidth + 5
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: at, Last: at}}, "r", "a"); err == nil {
		t.Fatal("an erasure over a damaged row is said to be done")
	}
	by := l.Size() - 1
	erased := func() {
		t.Helper()
		if it, err := l.Item(at); err != nil || !it.Erased || it.ErasedBy != by {
			t.Errorf("the erased entry: erased %v by %d, %v", it.Erased, it.ErasedBy, err)
		}
	}
	erased()
	shutdown(t, s, stop)
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	erased()
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "goes on")}})
	shutdown(t, s, stop)
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Set(key, was, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.After(20 * time.Second); len(*l.erasing.Load()) > 0; {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("the erasure is not finished once the row is mended")
		}
	}
	erased()
	checkRetired(t, s, l, by)
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() {
		t.Fatalf("fsck: %v", r.Findings)
	}
}
