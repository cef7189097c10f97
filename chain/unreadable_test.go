package chain

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// threeHours makes a store whose VM log has entries of three hours, packed where
// packed says so, and returns the range of the second hour.
func threeHours(t *testing.T, packed bool) (cfg Config, l *Log, first, last uint64) {
	t.Helper()
	cfg = testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	now := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l = mustCreateLog(t, s, 1)
	for hour := range 3 {
		at := l.Size()
		story(t, s, l)
		for range tileWidth {
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
		}
		if hour == 1 {
			first, last = at, l.Size()-1
		}
		now = now.Add(time.Hour)
	}
	if packed {
		packNow(t, s)
	}
	if err := s.CheckpointNow(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	shutdown(t, s, stop)
	return cfg, l, first, last
}

// TestLostKey takes the key file of one hour away: its entries, and no others,
// cannot be read, which their log, hour and place say; everything else goes on.
func TestLostKey(t *testing.T) {
	for _, packed := range []bool{false, true} {
		cfg, l, first, last := threeHours(t, packed)
		lost := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
		keys := newPayloadKeys(cfg, [16]byte{})
		if err := cfg.FS.Remove(keys.path(lost.Unix() / 3600)); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, cfg)
		l, _ = s.LogByID(l.id)
		f := s.Tail(Position{})
		unread := uint64(0)
		for {
			item, ok, err := f.TryNext()
			if err != nil {
				t.Fatalf("packed %v: the follower stops: %v", packed, err)
			}
			if !ok {
				break
			}
			bad := item.Log == l && item.Index >= first && item.Index <= last
			if bad != (item.Unreadable != nil) {
				t.Fatalf("packed %v: entry %d: %v", packed, item.Index, item.Unreadable)
			}
			if h, err := item.Log.LeafHash(item.Index); err != nil || h != item.LeafHash {
				t.Fatalf("packed %v: entry %d has hash %s, the tree %s (%v)", packed, item.Index, item.LeafHash, h, err)
			}
			if !bad {
				continue
			}
			unread++
			var e *UnreadableError
			if _, err := item.Log.Item(item.Index); !errors.As(err, &e) || e.Origin != l.origin || !e.Hour.Equal(lost) || e.First != item.Index {
				t.Fatalf("packed %v: entry %d: %v", packed, item.Index, err)
			}
			if _, err := item.Decode(); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), "2026-03-01T11:00:00Z") {
				t.Fatalf("packed %v: decode %d: %v", packed, item.Index, err)
			}
			if item.Leaf.Header.Class == 0 || item.Leaf.Wall < lost.UnixNano() {
				t.Fatalf("packed %v: entry %d lacks its header: %+v", packed, item.Index, item.Leaf)
			}
		}
		if unread != last-first+1 || s.Unreadable() != unread {
			t.Errorf("packed %v: %d entries unreadable, %d counted, want %d", packed, unread, s.Unreadable(), last-first+1)
		}
		if _, err := l.ProveInclusion(first, l.Size()); err != nil {
			t.Errorf("packed %v: inclusion of an unreadable entry: %v", packed, err)
		}
		stop := run(t, s)
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "on")}})
		shutdown(t, s, stop)
		r := mustFsck(t, cfg)
		if len(r.Findings) != 1 || r.Findings[0].Table != "key" || *r.Findings[0].Index != first || r.NoKey != unread || !strings.Contains(r.Findings[0].Problem, "11:00:00Z") {
			t.Errorf("packed %v: fsck finds %v, %d payloads without key", packed, r.Findings, r.NoKey)
		}
	}
}

// TestLostKeyDrawnAgain loses the key of the hour that goes on: a new one is
// drawn, and what was sealed before is named and not taken for damage.
func TestLostKeyDrawnAgain(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	now := time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	before := mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "before")}})
	shutdown(t, s, stop)
	if err := cfg.FS.Remove(s.keys.path(hourOf(now.UnixNano()))); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	after := mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "after")}})
	if _, err := l.Item(after.First); err != nil {
		t.Errorf("after: %v", err)
	}
	if _, err := l.Item(before.First); !errors.Is(err, ErrUnreadable) || errors.Is(err, record.ErrFatal) {
		t.Errorf("before: %v", err)
	}
	f := s.Tail(Position{})
	n := 0
	for {
		_, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		n++
	}
	if n == 0 {
		t.Error("the follower sees nothing")
	}
	shutdown(t, s, stop)
}

// TestFenceRow has parsing take back what was written, and nothing cut short.
func TestFenceRow(t *testing.T) {
	for _, f := range []fence{
		{first: 3, last: 3, reason: "x"}, {first: 256, last: 511}, {first: 7, last: 8, hashes: []record.Hash{{1}, {2}}, reason: "two"},
	} {
		b := f.append(nil)
		got, err := parseFence(f.first, b)
		if err != nil || got.last != f.last || len(got.hashes) != len(f.hashes) || got.reason != f.reason {
			t.Errorf("%+v comes back as %+v, %v", f, got, err)
		}
		for n := range len(b) - len(f.reason) {
			if _, err := parseFence(f.first, b[:n]); err == nil {
				t.Errorf("%+v: %d bytes are taken", f, n)
			}
		}
	}
	across := fence{first: 255, last: 256}
	if _, err := parseFence(255, across.append(nil)); err == nil {
		t.Error("a fence across bundles is taken")
	}
}

// TestPayloadKeyModes opens stores on a disk whose keys others could reach.
func TestPayloadKeyModes(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	dir := t.TempDir()
	cfg.FS, cfg.Dir, cfg.Anchor, cfg.PayloadKeys = nil, dir+"/store", dir+"/anchor", dir+"/keys"
	s := mustCreate(t, cfg)
	stop := run(t, s)
	mustCreateLog(t, s, 1)
	shutdown(t, s, stop)
	files, err := os.ReadDir(cfg.PayloadKeys)
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	name := filepath.Join(cfg.PayloadKeys, files[0].Name())
	mode := func(path string) os.FileMode {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	if mode(cfg.PayloadKeys) != 0o700 || mode(name) != 0o600 {
		t.Errorf("modes %v and %v, want 0700 and 0600", mode(cfg.PayloadKeys), mode(name))
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, cfg).Close(); err != nil || mode(name) != 0o600 {
		t.Errorf("mode %v after opening, %v", mode(name), err)
	}
	if err := os.Chmod(cfg.PayloadKeys, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that others may enter: %v", err)
	}
	if err := os.Chmod(cfg.PayloadKeys, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(cfg.PayloadKeys, "hour-0")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, record.ErrReject) {
		t.Errorf("a link among the keys: %v", err)
	}
}
