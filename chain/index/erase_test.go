package index

import (
	"path/filepath"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// TestErasureReachesTheIndex erases payloads from the ledger and wants their
// words gone from the index that follows it, from one that was stopped
// meanwhile, and from one that is made anew.
func TestErasureReachesTheIndex(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	const secret, kept = "/qzxjv-5f81c7", "/mhtrd-77d4aa"
	l.guest(vm, 1, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), kept))
	at := l.guest(vm, 1, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), secret), does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), secret))
	dir := filepath.Join(l.dir, "index")
	x, stop := l.start(dir)
	if err := x.flush(); err != nil {
		t.Fatal(err)
	}
	if got := find(t, x, Query{Path: Exactly([]byte(secret))}); len(got) != 2 {
		t.Fatalf("%d entries before the erasure, want 2", len(got))
	}
	erase := func(i uint64) {
		t.Helper()
		if _, err := l.Erase(t.Context(), chain.EraseSelection{Log: vm, Range: &proof.Range{First: i, Last: i}}, "a request", "the tester"); err != nil {
			t.Fatal(err)
		}
	}
	check := func(x *Index, left int) {
		t.Helper()
		if got := find(t, x, Query{Path: Exactly([]byte(secret))}); len(got) != left {
			t.Errorf("%d entries are found by an erased word, want %d", len(got), left)
		}
		if got := find(t, x, Query{Path: Exactly([]byte(kept))}); len(got) != 1 {
			t.Errorf("%d entries are found by a word that was kept, want 1", len(got))
		}
		got := find(t, x, Query{Classes: []record.Class{record.ClassFileModify}})
		if len(got) != 3 {
			t.Errorf("%d entries are found by class, want all 3", len(got))
		}
		erased := 0
		for _, f := range got {
			if f.Message == nil {
				erased++
			}
		}
		if erased != 2-left {
			t.Errorf("%d of them have no payload, want %d", erased, 2-left)
		}
	}
	erase(at)
	l.wait(x)
	check(x, 1)
	stop()
	erase(at + 1)
	x, stop = l.start(dir)
	check(x, 0)
	stop()
	if in := holds(t, dir, secret[1:]); in != "" {
		t.Errorf("%s holds the word", in)
	}
	x, _ = l.start(filepath.Join(l.dir, "anew"))
	check(x, 0)
}
