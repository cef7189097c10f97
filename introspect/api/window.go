package api

import (
	"fmt"
	"math"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// window says what a VM log tells of a time, and when something else may have
// happened in it.
func (s *Service) window(c *call) error {
	l, err := c.pathLog()
	if err != nil {
		return err
	}
	p := c.params()
	w, since, until, err := c.findWindow(l, p)
	if err != nil {
		return err
	}
	out := &client.Window{Log: l.Origin(), Since: stamp(since), Until: stamp(until), First: w.First, Last: w.Last, Within: w.Within,
		Covered: len(w.Gaps) == 0, Gaps: []client.WindowGap{}, More: w.More}
	for _, g := range w.Gaps {
		out.Gaps = append(out.Gaps, client.WindowGap{From: stamp(g.From), To: stamp(g.To), Entry: g.Index, Why: g.Why})
	}
	return c.answer(out, nil)
}

func stamp(nanoseconds int64) string {
	return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano)
}

// findWindow reads the time that is asked for: from since, or the log's
// beginning, to until, or what is sealed last.
func (c *call) findWindow(l *chain.Log, p *params) (w *chain.Window, since, until int64, err error) {
	first, err := l.Look(l.Minimum())
	if err != nil {
		return nil, 0, 0, err
	}
	since, until = first.Leaf.Mono, l.Head().Mono
	p.time("since", &since)
	p.time("until", &until)
	if p.err != nil {
		return nil, 0, 0, p.err
	}
	if until == math.MaxInt64 {
		return nil, 0, 0, fmt.Errorf("until is too late: %w", record.ErrReject)
	}
	w, err = l.Window(c.ctx, since, until)
	return w, since, until, err
}
