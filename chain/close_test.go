package chain

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestCloseLog closes a log, over a restart: what may come behind does, all else is
// refused, and fsck knows both.
func TestCloseLog(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(5)
	if err := s.CloseLog(t.Context(), s.host, "r", ""); !errors.Is(err, record.ErrReject) {
		t.Errorf("closing the host log: %v", err)
	}
	if err := s.CloseLog(t.Context(), l, "a test", ""); err != nil {
		t.Fatal(err)
	}
	index, _ := l.Closed()
	if c, _ := l.Checkpoint(); index != l.Size()-1 || c.Size != l.Size() {
		t.Errorf("closed by entry %d, signed at size %d of %d", index, c.Size, l.Size())
	}
	shutdown(t, s, stop)
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	if err := s.CloseLog(t.Context(), l, "again", ""); err != nil || l.Size() != index+1 {
		t.Errorf("closing it again: %v, size %d", err, l.Size())
	}
	refused := func(entries ...Entry) {
		t.Helper()
		if _, err := s.Append(t.Context(), Batch{Log: l, Entries: entries}); !errors.Is(err, ErrLogClosed) || !errors.Is(err, record.ErrReject) {
			t.Errorf("sealed behind the end: %v", err)
		}
	}
	refused(hostEntry(t, s, "x"))
	refused(guestEntries(t, 1, 5, 2)...)
	verdicts(t, s, l, 4)
	if done, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 2, Last: 6}}, "r", "a"); err != nil || done[0].Records != 5 || done[0].Verdicts != 1 {
		t.Fatalf("erasing from a closed log: %+v %v", done, err)
	}
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() {
		t.Fatalf("fsck: %v", r.Findings)
	}
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Delete(keyClosed(l.id), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	if r := mustFsck(t, cfg); len(r.Findings) != 1 || !strings.Contains(r.Findings[0].String(), "no row says so") {
		t.Errorf("fsck of a log that was opened again by hand: %v", r.Findings)
	}
	s = mustOpen(t, cfg)
	stop = run(t, s)
	l, _ = s.LogByID(l.id)
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); len(r.Findings) != 2 || !strings.Contains(r.Findings[0].String(), "stands behind it") {
		t.Errorf("fsck of a log that was gone on with: %v", r.Findings)
	}
}
