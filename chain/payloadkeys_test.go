package chain

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// filesWith returns the files below dir that hold one of the texts.
func filesWith(t testing.TB, fs vfs.FS, dir string, texts ...string) (names []string) {
	t.Helper()
	list, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // Pebble has cleaned it up meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if bytes.Contains(data, []byte(text)) {
				names = append(names, name)
			}
		}
	}
	return names
}

// TestPayloadsAreEncrypted looks for what was sealed in every file of a store,
// packed and not, over hours that come and go.
func TestPayloadsAreEncrypted(t *testing.T) {
	const secret = "PlainTextOfSomebody'sFile"
	for _, encrypted := range []bool{true, false} {
		fs := vfs.NewMem()
		cfg := testConfig(t, fs)
		if cfg.unpacked = true; !encrypted {
			cfg.PayloadKeys = ""
		}
		now := time.Date(2026, 3, 1, 10, 59, 0, 0, time.UTC)
		cfg.Now = func() time.Time { return now }
		s := mustCreate(t, cfg)
		stop := run(t, s)
		l := mustCreateLog(t, s, 1)
		for i := range 300 {
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, secret)}})
			if i%50 == 0 {
				now = now.Add(37 * time.Minute)
			}
		}
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, strings.Repeat(secret, outsideBytes/len(secret)+1))}})
		before := contents(t, l)
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		packNow(t, s)
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if found := filesWith(t, fs, cfg.Dir, secret); encrypted != (found == nil) {
			t.Errorf("encrypted %v: the payload stands in %v", encrypted, found)
		}
		shutdown(t, s, stop)
		s = mustOpen(t, cfg) // another run, with subkeys of its own
		l, _ = s.LogByID(1)
		for i, item := range contents(t, l) {
			if !bytes.Equal(item.Payload, before[i].Payload) || item.Salt() != before[i].Salt() {
				t.Fatalf("entry %d differs after opening", i)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if r := mustFsck(t, cfg); !r.OK() || r.Packed == 0 {
			t.Fatalf("fsck: %v", r.Findings)
		}
	}
}

// TestPayloadKeysMustFit opens stores with other keys than their own.
func TestPayloadKeysMustFit(t *testing.T) {
	fs := vfs.NewMem()
	cfg, l := closedStore(t, fs)
	none := cfg
	none.PayloadKeys = ""
	if _, err := Open(none); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("without keys: %v", err)
	}
	gone := cfg
	gone.PayloadKeys = "/elsewhere"
	if _, err := Open(gone); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("without the directory: %v", err)
	}
	inside := cfg
	inside.PayloadKeys = cfg.Dir + "/keys"
	if _, err := Open(inside); !errors.Is(err, record.ErrReject) {
		t.Errorf("keys in the store: %v", err)
	}
	plainCfg, _ := closedStore(t, vfs.NewMem(), plain)
	plainCfg.PayloadKeys = "/payload-keys"
	if _, err := Open(plainCfg); !errors.Is(err, record.ErrReject) {
		t.Errorf("keys for a plain store: %v", err)
	}
	// A lost file of keys takes the payloads of its hour, and is named.
	names, err := fs.List(cfg.PayloadKeys)
	if err != nil || len(names) == 0 {
		t.Fatalf("%v %v", names, err)
	}
	for _, name := range names {
		if err := fs.Remove(fs.PathJoin(cfg.PayloadKeys, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, cfg)
	again, _ := s.LogByID(l.id)
	if _, err := again.Item(3); !errors.Is(err, ErrUnreadable) {
		t.Errorf("entry without its key: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := mustFsck(t, cfg); r.OK() || !strings.Contains(r.Findings[0].Problem, "directory of payload keys") {
		t.Errorf("fsck without keys: %v", r.Findings)
	}
	// The keys of another store are refused.
	other, _ := closedStore(t, vfs.NewMem())
	if err := fs.RemoveAll(cfg.PayloadKeys); err != nil {
		t.Fatal(err)
	}
	if ok, err := vfs.Clone(other.FS, fs, other.PayloadKeys, cfg.PayloadKeys); !ok || err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	again, _ = s.LogByID(l.id)
	if _, err := again.Item(3); err == nil || !strings.Contains(err.Error(), "of this store") {
		t.Errorf("keys of another store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSealedRowsAreBound moves ciphertext to other places, where it must not
// open.
func TestSealedRowsAreBound(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	for range 2 * tileWidth {
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
	}
	row, _, err := get(s.db, keySeq(tablePayload, l.id, 5))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := l.readLeaf(6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.openRow(row, l.id, &leaf); err == nil {
		t.Error("a row opens in another's place")
	}
	if leaf.Index = 5; true {
		if _, err := s.keys.openRow(row, l.id, &leaf); err != nil {
			t.Errorf("a row does not open in its own place: %v", err)
		}
	}
	packNow(t, s)
	if row, _, err = get(s.db, keySeq(tableBundle, l.id, 0)); err != nil {
		t.Fatal(err)
	}
	for first, want := range map[uint64]bool{0: true, tileWidth: false} {
		b, err := parseBundle(l.id, first, row)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.opening(5, s.keys); (err == nil) != want {
			t.Errorf("bundle 0 as that of entry %d: %v", first, err)
		}
	}
	shutdown(t, s, stop)
}

// TestPayloadKeyFile cuts the file of an hour at every length: what was whole
// is read, and the next key goes behind it.
func TestPayloadKeyFile(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/k", 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{FS: fs, PayloadKeys: "/k"}
	k := newPayloadKeys(cfg, [16]byte{1})
	var want [3][32]byte
	for id := range want {
		p, err := k.use(LogID(id), keyErasable, 7)
		if err != nil {
			t.Fatal(err)
		}
		want[id] = p.key
		if err := k.flush(); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fs.Open(k.path(7))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || len(data) != 4*payloadKeySlot {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	for n := range len(data) + 1 {
		f, err := fs.Create(k.path(7), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(bytes.Clone(data[:n]))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		k := newPayloadKeys(cfg, [16]byte{1})
		added, err := k.use(9, keyErasable, 7)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.flush(); err != nil {
			t.Fatal(err)
		}
		k = newPayloadKeys(cfg, [16]byte{1})
		for id := range want {
			p, err := k.find(keyName{LogID(id), keyErasable, 1}, 7)
			if whole := n >= (id+2)*payloadKeySlot; whole != (err == nil) || whole && p.key != want[id] {
				t.Fatalf("cut at %d: key %d: %v", n, id, err)
			}
		}
		if p, err := k.find(keyName{9, keyErasable, 1}, 7); err != nil || p.key != added.key {
			t.Fatalf("cut at %d: the key that was added: %v", n, err)
		}
	}
}
