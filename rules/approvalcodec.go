package rules

import (
	"encoding/binary"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/approval"
)

// append adds the saved form of the approvals of a state, see the package comment.
func (as *approvals) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(as.active)))
	for _, a := range as.active {
		b = appendText(b, string(a.text))
		b = binary.BigEndian.AppendUint32(b, a.signers)
		b = binary.BigEndian.AppendUint64(b, uint64(a.loaded))
		b = binary.BigEndian.AppendUint64(b, a.uses)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(as.late)))
	for _, u := range as.late {
		b = appendText(b, u.policy)
		b = binary.BigEndian.AppendUint64(b, uint64(u.cause))
		b = append(b, u.hash[:]...)
		b = binary.BigEndian.AppendUint16(b, uint16(u.class))
		b = binary.BigEndian.AppendUint64(b, uint64(u.until))
		if !u.known {
			b = append(b, 0)
			continue
		}
		b = binary.BigEndian.AppendUint64(append(b, 1), uint64(u.verdict))
		b = append(b, u.verdictHash[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(as.revoked)))
	for _, id := range as.revoked {
		b = appendText(b, id)
	}
	return b
}

// approvals reads what append has written.
func (r *reader) approvals(as *approvals, version int) {
	for range r.count(MaxApprovals) {
		a := r.approval()
		if r.bad {
			return
		}
		as.active = append(as.active, a)
	}
	for range r.count(maxUnapproved) {
		u := &unapproved{policy: r.text(), cause: place(r.uint64())}
		copy(u.hash[:], r.take(len(record.Hash{})))
		if b := r.take(2); b != nil {
			u.class = record.Class(binary.BigEndian.Uint16(b))
		}
		u.until = int64(r.uint64())
		if b := r.take(1); b != nil && b[0] != 0 {
			r.bad = r.bad || b[0] != 1
			u.known, u.verdict = true, place(r.uint64())
			copy(u.verdictHash[:], r.take(len(record.Hash{})))
		}
		as.late = append(as.late, u)
	}
	as.settle()
	if version < 4 && len(r.data) == 0 {
		return
	}
	n := r.count(maxRevoked)
	r.bad = r.bad || version < 4 && n == 0 // one form for each state
	for range n {
		id := r.text()
		r.bad = r.bad || slices.Contains(as.revoked, id)
		as.revoked = append(as.revoked, id)
	}
}

// approval reads one, and compiles its scope as loading it has.
func (r *reader) approval() *active {
	text := r.take(r.count(approval.MaxStatement))
	s, err := approval.Parse(text)
	if r.bad || err != nil {
		r.bad = true
		return nil
	}
	a, err := newActive(text, s)
	if err != nil {
		r.bad = true
		return nil
	}
	if b := r.take(4); b != nil {
		a.signers = binary.BigEndian.Uint32(b)
	}
	a.loaded, a.uses = place(r.uint64()), r.uint64()
	return a
}
