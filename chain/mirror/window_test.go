package mirror_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// bootClock is a clock that is set.
type bootClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *bootClock) boot() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *bootClock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now += d }

// TestWindow asks whole logs and an archive whether anything else happened in a time.
func TestWindow(t *testing.T) {
	clock := &bootClock{}
	h := newHostAt(t, newKeys(t), clock.boot)
	steady, dark, gone, stops := h.log(1, 1, nil), h.log(2, 1, nil), h.log(3, 1, nil), h.log(4, 1, nil)
	var late *chain.Log
	for minute := range 30 {
		for l, ticks := range map[*chain.Log]bool{steady: true, dark: minute < 10 || minute > 14, gone: minute < 3, stops: minute < 4, late: minute > 20} {
			if l != nil && ticks {
				h.append(l, h.draft(record.ClassTick, &record.Event{Vm: &record.VM{State: "running", Detail: proof.AgentHeard}}))
			}
		}
		switch minute {
		case 3:
			h.must(h.CloseLog(t.Context(), gone, "undefined", ""))
		case 20:
			late = h.log(5, 1, nil)
		}
		clock.pass(time.Minute)
	}
	h.must(h.CloseLog(t.Context(), steady, "undefined", ""))
	for _, l := range []*chain.Log{steady, dark, gone, stops, late} {
		h.checkpoint(l)
	}
	leaf, err := steady.Item(0)
	h.must(err)
	at := func(minute int) int64 { return leaf.Leaf.Mono + int64(time.Duration(minute)*time.Minute) }
	window := mirror.Options{Window: mirror.Window{Since: at(5), Until: at(18)}}
	key := h.HostLog().VerifierKey()
	r, err := verify(t, h.mirrored(), key, window)
	h.must(err)
	proved, unclaimed := strings.Join(r.Proved, "\n"), strings.Join(r.Unclaimed, "\n")
	if !strings.Contains(proved, "Heartbeats in "+steady.Origin()+" cover the time from ") || strings.Count(proved, "Heartbeats in") != 1 {
		t.Errorf("proved: %s", proved)
	}
	for _, want := range []string{
		"nothing else happened in " + dark.Origin() + " from ", ": no entry and no heartbeat for 6m0s (entry 11)",
		"nothing else happened in " + stops.Origin() + " from ", "does not reach two and a half minutes further",
	} {
		if !strings.Contains(unclaimed, want) {
			t.Errorf("it does not say %q: %s", want, unclaimed)
		}
	}
	for _, l := range []*chain.Log{gone, late} { // of another time
		if strings.Contains(unclaimed, l.Origin()) {
			t.Errorf("it speaks of %s: %s", l.Origin(), unclaimed)
		}
	}
	for _, l := range r.Logs {
		if w := l.Window; (w != nil) != (l.Origin == steady.Origin() || l.Origin == dark.Origin() || l.Origin == stops.Origin()) || w != nil && w.Covered != (l.Origin == steady.Origin()) {
			t.Errorf("%s: %+v", l.Origin, w)
		}
	}
	// The end of a log is not told of yet, and nothing is said where nothing is asked.
	r, err = verify(t, h.mirrored(), key, mirror.Options{Window: mirror.Window{Since: at(25), Until: at(30)}})
	h.must(err)
	if strings.Contains(strings.Join(r.Proved, "\n"), "Heartbeats in") {
		t.Errorf("the newest minutes are covered: %q", r.Proved)
	}
	r, err = verify(t, h.mirrored(), key, mirror.Options{})
	h.must(err)
	if strings.Contains(strings.Join(append(r.Proved, r.Unclaimed...), "\n"), "nothing else happened") {
		t.Errorf("nothing was asked: %q %q", r.Proved, r.Unclaimed)
	}
	// A time of which there is no log.
	r, err = verify(t, h.mirrored(), key, mirror.Options{Window: mirror.Window{Since: at(-60), Until: at(-30)}})
	h.must(err)
	if !strings.Contains(strings.Join(r.Unclaimed, "\n"), "no VM log that was read is of it") {
		t.Errorf("unclaimed: %q", r.Unclaimed)
	}
	// An archive, and one whose heartbeats are withheld.
	for _, withheld := range []bool{false, true} {
		r, err := verifyArchive(t, archived(t, h, steady, withheld), key, window)
		h.must(err)
		if covered := strings.Contains(strings.Join(r.Proved, "\n"), "Heartbeats in"); covered == withheld {
			t.Errorf("archive, payloads withheld %v: %q %q", withheld, r.Proved, r.Unclaimed)
		}
	}
}
