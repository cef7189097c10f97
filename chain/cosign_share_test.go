package chain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
)

// paced is a store with a witness whose rounds go on when the test says so.
func paced(t *testing.T) (s *Store, w *memoryWitness, pace chan time.Time, stop func() error) {
	t.Helper()
	cfg := testConfig(t, vfs.NewMem())
	pace = make(chan time.Time)
	cfg.after = func(time.Duration) <-chan time.Time { return pace }
	w = newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s = mustCreate(t, cfg)
	return s, w, pace, run(t, s)
}

func (w *memoryWitness) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.froms)
}

// waiting comes back when n callers wait for a round.
func waiting(t *testing.T, s *Store, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		s.cosigning.mu.Lock()
		got := len(s.cosigning.waiting)
		s.cosigning.mu.Unlock()
		if got == n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d callers wait for a round, want %d", got, n)
		}
	}
}

// TestSharedRounds has many ask for cosignatures at once: the witness pays for one
// round, and each caller's entries are under what it cosigned.
func TestSharedRounds(t *testing.T) {
	s, w, pace, stop := paced(t)
	grow(t, s)
	mustCosign(t, s)
	mustCosign(t, s) // nothing is new: nobody is asked, and nobody waits
	const callers = 8
	ends := make(chan error, callers)
	for range callers {
		grow(t, s)
		at := s.HostLog().Size() - 1
		go func() {
			err := s.CosignNow(t.Context())
			if p, _ := s.Cosigned(); err == nil && p.Size <= at {
				err = errors.New("the entries of a caller are not cosigned")
			}
			ends <- err
		}()
	}
	waiting(t, s, callers)
	if n := w.asked(); n != 1 {
		t.Fatalf("within a second of the first round the witness is asked %d times", n)
	}
	pace <- time.Time{}
	for range callers {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	if n := w.asked(); n != 2 {
		t.Errorf("%d callers have the witness asked %d times", callers, n-1)
	}
	// Who waits no longer is gone.
	grow(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ends <- s.CosignNow(ctx) }()
	waiting(t, s, 1)
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller whose context ends: %v", err)
	}
	waiting(t, s, 0)
	// Nobody waits for a store that ends.
	go func() { ends <- s.CosignNow(t.Context()) }()
	waiting(t, s, 1)
	shutdown(t, s, stop)
	if err := <-ends; !errors.Is(err, ErrClosed) {
		t.Errorf("a caller while the store ends: %v", err)
	}
	if err := s.CosignNow(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a caller behind that: %v", err)
	}
}

// TestFailedRoundIsTriedAgain: a witness that has not cosigned what is published is
// asked again, though nothing is new.
func TestFailedRoundIsTriedAgain(t *testing.T) {
	s, w, pace, stop := paced(t)
	w.fail(errors.New("connection refused"))
	grow(t, s)
	mustCosign(t, s)
	w.fail(nil)
	ends := make(chan error, 1)
	go func() { ends <- s.CosignNow(t.Context()) }()
	waiting(t, s, 1)
	pace <- time.Time{}
	if err := <-ends; err != nil {
		t.Error(err)
	}
	if all, _, _ := s.Witnesses(); all[0].Problem != "" || w.asked() != 2 {
		t.Errorf("%+v, asked %d times", all[0], w.asked())
	}
	shutdown(t, s, stop)
}

// TestExportIsUnderItsOwnRound has the log grow, and be quoted again, while an
// export waits for its turn: the bundle is under what the witness has cosigned.
func TestExportIsUnderItsOwnRound(t *testing.T) {
	s, w, _, stop := paced(t)
	l := mustCreateLog(t, s, 1)
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
	none := Selection{Indexes: []uint64{1}, Turn: func(context.Context) (func(), error) { return nil, errors.New("no turn") }}
	if err := Export(t.Context(), s, l, none, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "no turn") {
		t.Errorf("without a turn: %v", err)
	}
	left := false
	sel := Selection{Indexes: []uint64{1}, Turn: func(ctx context.Context) (func(), error) {
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "y")}})
		return func() { left = true }, s.CheckpointNow(ctx, l)
	}}
	var archive strings.Builder
	if err := Export(t.Context(), s, l, sel, &archive); err != nil || !left {
		t.Fatalf("%v, the turn is given back: %v", err, left)
	}
	b, err := proof.ReadBundle(strings.NewReader(archive.String()), int64(archive.Len()), proof.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{Policy: cfgQuorum(t, w)}); err != nil {
		t.Error(err)
	}
	shutdown(t, s, stop)
}
