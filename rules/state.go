package rules

import (
	"bytes"
	"cmp"
	"container/heap"
	"container/list"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// MaxKeys bounds the cooldowns of one VM. It takes part in what is decided,
// so it is a constant.
const MaxKeys = 4096

// key names a cooldown among those of one policy.
type key [16]byte

type cooldownID struct {
	policy policy.Digest // its StateDigest
	key    key
}

// cooldown is one running cooldown.
type cooldown struct {
	id         cooldownID
	policy     string
	until      int64 // host monotone time
	suppressed uint64
	// the newest entry that was swallowed, or the one that fired
	place place
	hash  record.Hash
	class record.Class

	used *list.Element // place in State.used
	due  int           // place in State.due, -1 where nothing was swallowed
}

// State is what the judging of one VM log remembers. The zero value is the
// state before the log's first entry.
type State struct {
	vm   VM
	next uint64
	mono int64
	wall int64 // newest wall time sealed: it never goes back

	byID map[cooldownID]*cooldown
	used list.List // of *cooldown, longest unused first
	due  dueHeap   // those that have something to report, first end first

	givenUp  uint64 // since the last report
	reported int64  // host monotone time of that report, 0 for never

	tables  map[policy.Digest]*table // by StateDigest
	exempts map[exceptionID]*exempt

	approvals approvals

	// over says that a next shard has what was remembered: heir, until that begins.
	over bool
	heir *State
	// carried says that this began in a shard before, and that its own log has not said
	// yet which policies judge.
	carried bool

	// Recall gives entries of the log again, for approvals that come late, where a
	// restored state does not hold them. It is the caller's and not saved.
	Recall Recall

	// Derived, not saved.
	leaf   record.Leaf // of the entry being judged, here so that judging needs no memory
	engine *Engine
	stale  bool // the VM's facts have changed since modes was made
	modes  []policy.Mode
	judged event.ClassSet // classes that any policy looks at in this VM

	windows     []windows // by number of the policy
	windowBytes int
	unopened    bool  // a first_seen has not begun, because its policy is off
	lost        bool  // a window has given up keys that were not reported
	lostDue     int64 // host monotone time before which none of it may be
	nextEnd     int64 // wall time at which the next exception ends
	lent        []event.Bound
}

// VM returns what the log has said about the domain. The caller must not
// change its lists.
func (st *State) VM() VM { return st.vm }

// Next returns the index of the first entry that was not judged yet.
func (st *State) Next() uint64 { return st.next }

// Keys returns how many keys the windows hold.
func (st *State) Keys() int {
	n := 0
	for _, t := range st.tables {
		n += len(t.byKey)
	}
	return n
}

// Cooldowns returns how many cooldowns are held.
func (st *State) Cooldowns() int { return len(st.byID) }

// pass reports whether a match may fire, and how many were swallowed since
// the last that did. Where it may not, it is counted.
func (st *State) pass(leaf *record.Leaf, hash record.Hash, p *policy.Policy, k key, period time.Duration) (uint64, bool) {
	id := cooldownID{p.StateDigest, k}
	c := st.byID[id]
	if c != nil && st.mono < c.until {
		c.suppressed++
		c.place, c.hash, c.class = here(leaf.Index), hash, leaf.Header.Class
		if c.due < 0 {
			heap.Push(&st.due, c)
		}
		st.used.MoveToBack(c.used)
		return 0, false
	}
	var swallowed uint64
	if c == nil {
		c = st.add(id, p.Name)
	} else {
		swallowed = c.suppressed
		st.settle(c)
		st.used.MoveToBack(c.used)
	}
	c.until = st.mono + int64(period)
	c.place, c.hash, c.class = here(leaf.Index), hash, leaf.Header.Class
	return swallowed, true
}

// settle forgets what a cooldown has swallowed: it was reported.
func (st *State) settle(c *cooldown) {
	c.suppressed = 0
	if c.due >= 0 {
		heap.Remove(&st.due, c.due)
	}
}

func (st *State) add(id cooldownID, name string) *cooldown {
	if st.byID == nil {
		st.byID = make(map[cooldownID]*cooldown)
	}
	if len(st.byID) >= MaxKeys {
		oldest := st.used.Front().Value.(*cooldown)
		// One that has ended with nothing to report loses nothing.
		if st.mono < oldest.until || oldest.suppressed > 0 {
			st.givenUp++
		}
		st.remove(oldest)
	}
	c := &cooldown{id: id, policy: name, due: -1}
	st.byID[id] = c
	c.used = st.used.PushBack(c)
	return c
}

func (st *State) remove(c *cooldown) {
	st.settle(c)
	st.used.Remove(c.used)
	delete(st.byID, c.id)
}

// forget gives up what windows hold of erased entries, and the cooldowns whose
// newest entry was erased: their keys are made of its words. What they have swallowed is reported first.
func (st *State) forget(erased func(place) bool) {
	for _, t := range st.tables {
		if !t.plain {
			before := t.bytes
			t.forget(erased)
			st.windowBytes += t.bytes - before
		}
	}
	for _, c := range st.byID {
		if !erased(c.place) {
			continue
		}
		if c.suppressed == 0 {
			st.remove(c)
			continue
		}
		c.until = st.mono
		heap.Fix(&st.due, c.due)
	}
}

// ended removes and returns a cooldown that is over and has swallowed
// something, or returns nil.
func (st *State) ended() *cooldown {
	if len(st.due) == 0 || st.mono < st.due[0].until {
		return nil
	}
	c := st.due[0]
	out := *c
	st.remove(c)
	return &out
}

// dueHeap orders by end, and then by identity, so that reports come in the
// same order whatever way the state took.
type dueHeap []*cooldown

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if c := cmp.Compare(a.until, b.until); c != 0 {
		return c < 0
	}
	if c := bytes.Compare(a.id.policy[:], b.id.policy[:]); c != 0 {
		return c < 0
	}
	return bytes.Compare(a.id.key[:], b.id.key[:]) < 0
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].due, h[j].due = i, j
}

// Push and Pop are for container/heap.
func (h *dueHeap) Push(x any) {
	c := x.(*cooldown)
	c.due = len(*h)
	*h = append(*h, c)
}

func (h *dueHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	c.due = -1
	return c
}

// Size returns about how many bytes the saved form has.
func (st *State) Size() int {
	n := 4096 + len(st.byID)*160 + st.windowBytes
	if st.heir != nil {
		n += st.heir.Size()
	}
	return n
}
