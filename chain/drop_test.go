package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// closedLog is a closed log of a domain that goes on in the next shard, whose genesis
// quotes it.
func closedLog(t testing.TB, s *Store, domain, entries int) (l, next *Log) {
	t.Helper()
	l = mustCreateLog(t, s, domain)
	a := newTestAgent(t, s, l, 1)
	for l.Size() < uint64(entries) {
		a.frame(min(entries, 400))
	}
	name := l.name
	name.Shard++
	if err := s.CloseLog(t.Context(), l, "it is large", name.String()); err != nil {
		t.Fatal(err)
	}
	p, _ := l.Checkpoint()
	next, err := s.CreateLog(t.Context(), name.String(), &record.Genesis{Cause: "shard", PreviousOrigin: l.origin, PreviousCheckpoint: p.Note})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, Batch{Log: next, Entries: []Entry{hostEntry(t, s, "goes on")}})
	return l, next
}

// dropOf are the options for a log whose archive is whole.
func dropOf(t testing.TB, s *Store, l *Log) DropOptions {
	t.Helper()
	sum := sha256.New()
	a, err := s.Archive(t.Context(), l, sum, ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return DropOptions{Reason: "archived", Requester: "ann", Note: a.Note, SHA256: [32]byte(sum.Sum(nil)), Bytes: 1}
}

// TestDrop drops a log: what was in it is nowhere any more, whoever asks for it is told
// where to look, and everything else is as it was, over restarts, fsck, repair and a
// backup.
func TestDrop(t *testing.T) {
	for _, entries := range []int{300, 70_000} { // the latter has tiles of level 1
		fs := vfs.NewMem()
		cfg := testConfig(t, fs)
		s := mustCreate(t, cfg)
		stop := run(t, s)
		l, next := closedLog(t, s, 1, entries)
		other := mustCreateLog(t, s, 2)
		newTestAgent(t, s, other, 1).frame(300)
		o := dropOf(t, s, l)
		size, root := l.Root()
		mustAppend(t, s, Batch{Log: next, Entries: []Entry{hostEntry(t, s, "x")}, Meta: []MetaWrite{{Key: "state of it", Value: []byte("words")}}})
		o.Forget = []string{"state of it"}
		index, err := s.Drop(t.Context(), l, o)
		if err != nil {
			t.Fatal(err)
		}
		check := func(s *Store) {
			t.Helper()
			l, _ := s.LogByOrigin(l.origin)
			next, _ := s.LogByOrigin(next.origin)
			var gone *DroppedError
			for name, read := range map[string]func() error{
				"item":      func() error { _, err := l.Item(1); return err },
				"look":      func() error { _, err := l.Look(size - 1); return err },
				"bundle":    func() error { _, err := l.Bundle(0, 1); return err },
				"tile":      func() error { _, err := l.Tile(0, 0, 1); return err },
				"hash":      func() error { _, err := l.LeafHash(0); return err },
				"inclusion": func() error { _, err := l.ProveInclusion(0, size); return err },
				"openings": func() error {
					_, err := l.Openings(t.Context(), 0, 1, func(*record.Leaf) bool { return true })
					return err
				},
				"export":  func() error { return Export(t.Context(), s, l, Selection{Indexes: []uint64{1}}, io.Discard) },
				"archive": func() error { _, err := s.Archive(t.Context(), l, io.Discard, ArchiveOptions{}); return err },
				"erase": func() error {
					_, err := s.Erase(t.Context(), EraseSelection{Log: l}, "x", "y")
					return err
				},
				"append": func() error {
					_, err := s.Append(t.Context(), Batch{Log: l, Entries: []Entry{hostEntry(t, s, "late")}})
					return err
				},
				"drop": func() error { _, err := s.Drop(t.Context(), l, o); return err },
			} {
				if err := read(); !errors.As(err, &gone) || gone.Index != index || !errors.Is(err, ErrPruned) {
					t.Errorf("%s: %v, want a DroppedError", name, err)
				}
			}
			if n, r := l.Root(); n != size || r != root {
				t.Errorf("root %s at %d, want %s at %d", r, n, root, size)
			}
			if p, ok := l.Checkpoint(); !ok || !bytes.Equal(p.Note, o.Note) || l.Minimum() != size {
				t.Errorf("checkpoint %+v, minimum %d", p, l.Minimum())
			}
			links, err := s.Links(t.Context(), []*Log{l, next})
			if err != nil || links[0].State != LinkDropped || links[1].State != LinkWhole {
				t.Errorf("links %+v, %v", links, err)
			}
			if _, ok, err := s.Meta("state of it"); ok || err != nil {
				t.Errorf("a row about it is left: %v", err)
			}
			f := s.Tail(Position{})
			defer f.Close()
			n := 0
			for {
				item, ok, err := f.TryNext()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if n++; item.Log == l {
					t.Fatalf("a follower is given entry %d of it", item.Index)
				}
			}
			if n < 300 {
				t.Errorf("a follower reads %d entries", n)
			}
			item, err := s.HostLog().Item(index)
			if err != nil {
				t.Fatal(err)
			}
			m, err := item.Decode()
			if d, ok := m.(*record.Dropped); err != nil || !ok || d.Origin != l.origin || d.Size != size || d.Reason != "archived" || d.Requester != "ann" || !bytes.Equal(d.Note, o.Note) || !bytes.Equal(d.ArchiveSha256, o.SHA256[:]) {
				t.Errorf("the host log has %+v, %v", m, err)
			}
			if p, _ := s.HostLog().Checkpoint(); p.Size <= index {
				t.Errorf("its checkpoint has %d entries and does not cover entry %d", p.Size, index)
			}
			other, _ := s.LogByOrigin(other.origin)
			if _, err := other.Item(5); err != nil {
				t.Errorf("another log: %v", err)
			}
		}
		check(s)
		mustAppend(t, s, Batch{Log: next, Entries: []Entry{hostEntry(t, s, "and on")}})
		if b, err := s.Backup(t.Context(), BackupOptions{Dir: "/backup", PayloadKeys: "/backup-keys", Requester: "ann", Software: "test"}); err != nil || len(b.Logs) != 4 {
			t.Fatalf("%+v, %v", b, err)
		}
		shutdown(t, s, stop)
		if r := mustFsck(t, cfg); !r.OK() || r.Dropped != size {
			t.Fatalf("%+v", r)
		}
		s = mustOpen(t, cfg)
		stop = run(t, s)
		check(s)
		shutdown(t, s, stop)
		// A backup of behind it brings nothing of it back.
		lose(t, cfg)
		if r, err := Restore(t.Context(), cfg, accepted); err != nil || r.Report == nil || r.Report.Dropped != size {
			t.Fatalf("%+v, %v", r, err)
		}
		s = mustOpen(t, cfg)
		stop = run(t, s)
		check(s)
		if n := keysOf(t, s, l.id); n != 0 {
			t.Errorf("%d keys of its payloads are left", n)
		}
		if keysOf(t, s, other.id) == 0 {
			t.Error("the keys of another log are gone too")
		}
		shutdown(t, s, stop)
	}
}

// keysOf counts the keys of a log that still open something.
func keysOf(t testing.TB, s *Store, id LogID) (n int) {
	t.Helper()
	k := newPayloadKeys(s.cfg, s.id)
	names, err := s.cfg.FS.List(s.cfg.PayloadKeys)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		slots, err := k.read(s.cfg.FS.PathJoin(s.cfg.PayloadKeys, name), payloadKeyMagic, payloadKeySlot)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(slots) >= payloadKeySlot; slots = slots[payloadKeySlot:] {
			if name, key, _ := parseSlot(0, slots[:payloadKeySlot]); name.log == id && key != ([32]byte{}) {
				n++
			}
		}
	}
	return n
}

// TestDropRefused: only a log that nobody needs here any more goes, and only for an
// archive that has all of it.
func TestDropRefused(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer func() { shutdown(t, s, stop) }()
	l, next := closedLog(t, s, 1, 300)
	o := dropOf(t, s, l)
	refused := func(name, want string, l *Log, o DropOptions) {
		t.Helper()
		size := s.HostLog().Size()
		if _, err := s.Drop(t.Context(), l, o); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, record.ErrFatal) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if l.Gone() != nil {
			t.Fatalf("%s: it is dropped", name)
		}
		for i := size; i < s.HostLog().Size(); i++ {
			if item, err := s.HostLog().Item(i); err != nil || item.Leaf.Header.Class == record.ClassDropped {
				t.Errorf("%s: something was sealed: %v", name, err)
			}
		}
	}
	refused("the host log", "no VM log", s.HostLog(), o)
	refused("an open log", "the log is open", next, o)
	bad := o
	bad.Reason = ""
	refused("no reason", "a reason", l, bad)
	bad = o
	bad.Note = append(bytes.Clone(o.Note), '\n')
	refused("another checkpoint", "does not have its last checkpoint", l, bad)
	// A verdict came late: the archive does not have it.
	e, err := s.Draft(record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{Kind: "pause", Result: "done"})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}})
	refused("an archive of before", "does not have its last checkpoint", l, o)
	o = dropOf(t, s, l)
	// Somebody has not read it yet.
	f, err := s.Follow("judge")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Save(t.Context(), Position{Commit: 2}, nil); err != nil {
		t.Fatal(err)
	}
	refused("a follower behind", `"judge" has not read it to its end`, l, o)
	if err := f.Save(t.Context(), s.End(), nil); err != nil {
		t.Fatal(err)
	}
	// A log that says that it goes on, and does not yet.
	half := mustCreateLog(t, s, 2)
	if err := s.CloseLog(t.Context(), half, "size", proof.Origin{HostID: s.cfg.HostID, Domain: half.name.Domain, Incarnation: 1, Shard: 2}.String()); err != nil {
		t.Fatal(err)
	}
	refused("a log without its successor", "does not go on in", half, dropOf(t, s, half))
	if _, err := s.Drop(t.Context(), l, o); err != nil {
		t.Error(err)
	}
}

// TestDropCrash cuts the power before each step of a drop and while it goes on: the
// log is there whole, or the next start finishes what was sealed.
func TestDropCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	base := vfs.NewCrashableMem()
	var mu sync.Mutex
	var disks []*vfs.MemFS
	armed := false
	fs := errorfs.Wrap(base, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			disks = append(disks, base.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}))
		}
		return nil
	}))
	cfg := testConfig(t, fs)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l, _ := closedLog(t, s, 1, 700)
	size, root := l.Root()
	o := dropOf(t, s, l)
	mu.Lock()
	armed = true
	mu.Unlock()
	if _, err := s.Drop(t.Context(), l, o); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	armed = false
	mu.Unlock()
	shutdown(t, s, stop)
	there, gone, pending := 0, 0, 0
	for i, disk := range disks {
		cfg := cfg
		cfg.FS = disk
		s := mustOpen(t, cfg)
		l, _ := s.LogByOrigin(l.origin)
		if d := l.dropped.Load(); d != nil && d.pending {
			pending++
		}
		stop := run(t, s)
		if n, r := l.Root(); n != size || r != root {
			t.Fatalf("crash %d: root %s at %d", i, r, n)
		}
		if l.Gone() == nil {
			there++
			if _, err := l.Item(size / 2); err != nil {
				t.Fatalf("crash %d: %v", i, err)
			}
		} else {
			gone++
			if err := s.resumeDrops(t.Context()); err != nil { // or Run is at it
				t.Fatal(err)
			}
			if l.dropped.Load().pending || keysOf(t, s, l.id) != 0 {
				t.Fatalf("crash %d: it is not finished", i)
			}
		}
		shutdown(t, s, stop)
		if r := mustFsck(t, cfg); !r.OK() {
			t.Fatalf("crash %d: %v", i, r.Findings)
		}
	}
	if there == 0 || gone == 0 || pending == 0 {
		t.Errorf("%d crashes left it there, %d gone, %d of these not finished: want some of each", there, gone, pending)
	}
}

// TestDropShownWhenDurable looks at a log before every write and sync of its dropping:
// nobody is told that it is dropped before that is on disk.
func TestDropShownWhenDurable(t *testing.T) {
	var l *Log
	var s *Store
	var looks, early atomic.Int64
	var armed atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			looks.Add(1)
			if d := l.dropped.Load(); d != nil && d.index >= s.HostLog().Size() {
				early.Add(1)
			}
		}
		return nil
	}))
	s = mustCreate(t, testConfig(t, fs))
	stop := run(t, s)
	l, _ = closedLog(t, s, 1, 300)
	o := dropOf(t, s, l)
	armed.Store(true)
	if _, err := s.Drop(t.Context(), l, o); err != nil {
		t.Fatal(err)
	}
	armed.Store(false)
	if l.Gone() == nil || looks.Load() == 0 || early.Load() > 0 {
		t.Errorf("%d of %d times it was dropped too early", early.Load(), looks.Load())
	}
	if _, err := s.Append(t.Context(), Batch{Log: l, Entries: []Entry{hostEntry(t, s, "late")}}); !errors.Is(err, ErrPruned) {
		t.Errorf("sealed behind it: %v", err)
	}
	shutdown(t, s, stop)
}

// TestDropFsck: rows that come back, and rows that say of a log which is there that it
// was dropped, are found.
func TestDropFsck(t *testing.T) {
	base := vfs.NewMem()
	cfg := testConfig(t, base)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l, next := closedLog(t, s, 1, 700)
	if _, err := s.Drop(t.Context(), l, dropOf(t, s, l)); err != nil {
		t.Fatal(err)
	}
	shutdown(t, s, stop)
	var good []byte
	edit(t, cfg, func(db *pebble.DB) { good, _, _ = get(db, keyDropped(l.id)) })
	for name, change := range map[string]struct {
		key, value []byte
		want       string
	}{
		"entries come back":     {keySeq(tableEntry, l.id, 3), []byte("x"), "1 rows are still there"},
		"of a log that is kept": {keyDropped(next.id), good, "of the host log drops"},
		"another hash":          {keyDropped(l.id), flipped(good, 12), "it has root"},
		"fewer hashes":          {keyDropped(l.id), good[:len(good)-32], "hashes"},
		"another entry":         {keyDropped(l.id), flipped(good, 8), "the entry does not"},
		"malformed":             {keyDropped(l.id), good[:5], "parse row of a dropped log"},
	} {
		fs := vfs.NewMem()
		if _, err := vfs.Clone(base, fs, "/", "/"); err != nil {
			t.Fatal(err)
		}
		bad := cfg
		bad.FS = fs
		edit(t, bad, func(db *pebble.DB) {
			if err := db.Set(change.key, change.value, pebble.Sync); err != nil {
				t.Fatal(err)
			}
		})
		r := mustFsck(t, bad)
		text := ""
		for _, f := range r.Findings {
			text += f.String() + "\n"
		}
		if r.OK() || !strings.Contains(text, change.want) {
			t.Errorf("%s: want %q in\n%s", name, change.want, text)
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// TestDropRepair mends a ledger in which a log was dropped: it stays so.
func TestDropRepair(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l, next := closedLog(t, s, 1, 700)
	size, root := l.Root()
	if _, err := s.Drop(t.Context(), l, dropOf(t, s, l)); err != nil {
		t.Fatal(err)
	}
	shutdown(t, s, stop)
	edit(t, cfg, func(db *pebble.DB) {
		if err := errors.Join(db.Delete(keyCommit(4), pebble.Sync), db.Delete(keyClosed(l.id), pebble.Sync)); err != nil {
			t.Fatal(err)
		}
		flipRow(t, db, keyLog(tableHead, next.id), 20)
	})
	if mustFsck(t, cfg).OK() {
		t.Fatal("the damage is not found")
	}
	r, err := Repair(t.Context(), cfg, FsckOptions{Frame: testFrame})
	if err == nil || r.Kept != "" || !strings.Contains(err.Error(), "no row says that it was closed") {
		t.Errorf("without the row that closed it: %+v, %v", r, err)
	}
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Set(keyClosed(l.id), binary.BigEndian.AppendUint64(nil, size-1), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	if r, err = Repair(t.Context(), cfg, FsckOptions{Frame: testFrame}); err != nil || r.Kept == "" || r.Fenced() {
		t.Fatalf("%+v, %v", r, err)
	}
	if f := mustFsck(t, cfg); !f.OK() || f.Dropped != size {
		t.Fatalf("%+v", f)
	}
	s = mustOpen(t, cfg)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if l, ok := s.LogByOrigin(l.origin); !ok || l.Gone() == nil {
		t.Error("it is not dropped any more")
	} else if n, r := l.Root(); n != size || r != root {
		t.Errorf("root %s at %d, want %s at %d", r, n, root, size)
	}
}
