package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// DroppedError is the ErrPruned of a log that is not kept any longer.
type DroppedError struct {
	Origin string
	Host   string // origin of the host log
	Index  uint64 // entry of it that says why
}

// Error says which entry tells more.
func (e *DroppedError) Error() string {
	return fmt.Sprintf("log %s was dropped, its archive has it: see entry %d of %s", e.Origin, e.Index, e.Host)
}

// Is makes every DroppedError an ErrPruned, and no fault of whoever kept the log.
func (e *DroppedError) Is(target error) bool {
	return target == ErrPruned || target == record.ErrReject
}

// dropped says that a log is not kept any longer, but for its name, head, checkpoints,
// newest quote, and the tiles of level 1 and above.
type dropped struct {
	index   uint64        // entry of the host log that says why
	pending bool          // the rows are not gone yet
	hashes  []record.Hash // of the leaves outside of full tiles, then likewise of level 1
}

const droppedVersion = 1

func keyDropped(id LogID) []byte {
	return keyMeta(metaDropped, binary.BigEndian.AppendUint32(nil, uint32(id)))
}

// row encodes an M d row: 1 version, 8 index, 1 pending, then 32 for each hash.
func (d *dropped) row() []byte {
	b := append(binary.BigEndian.AppendUint64([]byte{droppedVersion}, d.index), 0)
	if d.pending {
		b[9] = 1
	}
	for i := range d.hashes {
		b = append(b, d.hashes[i][:]...)
	}
	return b
}

func parseDropped(b []byte) (*dropped, error) {
	if len(b) < 10 || b[0] != droppedVersion || b[9] > 1 || (len(b)-10)%32 != 0 {
		return nil, fmt.Errorf("parse row of a dropped log: %d bytes do not make version %d", len(b), droppedVersion)
	}
	d := &dropped{index: binary.BigEndian.Uint64(b[1:]), pending: b[9] == 1}
	for b = b[10:]; len(b) > 0; b = b[32:] {
		d.hashes = append(d.hashes, record.Hash(b[:32]))
	}
	return d, nil
}

// tree makes the tree of a dropped log from its row and the tiles that stay.
func (d *dropped) tree(db pebble.Reader, id LogID, size uint64) (t tree, err error) {
	leaves, roots := size%tileWidth, size/tileWidth%tileWidth
	if uint64(len(d.hashes)) != leaves+roots {
		return t, corrupt("the row that says that it was dropped has %d hashes, %d entries need %d", len(d.hashes), size, leaves+roots)
	}
	var tail fences // hashes in the place of rows
	if leaves > 0 {
		tail = fences{{first: size - leaves, last: size - 1, hashes: d.hashes[:leaves]}}
	}
	t.size = size
	t.tails, err = loadTails(db, id, size, tail, func(db pebble.Reader, id LogID, level uint8, first, end uint64, hashes []record.Hash) ([]record.Hash, error) {
		if level == 0 { // its tiles are gone
			return append(hashes, d.hashes[leaves:]...), nil
		}
		return hashTiles(db, id, level, first, end, hashes)
	})
	return t, err
}

// Gone returns why a log is not kept any longer, as a *DroppedError; nil for all others.
func (l *Log) Gone() error {
	if d := l.dropped.Load(); d != nil {
		return &DroppedError{Origin: l.origin, Host: l.store.host.origin, Index: d.index}
	}
	return nil
}

// DropOptions say why a log is dropped, and what has it from then on.
type DropOptions struct {
	Reason    string
	Requester string
	// Note is the signed checkpoint of an archive that was verified: it must be the
	// log's last one, to the byte.
	Note   []byte
	SHA256 [32]byte // of the archive
	Bytes  uint64
	// Forget are keys of rows of the caller's own about this log (MetaWrite).
	Forget []string
}

// Drop takes a closed log away, all but its checkpoints and what proves them: entries,
// payloads and the keys that open them. It returns the entry of the host log that says
// so. The archive is the caller's to verify.
//
// Order: that entry and a row which says that it is not done are one commit; from there
// on readers are told so. Its checkpoint is published. Then rows go, the keys of the
// payloads are destroyed, files are compacted, and the row says that it is done. After
// a crash at any step Run does what is left. It needs Run to be running.
func (s *Store) Drop(ctx context.Context, l *Log, o DropOptions) (index uint64, err error) {
	if index, err = s.drop(ctx, l, &o); err != nil {
		return 0, fmt.Errorf("drop %s: %w", l.origin, err)
	}
	return index, nil
}

func (s *Store) drop(ctx context.Context, l *Log, o *DropOptions) (uint64, error) {
	if l.store != s || l.name.IsHost() {
		return 0, fmt.Errorf("it is no VM log of this store: %w", record.ErrReject)
	}
	if o.Reason == "" || o.Requester == "" {
		return 0, fmt.Errorf("a reason and a requester must be given: %w", record.ErrReject)
	}
	// Nothing is erased or pruned meanwhile.
	s.retainMu.Lock()
	defer s.retainMu.Unlock()
	s.eraseMu.Lock()
	defer s.eraseMu.Unlock()
	if s.background.Err() != nil {
		return 0, ErrClosed
	}
	if err := s.droppable(ctx, l, o); err != nil {
		return 0, err
	}
	state := l.state.Load()
	now := &dropped{pending: true}
	for level := range min(2, len(state.tails)) {
		now.hashes = state.tails[level].hashes(now.hashes, 0, int(state.tails[level].width))
	}
	e, err := s.Draft(record.OriginHost, record.ClassDropped, &record.Dropped{
		Origin: l.origin, Size: state.size, Note: o.Note, Reason: o.Reason, Requester: o.Requester, ArchiveSha256: o.SHA256[:], ArchiveBytes: o.Bytes,
	})
	if err != nil {
		return 0, err
	}
	b := Batch{Log: s.host, Entries: []Entry{e}, Check: func(Head) error {
		if l.sealedState().size != state.size { // the committer's, and so is this call
			return fmt.Errorf("entries were sealed in it meanwhile: export it again: %w", record.ErrRetry)
		}
		return nil
	}}
	for _, key := range o.Forget {
		b.Meta = append(b.Meta, MetaWrite{Key: key})
	}
	r := newRequest(b)
	r.extra = func(b *pebble.Batch, sealed []Sealed) error {
		now.index = sealed[0].First
		l.dropping = true // whoever comes behind it is refused, in this commit already
		return b.Set(keyDropped(l.id), now.row(), nil)
	}
	r.durable = func() { l.dropped.Store(now) }
	if err := s.submitAndWait(context.WithoutCancel(ctx))(r); err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	s.cfg.Log.Info("log dropped", slog.String("origin", l.origin), slog.Uint64("entry", now.index), slog.String("requester", o.Requester))
	if err := s.CheckpointNow(ctx, s.host); err != nil {
		return 0, fmt.Errorf("it is sealed, and finished at the next start: %w", err)
	}
	if err := s.finishDrop(s.background, l); err != nil {
		return 0, fmt.Errorf("it is sealed, and finished at the next start: %w", err)
	}
	return now.index, nil
}

// droppable refuses to drop a log that may still be needed here, or of which the
// archive is not whole.
func (s *Store) droppable(ctx context.Context, l *Log, o *DropOptions) error {
	if err := l.Gone(); err != nil {
		return err
	}
	index, closed := l.Closed()
	if !closed {
		return fmt.Errorf("the log is open: only a log that is closed is dropped: %w", record.ErrReject)
	}
	item, err := l.Item(index)
	if err != nil {
		return err
	}
	var end record.Closed
	if err := end.UnmarshalVT(item.Payload); err != nil {
		return corrupt("entry %d of %s closes it and cannot be read: %v", index, l.origin, err)
	}
	if _, ok := s.LogByOrigin(end.NextOrigin); end.NextOrigin != "" && !ok {
		return fmt.Errorf("its domain does not go on in %s yet, which takes over from it: %w", end.NextOrigin, record.ErrRetry)
	}
	if all := l.erasing.Load(); all != nil && len(*all) > 0 {
		return fmt.Errorf("an erasure in it is not finished: %w", record.ErrRetry)
	}
	if err := s.CheckpointNow(ctx, l); err != nil {
		return err
	}
	if p := l.published.Load(); p == nil || p.Size != l.Size() || !bytes.Equal(p.Note, o.Note) {
		return fmt.Errorf("the archive does not have its last checkpoint, of %d entries: export it again: %w", l.Size(), record.ErrReject)
	}
	return s.followed(ctx, l)
}

// followed refuses a log that a follower has not read to its end: what is to be
// decided on it, or done about it, comes first.
func (s *Store) followed(ctx context.Context, l *Log) error {
	var last Position
	for back, more := s.Back(s.End()), true; more && last.Commit == 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var places []Place
		var err error
		if places, more, err = back.Step(func(o *Log) bool { return o == l }, func(*record.Leaf) bool { return true }, 4096, 1); err != nil {
			return err
		}
		if len(places) > 0 {
			last = places[0].Pos
		}
	}
	return scan(s.db, []byte{tableFollower}, func(key, value []byte) error {
		p, _, err := parseFollower(value)
		if err != nil {
			return corrupt("follower %q: %v", key[1:], err)
		}
		if p.Compare(last) < 0 {
			return fmt.Errorf("%q has not read it to its end: try again when it has: %w", key[1:], record.ErrRetry)
		}
		return nil
	})
}

// finishDrop takes away what is left of a dropped log. It may be done again after a
// crash. The caller holds eraseMu, or nobody else has the store.
func (s *Store) finishDrop(ctx context.Context, l *Log) (err error) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	spans := [][2][]byte{{keyTile(l.id, 0, 0), keyTile(l.id, 1, 0)}}
	for _, table := range []byte{tableEntry, tableBundle, tablePayload} {
		spans = append(spans, [2][]byte{keyLog(table, l.id), endOf(keyLog(table, l.id))})
	}
	fenced := keyMeta(metaFence, binary.BigEndian.AppendUint32(nil, uint32(l.id)))
	spans = append(spans, [2][]byte{fenced, endOf(fenced)})
	batch := s.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	for _, span := range spans {
		err = errors.Join(err, batch.DeleteRange(span[0], span[1], nil))
	}
	if err = errors.Join(err, batch.Delete(keyPruned(l.id), nil)); err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return s.fail(err)
	}
	l.packed.Store(l.Size() / tileWidth) // there is nothing left to pack
	s.bundles.forget()
	if s.keys != nil {
		if err := s.keys.destroyLog(l.id); err != nil {
			return err
		}
	}
	if err := s.db.Flush(); err != nil {
		return err
	}
	for _, span := range spans {
		if err := s.db.Compact(ctx, span[0], span[1], false); err != nil {
			return err
		}
	}
	done := *l.dropped.Load()
	done.pending = false
	if err := s.db.Set(keyDropped(l.id), done.row(), pebble.Sync); err != nil {
		return s.fail(err)
	}
	l.dropped.Store(&done)
	return nil
}

// loadDropped reads which logs are dropped.
func (s *Store) loadDropped() error {
	return scan(s.db, keyMeta(metaDropped, nil), func(key, value []byte) error {
		l, ok := (*Log)(nil), len(key) == 6
		if ok {
			l, ok = s.LogByID(LogID(binary.BigEndian.Uint32(key[2:])))
		}
		if !ok || l.name.IsHost() {
			return corrupt("key %x says that a log was dropped which is none, or the host's", key)
		}
		d, err := parseDropped(value)
		if err != nil {
			return corrupt("%s: %v", l.origin, err)
		}
		l.dropped.Store(d)
		return nil
	})
}

// resumeDrops finishes what a crash has cut short.
func (s *Store) resumeDrops(ctx context.Context) error {
	for _, l := range s.Logs() {
		if d := l.dropped.Load(); d == nil || !d.pending {
			continue
		}
		s.eraseMu.Lock()
		err := s.finishDrop(ctx, l)
		s.eraseMu.Unlock()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil // the next start goes on
		case s.Err() != nil:
			return fmt.Errorf("drop %s: %w", l.origin, err)
		default:
			s.cfg.Log.Error("what was dropped is not taken away yet, the next start tries again", slog.String("origin", l.origin), slog.Any("error", err))
		}
	}
	return nil
}
