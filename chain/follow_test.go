package chain_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/record"
)

// judge answers every change with one verdict, saving its position with it.
func judge(ctx context.Context, t *testing.T, s *chain.Store, until func(count uint64) bool) {
	f, err := s.Follow("rules")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	count := uint64(0)
	if state := f.State(); state != nil {
		count = binary.BigEndian.Uint64(state)
	}
	for !until(count) {
		item, err := f.Next(ctx)
		if errors.Is(err, context.Canceled) || errors.Is(err, chain.ErrClosed) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		if item.Leaf.Header.Class != record.ClassVMChange {
			continue
		}
		e, err := s.Draft(record.OriginPolicy, record.ClassPolicyVerdict, &record.Verdict{Policy: "each", CauseIndex: item.Index, CauseHash: item.LeafHash[:]})
		if err != nil {
			t.Error(err)
			return
		}
		state := binary.BigEndian.AppendUint64(nil, count+1)
		if _, err := s.Append(ctx, chain.Batch{Log: item.Log, Entries: []chain.Entry{e}, Position: f.At(item.Pos, state)}); err != nil {
			if !errors.Is(err, context.Canceled) && !errors.Is(err, chain.ErrClosed) {
				t.Error(err)
			}
			return
		}
		f.Saved(item.Pos, state)
		count++
	}
}

// TestFollowerExactlyOnce cuts the power again and again while a follower
// answers what is sealed: each entry is answered once.
func TestFollowerExactlyOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	disk := chaintest.NewDisk()
	cfg := storeConfig(t, disk.FS())
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for generation := range 12 {
		stop := chaintest.Run(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		judged := make(chan struct{})
		go func() {
			defer close(judged)
			judge(ctx, t, s, func(uint64) bool { return false })
		}()
		for i := range 10 + rng.IntN(20) {
			l := logNumber(t, s, i%3)
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint(generation, i)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Append(ctx, chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
				t.Fatal(err)
			}
		}
		crashed := disk.Crash(rng, rng.IntN(101))
		cancel()
		<-judged
		if err := errors.Join(stop(), s.Close()); err != nil {
			t.Fatal(err)
		}
		disk, cfg.FS = crashed, crashed.FS()
		if s, err = chain.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	stop := chaintest.Run(t, s)
	changes := map[[2]uint64]int{}
	for _, l := range s.Logs() {
		for item, err := range l.Read(t.Context(), 0, l.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if item.Leaf.Header.Class == record.ClassVMChange {
				changes[[2]uint64{uint64(l.ID()), item.Index}] = 0
			}
		}
	}
	judge(t.Context(), t, s, func(count uint64) bool { return count == uint64(len(changes)) })
	for _, l := range s.Logs() {
		for item, err := range l.Read(t.Context(), 0, l.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if item.Leaf.Header.Class != record.ClassPolicyVerdict {
				continue
			}
			m, err := item.Decode()
			if err != nil {
				t.Fatal(err)
			}
			changes[[2]uint64{uint64(l.ID()), m.(*record.Verdict).CauseIndex}]++
		}
	}
	if len(changes) < 100 {
		t.Fatalf("only %d changes survived", len(changes))
	}
	for at, n := range changes {
		if n != 1 {
			t.Errorf("entry %d of log %d was answered %d times", at[1], at[0], n)
		}
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFollower(t *testing.T) {
	s := chaintest.Start(t, storeConfig(t, chaintest.NewDisk().FS()))
	l := logNumber(t, s, 1)
	f, err := s.Follow("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Follow("x"); !errors.Is(err, record.ErrReject) {
		t.Fatalf("second follower of a name: %v", err)
	}
	if _, err := s.Follow(""); !errors.Is(err, record.ErrReject) {
		t.Fatalf("no name: %v", err)
	}
	var classes []string
	var last chain.Item
	for {
		item, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		classes, last = append(classes, item.Leaf.Header.Class.String()), item
	}
	if got := fmt.Sprint(classes); got != "[log.genesis log.key_certificate log.genesis]" || last.Log != l {
		t.Fatalf("read %s", got)
	}
	if err := f.Save(t.Context(), last.Pos, []byte("seen")); err != nil {
		t.Fatal(err)
	}
	f.Seek(chain.Position{})
	if item, err := f.Next(t.Context()); err != nil || item.Log != s.HostLog() || item.Index != 0 {
		t.Fatalf("after seeking: %+v %v", item, err)
	}
	f.Close()
	if f, err = s.Follow("x"); err != nil || f.Position() != last.Pos || string(f.State()) != "seen" {
		t.Fatalf("after opening again: %+v %q %v", f.Position(), f.State(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("at the end: %v", err)
	}
	if p := s.End(); p.Compare(last.Pos) <= 0 || last.Pos.Compare(p) >= 0 || p.Compare(p) != 0 {
		t.Fatalf("end %v, last %v", p, last.Pos)
	}
	if err := s.Tail(s.End()).Save(t.Context(), s.End(), nil); !errors.Is(err, record.ErrReject) {
		t.Fatalf("saving without a name: %v", err)
	}
	rows := 0
	e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: "a/1", Value: []byte{}}, {Key: "a/2", Value: []byte("2")}, {Key: "b", Value: []byte("3")}}}); err != nil {
		t.Fatal(err)
	}
	for row, err := range s.MetaPrefix("a/") {
		if err != nil || row.Key != fmt.Sprint("a/", rows+1) {
			t.Fatalf("row %+v: %v", row, err)
		}
		rows++
	}
	if rows != 2 {
		t.Fatalf("%d rows", rows)
	}
	if v, ok, err := s.Meta("a/1"); err != nil || !ok || v == nil || len(v) != 0 {
		t.Fatalf("an empty row is %v %v %v", v, ok, err)
	}
}
