package chain

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// sealAll is the committer's loop: while one commit is synced the next one
// gathers in the queue and is made, so commits grow with the load and never
// wait. At most two are on their way to the disk.
func (s *Store) sealAll(ctx context.Context) (err error) {
	made, settled := make(chan *commitWork), make(chan struct{})
	var onTheirWay sync.WaitGroup
	go func() {
		defer close(settled)
		for w := range made {
			_ = s.settle(w) // the next one finds it in s.Err
			onTheirWay.Done()
		}
	}()
	defer func() {
		close(made)
		<-settled
		if err == nil {
			err = s.Err()
		}
	}()
	for {
		select {
		case <-s.queue.ready:
		case <-ctx.Done():
			return nil
		}
		// Those whom the last commit has acknowledged, and those who come with the
		// one that has woken this goroutine, get to submit what they have: it is
		// done in microseconds, and a sync for a few of them takes hundreds.
		runtime.Gosched()
		requests := s.queue.take()
		if err := s.Err(); err != nil { // of a commit on its way, or of others
			finishAll(requests, err)
			return err
		}
		if len(requests) == 0 {
			continue
		}
		// Rows of the ledger's own may change what others read: they stand alone.
		alone := slices.ContainsFunc(requests, func(r *request) bool { return r.extra != nil })
		if alone {
			onTheirWay.Wait()
		}
		w, err := s.makeCommit(requests)
		if err != nil {
			return err
		}
		if w == nil {
			continue
		}
		onTheirWay.Add(1)
		made <- w
		if alone {
			onTheirWay.Wait()
		}
	}
}

// drain seals everything that was let in before the queue was shut.
func (s *Store) drain() error {
	for {
		requests := s.queue.take()
		if len(requests) == 0 {
			return nil
		}
		if err := s.sealRequests(requests); err != nil {
			return err
		}
	}
}

// sealNow seals one request while no committer runs.
func (s *Store) sealNow(r *request) error {
	if err := s.validate(r); err != nil {
		return err
	}
	if err := s.sealRequests([]*request{r}); err != nil {
		return err
	}
	return r.err
}

// commitWork is one commit in the making.
type commitWork struct {
	requests []*request // those that were not refused
	batch    *pebble.Batch
	payloads payloadRows
	spans    []span
	logs     []*Log
	states   []*logState  // of logs, once they are sealed
	runs     []*recentRun // of logs
	mono     int64
	wall     int64
	n        uint64
}

// sealRequests makes one commit and waits for it. An error is fatal and has been
// handed to every request.
func (s *Store) sealRequests(requests []*request) error {
	w, err := s.makeCommit(requests)
	if w == nil || err != nil {
		return err
	}
	return s.settle(w)
}

// makeCommit makes one commit, one batch of rows, and sends it on its way to the
// disk. It returns nil where all requests were refused. An error is fatal and
// has been handed to every request.
//
// Commits become durable in the order in which they were made. A crash leaves
// all of them up to one, acknowledged or not, and nothing of those behind it:
// entries nobody was told about may be there, which is allowed.
func (s *Store) makeCommit(requests []*request) (_ *commitWork, err error) {
	if err := s.Err(); err != nil {
		finishAll(requests, err)
		return nil, err
	}
	s.making.Store(s.commit + 1)
	w := &commitWork{batch: s.newBatch(requests), payloads: payloadRows{store: s}, mono: s.clock.mono(), wall: s.clock.wall(), n: s.commit + 1}
	sent := false
	defer func() {
		if !sent {
			err = errors.Join(err, w.batch.Close())
		}
	}()
	w.requests = requests[:0:len(requests)]
	var refused []*request
	for _, r := range requests {
		if r.err = s.check(r); r.err != nil {
			refused = append(refused, r)
			continue
		}
		if err = s.seal(w, r); err != nil {
			break
		}
		w.requests = append(w.requests, r)
	}
	if err == nil {
		err = w.payloads.finish(w.batch)
	}
	if err != nil {
		// Trees have moved on and the batch is half made. Payloads are their
		// owners' again once nobody reads them.
		err = s.fail(fmt.Errorf("seal commit %d: %w", w.n, errors.Join(err, w.payloads.finish(nil))))
		finishAll(append(refused, requests...), err)
		return nil, err
	}
	for _, r := range refused {
		r.finish(r.err)
	}
	if len(w.requests) == 0 {
		s.making.Store(s.commit)
		return nil, nil
	}
	if err := s.send(w); err != nil {
		err = s.fail(fmt.Errorf("commit %d: %w", w.n, err))
		finishAll(w.requests, err)
		return nil, err
	}
	s.commit = w.n
	sent = true
	return w, nil
}

// settle waits until a commit is durable, shows it to readers and acknowledges
// its requests. Until then no request is done and no reader sees the entries.
// An error is fatal and has been handed to every request.
func (s *Store) settle(w *commitWork) error {
	err := errors.Join(w.batch.SyncWait(), w.batch.Close())
	if err == nil {
		err = s.Err() // one before it was not durable, or nobody knows
	}
	if err != nil {
		err = s.fail(fmt.Errorf("commit %d: %w", w.n, err))
		finishAll(w.requests, err)
		return err
	}
	s.publishCommit(w)
	for _, r := range w.requests {
		r.finish(nil)
	}
	return nil
}

// newBatch makes the batch of a commit with room for its rows: else it doubles,
// and copies what it holds, until everything fits.
func (s *Store) newBatch(requests []*request) *pebble.Batch {
	const row = keySeqSize + 8 // key, and lengths
	n := 4 << 10               // heads of some logs and the commit row
	for _, r := range requests {
		n += r.bytes + r.entries*(row+record.LeafSize+row+33+sealedRowExtra+tileBytes)
	}
	return s.db.NewBatchWithSize(n, pebble.WithMaxRetainedSizeBytes(4<<20))
}

// tileBytes is what full tiles come to for each entry, about.
const tileBytes = 33

// finishAll refuses requests that are not done yet.
func finishAll(requests []*request, err error) {
	for _, r := range requests {
		select {
		case <-r.done:
		default:
			r.finish(err)
		}
	}
}

// check runs the conditions of a request against the commit in the making.
func (s *Store) check(r *request) error {
	for i := range r.batches {
		b := &r.batches[i]
		if err := b.checkOpen(); err != nil {
			return err
		}
		if b.Check == nil {
			continue
		}
		if err := b.Check(b.Log.sealedState().head()); err != nil {
			return err
		}
	}
	return nil
}

// seal adds one request to the commit.
func (s *Store) seal(w *commitWork, r *request) error {
	r.sealed = make([]Sealed, len(r.batches))
	for i := range r.batches {
		b := &r.batches[i]
		if r.create {
			if err := w.batch.Set(keyMetaLog(b.Log.id), []byte(b.Log.origin), nil); err != nil {
				return err
			}
		}
		if err := s.sealBatch(w, b, &r.sealed[i]); err != nil {
			return fmt.Errorf("%s: %w", b.Log.origin, err)
		}
	}
	if r.extra != nil {
		return r.extra(w.batch, r.sealed)
	}
	return nil
}

func (s *Store) sealBatch(w *commitWork, b *Batch, sealed *Sealed) error {
	l := b.Log
	if !l.begun {
		l.begun, l.work = true, *l.state.Load().clone()
	}
	if !l.touched {
		l.touched, l.pending = true, l.work.size
		l.run = len(w.logs)
		w.logs, w.runs = append(w.logs, l), append(w.runs, &recentRun{})
	}
	// Clocks are the same for the whole commit, and never step back in a log.
	l.work.mono = max(l.work.mono, w.mono)
	l.work.wall = w.wall
	*sealed = Sealed{First: l.work.size, Count: len(b.Entries), Mono: l.work.mono, Wall: l.work.wall, Commit: w.n}
	// Payloads are written beside the leaves. First those, then these: neighbours
	// in the batch that are neighbours in the store are cheaper to insert.
	p := payloadRun{log: l.id, first: l.work.size, entries: b.Entries}
	for i := range b.Entries {
		kind := kindOf(b.Entries[i].Origin)
		if b.Entries[i].Origin != record.OriginGuest {
			b.Entries[i].Seed = *l.seeds[kind].at(p.first + uint64(i))
		}
		if s.keys != nil && p.keys[kind] == nil {
			var err error
			if p.keys[kind], err = s.keys.use(l.id, kind, hourOf(l.work.wall)); err != nil {
				return err
			}
		}
	}
	w.payloads.add(p)
	for i := range b.Entries {
		if err := s.sealLeaf(w, l, &b.Entries[i]); err != nil {
			return err
		}
	}
	sealed.LastHash = l.work.last
	for _, m := range b.Meta {
		key := keyMeta(metaUser, []byte(m.Key))
		var err error
		if m.Value == nil {
			err = w.batch.Delete(key, nil)
		} else {
			err = w.batch.Set(key, m.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	if p := b.Position; p != nil {
		return w.batch.Set(keyFollower(p.Name), followerRow(p.Position, p.State), nil)
	}
	return nil
}

// sealLeaf writes the leaf of an entry and every tile that it fills.
func (s *Store) sealLeaf(w *commitWork, l *Log, e *Entry) error {
	leaf := record.Leaf{
		Origin: e.Origin, Index: l.work.size, Mono: l.work.mono, Wall: l.work.wall,
		Prev: l.work.last, Header: e.Header, Commitment: e.Commitment,
	}
	if e.Origin != record.OriginGuest {
		leaf.Header = record.Header{
			Class: e.Header.Class, Lane: record.NoLane, Session: s.runID, Sequence: l.sequence, Time: uint64(l.work.mono),
		}
		l.sequence++
		salt := e.Seed.Salt(leaf.Header.Sequence)
		leaf.Commitment = record.Commit(&salt, e.Payload)
	}
	op := w.batch.SetDeferred(keySeqSize, record.LeafSize)
	putKeySeq(op.Key, tableEntry, l.id, leaf.Index)
	leaf.AppendBinary(op.Value[:0])
	hash := record.LeafHash(op.Value)
	w.runs[l.run].add(op.Value, hash, e)
	if err := op.Finish(); err != nil {
		return err
	}
	var err error
	l.work.push(hash, func(t fullTile) { err = errors.Join(err, writeTile(w.batch, l.id, t)) })
	l.work.last = hash
	return err
}

// send adds heads and the commit row to a commit and hands it to the store, which
// syncs it. New keys are durable before what is encrypted under them: a crash
// between the two leaves a key that opens nothing.
func (s *Store) send(w *commitWork) error {
	if err := s.flushKeys(); err != nil {
		return err
	}
	w.spans = w.spans[:0]
	for _, l := range w.logs {
		h := head{size: l.work.size, last: l.work.last, mono: l.work.mono, wall: l.work.wall, edge: l.work.edge()}
		s.row = h.append(s.row[:0])
		if err := w.batch.Set(keyLog(tableHead, l.id), s.row, nil); err != nil {
			return err
		}
		w.spans = append(w.spans, span{log: l.id, first: l.pending, count: uint32(l.work.size - l.pending)})
		w.states = append(w.states, l.work.clone())
		l.touched = false
	}
	s.row = appendCommit(s.row[:0], w.spans)
	if err := w.batch.Set(keyCommit(w.n), s.row, nil); err != nil {
		return err
	}
	return s.db.ApplyNoSyncWait(w.batch, pebble.Sync)
}

// flushKeys makes new keys durable, ahead of what is encrypted under them.
func (s *Store) flushKeys() error {
	if s.keys == nil {
		return nil
	}
	return s.keys.flush()
}

// publishCommit shows a durable commit to readers and followers.
func (s *Store) publishCommit(w *commitWork) {
	for i, l := range w.logs {
		l.state.Store(w.states[i])
	}
	s.recent.add(w.n, w.spans, w.runs)
	s.durable.Store(w.n)
	s.wakeMu.Lock()
	close(s.wake)
	s.wake = make(chan struct{})
	s.wakeMu.Unlock()
}

// Wait returns once a commit newer than afterCommit is durable, with the
// number of the newest one.
func (s *Store) Wait(ctx context.Context, afterCommit uint64) (uint64, error) {
	for {
		s.wakeMu.Lock()
		wake := s.wake
		s.wakeMu.Unlock()
		if n := s.durable.Load(); n > afterCommit {
			return n, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-s.closed:
			return 0, ErrClosed
		}
	}
}
