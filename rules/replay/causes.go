package replay

import (
	"bytes"
	"fmt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
)

// maxCauses bounds the entries that are kept for approvals which come late. The engine
// itself remembers fewer verdicts that they may cover.
const maxCauses = 4096

// causes are entries on which policies with an approval gave a verdict: one that comes
// within the policy's grace has them looked at again.
type causes struct {
	byIndex map[uint64]cause
	order   []uint64
}

type cause struct {
	leaf    record.Leaf
	payload []byte
}

// add keeps the entry that a verdict is on, if its policy has an approval.
func (c *causes) add(e *rules.Engine, v *record.Verdict, leaf record.Leaf, payload []byte) {
	if _, known := c.byIndex[leaf.Index]; known || v.CauseIndex != leaf.Index {
		return
	}
	for _, p := range e.Bundle().Policies {
		if p.Name != v.Policy || p.Approval == nil {
			continue
		}
		if c.byIndex == nil {
			c.byIndex = map[uint64]cause{}
		}
		if len(c.order) == maxCauses {
			delete(c.byIndex, c.order[0])
			c.order = c.order[1:]
		}
		c.byIndex[leaf.Index] = cause{leaf, bytes.Clone(payload)}
		c.order = append(c.order, leaf.Index)
	}
}

// recall gives an entry again, as rules.Recall wants it.
func (c *causes) recall(index uint64) (record.Leaf, record.Message, error) {
	k, ok := c.byIndex[index]
	if !ok {
		return record.Leaf{}, nil, fmt.Errorf("entry %d is not kept: %w", index, rules.ErrNoPayload)
	}
	m, err := record.Decode(k.leaf.Header.Class, k.payload)
	if err != nil {
		return k.leaf, nil, fmt.Errorf("%w: %w", err, rules.ErrNoPayload)
	}
	return k.leaf, m, nil
}
