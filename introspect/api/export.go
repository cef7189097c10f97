package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Bounds of exports: of one identity, of all, and of those that are built at a time,
// of which one identity has one: others need not wait until it has all of its own.
// Each holds a file of up to chain.DefaultExportBytes, and as much memory while it is
// built.
const (
	maxExports     = 2
	maxAllExports  = 8
	maxBuilders    = 2
	maxOwnBuilders = 1
)

// export writes an evidence bundle. It is built before the first byte is sent,
// so that a failure is an answer and never half a bundle.
func (s *Service) export(c *call) error {
	l, err := c.exportLog()
	if err != nil {
		return err
	}
	sel, err := c.selection(l)
	if err != nil {
		return err
	}
	leave, err := s.exports.enter(c.id, "exports", maxExports, maxAllExports)
	if err != nil {
		return err
	}
	defer leave()
	f, err := tempFile()
	if err != nil {
		return err
	}
	defer f.Close()
	if sel.Policies, err = c.policyTexts(); err != nil {
		return err
	}
	given := opened{}
	sel.Opened = given.add
	sel.Turn = func(ctx context.Context) (func(), error) { return s.builders.take(ctx, c.id) }
	if err := chain.Export(c.ctx, s.Store, l, *sel, f); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := given.disclose(c); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/zip")
	c.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.Copy(c.w, f); err != nil {
		s.Log.DebugContext(c.ctx, "bundle not delivered", "error", err)
	}
	return nil
}

// policyTexts returns how a bundle gets the texts of policies. They are the host's: they
// may name other tenants' machines and what the host looks for, and a digest covers all
// files of a bundle, so that no part of them proves anything. So tenants get none by
// themselves.
func (c *call) policyTexts() (func(context.Context, record.Hash) (map[string][]byte, string, error), error) {
	p := c.params()
	give := p.boolean("policies", c.all())
	if p.err != nil {
		return nil, p.err
	}
	if give && !c.all() {
		return nil, fmt.Errorf("texts of policies are for auditors and operators; leave the parameter policies out, and ask one of them for a bundle with the texts: %w", record.ErrReject)
	}
	return func(ctx context.Context, digest record.Hash) (map[string][]byte, string, error) {
		if !give || c.s.PolicyText == nil {
			return nil, proof.LacksWithheld, nil
		}
		files, err := c.s.PolicyText(ctx, digest)
		if errors.Is(err, ErrNotFound) {
			return nil, proof.LacksKept, nil
		}
		return files, "", err
	}, nil
}

// opened counts the payloads that a bundle gives: those that were selected, and
// those that come along, such as the genesis and causes of verdicts. Keys and
// signatures of agents are anybody's who sees the log.
type opened struct {
	selected, along tally
}

func (o *opened) add(i *chain.Item, selected bool) {
	if chain.OpensItself(&i.Leaf) {
		return
	}
	t := &o.along
	if selected {
		t = &o.selected
	}
	if *t == nil {
		*t = tally{}
	}
	t.add(i)
}

func (o *opened) disclose(c *call) error {
	if err := o.along.disclose(c); err != nil {
		return err
	}
	return o.selected.disclose(c)
}

// exportLog returns the log that a bundle is wanted of: one that is named, or
// the newest of a domain.
func (c *call) exportLog() (*chain.Log, error) {
	logs, chosen, err := c.choose()
	if err != nil {
		return nil, err
	}
	if !chosen {
		return nil, fmt.Errorf("name a domain or a log: %w", record.ErrReject)
	}
	if len(logs) == 0 {
		return nil, fmt.Errorf("the log is not one of the domain's: %w", record.ErrReject)
	}
	newest := logs[0]
	for _, l := range logs[1:] {
		if later(l.Name(), newest.Name()) {
			newest = l
		}
	}
	return newest, nil
}

// selection reads which entries are wanted: some by their index, a range, or
// those of a time.
func (c *call) selection(l *chain.Log) (*chain.Selection, error) {
	p := c.params()
	sel := &chain.Selection{Withhold: p.boolean("withhold", false)}
	size := l.Size()
	ways := 0
	for _, has := range []bool{c.v.Has("index"), c.v.Has("from") || c.v.Has("to"), c.v.Has("since") || c.v.Has("until")} {
		if has {
			ways++
		}
	}
	if ways > 1 {
		return nil, fmt.Errorf("choose entries by index, by from and to, or by since and until, not by several of these: %w", record.ErrReject)
	}
	switch {
	case len(c.v["index"]) > 0:
		for _, s := range c.v["index"] {
			i, err := strconv.ParseUint(s, 10, 63)
			if err != nil || i >= size {
				return nil, fmt.Errorf("index is %q: the log has leaves 0 to %d: %w", clip(s), size-1, record.ErrReject)
			}
			sel.Indexes = append(sel.Indexes, i)
		}
	case c.v.Has("since") || c.v.Has("until"):
		// With the heartbeat before that time, and the entry behind it: from
		// them a verifier tells what the time was like.
		w, _, _, err := c.findWindow(l, p)
		if err != nil {
			return nil, err
		}
		sel.Range = &proof.Range{First: w.First, Last: w.Last}
	default:
		first, last := uint64(0), size-1
		sel.Range = &proof.Range{First: p.number("from", &first), Last: p.number("to", &last)}
		if r := sel.Range; p.err == nil && (r.First > r.Last || r.Last >= size) {
			return nil, fmt.Errorf("entries %d to %d: the log has leaves 0 to %d: %w", r.First, r.Last, size-1, record.ErrReject)
		}
	}
	return sel, p.err
}
