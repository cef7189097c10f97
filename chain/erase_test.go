package chain

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// erasable fills a log with frames of several lengths, one of them over more
// than a bundle. Payloads of guestEntries name their sequence, so each can be
// looked for.
func erasable(t testing.TB, s *Store, l *Log) {
	t.Helper()
	a := newTestAgent(t, s, l, 1)
	for i, n := range []int{10, 600, 1, 40, 300, 63, 7} {
		a.frame(n)
		if i > 3 {
			verdicts(t, s, l, 4, 150, 655, 1005)
		}
	}
}

// verdicts seals verdicts on entries of guests, which quote them.
func verdicts(t testing.TB, s *Store, l *Log, causes ...uint64) {
	t.Helper()
	b := Batch{Log: l}
	for _, i := range causes {
		if i >= l.Size() {
			continue
		}
		cause, err := l.Item(i)
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{
			Policy: "p", Mode: "enforce", CauseIndex: i, CauseHash: cause.LeafHash[:],
			Actions: []*record.Action{{Kind: "alert", Message: string(cause.Payload)}, {Kind: "pause"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Entries = append(b.Entries, e)
	}
	mustAppend(t, s, b)
}

// quotes reports whether an item is a verdict on an entry in the range.
func quotes(i *Item, r proof.Range) bool {
	if !isVerdict(&i.Leaf) {
		return false
	}
	var v record.Verdict
	return v.UnmarshalVT(i.Payload) == nil && r.First <= v.CauseIndex && v.CauseIndex <= r.Last
}

// untilGone waits until no file of the store holds one of the texts: Pebble
// deletes files in the background.
func untilGone(t testing.TB, cfg Config, texts []string) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(20 * time.Second); ; {
		found := filesWith(t, cfg.FS, cfg.Dir, texts...)
		if found == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("erased bytes stand in %v", found)
		}
	}
}

// checkErasure compares a log with what it was before records were erased.
func checkErasure(t testing.TB, l *Log, before []Item, erased func(*Item) bool, by uint64) {
	t.Helper()
	after := contents(t, l)
	for i := range before {
		old, now := &before[i], &after[i]
		if !bytes.Equal(old.LeafBytes, now.LeafBytes) || old.LeafHash != now.LeafHash {
			t.Fatalf("leaf %d has changed", i)
		}
		_, err := now.Decode()
		var gone *ErasedError
		if erased(old) {
			if !errors.Is(err, ErrErased) || !errors.As(err, &gone) || gone.Index != by || now.Payload != nil || now.Salt() != (record.Salt{}) {
				t.Fatalf("entry %d was erased: %v, %d bytes", i, err, len(now.Payload))
			}
		} else if err != nil || !bytes.Equal(old.Payload, now.Payload) || old.Salt() != now.Salt() {
			t.Fatalf("entry %d was not erased and differs: %v", i, err)
		}
	}
}

func TestErase(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		for _, form := range []string{"rows", "packed"} {
			for _, r := range []proof.Range{{First: 3, Last: 3}, {First: 100, Last: 300}, {First: 640, Last: 700}, {First: 0, Last: 1028}, {First: 1000, Last: 1020}} {
				t.Run(fmt.Sprintf("encrypted=%v/%s/%d-%d", encrypted, form, r.First, r.Last), func(t *testing.T) { eraseRange(t, encrypted, form == "packed", r) })
			}
		}
	}
}

func eraseRange(t *testing.T, encrypted, packed bool, r proof.Range) {
	cfg := testConfig(t, vfs.NewMem())
	if cfg.unpacked = true; !encrypted {
		cfg.PayloadKeys = ""
	}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	erasable(t, s, l)
	before := contents(t, l)
	root, err := l.RootAt(l.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Flush(); err != nil { // so that the bytes stand in tables
		t.Fatal(err)
	}
	if packed && packNow(t, s) == 0 {
		t.Fatal("nothing was packed")
	}
	var texts []string
	records, quoted := uint64(0), uint64(0)
	selected := func(i *Item) bool {
		return i.Leaf.Origin == record.OriginGuest && r.First <= i.Index && i.Index <= r.Last
	}
	gone := func(i *Item) bool { return selected(i) || quotes(i, r) }
	for i := range before {
		item := &before[i]
		if quotes(item, r) {
			quoted++
			texts = append(texts, string(item.Payload), salted(item))
		}
		if selected(item) {
			records++
			// Payloads end there, and so do the seeds that the salts follow from.
			seed := record.Seed{byte(frameFirst(before, i)), 1, 1}
			texts = append(texts, string(item.Payload), string(seed[:]), salted(item))
		}
	}
	if !encrypted && !packed && records > 50 && filesWith(t, cfg.FS, cfg.Dir, texts...) == nil {
		t.Fatal("the payloads stand in no file before they are erased") // one alone may be compressed
	}
	if _, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &proof.Range{First: 4, Last: l.Size()}}, "r", "a"); !errors.Is(err, record.ErrReject) {
		t.Fatalf("a range behind the end: %v", err)
	}
	done, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "a request", "operator")
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 1 || done[0].Records != records || done[0].Verdicts != quoted || done[0].Entry != uint64(len(before)) {
		t.Fatalf("erased %+v, want %d records", done, records)
	}
	checkErasure(t, l, before, gone, done[0].Entry)
	if !encrypted {
		untilGone(t, cfg, texts)
	}
	if now, err := l.RootAt(uint64(len(before))); err != nil || now != root {
		t.Fatalf("the root has changed: %v", err)
	}
	// The bundle of evidence goes without the payloads and says who took them.
	index := r.First
	for !selected(&before[index]) {
		index++
	}
	report, err := verifyZip(t, exported(t, s, l, Selection{Indexes: []uint64{index, index + 20}}), s.host.vkey)
	if err != nil || !report.Valid {
		t.Fatalf("evidence of an erased record: %v %+v", err, report.Failures)
	}
	// What is not packed yet is packed without them.
	packNow(t, s)
	checkErasure(t, l, before, gone, done[0].Entry)
	shutdown(t, s, stop)
	if rep := mustFsck(t, cfg); !rep.OK() || rep.Erased != records+quoted {
		t.Fatalf("fsck: %d erased, want %d, findings %v", rep.Erased, records+quoted, rep.Findings)
	}
	s = mustOpen(t, cfg)
	l, _ = s.LogByID(l.id)
	checkErasure(t, l, before, gone, done[0].Entry)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// frameFirst returns the first sequence of the frame around entry i, which is
// what guestEntries makes its seed of.
func frameFirst(items []Item, i int) uint64 {
	for i > 0 && items[i-1].Leaf.Origin == record.OriginGuest {
		i--
	}
	return items[i].Leaf.Header.Sequence
}

// TestEraseByTimeAndDomain selects by host time in one log, and all logs of a
// domain.
func TestEraseByTimeAndDomain(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.unpacked = true
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := mustCreate(t, cfg)
	stop := run(t, s)
	defer shutdown(t, s, stop)
	l, other := mustCreateLog(t, s, 1), mustCreateLog(t, s, 2)
	a, b := newTestAgent(t, s, l, 1), newTestAgent(t, s, other, 2)
	for range 4 {
		a.frame(20)
		b.frame(5)
		now = now.Add(time.Hour)
	}
	before, others := contents(t, l), contents(t, other)
	from := time.Date(2026, 5, 1, 1, 0, 0, 0, time.UTC)
	sel := EraseSelection{Log: l, From: from, To: from.Add(2 * time.Hour)}
	done, err := s.Erase(t.Context(), sel, "old", "retention")
	if err != nil || len(done) != 1 || done[0].Records != 40 {
		t.Fatalf("%+v %v", done, err)
	}
	checkErasure(t, l, before, func(i *Item) bool {
		at := time.Unix(0, i.Leaf.Wall)
		return i.Leaf.Origin == record.OriginGuest && !at.Before(sel.From) && at.Before(sel.To)
	}, done[0].Entry)
	if done, err = s.Erase(t.Context(), EraseSelection{Domain: other.name.Domain}, "the tenant left", "operator"); err != nil || len(done) != 1 || done[0].Records != 20 {
		t.Fatalf("%+v %v", done, err)
	}
	checkErasure(t, other, others, func(i *Item) bool { return i.Leaf.Origin == record.OriginGuest }, done[0].Entry)
	for name, bad := range map[string]EraseSelection{
		"nothing": {}, "both": {Log: l, Domain: l.name.Domain}, "host log": {Log: s.host}, "no such domain": {Domain: "x"},
		"no records": {Log: l, From: now.Add(time.Hour)}, "range of a domain": {Domain: l.name.Domain, Range: &proof.Range{}},
	} {
		if _, err := s.Erase(t.Context(), bad, "r", "a"); !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Erase(t.Context(), sel, "", "a"); !errors.Is(err, record.ErrReject) {
		t.Errorf("without a reason: %v", err)
	}
}

// TestEraseCrash cuts the power amid erasures. Where the entry that erases has
// survived, the next run must have finished the work; where it has not, nothing
// may be gone.
func TestEraseCrash(t *testing.T) {
	rounds := uint64(6)
	if *long {
		rounds = 60
	}
	cut := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 11))
		fs := vfs.NewCrashableMem()
		cfg := testConfig(t, fs)
		if cfg.unpacked = seed%2 == 0; seed%3 == 0 {
			cfg.PayloadKeys = ""
		}
		s := mustCreate(t, cfg)
		stop := run(t, s)
		l := mustCreateLog(t, s, 1)
		erasable(t, s, l)
		if cfg.unpacked && seed%4 == 0 {
			packNow(t, s)
		}
		before := contents(t, l)
		first := rng.Uint64N(900)
		r := proof.Range{First: first, Last: first + rng.Uint64N(100)}
		selected := func(i *Item) bool {
			return i.Leaf.Origin == record.OriginGuest && r.First <= i.Index && i.Index <= r.Last || quotes(i, r)
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Erase(t.Context(), EraseSelection{Log: l, Range: &r}, "r", "a")
			done <- err
		}()
		var crashed []*vfs.MemFS
		for erasing := true; erasing; {
			crashed = append(crashed, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng}))
			select {
			case err := <-done:
				if erasing = false; err != nil {
					t.Fatal(err)
				}
			default:
			}
		}
		shutdown(t, s, stop)
		for i := 0; i < len(crashed); i += 1 + len(crashed)/20 {
			cfg.FS = crashed[i]
			cut += afterCrash(t, cfg, before, selected)
		}
	}
	if cut == 0 {
		t.Error("no crash came amid an erasure")
	}
}

// afterCrash opens what a crash has left and returns 1 where an erasure was
// under way.
func afterCrash(t *testing.T, cfg Config, before []Item, selected func(*Item) bool) (under int) {
	s := mustOpen(t, cfg)
	pending := func() (n int) {
		if err := scan(s.db, keyMeta(metaErasure, nil), func(_, _ []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	under = pending()
	stop := run(t, s)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.After(time.Minute); pending() > 0; {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("the erasure is not finished")
		}
	}
	l, _ := s.LogByID(1)
	if l.Size() == uint64(len(before)) {
		checkErasure(t, l, before, func(*Item) bool { return false }, 0)
	} else {
		checkErasure(t, l, before, selected, uint64(len(before)))
		if cfg.PayloadKeys != "" {
			checkRetired(t, s, l, uint64(len(before)))
		}
		if cfg.PayloadKeys == "" {
			var texts []string
			for i := range before {
				if selected(&before[i]) {
					texts = append(texts, string(before[i].Payload), salted(&before[i]))
				}
			}
			untilGone(t, cfg, texts)
		}
	}
	shutdown(t, s, stop)
	if r := mustFsck(t, cfg); !r.OK() {
		t.Fatalf("fsck: %v", r.Findings)
	}
	return under
}

// TestFsckFindsTakenPayload marks a payload as erased that nobody has erased.
func TestFsckFindsTakenPayload(t *testing.T) {
	cfg, _ := closedStore(t, vfs.NewMem())
	edit(t, cfg, func(db *pebble.DB) {
		if err := db.Set(keySeq(tablePayload, 1, 9), []byte{payloadErased, 0, 0, 0, 0, 0, 0, 0, 20}, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	})
	for _, f := range mustFsck(t, cfg).Findings {
		if f.Table == "payload" && f.Index != nil && *f.Index == 9 && strings.Contains(f.Problem, "does not say so") {
			return
		}
	}
	t.Error("fsck does not name a payload that was taken away by hand")
}

// salted is the salt of an item as text.
func salted(i *Item) string { s := i.Salt(); return string(s[:]) }
