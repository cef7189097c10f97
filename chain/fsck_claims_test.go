package chain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// testSpool is a temporary file that may be full, or come to harm.
type testSpool struct {
	b     []byte
	full  error
	spoil int // byte that is read back changed; 0: none
}

func (s *testSpool) WriteAt(p []byte, at int64) (int, error) {
	if s.full != nil {
		return 0, s.full
	}
	s.b = append(s.b[:at], p...)
	return len(p), nil
}

func (s *testSpool) ReadAt(p []byte, at int64) (int, error) {
	n := copy(p, s.b[at:])
	if i := s.spoil - int(at); s.spoil > 0 && i >= 0 && i < n {
		p[i] ^= 1
	}
	return n, nil
}

// quotedStore makes a closed store whose host log quotes two VM logs n times each, and
// then, where one is given, has entry made last.
func quotedStore(t *testing.T, n int, last func(s *Store, notes map[*Log][][]byte) *record.VMCheckpoint) Config {
	t.Helper()
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	logs := []*Log{mustCreateLog(t, s, 1), mustCreateLog(t, s, 2)}
	notes := map[*Log][][]byte{}
	for i := range n {
		for _, l := range logs {
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, fmt.Sprint("entry ", i))}})
			if err := s.CheckpointNow(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			p, _ := l.Checkpoint()
			notes[l] = append(notes[l], p.Note)
		}
	}
	if last != nil {
		e, err := s.Draft(record.OriginHost, record.ClassVMCheckpoint, last(s, notes))
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, Batch{Log: s.host, Entries: []Entry{e}})
	}
	shutdown(t, s, stop)
	return cfg
}

// TestFsckSetsQuotesAside checks a host log that quotes more than is held in memory, with
// a file that works, one that is full, and one that gives back something else.
func TestFsckSetsQuotesAside(t *testing.T) {
	cfg := quotedStore(t, 150, nil)
	file := &testSpool{}
	for range 2 { // the second time it is used again
		r, err := Fsck(t.Context(), cfg, FsckOptions{Frame: testFrame, Spool: file})
		if err != nil || !r.OK() || r.Checkpoints < 300 {
			t.Fatalf("%+v %v", r, err)
		}
		// Two full runs of each log are in the file, and no quote is there twice.
		if len(file.b) != 2*2*64*quoteSize {
			t.Fatalf("%d bytes are set aside", len(file.b))
		}
	}
	file.spoil = 64*quoteSize + 20 // in a root
	r, err := Fsck(t.Context(), cfg, FsckOptions{Frame: testFrame, Spool: file})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Table != "quote" || !strings.Contains(r.Findings[0].Problem, "in entry ") {
		t.Errorf("a root that was not compared with the tree: %+v %v", r.Findings, err)
	}
	full := errors.New("no space left")
	if r, err := Fsck(context.Background(), cfg, FsckOptions{Frame: testFrame, Spool: &testSpool{full: full}}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v %v", r, err)
	}
	if r, err := Repair(t.Context(), cfg, FsckOptions{Frame: testFrame, Spool: &testSpool{}}); err != nil || r.Kept != "" {
		t.Errorf("a repair of what is sound: %+v %v", r, err)
	}
}

// TestFsckFindsQuotesThatGoBack has the host log quote an older checkpoint again.
func TestFsckFindsQuotesThatGoBack(t *testing.T) {
	var origin string
	cfg := quotedStore(t, 3, func(s *Store, notes map[*Log][][]byte) *record.VMCheckpoint {
		l, _ := s.LogByID(1)
		origin = l.origin
		p, _, err := s.openNote(l, notes[l][0], s.vmKeys)
		if err != nil {
			t.Fatal(err)
		}
		return &record.VMCheckpoint{Origin: l.origin, Size: p.Size, Note: notes[l][0]}
	})
	r := mustFsck(t, cfg)
	if len(r.Findings) != 1 || r.Findings[0].Index == nil || !strings.Contains(r.Findings[0].Problem, "it quotes "+origin+" at 2 entries, entry ") || !strings.Contains(r.Findings[0].Problem, "at 4: the VM log went back") {
		t.Errorf("findings %v", r.Findings)
	}
}
