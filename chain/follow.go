package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// Position is a place in the one total order of all entries of a store: the
// entry number Offset of commit number Commit. The zero Position is the very
// beginning.
type Position struct {
	Commit uint64 // from 1
	Offset uint32
}

// Compare orders positions as slices.SortFunc wants it.
func (p Position) Compare(q Position) int {
	switch {
	case p.Commit != q.Commit && p.Commit < q.Commit, p.Commit == q.Commit && p.Offset < q.Offset:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// Item is one sealed entry.
type Item struct {
	Log       *Log
	Index     uint64
	Leaf      record.Leaf
	LeafBytes []byte
	LeafHash  record.Hash
	Payload   []byte // nil where it was erased; it must not be changed
	// Erased says that payload and salt were taken away, and ErasedBy which
	// entry of this log says so.
	Erased   bool
	ErasedBy uint64
	// Unreadable says why there is no payload, and perhaps no leaf: it is an
	// *UnreadableError. Followers and Look give such items, with LeafHash and
	// what else is known; LeafBytes is nil where the leaf is not.
	Unreadable error
	// Pos is the position right behind this item: what to save once the item
	// is dealt with. It is zero outside of followers.
	Pos Position

	secret [32]byte // the payload's salt, or the seed of it
	seeded bool
}

// Salt returns the salt of the payload's commitment; it is zero where there is
// no payload.
func (i *Item) Salt() record.Salt {
	if i.seeded {
		return (*record.Seed)(&i.secret).Salt(i.Leaf.Header.Sequence)
	}
	return i.secret
}

// opening returns what opens the item's commitment: salt and payload.
func (i *Item) opening() []byte {
	salt := i.Salt()
	return append(salt[:len(salt):len(salt)], i.Payload...)
}

// Decode parses the item's payload. Where it was erased the error is an
// *ErasedError, which is ErrErased; where it cannot be read, Unreadable.
func (i *Item) Decode() (record.Message, error) {
	if i.Erased {
		return nil, &ErasedError{Index: i.ErasedBy}
	}
	if i.Unreadable != nil {
		return nil, i.Unreadable
	}
	return record.Decode(i.Leaf.Header.Class, i.Payload)
}

// Item returns the durable entry at index. One that cannot be read any more is
// an *UnreadableError, which is ErrUnreadable.
func (l *Log) Item(index uint64) (Item, error) {
	if err := l.Gone(); err != nil {
		return Item{}, err
	}
	if size := l.Size(); index >= size {
		return Item{}, fmt.Errorf("read entry %d of %s: the log has %d leaves: %w", index, l.origin, size, record.ErrReject)
	}
	if err := l.fenced(index); err != nil {
		return Item{}, err
	}
	return l.readItem(index)
}

// Read yields the durable entries from index from to before to, or to the end
// of the log where that comes first. An error ends it.
func (l *Log) Read(ctx context.Context, from, to uint64) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for i := from; i < min(to, l.Size()); i++ {
			if ctx.Err() != nil {
				yield(Item{}, context.Cause(ctx))
				return
			}
			item, err := l.readItem(i)
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// Follower reads all entries of all logs in the one order they were sealed in,
// starting where it was when its position was saved last. It is for one
// goroutine.
type Follower struct {
	store *Store
	name  string
	state []byte
	saved Position
	next  Position // of the next item

	spans []span // of commit next.Commit; nil where they are not loaded
}

const maxFollowerName = 128

func checkFollowerName(name string) error {
	if name == "" || len(name) > maxFollowerName {
		return fmt.Errorf("follower name has %d bytes, want 1 to %d: %w", len(name), maxFollowerName, record.ErrReject)
	}
	return nil
}

// followerRow encodes an F row: 1 version, 8 commit, 4 offset, state.
func followerRow(p Position, state []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{followerVersion}, p.Commit)
	return append(binary.BigEndian.AppendUint32(b, p.Offset), state...)
}

func parseFollower(b []byte) (Position, []byte, error) {
	if len(b) < 13 || b[0] != followerVersion {
		return Position{}, nil, fmt.Errorf("parse follower row: %d bytes do not make a row of version %d", len(b), followerVersion)
	}
	return Position{Commit: binary.BigEndian.Uint64(b[1:]), Offset: binary.BigEndian.Uint32(b[9:])}, b[13:], nil
}

// Follow opens the follower with the given name at its saved position; a new
// name starts at the very beginning. A name can be open once.
func (s *Store) Follow(name string) (*Follower, error) {
	if err := checkFollowerName(name); err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	s.followMu.Lock()
	defer s.followMu.Unlock()
	if s.following[name] {
		return nil, fmt.Errorf("follow as %q: somebody does already: %w", name, record.ErrReject)
	}
	f := &Follower{store: s, name: name}
	row, ok, err := get(s.db, keyFollower(name))
	if err != nil {
		return nil, fmt.Errorf("follow as %q: %w", name, err)
	}
	if ok {
		if f.saved, f.state, err = parseFollower(row); err != nil {
			return nil, corrupt("follow as %q: %v", name, err)
		}
		f.next = f.saved
	}
	s.following[name] = true
	return f, nil
}

// Tail returns a follower without a name, from pos on: for live views. Its
// position cannot be saved.
func (s *Store) Tail(pos Position) *Follower { return &Follower{store: s, saved: pos, next: pos} }

// End returns the position behind the newest durable entry.
func (s *Store) End() Position { return Position{Commit: s.durable.Load() + 1} }

// Close lets the name be followed again.
func (f *Follower) Close() {
	f.store.followMu.Lock()
	defer f.store.followMu.Unlock()
	delete(f.store.following, f.name)
}

// Position returns the saved position.
func (f *Follower) Position() Position { return f.saved }

// State returns what was saved with the position, nil for a new follower.
func (f *Follower) State() []byte { return f.state }

// Seek moves the follower without saving.
func (f *Follower) Seek(p Position) { f.next, f.spans = p, nil }

// Next returns the next durable entry and moves behind it; it waits until
// there is one (invariant I1: nobody sees an entry before it is durable).
func (f *Follower) Next(ctx context.Context) (Item, error) {
	for {
		i, ok, err := f.TryNext()
		if err != nil || ok {
			return i, err
		}
		if _, err := f.store.Wait(ctx, max(f.next.Commit, 1)-1); err != nil {
			return Item{}, err
		}
	}
}

// TryNext is Next for a caller that has something better to do than wait: ok
// is false where no entry is durable yet.
func (f *Follower) TryNext() (item Item, ok bool, err error) {
	item, at, err := f.Scan(nil, math.MaxInt)
	return item, at == ScanFound, err
}

// Scanned says how a scan ended.
type Scanned int

// The ends of a scan.
const (
	ScanEnd   Scanned = iota // no entry is durable yet
	ScanFound                // an entry is returned
	ScanMore                 // the commits allowed are passed: scan again
)

// Scan is TryNext for a reader of some logs: it moves to the next entry of a log
// that want admits, nil being all, and reads no entry of the others. It passes
// the ends of at most so many commits, so that who scans a long ledger can look
// up in between.
func (f *Follower) Scan(want func(*Log) bool, commits int) (Item, Scanned, error) {
next:
	for ; ; commits-- {
		if f.next.Commit == 0 {
			f.next = Position{Commit: 1}
		}
		if f.next.Commit > f.store.durable.Load() {
			return Item{}, ScanEnd, nil
		}
		if commits < 0 {
			return Item{}, ScanMore, nil
		}
		if f.spans == nil {
			if err := f.load(); err != nil {
				return Item{}, ScanEnd, err
			}
		}
		end := uint32(0) // of the span, in the commit
		for _, sp := range f.spans {
			begin := end
			if end += sp.count; f.next.Offset >= end {
				continue
			}
			l, ok := f.store.LogByID(sp.log)
			if !ok {
				return Item{}, ScanEnd, corrupt("commit %d names log number %d, which does not exist", f.next.Commit, sp.log)
			}
			if want != nil && !want(l) {
				f.next.Offset = end
				continue
			}
			at := sp.first + uint64(f.next.Offset-begin)
			if kept := l.nextKept(at); kept != at { // what was pruned is passed over: nobody reads it any more
				f.next.Offset += uint32(min(kept-at, uint64(end-f.next.Offset)))
				commits++
				continue next
			}
			item, err := l.Look(at)
			if errors.Is(err, ErrPruned) && l.nextKept(at) != at {
				commits++
				continue next // it went a moment ago
			}
			if err != nil {
				return Item{}, ScanEnd, err
			}
			f.next.Offset++
			item.Pos = f.next
			return item, ScanFound, nil
		}
		f.next, f.spans = Position{Commit: f.next.Commit + 1}, nil
	}
}

// Reached returns the position of the entry that would be next.
func (f *Follower) Reached() Position { return f.next }

func (f *Follower) load() error {
	select {
	case <-f.store.closed:
		return ErrClosed
	default:
	}
	if spans, ok := f.store.recent.spans(f.next.Commit); ok {
		f.spans = spans
		return nil
	}
	row, ok, err := get(f.store.db, keyCommit(f.next.Commit))
	if err != nil {
		return err
	}
	if !ok {
		return corrupt("commit %d is missing", f.next.Commit)
	}
	if f.spans, err = parseCommit(row); err != nil {
		return corrupt("commit %d: %v", f.next.Commit, err)
	}
	return nil
}

// Save makes a position and a state durable by themselves. A follower that
// appends to the ledger saves with its batch instead (Batch.Position) and calls
// Saved.
func (f *Follower) Save(ctx context.Context, p Position, state []byte) error {
	if f.name == "" {
		return fmt.Errorf("save position: the follower has no name: %w", record.ErrReject)
	}
	if err := errors.Join(context.Cause(ctx), f.store.Err()); err != nil {
		return fmt.Errorf("save position of %q: %w", f.name, err)
	}
	if err := f.store.db.Set(keyFollower(f.name), followerRow(p, state), pebble.Sync); err != nil {
		return f.store.fail(fmt.Errorf("save position of %q: %w", f.name, err))
	}
	f.saved, f.state = p, state
	return nil
}

// At returns what to put into Batch.Position to save p and state with a batch.
func (f *Follower) At(p Position, state []byte) *FollowerPosition {
	return &FollowerPosition{Name: f.name, Position: p, State: state}
}

// Saved tells the follower that a batch has saved p and state.
func (f *Follower) Saved(p Position, state []byte) { f.saved, f.state = p, state }
