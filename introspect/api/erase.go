package api

import (
	"fmt"
	"strconv"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// erase takes away payloads of records of guests. Who asked for it is sealed with
// the reason.
func (s *Service) erase(c *call) error {
	sel, err := c.parseErase()
	if err != nil {
		return err
	}
	done, err := s.Store.Erase(c.ctx, sel, c.v.Get("reason"), c.id.String())
	if err != nil {
		return err
	}
	answer := client.Erasure{Logs: []client.ErasedLog{}}
	for _, e := range done {
		answer.Logs = append(answer.Logs, client.ErasedLog{Log: e.Log.Origin(), Entry: e.Entry, Records: e.Records, Verdicts: e.Verdicts})
	}
	return c.answer(&answer, nil)
}

// parseErase wants exactly one choice: erasing cannot be taken back, so nothing is
// meant by leaving something out.
func (c *call) parseErase() (sel chain.EraseSelection, err error) {
	q := c.v
	bad := func(format string, args ...any) (chain.EraseSelection, error) {
		return chain.EraseSelection{}, fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), record.ErrReject)
	}
	l, err := c.exportLog()
	if err != nil {
		return sel, err
	}
	times := q.Get("from") != "" || q.Get("to") != ""
	choices := 0
	for _, given := range []bool{q.Get("record") != "", times, q.Get("all") == "true"} {
		if given {
			choices++
		}
	}
	if choices != 1 {
		return bad("say which records: one by its entry, those of a time, or all; and one of these only")
	}
	if n := q.Get("record"); n != "" {
		i, err := strconv.ParseUint(n, 10, 64)
		if err != nil || i >= l.Size() {
			return bad("entry %q: %s has entries 0 to %d", n, l.Origin(), l.Size()-1)
		}
		return chain.EraseSelection{Log: l, Range: &proof.Range{First: i, Last: i}}, nil
	}
	if sel.Log = l; q.Get("log") == "" { // all its incarnations
		sel.Log, sel.Domain = nil, l.Name().Domain
	}
	for name, at := range map[string]*time.Time{"from": &sel.From, "to": &sel.To} {
		if s := q.Get(name); s != "" {
			if *at, err = time.Parse(time.RFC3339Nano, s); err != nil {
				return bad("%s is %q, want a time such as 2026-11-23T09:00:00Z", name, s)
			}
		}
	}
	if times && !sel.To.IsZero() && !sel.From.Before(sel.To) {
		return bad("the time ends at %s, before it begins at %s", q.Get("to"), q.Get("from"))
	}
	return sel, nil
}
