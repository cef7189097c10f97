package api

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// LogInfo describes a log.
func LogInfo(l *chain.Log) client.Log {
	o := l.Name()
	info := client.Log{ID: client.LogID(l.Origin()), Origin: l.Origin(), Domain: o.Domain, Incarnation: o.Incarnation, Shard: o.Shard,
		Size: l.Size(), Minimum: l.Minimum(), VerifierKey: l.VerifierKey(), URL: TilesPath(l)}
	if p, ok := l.Checkpoint(); ok {
		info.Published, info.Cosigned = p.Size, p.Cosigned
	}
	if index, ok := l.Closed(); ok {
		info.Closed = &index
	}
	var gone *chain.DroppedError
	if errors.As(l.Gone(), &gone) {
		info.Dropped = &gone.Index
	}
	return info
}

func (s *Service) logs(c *call) error {
	all := []client.Log{}
	for _, l := range c.seen() {
		all = append(all, LogInfo(l))
	}
	return c.answer(all, nil)
}

func (s *Service) log(c *call) error {
	l, err := c.pathLog()
	if err != nil {
		return err
	}
	info := LogInfo(l)
	if p, ok := l.Checkpoint(); ok {
		info.Published, info.Cosigned, info.Checkpoint = p.Size, p.Cosigned, string(p.Note)
	}
	return c.answer(&info, nil)
}

// entry answers with one entry, and with its payload unless that was erased or
// is not wanted.
func (s *Service) entry(c *call) error {
	l, err := c.pathLog()
	if err != nil {
		return err
	}
	index, err := strconv.ParseUint(c.r.PathValue("index"), 10, 63)
	if err != nil {
		return fmt.Errorf("index %q is no number: %w", clip(c.r.PathValue("index")), record.ErrReject)
	}
	if index >= l.Size() {
		return fmt.Errorf("entry %d of %s, which has %d entries: %w", index, l.Origin(), l.Size(), ErrNotFound)
	}
	p := c.params()
	withPayload := p.boolean("payload", true)
	if p.err != nil {
		return p.err
	}
	item, err := l.Look(index)
	if err != nil {
		return err
	}
	if item.Unreadable != nil && (withPayload || item.LeafBytes == nil) {
		return item.Unreadable // a leaf that is whole is given alone
	}
	e := s.wire(&item, withPayload)
	if disclosed(&item, withPayload) {
		if err := c.disclose(access.Disclosure{Origin: l.Origin(), First: index, Last: index, Count: 1}); err != nil {
			return err
		}
	}
	return c.answer(e, nil)
}

// wire makes the form in which an entry is sent.
func (s *Service) wire(i *chain.Item, payload bool) *client.Entry {
	e := &client.Entry{Log: i.Log.Origin(), Leaf: i.LeafBytes}
	if i.Unreadable != nil {
		e.Index, e.Unreadable = &i.Index, i.Unreadable.Error()
		if e.Leaf == nil {
			e.Leaf = []byte{}
		}
	} else if i.Erased {
		e.ErasedBy = &i.ErasedBy
	} else if payload {
		salt := i.Salt()
		e.Payload, e.Salt = i.Payload, salt[:]
	}
	if o := i.Log.Name(); !o.IsHost() {
		e.Domain = s.Name(o.Domain)
	}
	return e
}

// published returns a log and the size of its published checkpoint: what
// proofs are made below.
func (c *call) published() (*chain.Log, chain.Published, error) {
	l, err := c.pathLog()
	if err != nil {
		return nil, chain.Published{}, err
	}
	p, ok := l.Checkpoint()
	if !ok {
		return nil, chain.Published{}, fmt.Errorf("%s has no checkpoint yet: %w", l.Origin(), record.ErrRetry)
	}
	return l, p, nil
}

// inclusion proves that a leaf is in the tree of a size. For the size of the
// newest checkpoint, which is the default, the proof comes with the checkpoint.
func (s *Service) inclusion(c *call) error {
	l, newest, err := c.published()
	if err != nil {
		return err
	}
	p := c.params()
	index := p.number("index", nil)
	size := p.number("size", &newest.Size)
	if p.err != nil {
		return p.err
	}
	if size > newest.Size || index >= size {
		return fmt.Errorf("entry %d at size %d: the checkpoint of %s has %d entries: %w", index, size, l.Origin(), newest.Size, record.ErrReject)
	}
	path, err := l.ProveInclusion(index, size)
	if err != nil {
		return err
	}
	hash, err := l.LeafHash(index)
	if err != nil {
		return err
	}
	root, err := l.RootAt(size)
	if err != nil {
		return err
	}
	out := &client.InclusionProof{Log: l.Origin(), Index: index, Size: size, LeafHash: hash.String(), Root: root.String(), Path: hashes(path)}
	if size == newest.Size {
		out.Checkpoint = string(newest.Note)
	}
	return c.answer(out, nil)
}

// consistency proves that the tree of a size is the beginning of a larger one.
func (s *Service) consistency(c *call) error {
	l, newest, err := c.published()
	if err != nil {
		return err
	}
	p := c.params()
	from := p.number("from", nil)
	to := p.number("to", &newest.Size)
	if p.err != nil {
		return p.err
	}
	if from == 0 || from > to || to > newest.Size {
		return fmt.Errorf("from %d to %d: want two sizes, from 1 to %d, which the checkpoint of %s has, the smaller first: %w", from, to, newest.Size, l.Origin(), record.ErrReject)
	}
	path, err := l.ProveConsistency(from, to)
	if err != nil {
		return err
	}
	older, err := l.RootAt(from)
	if err != nil {
		return err
	}
	root, err := l.RootAt(to)
	if err != nil {
		return err
	}
	out := &client.ConsistencyProof{Log: l.Origin(), From: from, To: to, FromRoot: older.String(), ToRoot: root.String(), Path: hashes(path)}
	if to == newest.Size {
		out.Checkpoint = string(newest.Note)
	}
	return c.answer(out, nil)
}

func hashes[P ~[]H, H ~[32]byte](path P) []string {
	out := make([]string, len(path))
	for i := range path {
		out[i] = record.Hash(path[i]).String()
	}
	return out
}
