package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
)

// disclosed reports whether sending an entry discloses something: its payload, or
// something that stands in it.
func disclosed(i *chain.Item, payload bool) bool {
	return payload && !i.Erased && len(i.Payload) > 0 && access.Disclosed(i.Leaf.Header.Class)
}

// disclose has sealed that payloads are given. Where that fails none may be.
func (c *call) disclose(d access.Disclosure) error {
	if c.s.Discloser == nil {
		return fmt.Errorf("payloads are not given: this listener cannot seal their disclosure: %w", record.ErrRetry)
	}
	if d.What == "" {
		d.What = c.what
	}
	if err := c.s.Discloser.Disclose(c.ctx, d); err != nil {
		if errors.Is(c.ctx.Err(), context.Canceled) {
			return fmt.Errorf("disclose payloads: %w", err) // the reader has gone
		}
		c.s.Log.ErrorContext(c.ctx, "payloads are refused: their disclosure is not sealed", "path", c.r.URL.Path, "error", err)
		if !c.all() { // why, is told of the host
			return fmt.Errorf("payloads are not given: their disclosure could not be sealed: %w", record.ErrRetry)
		}
		return fmt.Errorf("payloads are not given: their disclosure could not be sealed: %w: %w", err, record.ErrRetry)
	}
	return nil
}

// tally counts what is given of each log.
type tally map[*chain.Log]*access.Disclosure

func (t tally) add(i *chain.Item) {
	d := t[i.Log]
	if d == nil {
		d = &access.Disclosure{Origin: i.Log.Origin(), First: i.Index, Last: i.Index}
		t[i.Log] = d
	}
	d.First, d.Last = min(d.First, i.Index), max(d.Last, i.Index)
	d.Count++
}

// disclose has sealed what was counted, log by log, and forgets it.
func (t tally) disclose(c *call) error {
	for _, l := range slices.SortedFunc(maps.Keys(t), func(a, b *chain.Log) int { return cmp.Compare(a.ID(), b.ID()) }) {
		if err := c.disclose(*t[l]); err != nil {
			return err
		}
		delete(t, l)
	}
	return nil
}

// parting is how long the last disclosure of a stream may take when its reader
// is gone already.
const parting = 5 * time.Second

// settle has sealed what a stream has given since it last said so, though the
// reader may have gone. That payloads are given was sealed before: a failure
// leaves only their number open.
func (t tally) settle(c *call) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), parting)
	defer cancel()
	last := *c
	last.ctx = ctx
	_ = t.disclose(&last) // logged there
}
