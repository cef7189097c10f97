package chain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestExportLimit finds the smallest bound that an export keeps, and compares
// it with what was written: the bound counts what the bundle holds.
func TestExportLimit(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	story(t, s, l)
	sel := Selection{Range: &proof.Range{First: 0, Last: l.Size() - 1}}
	size := int64(len(exported(t, s, l, sel)))
	try := func(limit int64) error {
		var buf bytes.Buffer
		sel.MaxBytes = limit
		err := Export(context.Background(), s, l, sel, &buf)
		if err != nil && (!errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "smaller range") || buf.Len() != 0) {
			t.Fatalf("limit %d: %d bytes are written: %v", limit, buf.Len(), err)
		}
		return err
	}
	if err := try(1); err == nil {
		t.Fatal("one byte is enough")
	}
	least := int64(sort.Search(int(size), func(n int) bool { return n > 0 && try(int64(n)) == nil }))
	if least > size || least < size/2 {
		t.Fatalf("a bundle of %d bytes needs a limit of %d", size, least)
	}
	// Payloads are charged when they are read, before proofs are made.
	if err := try(least - 1); err == nil {
		t.Fatalf("%d bytes are enough and too few", least-1)
	}
}

// TestExportReadsFramesOnce: the cost of a record must not grow with its
// frame. Reads of leaves show as allocations.
func TestExportReadsFramesOnce(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	each := func(n int) float64 {
		l := mustCreateLog(t, s, n)
		first := newTestAgent(t, s, l, 1).frame(n)
		sel := Selection{Range: &proof.Range{First: first, Last: first + uint64(n)}}
		if r, err := verifyZip(t, exported(t, s, l, sel), s.HostLog().VerifierKey()); err != nil || r.Signed != n {
			t.Fatalf("frame of %d: %v", n, err)
		}
		return testing.AllocsPerRun(1, func() {
			if err := Export(context.Background(), s, l, sel, io.Discard); err != nil {
				t.Error(err)
			}
		}) / float64(n)
	}
	small, large := each(250), each(2000)
	if large > 2*small {
		t.Fatalf("a record of a frame of 2000 costs %.0f allocations, one of 250 costs %.0f", large, small)
	}
}

// TestExportOlderFrames: a verdict on an old record brings the frame of that
// record in after newer ones.
func TestExportOlderFrames(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	a := newTestAgent(t, s, l, 1)
	old := a.frame(9)
	newer := a.frame(9)
	cause, err := l.LeafHash(old + 4)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{Policy: "etc", CauseIndex: old + 4, CauseHash: cause[:]})
	if err != nil {
		t.Fatal(err)
	}
	verdict := mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}}).First
	last := a.frame(9)
	sel := Selection{Range: &proof.Range{First: newer + 2, Last: last + 3}}
	r, err := verifyZip(t, exported(t, s, l, sel), s.HostLog().VerifierKey())
	// What is chosen of the newer and the last frame, and the cause.
	if want := 7 + 4 + 1; err != nil || r.Signed != want {
		t.Fatalf("%d records are signed, want %d (verdict %d): %v", r.Signed, want, verdict, err)
	}
}
