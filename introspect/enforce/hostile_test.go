package enforce

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// TestReleasedInAnyOrder brings an unplugged interface back though the hold that had it
// unplugged ends before another that wants it cut.
func TestReleasedInAnyOrder(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running, links: twoLinks()}
	stop := h.enforce(a, nil)
	h.verdict("detach_network interfaces=vnet0 mode=unplug")
	h.verdict("quarantine")
	h.outcomes(2)
	if _, err := h.e.Release(t.Context(), h.id, Release{Action: HoldNetwork, Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	stop()
	h.restart() // it stands in the ledger
	stop = h.enforce(a, nil)
	defer stop()
	if _, err := h.e.Release(t.Context(), h.id, Release{Action: HoldQuarantine, Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, links, _ := a.state3(); linkStates(links) != "1up 2down" {
		t.Errorf("in the end: links %q, one was unplugged by us", linkStates(links))
	}
}

// TestPauseOfAnEarlierAttempt is ours to end, though that attempt failed otherwise. The
// pause comes ahead of what may wait for libvirt.
func TestPauseOfAnEarlierAttempt(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running, links: twoLinks(), fail: map[string]error{"mark": fmt.Errorf("busy: %w", record.ErrRetry)}}
	a.after = func(call string) {
		if call == "mark" {
			a.mu.Lock()
			delete(a.fail, "mark")
			a.mu.Unlock()
		}
	}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("quarantine pause=true")
	if o := h.outcomes(1)[0]; o.Result != resultDone || o.Attempt != 2 {
		t.Errorf("outcome %v", o)
	}
	if said := a.said(); !strings.HasPrefix(said, "pause ") {
		t.Errorf("done in the order %q", said)
	}
	r, err := h.e.Release(t.Context(), h.id, Release{Reason: "x"})
	if s, _, _ := a.state3(); err != nil || s != domain.Running {
		t.Errorf("behind the release: %s, %+v %v", s, r, err)
	}
}

// TestManyHolds of one kind do not grow what is kept of a domain: a guest makes verdicts.
func TestManyHolds(t *testing.T) {
	var h held
	log := "kvm1.example/vm/" + vmUUID + "/1/1"
	for i := range uint64(5000) {
		h.add(Hold{Action: HoldQuarantine, Policy: strings.Repeat("p", 64), Log: log, Verdict: i, All: true, Second: true, Mode: virt.ModeLink})
		h.add(Hold{Action: HoldPause, Policy: "p", Log: log, Verdict: i, Pause: true, Until: int64(i) + 1})
	}
	if n := len(h.Holds); n > 256 || len(markText(&h)) > maxMark {
		t.Errorf("%d holds, a mark of %d bytes", n, len(markText(&h)))
	}
	h.add(Hold{Action: HoldNetwork, Policy: "p", Log: log, Verdict: 9999, Keys: []string{"k"}, Mode: virt.ModeUnplug})
	if last := h.Holds[len(h.Holds)-1]; last.Action != HoldNetwork {
		t.Errorf("what nothing else wants is left out: %+v", last)
	}
	until := int64(0)
	for _, n := range h.Holds {
		until = max(until, n.Until)
	}
	if until != 5000 {
		t.Errorf("the newest pause lasts until 5000, and what is kept until %d", until)
	}
}

// TestArrivalIsLookedAtAgain where libvirt could not be read when the domain came.
func TestArrivalIsLookedAtAgain(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 20 * time.Millisecond
	mark := markText(&held{Holds: []Hold{{Action: HoldQuarantine, Policy: "p", Log: "l", Verdict: 1, All: true, Since: 1}}})
	a := &actor{state: domain.Running, links: twoLinks(), mark: mark, fail: map[string]error{"read mark": record.ErrRetry}}
	stop := h.enforce(a, nil)
	defer stop()
	h.event(record.ClassVMStart, &record.Event{})
	h.waitFor("taken over", func() bool { return holdsOf(h) == "quarantine" })
}

// TestBusyDomainHoldsUpNobody: one whose turn is taken, and whose time is over, does not
// keep others from being looked after.
func TestBusyDomainHoldsUpNobody(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 20 * time.Millisecond
	a := &actor{state: domain.Paused}
	stop := h.enforce(a, nil)
	defer stop()
	busy, other := domain.UUID{1}, domain.UUID{2}
	d := h.e.dom(busy)
	if err := d.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.leave()
	h.e.setHeld(d, held{Holds: []Hold{{Action: HoldPause, Pause: true, Until: 1}}})
	h.e.setHeld(h.e.dom(other), held{Holds: []Hold{{Action: HoldPause, Pause: true}}})
	h.e.nudge()
	h.waitFor("looked at", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.seen[other] > 100
	})
}

// TestWhatCannotBeDoneAgain is sealed once, however often it is tried.
func TestWhatCannotBeDoneAgain(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 5 * time.Millisecond
	a := &actor{state: domain.Running, links: twoLinks()}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("quarantine")
	h.outcomes(1)
	a.mu.Lock()
	a.fail = map[string]error{"mark": record.ErrReject}
	a.after = func(call string) {
		if call == "down" { // and it is up again at once
			a.mu.Lock()
			a.links[0].LiveLink = virt.LinkUp
			a.mu.Unlock()
		}
	}
	a.links[0].LiveLink = virt.LinkUp
	a.mu.Unlock()
	sealed[*record.Held](h, record.ClassPolicyReapplied, 1)
	before := len(a.said())
	h.waitFor("tried often", func() bool { return len(a.said()) > before+200 })
	if n := h.count(record.ClassPolicyReapplied); n != 1 {
		t.Errorf("sealed %d times", n)
	}
}

// count counts the entries of a class.
func (h *host) count(c record.Class) int {
	h.t.Helper()
	n := 0
	for i := range h.log.Size() {
		it, err := h.log.Item(i)
		if err != nil {
			h.t.Fatal(err)
		}
		if it.Leaf.Header.Class == c {
			n++
		}
	}
	return n
}

// TestMergeOfWhatWasReleased does not say that a domain is held which is not.
func TestMergeOfWhatWasReleased(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("pause")
	h.outcomes(1)
	d := h.e.dom(h.id)
	if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := d.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.leave()
	act := &record.Action{Kind: "pause"}
	j := &job{log: h.log, index: 99, id: h.id, verdict: &record.Verdict{Policy: "q", Actions: []*record.Action{act}}, seq: 1}
	if x := (&attempt{e: h.e, d: d, j: j, o: &record.Outcome{}, held: d.held.clone()}); x.merge(key(act)) {
		t.Errorf("merged into what has ended: %v, held %+v", x.o, x.held)
	}
}

// TestGoneDomainTakesNoShare of those that may be held.
func TestGoneDomainTakesNoShare(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 5 * time.Millisecond
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("pause")
	h.outcomes(1)
	holding := func() int {
		h.e.limits.mu.Lock()
		defer h.e.limits.mu.Unlock()
		return len(h.e.limits.holding)
	}
	for _, gone := range []bool{true, false} {
		a.mu.Lock()
		a.gone = gone
		a.mu.Unlock()
		h.waitFor("counted as it is", func() bool { return holding() == map[bool]int{true: 0, false: 1}[gone] })
	}
}

// TestLateEnds are put off longer each time: each try is sealed.
func TestLateEnds(t *testing.T) {
	now := time.Unix(1000, 0)
	e := &Enforcer{cfg: Config{Now: func() time.Time { return now }}, shown: map[domain.UUID]held{}}
	d := &dom{held: held{Holds: []Hold{{Until: 1}}}}
	var waits []time.Duration
	for range 9 {
		_ = e.later(d, nil)
		waits = append(waits, time.Unix(0, d.held.Holds[0].Until).Sub(now))
		now = time.Unix(0, d.held.Holds[0].Until)
	}
	if waits[0] != 5*time.Second || waits[1] != 10*time.Second || waits[8] != 5*time.Minute {
		t.Errorf("put off by %v", waits)
	}
}

// TestDigestOfNoFile does not wait for what never ends.
func TestDigestOfNoFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := fileDigest(t.Context(), name)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "neither a file") {
			t.Errorf("%v", err)
		}
	case <-ctx.Done():
		t.Fatal("a pipe is waited for")
	}
}

// TestMarksTakeNoShare: whoever may change a domain may mark it, and must not use up with
// that what policies may hold of the others.
func TestMarksTakeNoShare(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 5 * time.Millisecond
	mark := markText(&held{Holds: []Hold{{Action: HoldQuarantine, Policy: "p", Log: "l", Verdict: 1, All: true, Since: 1}}})
	a := &actor{state: domain.Running, links: twoLinks(), mark: mark}
	stop := h.enforce(a, nil)
	h.waitFor("taken over", func() bool { return holdsOf(h) == "quarantine" })
	share := func() int {
		h.e.limits.mu.Lock()
		defer h.e.limits.mu.Unlock()
		return len(h.e.limits.holding)
	}
	looked := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.seen[h.id] > 20
	}
	h.waitFor("looked at", looked)
	first := share()
	stop()
	h.restart()
	stop = h.enforce(a, nil)
	defer stop()
	if again := share(); first != 0 || again != 0 {
		t.Errorf("marks count as %d of what policies hold, and %d behind a restart", first, again)
	}
}
