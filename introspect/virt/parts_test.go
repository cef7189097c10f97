package virt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

func TestDescribeLifecycle(t *testing.T) {
	for _, tc := range []struct {
		event, detail     int
		typ, word, reason string
	}{
		{0, 0, "vm.define", "define", "added"},
		{0, 2, "vm.define", "define", "renamed"},
		{1, 1, "vm.undefine", "undefine", "renamed"},
		{2, 0, "vm.start", "start", "booted"},
		{2, 1, "vm.migrate", "start", "migrated"},
		{2, 2, "vm.start", "start", "restored"},
		{3, 0, "vm.pause", "pause", "user"},
		{3, 1, "vm.pause", "pause", "migrating"},
		{4, 0, "vm.resume", "resume", "unpaused"},
		{5, 1, "vm.stop", "stop", "destroyed"},
		{5, 3, "vm.migrate", "stop", "migrated"},
		{5, 5, "vm.crash", "stop", "failed"},
		{6, 2, "vm.change", "shutdown", "host"},
		{8, 0, "vm.crash", "crash", "panicked"},
		{3, 99, "vm.pause", "pause", "detail-99"},
		{42, 7, "vm.change", "event-42", "detail-7"},
		{-1, -1, "vm.change", "event--1", "detail--1"},
	} {
		typ, word, reason := describeLifecycle(tc.event, tc.detail)
		if typ != tc.typ || word != tc.word || reason != tc.reason {
			t.Errorf("%d/%d is %s %s %s, want %s %s %s", tc.event, tc.detail, typ, word, reason, tc.typ, tc.word, tc.reason)
		}
	}
}

func TestDescribeState(t *testing.T) {
	if s := describeState(domain.Paused, 5); s.Reason != "ioerror" {
		t.Errorf("paused/5 is %+v", s)
	}
	if s := describeState(domain.State(77), 3); s.Reason != "reason-3" || s.ReasonCode != 3 {
		t.Errorf("an unknown state is %+v", s)
	}
}

func TestDifferences(t *testing.T) {
	run := Known{Domain: domain.Domain{Name: "a", ID: 3, State: domain.Running, Persistent: true}, QEMU: Process{10, 100}, GenerationID: "g", ConfigDigest: "c"}
	with := func(f func(*Known)) Known { k := run; f(&k); return k }
	for name, tc := range map[string]struct {
		before, after Known
		want          []string
	}{
		"nothing":            {run, run, nil},
		"stopped":            {run, with(func(k *Known) { k.State, k.ID, k.QEMU = domain.Shutoff, -1, Process{} }), []string{"stopped"}},
		"started":            {with(func(k *Known) { k.State, k.ID = domain.Shutoff, -1 }), run, []string{"started"}},
		"another id":         {run, with(func(k *Known) { k.ID = 4 }), []string{"restarted"}},
		"same pid, restart":  {run, with(func(k *Known) { k.QEMU.Start++ }), []string{"restarted"}},
		"process unreadable": {run, with(func(k *Known) { k.QEMU = Process{} }), nil},
		"reverted":           {run, with(func(k *Known) { k.GenerationID = "h" }), []string{"restarted"}},
		"paused":             {run, with(func(k *Known) { k.State = domain.Paused }), []string{"state"}},
		"renamed, edited":    {run, with(func(k *Known) { k.Name, k.ConfigDigest = "b", "d" }), []string{"renamed", "config"}},
		"made transient":     {run, with(func(k *Known) { k.Persistent, k.ConfigDigest = false, "" }), []string{"config"}},
	} {
		if got := differences(tc.before, tc.after); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestQueueHoldsEventsBehindResync: what is heard while the facts are read comes after them.
func TestQueueHoldsEventsBehindResync(t *testing.T) {
	q := newQueue(&Stats{})
	put := func(w string) pending { return pending{obs: Observation{Word: w}} }
	q.put(put("old"))
	q.hold()
	q.put(put("event"))
	q.release([]pending{put("connected"), put("resync")})
	q.put(put("later"))
	for i, want := range []string{"old", "connected", "resync", "event", "later"} {
		p, err := q.next(context.Background())
		if err != nil || p.obs.Word != want || p.obs.Number != uint64(i+1) {
			t.Fatalf("observation %d is %q with number %d, want %q", i+1, p.obs.Word, p.obs.Number, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("next of an empty queue: %v", err)
	}
}

// TestStuckDomainHurtsOnlyItself fills one domain's share with calls that do not come back (I8).
func TestStuckDomainHurtsOnlyItself(t *testing.T) {
	ctx := context.Background()
	c := newCalls(&Stats{})
	stuck, well := domain.UUID{1}, domain.UUID{2}
	free := make(chan struct{})
	hang := func() (int, error) { <-free; return 0, nil }
	ok := func() (int, error) { return 7, nil }
	for range maxDomainCalls {
		if _, err := do(ctx, c, stuck, false, time.Millisecond, hang); !errors.Is(err, record.ErrRetry) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a call that hangs: %v", err)
		}
	}
	if _, err := do(ctx, c, stuck, false, time.Millisecond, ok); !errors.Is(err, ErrBusy) || !errors.Is(err, record.ErrRetry) {
		t.Errorf("one more call for the stuck domain: %v", err)
	}
	if v, err := do(ctx, c, stuck, true, time.Minute, ok); err != nil || v != 7 {
		t.Errorf("a pause of the stuck domain: %d, %v", v, err)
	}
	for range 2 * maxCalls {
		if v, err := do(ctx, c, well, false, time.Minute, ok); err != nil || v != 7 {
			t.Fatalf("a call for another domain: %d, %v", v, err)
		}
	}
	close(free)
	if v, err := do(ctx, c, stuck, false, time.Minute, ok); err != nil || v != 7 {
		t.Errorf("a call once the domain has come back: %d, %v", v, err)
	}
	<-c.close()
	if _, err := do(ctx, c, well, true, time.Minute, ok); !errors.Is(err, ErrDisconnected) {
		t.Errorf("a call after the end: %v", err)
	}
	if len(c.domains) != 0 || len(c.slots) != 0 {
		t.Errorf("%d domains and %d calls are still remembered", len(c.domains), len(c.slots))
	}
}

func TestQEMUFromPidFile(t *testing.T) {
	dir := t.TempDir()
	h, err := New(Config{Sink: newCollector().sink, RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name+".pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("me", strconv.Itoa(os.Getpid())+"\n")
	p, err := h.QEMU("me")
	if err != nil || p.Pid != os.Getpid() || p.Start == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	write("text", "12 13")
	write("one", "1")
	write("neg", "-5")
	write("gone", "4194304")
	for _, name := range []string{"text", "one", "neg", "gone", "none", "", "../../etc/passwd"} {
		if p, err := h.QEMU(name); err == nil || p != (Process{}) {
			t.Errorf("domain %q: %+v, %v", name, p, err)
		}
	}
}
