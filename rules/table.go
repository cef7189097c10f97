package rules

import (
	"bytes"
	"math/bits"
	"slices"
	"time"
	"unsafe"

	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// Bounds of what the windows of one VM hold. They take part in what is decided,
// so they are constants.
const (
	// MaxWindowBytes bounds all windows of one VM together: where they have more,
	// the one that holds most gives up keys.
	MaxWindowBytes = 32 << 20
	// keyBytes, times its max_keys, bounds one window.
	keyBytes = 512
	// slotBytes is what a key takes without its contents.
	slotBytes = int(unsafe.Sizeof(slot{})) + 48 // and in the map
	// spareBytes is what a table may hold beyond four times what it accounts for.
	spareBytes = 64 << 10
)

// instant is one thing that was counted.
type instant struct {
	mono  int64
	place place
	value key // of a threshold with distinct
}

// ring holds instants, the oldest first. Its buffer has a power of two of places.
type ring struct {
	buf     []instant
	head, n int
}

func (r *ring) at(i int) *instant { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring) push(x instant) {
	if r.n == len(r.buf) {
		buf := make([]instant, max(1, 2*r.n))
		for i := range r.n {
			buf[i] = *r.at(i)
		}
		r.buf, r.head = buf, 0
	}
	r.n++
	*r.at(r.n - 1) = x
}

func (r *ring) pop() {
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
}

// remove takes out the instant at place i.
func (r *ring) remove(i int) {
	for ; i < r.n-1; i++ {
		*r.at(i) = *r.at(i + 1)
	}
	r.n--
}

// expire drops what is not later than a time.
func (r *ring) expire(until int64) {
	for r.n > 0 && r.at(0).mono <= until {
		r.pop()
	}
}

func (r *ring) clear() { r.head, r.n = 0, 0 }

// places is how many places the smallest buffer has that holds n instants.
func places(n int) int {
	if n == 0 {
		return 0
	}
	return 1 << bits.Len(uint(n-1))
}

// captured is a value of an earlier step.
type captured struct {
	number int // of the policy's Captures
	value  event.Bound
}

// MaxAttempts bounds the attempts of one key that wait for the same step of a sequence.
// It takes part in what is decided, so it is a constant.
const MaxAttempts = 8

// progress is an attempt at a sequence: its steps before some step are done.
type progress struct {
	start  int64  // of the first event
	taken  uint64 // events so far of the step that comes next
	values []captured
	done   []doneStep // the steps, in order
}

type doneStep struct {
	place place // of the leaf that completed it
	count uint64
}

// slot is what is held of one key.
type slot struct {
	key    key
	mono   int64  // of its newest event
	place  place  // of its newest event
	run    uint64 // of a sequence: events of its first step in a row
	ring   ring
	newest *newest      // of a threshold with distinct that has many values; nil: each stands once in ring
	steps  [][]progress // of a sequence: by number of steps done, less one; each oldest first
	cost   int
	room   int // places of the ring's buffer, as table.room has them

	prev, next int32 // in order of use; -1 at the ends
}

// size is what the slot is accounted for. It decides what is given up, so it follows
// from what is remembered alone: the buffer of a ring may be larger, by what was in it
// before, and is not after the state was restored (I5). See table.tidy.
func (s *slot) size() int {
	n := slotBytes + places(s.counted())*int(unsafe.Sizeof(instant{}))
	for _, all := range s.steps {
		n += int(unsafe.Sizeof(all))
		for i := range all {
			n += all[i].size()
		}
	}
	return n
}

// idle reports whether the slot has no contents.
func (s *slot) idle() bool {
	return s.ring.n == 0 && !slices.ContainsFunc(s.steps, func(all []progress) bool { return len(all) > 0 })
}

// table is what one window remembers: for each key a slot, in order of use.
type table struct {
	id     policy.Digest // StateDigest of the window
	policy string
	seen   bool  // of a first_seen: slots have no contents
	since  int64 // of a first_seen: host monotone time when it began
	plain  bool  // neither keys nor contents are made of words
	limit  int   // keys
	span   int64 // length of the window

	byKey          map[key]int32
	slots          []slot
	free           []int32
	oldest, newest int32
	bytes          int // accounted for
	room           int // places of all buffers, those of free slots too

	givenUp  uint64 // since the last report
	reported int64  // host monotone time of that report, 0 for never
}

func newTable(id policy.Digest, owner string) *table {
	return &table{id: id, policy: owner, byKey: make(map[key]int32), oldest: -1, newest: -1}
}

// find returns the slot of a key, or nil.
func (t *table) find(k key) *slot {
	if i, ok := t.byKey[k]; ok {
		return &t.slots[i]
	}
	return nil
}

// take returns the slot of a key, a new one where there is none, and makes it
// the newest. It stays where it is until the next take or drop.
func (t *table) take(k key, mono int64, p place) *slot {
	i, ok := t.byKey[k]
	if ok {
		t.unlink(i)
	} else {
		i = t.add(k)
	}
	t.link(i)
	s := &t.slots[i]
	s.mono, s.place = mono, p
	return s
}

func (t *table) add(k key) int32 {
	var i int32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = int32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	s := &t.slots[i]
	buf := s.ring.buf
	*s = slot{key: k, ring: ring{buf: buf}, room: s.room}
	t.byKey[k] = i // its size is accounted for when it is settled
	return i
}

// keptRing is how large a buffer may be that an empty slot keeps.
const keptRing = 64

func (t *table) drop(s *slot) {
	i := t.byKey[s.key]
	t.unlink(i)
	delete(t.byKey, s.key)
	t.bytes -= s.cost
	buf := s.ring.buf
	if len(buf) > keptRing {
		buf = nil
	}
	t.room += len(buf) - s.room
	*s = slot{ring: ring{buf: buf}, room: len(buf)}
	t.free = append(t.free, i)
}

// tidy makes the table anew where it holds much more than it accounts for: a guest
// which fills one window after the other would else leave all of them at their
// largest. No slot stays in place. It changes nothing of what is decided.
func (t *table) tidy() {
	if cap(t.slots)*slotBytes+t.room*int(unsafe.Sizeof(instant{})) <= 4*t.bytes+spareBytes {
		return
	}
	slots := make([]slot, 0, len(t.byKey))
	t.byKey, t.room = make(map[key]int32, len(t.byKey)), 0
	t.each(func(s *slot) {
		s.settle()
		n := int32(len(slots))
		t.byKey[s.key] = n
		slots = append(slots, *s)
		c := &slots[n]
		c.prev, c.next = n-1, n+1
		c.ring = ring{buf: make([]instant, places(s.ring.n)), n: s.ring.n}
		for i := range s.ring.n {
			c.ring.buf[i] = *s.ring.at(i)
		}
		c.room = len(c.ring.buf)
		t.room += c.room
	})
	t.slots, t.free = slots, nil
	t.oldest, t.newest = min(0, int32(len(slots))-1), int32(len(slots))-1
	if t.newest >= 0 {
		slots[t.newest].next = -1
	}
}

func (t *table) unlink(i int32) {
	s := &t.slots[i]
	if s.prev >= 0 {
		t.slots[s.prev].next = s.next
	} else {
		t.oldest = s.next
	}
	if s.next >= 0 {
		t.slots[s.next].prev = s.prev
	} else {
		t.newest = s.prev
	}
}

func (t *table) link(i int32) {
	s := &t.slots[i]
	s.prev, s.next = t.newest, -1
	if t.newest >= 0 {
		t.slots[t.newest].next = i
	} else {
		t.oldest = i
	}
	t.newest = i
}

// account brings the table's size up to date with a changed slot.
func (t *table) account(s *slot) {
	size := s.size()
	t.bytes += size - s.cost
	s.cost = size
	t.room += len(s.ring.buf) - s.room
	s.room = len(s.ring.buf)
}

// trim gives up the oldest keys where there are too many, and two that are over.
func (t *table) trim(now int64) {
	for len(t.byKey) > t.limit || t.bytes > keyBytes*t.limit && len(t.byKey) > 1 {
		t.giveUp(now)
	}
	for range 2 {
		if t.oldest == t.newest || t.slots[t.oldest].mono > now-t.span {
			return
		}
		t.giveUp(now)
	}
}

// giveUp drops the oldest key. One whose window is over loses nothing by it.
func (t *table) giveUp(now int64) {
	s := &t.slots[t.oldest]
	if s.mono > now-t.span {
		t.givenUp++
	}
	t.drop(s)
}

// each calls f with every slot, the one that was not used for longest first.
// f may drop the slot it was given.
func (t *table) each(f func(*slot)) {
	for i := t.oldest; i >= 0; {
		next := t.slots[i].next
		f(&t.slots[i])
		i = next
	}
}

// forget drops what was made of the words of erased entries. A key is made of
// the words of all its entries, so it stays while one of them does.
func (t *table) forget(erased func(place) bool) {
	t.each(func(s *slot) {
		s.settle()
		for i := 0; i < s.ring.n; {
			if erased(s.ring.at(i).place) {
				s.ring.remove(i)
			} else {
				i++
			}
		}
		for i := range s.steps {
			s.steps[i] = slices.DeleteFunc(s.steps[i], func(g progress) bool {
				return slices.ContainsFunc(g.done, func(d doneStep) bool { return erased(d.place) })
			})
		}
		if s.idle() && (!t.seen || erased(s.place)) {
			t.drop(s)
		} else {
			t.account(s)
		}
	})
	t.tidy()
}

// windows are the tables of one policy, made ready for the engine.
type windows struct {
	main      *table // of threshold, sequence or first_seen
	limit     *table
	escalates []*table
}

func (w *windows) all() []*table {
	return slices.DeleteFunc(append([]*table{w.main, w.limit}, w.escalates...), func(t *table) bool { return t == nil })
}

// openWindows finds the tables of the engine's policies, makes those that are
// missing for policies that are on, and drops those of no policy.
func (st *State) openWindows(e *Engine) {
	old := st.tables
	st.tables = make(map[policy.Digest]*table)
	st.windows = make([]windows, len(e.bundle.Policies))
	st.windowBytes, st.unopened = 0, false
	for i, p := range e.bundle.Policies {
		open := func(id policy.Digest, keys int, span time.Duration, words bool) *table {
			t := old[id]
			if t == nil {
				t = newTable(id, p.Name)
				if p.FirstSeen != nil && id == p.FirstSeen.StateDigest {
					if st.modes[i] == policy.ModeOff {
						st.unopened = true
						return nil // learning begins when the policy does
					}
					t.seen, t.since = true, st.mono
				}
			}
			t.limit, t.span, t.plain = keys, int64(span), !words
			st.tables[id] = t
			st.windowBytes += t.bytes
			return t
		}
		w := &st.windows[i]
		switch {
		case p.Threshold != nil:
			w.main = open(p.Threshold.StateDigest, p.Threshold.MaxKeys, p.Threshold.Window, worded(p.Threshold))
		case p.Sequence != nil:
			w.main = open(p.Sequence.StateDigest, p.Sequence.MaxKeys, p.Sequence.Within, true)
		case p.FirstSeen != nil:
			w.main = open(p.FirstSeen.StateDigest, p.FirstSeen.MaxKeys, p.FirstSeen.History, true)
		}
		if p.Limit != nil && p.Limit.Scope == policy.LimitVM {
			w.limit = open(p.Limit.StateDigest, 1, p.Limit.Per, false)
		}
		for _, x := range p.Escalates {
			w.escalates = append(w.escalates, open(x.Threshold.StateDigest, x.Threshold.MaxKeys, x.Threshold.Window, worded(x.Threshold)))
		}
	}
}

func worded(h *policy.Threshold) bool { return len(h.By) > 0 || h.Distinct != nil }

// keep accounts for a slot that was changed, which is not in its place any more then, and holds the window and all
// windows of the VM within their bounds. Where they have too much, the largest
// gives up its oldest keys, so that a guest which floods one policy takes
// nothing from the others.
func (st *State) keep(t *table, s *slot) {
	before := t.bytes
	t.account(s)
	t.trim(st.mono)
	st.windowBytes += t.bytes - before
	st.lose(t)
	for st.windowBytes > MaxWindowBytes {
		fattest := t
		for _, o := range st.tables {
			if o.bytes > fattest.bytes || o.bytes == fattest.bytes && bytes.Compare(o.id[:], fattest.id[:]) < 0 {
				fattest = o
			}
		}
		before := fattest.bytes
		for range len(fattest.byKey)/64 + 1 {
			fattest.giveUp(st.mono)
		}
		st.windowBytes += fattest.bytes - before
		st.lose(fattest)
		fattest.tidy()
	}
	t.tidy()
}

// drop gives up a slot that has nothing left to remember. As behind keep, no slot of the
// table is in its place any more.
func (st *State) drop(t *table, s *slot) {
	st.windowBytes -= s.cost
	t.drop(s)
	t.tidy()
}
