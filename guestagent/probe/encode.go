package probe

import (
	"slices"

	"github.com/provostd/provost/chain/record"
)

// maxKin bounds the encodings of parents and ancestors that are kept.
const maxKin = 256

// encoder makes payloads of events. What events quote of their process's
// parents is most of their bytes and always the same, so it is encoded once.
type encoder struct {
	buf []byte
	kin map[*record.Process]kin // by the parent
}

// kin is what children of one image quote. A published process never changes,
// so one that is found by its place in memory is the same.
type kin struct {
	ancestors []*record.Process
	bytes     []byte
}

// encode returns the payload of e, valid until the next call. Parent and
// ancestors stand behind all other fields, which no decoder minds.
func (c *encoder) encode(e *record.Event) ([]byte, error) {
	parent, ancestors := e.Parent, e.Ancestors
	if parent == nil {
		var err error
		c.buf, err = record.AppendEncode(c.buf[:0], e)
		return c.buf, err
	}
	e.Parent, e.Ancestors = nil, nil
	b, err := record.AppendEncode(c.buf[:0], e)
	e.Parent, e.Ancestors = parent, ancestors
	if c.buf = b; err != nil {
		return nil, err
	}
	k, ok := c.kin[parent]
	if !ok || !slices.Equal(k.ancestors, ancestors) {
		k.ancestors = ancestors
		if k.bytes, err = record.Encode(&record.Event{Parent: parent, Ancestors: ancestors}); err != nil {
			return nil, err
		}
		if len(c.kin) >= maxKin || c.kin == nil {
			c.kin = make(map[*record.Process]kin, maxKin)
		}
		c.kin[parent] = k
	}
	c.buf = append(c.buf, k.bytes...)
	return c.buf, nil
}
