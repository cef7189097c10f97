package rules

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// stateMagic starts the saved form. Part of the format.
const stateMagic = "PVRS\x04"

// StateVersion is the version of the saved form.
const StateVersion = 4

// Forms that earlier versions have written: the first is without wall time, exceptions,
// windows and approvals, the second has one attempt for each step of a sequence, and the
// third knows nothing of shards before.
const (
	stateMagic1 = "PVRS\x01"
	stateMagic2 = "PVRS\x02"
	stateMagic3 = "PVRS\x03"
)

// maxText bounds each string of a saved state, and maxHeir a state within one.
const (
	maxText = 4096
	maxHeir = 1 << 30
)

// MarshalBinary returns the saved form of st: the same state always gives the
// same bytes. See the package comment.
func (st *State) MarshalBinary() ([]byte, error) {
	b := append(make([]byte, 0, st.Size()), stateMagic...)
	b = appendFlag(appendFlag(b, st.over), st.carried)
	b = binary.BigEndian.AppendUint64(b, st.next)
	b = binary.BigEndian.AppendUint64(b, uint64(st.mono))
	b = binary.BigEndian.AppendUint64(b, uint64(st.wall))
	for _, s := range []string{st.vm.UUID, st.vm.Name, st.vm.State} {
		b = appendText(b, s)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(st.vm.Tags)))
	for _, t := range st.vm.Tags {
		b = appendText(b, t)
	}
	names := make([]string, 0, len(st.vm.Metadata))
	for k := range st.vm.Metadata {
		names = append(names, k)
	}
	sort.Strings(names)
	b = binary.BigEndian.AppendUint32(b, uint32(len(names)))
	for _, k := range names {
		b = appendText(appendText(b, k), st.vm.Metadata[k])
	}
	b = binary.BigEndian.AppendUint64(b, st.givenUp)
	b = binary.BigEndian.AppendUint64(b, uint64(st.reported))
	b = binary.BigEndian.AppendUint32(b, uint32(st.used.Len()))
	for el := st.used.Front(); el != nil; el = el.Next() {
		b = appendCooldown(b, el.Value.(*cooldown))
	}
	b = st.approvals.append(st.appendWindows(st.appendExempts(b)))
	if st.heir == nil {
		return binary.BigEndian.AppendUint32(b, 0), nil
	}
	heir, err := st.heir.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(heir))), heir...), nil
}

func appendCooldown(b []byte, c *cooldown) []byte {
	b = append(b, c.id.policy[:]...)
	b = append(b, c.id.key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.until))
	b = binary.BigEndian.AppendUint64(b, c.suppressed)
	b = binary.BigEndian.AppendUint64(b, uint64(c.place))
	b = append(b, c.hash[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(c.class))
	return appendText(b, c.policy)
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// UnmarshalBinary replaces st by a saved state, of this version or one before. An error wraps
// record.ErrReject and leaves st as it was.
func (st *State) UnmarshalBinary(data []byte) error {
	r := reader{data: data}
	magic := string(r.take(len(stateMagic)))
	if magic != stateMagic && magic != stateMagic1 && magic != stateMagic2 && magic != stateMagic3 {
		return fmt.Errorf("decode rules state: want magic and version %q, or an earlier one: %w", stateMagic, record.ErrReject)
	}
	version := int(magic[len(magic)-1])
	n := State{stale: true, Recall: st.Recall}
	if version >= 4 {
		n.over, n.carried = r.flag(), r.flag()
	}
	n.next, n.mono = r.uint64(), int64(r.uint64())
	if version >= 2 {
		n.wall = int64(r.uint64())
	}
	n.vm = VM{UUID: r.text(), Name: r.text(), State: r.text()}
	for range r.count(maxFacts) {
		n.vm.Tags = append(n.vm.Tags, r.text())
	}
	last := ""
	for i := range r.count(maxFacts) {
		if n.vm.Metadata == nil {
			n.vm.Metadata = make(map[string]string)
		}
		k := r.text()
		if i > 0 && k <= last {
			r.bad = true // one form for each state
		}
		n.vm.Metadata[k], last = r.text(), k
	}
	n.givenUp, n.reported = r.uint64(), int64(r.uint64())
	for range r.count(MaxKeys) {
		r.cooldown(&n)
	}
	if version >= 2 {
		r.exempts(&n)
		r.windows(&n, version)
		r.approvals(&n.approvals, version)
	}
	if version >= 4 {
		r.heir(&n)
	}
	if r.bad || len(r.data) != 0 {
		return fmt.Errorf("decode rules state: %d bytes are not a state of version %d: %w", len(data), version, record.ErrReject)
	}
	*st = n
	st.relink()
	return nil
}

// heir reads what a next shard begins with, and which has no heir itself.
func (r *reader) heir(st *State) {
	data := r.take(r.count(maxHeir))
	if len(data) == 0 {
		return
	}
	st.heir = &State{}
	if err := st.heir.UnmarshalBinary(data); err != nil || !st.over || st.heir.over || !bytes.HasPrefix(data, []byte(stateMagic)) {
		r.bad = true
	}
}

// relink restores what points into the state itself, after it was copied.
func (st *State) relink() {
	all := make([]*cooldown, 0, st.used.Len())
	for el := st.used.Front(); el != nil; el = el.Next() {
		all = append(all, el.Value.(*cooldown))
	}
	st.used.Init()
	for _, c := range all {
		c.used = st.used.PushBack(c)
	}
}

// reader takes bytes from the front; bad once they do not fit.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.data) {
		r.bad = true
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// count reads the length of a list; too long a list is bad and empty.
func (r *reader) count(limit int) int {
	b := r.take(4)
	if b == nil {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(limit) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) text() string { return string(r.take(r.count(maxText))) }

func (r *reader) cooldown(st *State) {
	c := &cooldown{due: -1}
	copy(c.id.policy[:], r.take(len(policy.Digest{})))
	copy(c.id.key[:], r.take(len(key{})))
	c.until = int64(r.uint64())
	c.suppressed = r.uint64()
	c.place = place(r.uint64())
	copy(c.hash[:], r.take(len(record.Hash{})))
	if b := r.take(2); b != nil {
		c.class = record.Class(binary.BigEndian.Uint16(b))
	}
	c.policy = r.text()
	if _, twice := st.byID[c.id]; twice {
		r.bad = true
	}
	if r.bad {
		return
	}
	if st.byID == nil {
		st.byID = make(map[cooldownID]*cooldown)
	}
	st.byID[c.id] = c
	c.used = st.used.PushBack(c)
	if c.suppressed > 0 {
		// Push order does not matter: the heap's order is total.
		heap.Push(&st.due, c)
	}
}
