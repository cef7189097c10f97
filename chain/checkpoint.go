package chain

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// archiveEvery is the distance in leaves between checkpoints that are kept for
// ever. So are those that witnesses have cosigned. Of the others only the
// newest stays, since the host log quotes them.
const archiveEvery = 65536

// CheckpointNow makes everything that is sealed in log so far provable at
// once: it signs the VM log, quotes it in the host log, signs and anchors the
// host log and publishes both. It is for stop, pause, migration and export. For
// the host log it does the last part. It needs Run to be running.
func (s *Store) CheckpointNow(ctx context.Context, log *Log) error {
	_, err := s.checkpointNow(ctx, log)
	return err
}

// checkpointNow is CheckpointNow. It returns where the host log quotes a VM log:
// the published host checkpoint covers that, and maybe not a later quote.
func (s *Store) checkpointNow(ctx context.Context, log *Log) (quote, error) {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	if !log.name.IsHost() {
		logs := []*Log{log}
		if err := s.checkpointVMs(logs); err != nil {
			return quote{}, fmt.Errorf("checkpoint %s: %w", log.origin, err)
		}
		if err := s.quote(logs, s.submitAndWait(ctx)); err != nil {
			return quote{}, fmt.Errorf("checkpoint %s: %w", log.origin, err)
		}
	}
	if err := s.checkpointHost(); err != nil {
		return quote{}, fmt.Errorf("checkpoint %s: %w", s.host.origin, err)
	}
	s.askWitnesses()
	return log.quoted, nil
}

// checkpointRound signs, stores and publishes every VM log that has grown.
func (s *Store) checkpointRound(logs []*Log) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	return s.checkpointVMs(logs)
}

// checkpointVMs is checkpointRound for a holder of checkpointMu. The order is
// that of invariant I6:
//
//  1. entries are durable: only durable state is looked at;
//  2. sign, after comparing with the checkpoint before;
//  3. store and sync;
//  4. publish.
//
// A crash before the end of 3 leaves the older checkpoints; the same heads or
// newer ones are signed again. A crash between 3 and 4 leaves checkpoints that
// Open publishes.
func (s *Store) checkpointVMs(logs []*Log) error {
	var grown []*Log
	var signed []*Published
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }() // committed or given up by then
	for _, l := range logs {
		if l.name.IsHost() {
			continue
		}
		p, err := s.sign(l, batch)
		if err != nil {
			return err
		}
		if p != nil {
			grown, signed = append(grown, l), append(signed, p)
		}
	}
	if len(grown) == 0 {
		return nil
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return s.fail(fmt.Errorf("store checkpoints: %w", err))
	}
	for i, l := range grown {
		l.published.Store(signed[i])
	}
	return nil
}

// checkpointHost is the host log's checkpoint for a holder of checkpointMu:
// as above, with the anchor between storing and publishing. A crash between
// the two leaves a stored checkpoint that is ahead of the anchor, which Open
// anchors before it publishes.
func (s *Store) checkpointHost() error {
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }() // committed or given up by then
	p, err := s.sign(s.host, batch)
	if err != nil || p == nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return s.fail(fmt.Errorf("store host checkpoint: %w", err))
	}
	if err := s.anchor(p); err != nil {
		return s.fail(err)
	}
	s.host.published.Store(p)
	return nil
}

// sign makes the checkpoint of a log that has grown since its last one, and
// adds its row to batch. It returns nil for a log that has not grown. It
// refuses to sign what is not consistent with the checkpoint before: two
// inconsistent checkpoints of one log are worse than none.
func (s *Store) sign(l *Log, batch *pebble.Batch) (*Published, error) {
	state := l.state.Load()
	before := l.published.Load()
	if state.size == 0 {
		return nil, nil // being made right now
	}
	if before != nil {
		if state.size < before.Size {
			return nil, s.fail(fmt.Errorf("sign %s: it has %d leaves, its checkpoint %d", l.origin, state.size, before.Size))
		}
		if state.size == before.Size {
			return nil, nil
		}
		root, err := l.rootAt(state, before.Size)
		if err != nil {
			return nil, s.fail(fmt.Errorf("sign %s: %w", l.origin, err))
		}
		if root != before.Root {
			return nil, s.fail(fmt.Errorf("sign %s: the tree's root at size %d is %s, the checkpoint before has %s", l.origin, before.Size, root, before.Root))
		}
		if before.Size/archiveEvery == state.size/archiveEvery && !before.Cosigned {
			if err := batch.Delete(keySeq(tableCheckpoint, l.id, before.Size), nil); err != nil {
				return nil, err
			}
		}
	}
	c := proof.Checkpoint{Origin: l.origin, Size: state.size, Root: state.root()}
	signer, key := l.signer, s.cfg.Keys.HostPublic()
	if !l.name.IsHost() {
		var err error
		key = s.cfg.Keys.VMPublic() // not replaced while checkpointMu is held
		if signer, err = s.cfg.Keys.VMSigner(l.origin); err != nil {
			return nil, err
		}
	}
	msg, err := c.Sign(signer)
	if err != nil {
		return nil, err
	}
	if err := batch.Set(keySeq(tableCheckpoint, l.id, c.Size), msg, nil); err != nil {
		return nil, err
	}
	return &Published{Checkpoint: c, Note: msg, key: key}, nil
}

// quote enters the newest checkpoints of logs in the host log where they are
// not there yet. A crash before the commit leaves them to the next round; the
// quote and the row that says where it stands are one commit.
func (s *Store) quote(logs []*Log, seal func(*request) error) error {
	for len(logs) > 0 {
		n := min(len(logs), commitEntries)
		if err := s.quoteSome(logs[:n], seal); err != nil {
			return fmt.Errorf("quote checkpoints in the host log: %w", err)
		}
		logs = logs[n:]
	}
	return nil
}

func (s *Store) quoteSome(logs []*Log, seal func(*request) error) error {
	var grown []*Log
	var quotes []quote
	b := Batch{Log: s.host}
	for _, l := range logs {
		p := l.published.Load()
		if l.name.IsHost() || p == nil || p.Size == l.quoted.size {
			continue
		}
		e, err := s.Draft(record.OriginHost, record.ClassVMCheckpoint, &record.VMCheckpoint{Origin: l.origin, Size: p.Size, Note: p.Note})
		if err != nil {
			return err
		}
		b.Entries = append(b.Entries, e)
		grown, quotes = append(grown, l), append(quotes, quote{size: p.Size})
	}
	if len(grown) == 0 {
		return nil
	}
	r := newRequest(b)
	r.extra = func(batch *pebble.Batch, sealed []Sealed) error {
		for i, l := range grown {
			quotes[i].index = sealed[0].First + uint64(i)
			if err := batch.Set(keyLog(tableQuote, l.id), quotes[i].append(nil), nil); err != nil {
				return err
			}
		}
		return nil
	}
	if err := seal(r); err != nil {
		return err
	}
	for i, l := range grown {
		l.quoted = quotes[i]
	}
	return nil
}
