package introspect

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
)

const quotingBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "letters" {
  title     = "A letter was changed"
  severity  = "high"
  mode      = "enforce"
  on        = ["file.modify"]
  condition = under(file.path, "/home")
  cooldown {
    period = "1h"
    by     = [file.path]
  }
  action "alert" {
    message = "${file.path} was changed"
  }
}
`

// modified seals a record of a guest that changed a file, and returns where.
func (p *pipe) modified(l *chain.Log, path string) uint64 {
	p.t.Helper()
	payload, err := record.Encode(&record.Event{File: &record.File{Path: []byte(path)}, Process: &record.Process{Pid: 7}})
	if err != nil {
		p.t.Fatal(err)
	}
	n := l.Size()
	seed := record.Seed{1, byte(n), byte(n >> 8)}
	salt := seed.Salt(n)
	sealed, err := p.store.Append(p.t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{{
		Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1, Sequence: n, LaneSequence: n},
		Payload: payload, Seed: seed, Commitment: record.Commit(&salt, payload),
	}}})
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed.First
}

// verdictOn waits for the verdict on an entry.
func (p *pipe) verdictOn(l *chain.Log, cause uint64) (at uint64, v *record.Verdict) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for f := p.store.Tail(chain.Position{}); ; {
		it, err := f.Next(ctx)
		if err != nil {
			p.t.Fatalf("no verdict on entry %d: %v", cause, err)
		}
		if it.Log != l || it.Leaf.Header.Class != record.ClassPolicyVerdict || it.Erased {
			continue
		}
		v := &record.Verdict{}
		if err := v.UnmarshalVT(it.Payload); err != nil {
			p.t.Fatal(err)
		}
		if v.CauseIndex == cause {
			return it.Index, v
		}
	}
}

// holding returns the files below dir that hold the text.
func holding(t *testing.T, dir, text string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // cleaned up meanwhile
			}
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(b, []byte(text)) {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestErasedWordsAreNowhere has a guest name a file that a policy quotes and
// whose words are indexed, erases the record, and looks for the name in every
// file of the state: ledger, index, followers' state. The store is one without
// encryption, where words would be found.
func TestErasedWordsAreNowhere(t *testing.T) {
	const secret, other = "/home/zqxj-4f81/will.txt", "/home/zqxj-4f81/list.txt"
	p := newPipeWith(t, quotingBundle)
	p.see("vm.start", "start", "booted", 100, domain.Running)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	cause, kept := p.modified(l, secret), p.modified(l, other)
	quoted, v := p.verdictOn(l, cause)
	if v.Actions[0].Message != secret+" was changed" {
		t.Fatalf("the verdict says %q", v.Actions[0].Message)
	}
	p.verdictOn(l, kept)
	dir := filepath.Dir(p.cfg.Dir)
	var x *index.Index
	stopIndex := func() {}
	startIndex := func() {
		t.Helper()
		var err error
		if x, err = index.Open(index.Config{Store: p.store, Dir: filepath.Join(dir, "index"), Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		stopIndex = func() {
			cancel()
			if err := errors.Join(<-done, x.Close()); err != nil {
				t.Error(err)
			}
		}
		wait, cancelWait := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancelWait()
		if err := x.Wait(wait); err != nil {
			t.Fatal(err)
		}
	}
	restart := func() {
		t.Helper()
		stopIndex()
		p.restart()
		l, _ = p.store.LogByID(l.ID())
		startIndex()
	}
	startIndex()
	if holding(t, dir, secret) == nil {
		t.Fatal("the name stands in no file before it is erased")
	}
	restart()
	done, err := p.store.Erase(t.Context(), chain.EraseSelection{Log: l, Range: &proof.Range{First: cause, Last: cause}}, "a request", "the tester")
	if err != nil || len(done) != 1 || done[0].Records != 1 || done[0].Verdicts != 1 {
		t.Fatalf("%+v %v", done, err)
	}
	for _, i := range []uint64{cause, quoted} {
		if it, err := l.Item(i); err != nil || !it.Erased || it.ErasedBy != done[0].Entry {
			t.Errorf("entry %d: %+v %v", i, it, err)
		}
	}
	restart()
	found := holding(t, dir, secret)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(20 * time.Second); found != nil; found = holding(t, dir, secret) {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("the erased name stands in %v", found)
		}
	}
	// What was not erased is as it was, and judging goes on: the name is known
	// to no cooldown any more, and to that of the other file still.
	if it, err := l.Item(kept); err != nil || it.Erased || !bytes.Contains(it.Payload, []byte(other)) {
		t.Errorf("the record that was kept: %+v %v", it, err)
	}
	p.modified(l, other)
	again := p.modified(l, secret)
	if at, _ := p.verdictOn(l, again); at <= done[0].Entry {
		t.Errorf("the verdict on entry %d stands in entry %d", again, at)
	}
	stopIndex()
}

// TestErasureOvertakesTheJudge erases what a judge has read and not sealed a
// verdict on: the verdict must not be sealed with its words.
func TestErasureOvertakesTheJudge(t *testing.T) {
	p := newPipeWith(t, quotingBundle)
	p.see("vm.start", "start", "booted", 100, domain.Running)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	cause := p.modified(l, "/home/a")
	p.verdictOn(l, cause)

	j := NewJudge(JudgeConfig{Store: p.store, Engine: p.find, Log: slog.New(slog.DiscardHandler)})
	f, err := p.store.Follow("another judge")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	j.erasures = p.store.Erasures()
	// The states are those of a fresh judge: the one of the pipe has saved its own.
	read := func() {
		t.Helper()
		j.states[l.ID()] = &judged{State: &rules.State{}, engine: j.nothing}
		for {
			it, ok, err := f.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if err := j.judge(&it); err != nil {
				t.Fatal(err)
			}
		}
	}
	if read(); j.waiting != 1 {
		t.Fatalf("%d verdicts wait", j.waiting)
	}
	if _, err := p.store.Erase(t.Context(), chain.EraseSelection{Log: l, Range: &proof.Range{First: cause, Last: cause}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	size := l.Size()
	if err := j.settle(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if j.waiting != 0 || l.Size() != size {
		t.Fatalf("%d verdicts wait, the log has grown by %d", j.waiting, l.Size()-size)
	}
	j.erasures = p.store.Erasures()
	if read(); j.waiting != 0 {
		t.Errorf("%d verdicts on an erased record", j.waiting)
	}
}
