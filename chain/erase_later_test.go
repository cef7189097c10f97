package chain

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// shardsOf is three shards of an incarnation: a guest's records in the first, and in the
// others verdicts that quote them, two records of their own, and nothing.
func shardsOf(t *testing.T, s *Store) (logs []*Log, causes []uint64) {
	t.Helper()
	name := proof.Origin{HostID: "kvm1.example", Domain: "6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001", Incarnation: 1, Shard: 1}
	for n := range 3 {
		l, err := s.CreateLog(t.Context(), name.String(), &record.Genesis{Cause: "shard"})
		if err != nil {
			t.Fatal(err)
		}
		if logs = append(logs, l); n == 0 {
			newTestAgent(t, s, l, 1).frame(20)
			causes = []uint64{3, 4}
		}
		verdict := func(v *record.Verdict) {
			t.Helper()
			v.Policy = "p"
			e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, v)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{e}})
		}
		if n > 0 {
			own := mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "own")}}).First
			verdict(&record.Verdict{CauseIndex: own, Title: "quotes a step", Steps: []*record.VerdictStep{{Shard: 1, Index: causes[0]}}})
			verdict(&record.Verdict{CauseIndex: own, Title: "quotes another step", Steps: []*record.VerdictStep{{Shard: 1, Index: causes[1]}}})
			// An entry of its own with the same index is another one.
			verdict(&record.Verdict{CauseIndex: causes[0], Title: "quotes its own"})
			verdict(&record.Verdict{CauseShard: 2, CauseIndex: causes[0], Title: "quotes another shard"})
		}
		if n < 2 {
			next := name
			next.Shard++
			if err := s.CloseLog(t.Context(), l, "a test", next.String()); err != nil {
				t.Fatal(err)
			}
			name = next
		}
	}
	return logs, causes
}

func (l *Log) titles(t *testing.T) (left, gone []string, erasures []*record.Erased) {
	t.Helper()
	for i := uint64(1); i < l.Size(); i++ {
		it, err := l.Item(i)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case it.Erased:
			gone = append(gone, it.Leaf.Header.Class.String())
		default:
			m, err := it.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if v, ok := m.(*record.Verdict); ok {
				left = append(left, v.Title)
			}
			if e, ok := m.(*record.Erased); ok {
				erasures = append(erasures, e)
			}
		}
	}
	return left, gone, erasures
}

// TestEraseLaterShards erases a record that verdicts of later shards quote, also where
// a crash comes before it is told there: they go, and the newest shard says what
// policies may remember no more.
func TestEraseLaterShards(t *testing.T) {
	for _, crash := range []bool{false, true} {
		cfg := testConfig(t, vfs.NewMem())
		s := mustCreate(t, cfg)
		stop := run(t, s)
		logs, causes := shardsOf(t, s)
		r := proof.Range{First: causes[0], Last: causes[0]}
		if !crash {
			if _, err := s.Erase(t.Context(), EraseSelection{Log: logs[0], Range: &r}, "r", "a"); err != nil {
				t.Fatal(err)
			}
		} else {
			// Sealed, and its row written: that is what Run finds.
			s.eraseMu.Lock()
			m, err := s.selectErased(t.Context(), logs[0], EraseSelection{Log: logs[0], Range: &r})
			if err != nil {
				t.Fatal(err)
			}
			m.Reason, m.Authority = "r", "a"
			_, err = s.sealErasure(t.Context(), logs[0], m)
			s.eraseMu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			shutdown(t, s, stop)
			s = mustOpen(t, cfg)
			stop = run(t, s)
			if err := s.resumeErasures(t.Context()); err != nil { // Run does so, too, and who comes second has nothing to do
				t.Fatal(err)
			}
			for i := range logs {
				logs[i], _ = s.LogByID(logs[i].id)
			}
		}
		for n, l := range logs[1:] {
			left, gone, erasures := l.titles(t)
			if len(left) != 3 || len(gone) != 1 || gone[0] != "policy.verdict" {
				t.Errorf("crash %v: shard %d: %q are left, %q erased", crash, n+2, left, gone)
			}
			if len(erasures) != 1 || erasures[0].EarlierShard != 1 || len(erasures[0].Earlier) != 1 || erasures[0].Earlier[0].First != r.First || len(erasures[0].Ranges) != 0 || len(erasures[0].Verdicts) != 1 || erasures[0].Reason != "r" {
				t.Errorf("crash %v: shard %d: %v", crash, n+2, erasures)
			}
		}
		// What no verdict quotes is told where policies remember, and nowhere else.
		if _, err := s.Erase(t.Context(), EraseSelection{Log: logs[0], Range: &proof.Range{First: 6, Last: 7}}, "r", "a"); err != nil {
			t.Fatal(err)
		}
		for n, want := range []int{1, 2} {
			if _, _, erasures := logs[n+1].titles(t); len(erasures) != want {
				t.Errorf("crash %v: shard %d has %d erasures, want %d", crash, n+2, len(erasures), want)
			}
		}
		shutdown(t, s, stop)
		if rep := mustFsck(t, cfg); !rep.OK() {
			t.Errorf("fsck: %v", rep.Findings)
		}
	}
}
