package introspect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const countingBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "three" {
  title = "Three letters were changed"
  on    = ["file.modify"]
  threshold {
    count  = 3
    window = "1h"
  }
  action "alert" {
    message = "${threshold.count}"
  }
}
`

// TestCatchUp begins with states that were saved some entries ago, that are
// missing, and that another version has written: they follow the log to where
// its verdicts are sealed, and what comes next is judged as if nothing had been.
func TestCatchUp(t *testing.T) {
	p := newPipeWith(t, countingBundle)
	p.see("vm.start", "start", "booted", 100, domain.Running)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	third := p.modified(l, "/home/a")
	p.verdictOn(l, third)
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	last := p.modified(l, "/home/a")
	p.verdictOn(l, last)

	// A judge that has judged all but the last.
	j := NewJudge(JudgeConfig{Store: p.store, Engine: p.find, Log: slog.New(slog.DiscardHandler)})
	whole := &judged{State: &rules.State{}, engine: j.nothing}
	if err := j.catchUp(l, whole, last); err != nil {
		t.Fatal(err)
	}
	want, err := whole.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	middle := &judged{State: &rules.State{}, engine: j.nothing}
	if err := j.catchUp(l, middle, third+2); err != nil {
		t.Fatal(err)
	}
	older := &judged{State: &rules.State{}, engine: j.nothing, rebuild: true}
	for name, st := range map[string]*judged{"middle": middle, "older": older} {
		engine := whole.engine
		if name == "older" {
			if err := older.UnmarshalBinary([]byte("PVRS\x7f")); err == nil {
				t.Fatal("a state of an unknown version was read")
			}
			st.engine = engine // as the row of the activation says
		}
		if err := j.catchUp(l, st, last); err != nil {
			t.Fatal(err)
		}
		if got, _ := st.MarshalBinary(); string(got) != string(want) || st.rebuild {
			t.Errorf("%s: another state", name)
		}
		it, err := l.Item(last)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := decode(&it)
		if err != nil {
			t.Fatal(err)
		}
		v, err := j.evaluate(st, &it, payload)
		if err != nil || len(v) != 1 || v[0].Counted != 3 {
			t.Errorf("%s: verdicts %v, %v", name, v, err)
		}
	}
}

// TestStateOfAnotherVersion restarts the judge on a state that it cannot read.
func TestStateOfAnotherVersion(t *testing.T) {
	p := newPipeWith(t, countingBundle)
	p.see("vm.start", "start", "booted", 100, domain.Running)
	origin := "test.host/vm/" + vm.String() + "/1/1"
	l, _ := p.store.LogByOrigin(origin)
	p.modified(l, "/home/a")
	p.modified(l, "/home/a")
	p.stop()
	s, err := chain.Open(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f, err := s.Follow("test")
	if err != nil {
		t.Fatal(err)
	}
	l, _ = s.LogByOrigin(origin)
	if err := f.SaveWith(ctx, f.Position(), nil, []chain.MetaWrite{{Key: StateKey(l.ID()), Value: []byte("PVRS\x7f")}}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	cancel()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Fatal(err)
	}
	p.restartFrom()
	l, _ = p.store.LogByOrigin(origin)
	if _, v := p.verdictOn(l, p.modified(l, "/home/a")); v.Counted != 3 {
		t.Errorf("the verdict counts %d", v.Counted)
	}
}

// A small state is saved with every run, a large one when its entries have paid
// for it, and one whose words must go at once.
func TestStatesAreDue(t *testing.T) {
	st := &judged{State: &rules.State{}}
	if !st.due() {
		t.Error("a small state waits")
	}
	big := manyKeys(t)
	st.State = big
	if size := big.Size(); size < 2*smallState {
		t.Fatalf("the state has only %d bytes", size)
	}
	if st.due() {
		t.Error("a large state does not wait")
	}
	st.entries = big.Size()/savedBytes + 1
	if !st.due() {
		t.Error("a large state waits for ever")
	}
	st.entries, st.unsaved = 0, true
	if !st.due() {
		t.Error("a state that holds erased words waits")
	}
}

// manyKeys returns a state whose window holds many keys.
func manyKeys(t *testing.T) *rules.State {
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(strings.Replace(countingBundle, "count  = 3", "count  = 3\n by = [file.path]", 1))}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	e, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := &rules.State{}
	for i := range uint64(2000) {
		payload := &record.Event{File: &record.File{Path: fmt.Appendf(nil, "/home/%d", i)}}
		if _, err := e.Eval(st, record.Leaf{Index: i, Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify}}, record.Hash{}, payload); err != nil {
			t.Fatal(err)
		}
	}
	return st
}
