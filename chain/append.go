package chain

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// Limits of one batch. A frame of a guest agent is far below them.
const (
	MaxBatchEntries = 4096
	MaxBatchBytes   = 4 << 20 // of payloads
	// MaxBatchMetaBytes bounds meta values and the follower's state together.
	// They grow with what a host has, not with what one guest said.
	MaxBatchMetaBytes = 64 << 20
)

// Entry is a record to be sealed.
type Entry struct {
	Origin record.Origin
	// Header of a guest's entry is copied verbatim. In the entries of all
	// other origins only Class is the caller's: the ledger fills in session
	// (this run), sequence (contiguous in this log and run), lane (none) and
	// time (monotone) as it seals them.
	Header  record.Header
	Payload []byte // the ledger keeps it: it must not be changed any more
	// A guest's entry comes with its commitment, already verified, and with
	// either its salt or, which is stored in less, the seed that its salt is
	// derived from with its sequence. For all others the three are zero: the
	// ledger draws a seed for each bundle.
	Salt       record.Salt
	Seed       record.Seed
	Commitment record.Hash
}

// MetaWrite changes a row of the caller's own, together with the entries of
// its batch.
type MetaWrite struct {
	Key   string // not empty
	Value []byte // nil deletes the row
}

// FollowerPosition saves a follower's position together with the entries of a
// batch, so that what it made of the ledger is sealed exactly once.
type FollowerPosition struct {
	Name     string
	Position Position // the next item to read
	State    []byte   // what the follower wants back when it is opened again
}

// Batch is sealed whole or not at all.
type Batch struct {
	Log     *Log
	Entries []Entry // at least one
	Meta    []MetaWrite
	// Position is optional.
	Position *FollowerPosition
	// Check is optional. It runs in the committer right before the batch is
	// sealed and sees where the log ends then. An error rejects the batch and
	// comes back as it is. It must be quick and must not call the store.
	Check func(Head) error
}

// Sealed says where a batch was sealed.
type Sealed struct {
	First    uint64 // index of the first entry
	Count    int
	LastHash record.Hash // leaf hash of the last entry
	Mono     int64       // nanoseconds
	Wall     int64       // Unix nanoseconds
	Commit   uint64
}

// Pending is a batch on its way.
type Pending request

// Wait returns once the batch is durable (invariant I7) or has been refused.
// When ctx ends first the batch's fate is open: it may still be sealed.
func (p *Pending) Wait(ctx context.Context) (Sealed, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return Sealed{}, fmt.Errorf("wait for a batch to be sealed: %w: %w", record.ErrRetry, context.Cause(ctx))
	}
	if p.err != nil {
		return Sealed{}, p.err
	}
	return p.sealed[0], nil
}

// Done is closed when Wait would not block.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Draft returns an entry that the host makes itself. The ledger completes its
// header when it seals it.
func (s *Store) Draft(origin record.Origin, class record.Class, m record.Message) (Entry, error) {
	b, err := record.Encode(m)
	if err != nil {
		return Entry{}, fmt.Errorf("draft %s: %w", class, err)
	}
	return Entry{Origin: origin, Header: record.Header{Class: class}, Payload: b}, nil
}

// Submit queues a batch and returns as soon as there is room for it: a log
// that has too much on its way waits here, without delaying other logs
// (invariant I8). Batches of one log which hold entries of a guest keep their
// order, and so do batches that write the same meta key. Other batches that
// hold no entry of a guest go first.
func (s *Store) Submit(ctx context.Context, b Batch) (*Pending, error) {
	r, err := s.submit(ctx, b)
	if err != nil {
		return nil, err
	}
	return (*Pending)(r), nil
}

// Append seals a batch and returns when it is durable.
func (s *Store) Append(ctx context.Context, b Batch) (Sealed, error) {
	p, err := s.Submit(ctx, b)
	if err != nil {
		return Sealed{}, err
	}
	return p.Wait(ctx)
}

// AppendAll seals batches of several logs in one commit: all or none. Every
// Check runs before any batch is sealed.
func (s *Store) AppendAll(ctx context.Context, batches []Batch) ([]Sealed, error) {
	r, err := s.submit(ctx, batches...)
	if err != nil {
		return nil, err
	}
	if _, err := (*Pending)(r).Wait(ctx); err != nil {
		return nil, err
	}
	return r.sealed, nil
}

func (s *Store) submit(ctx context.Context, batches ...Batch) (*request, error) {
	r := newRequest(batches...)
	if err := s.validate(r); err != nil {
		return nil, err
	}
	if err := s.queue.put(ctx, r); err != nil {
		return nil, fmt.Errorf("submit batch: %w", err)
	}
	return r, nil
}

// request is one unit of the committer's work.
type request struct {
	batches []Batch
	entries int
	bytes   int  // payloads and meta
	meta    int  // bytes of meta values and of the follower's state
	guest   bool // holds an entry of a guest

	create bool // the log is new
	// extra adds rows of the ledger's own; it runs in the committer when all
	// entries have their places.
	extra func(*pebble.Batch, []Sealed) error
	// durable shows readers what extra has written; it runs in the committer when that
	// is on disk, before anything of the next commit. It never runs for what was refused.
	durable func()

	// Written by the committer before done is closed.
	sealed []Sealed
	err    error
	done   chan struct{}
}

func newRequest(batches ...Batch) *request {
	return &request{batches: slices.Clone(batches), done: make(chan struct{})}
}

// finish says what became of r. A caller may keep its Pending for as long as it
// likes; what r carried is let go.
func (r *request) finish(err error) {
	r.err = err
	if err == nil && r.durable != nil {
		r.durable()
	}
	r.batches, r.extra, r.durable = nil, nil, nil
	close(r.done)
}

// validate refuses what can never be sealed, while there is somebody to tell.
func (s *Store) validate(r *request) error {
	if len(r.batches) == 0 {
		return fmt.Errorf("append: no batch: %w", record.ErrReject)
	}
	for i := range r.batches {
		b := &r.batches[i]
		if b.Log == nil || b.Log.store != s {
			return fmt.Errorf("append: batch %d is for no log of this store: %w", i, record.ErrReject)
		}
		if len(b.Entries) == 0 {
			return fmt.Errorf("append to %s: no entries: %w", b.Log.origin, record.ErrReject)
		}
		r.entries += len(b.Entries)
		b.Entries = slices.Clone(b.Entries) // seeds are written into it
		for j := range b.Entries {
			if err := validateEntry(&b.Entries[j]); err != nil {
				return fmt.Errorf("append to %s: entry %d: %w", b.Log.origin, j, err)
			}
			r.bytes += len(b.Entries[j].Payload)
			r.guest = r.guest || b.Entries[j].Origin == record.OriginGuest
		}
		for _, m := range b.Meta {
			if m.Key == "" {
				return fmt.Errorf("append to %s: a meta key is empty: %w", b.Log.origin, record.ErrReject)
			}
			r.meta += len(m.Value)
		}
		if p := b.Position; p != nil {
			if err := checkFollowerName(p.Name); err != nil {
				return fmt.Errorf("append to %s: %w", b.Log.origin, err)
			}
			r.meta += len(p.State)
		}
	}
	if r.entries > MaxBatchEntries || r.bytes > MaxBatchBytes || r.meta > MaxBatchMetaBytes {
		return fmt.Errorf("append to %s: %d entries of %d bytes with %d bytes of meta rows, limits are %d, %d and %d: %w",
			r.batches[0].Log.origin, r.entries, r.bytes, r.meta, MaxBatchEntries, MaxBatchBytes, MaxBatchMetaBytes, record.ErrReject)
	}
	r.bytes += r.meta // queue and commit bound what is held, whatever it is
	return nil
}

// validateEntry checks what an entry comes with.
func validateEntry(e *Entry) error {
	if !e.Origin.Valid() {
		return fmt.Errorf("%s is no origin: %w", e.Origin, record.ErrReject)
	}
	if e.Origin == record.OriginGuest {
		if !e.Header.Class.FromGuest() {
			return fmt.Errorf("a guest cannot author %s: %w", e.Header.Class, record.ErrReject)
		}
		if (e.Salt == record.Salt{}) == (e.Seed == record.Seed{}) || e.Commitment.IsZero() {
			return fmt.Errorf("a guest's %s comes without commitment, or without one of salt and seed: %w", e.Header.Class, record.ErrReject)
		}
		return nil
	}
	if e.Salt != (record.Salt{}) || e.Seed != (record.Seed{}) || !e.Commitment.IsZero() {
		return fmt.Errorf("%s of origin %s comes with a salt, seed or commitment, the ledger makes its own: %w", e.Header.Class, e.Origin, record.ErrReject)
	}
	return nil
}

// bundleSeed is the seed of the ledger's own entries of one kind in one bundle.
// It never serves two bundles: whoever erases one of them rewrites no other.
type bundleSeed struct {
	bundle uint64
	seed   record.Seed
}

// at returns the seed for the entry with the given index, drawing it where
// there is none.
func (b *bundleSeed) at(index uint64) *record.Seed {
	if n := index / tileWidth; b.bundle != n || b.seed == (record.Seed{}) {
		b.bundle = n
		_, _ = rand.Read(b.seed[:]) // never fails: crypto/rand ends the process instead
	}
	return &b.seed
}
