package chain

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
)

// TestExportErasedVerdict exports a verdict whose words were erased with the record
// that it quotes: the bundle says so, and verifies.
func TestExportErasedVerdict(t *testing.T) {
	s := mustCreate(t, testConfig(t, vfs.NewMem()))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l := mustCreateLog(t, s, 1)
	newTestAgent(t, s, l, 1).frame(10)
	verdicts(t, s, l, 4)
	verdict := l.Size() - 1
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 4, Last: 4}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckpointNow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for _, sel := range []Selection{{Indexes: []uint64{verdict}}, {Range: &proof.Range{First: 0, Last: l.Size() - 1}}} {
		report, err := verifyZip(t, exported(t, s, l, sel), s.host.vkey)
		if err != nil || !report.Valid {
			t.Errorf("%v %+v", err, report)
		}
	}
}
