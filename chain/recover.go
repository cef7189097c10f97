package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// recover brings an opened database to the state it was left in: heads, the
// partial tiles that no row holds, checkpoints, the commit number. It compares
// all of them with each other and the host log with the anchor, and publishes
// what was stored but perhaps not published.
func (s *Store) recover() error {
	if err := s.loadStoreRow(); err != nil {
		return err
	}
	if err := s.loadVMKeys(); err != nil {
		return err
	}
	if err := s.settleKeys(); err != nil {
		return err
	}
	if err := s.loadLogs(); err != nil {
		return err
	}
	if err := s.loadCommit(); err != nil {
		return err
	}
	newest := int64(0)
	for _, l := range s.Logs() {
		newest = max(newest, l.state.Load().mono)
	}
	s.clock = newClock(s.cfg, newest)
	stored := map[*Log]*Published{}
	for _, l := range s.Logs() {
		p, err := s.loadCheckpoint(l)
		if err != nil {
			return err
		}
		if stored[l] = p; p != nil && !l.name.IsHost() {
			l.published.Store(p)
		}
	}
	if err := s.loadQuotes(); err != nil {
		return err
	}
	if err := s.checkAnchor(stored[s.host]); err != nil {
		return err
	}
	if err := s.loadErasures(); err != nil {
		return err
	}
	return s.loadWitnesses()
}

func (s *Store) loadStoreRow() error {
	row, ok, err := get(s.db, keyMeta(metaStore, nil))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("it is a database without a ledger: making it was cut short; delete %s and make a new store: %w", s.cfg.Dir, record.ErrReject)
	}
	if len(row) < 2+len(s.id) || row[0] != storeVersion {
		return fmt.Errorf("it has a format this program does not know (%x), want version %d: %w", row[:min(len(row), 1)], storeVersion, record.ErrReject)
	}
	copy(s.id[:], row[1:])
	if host := string(row[2+len(s.id):]); host != s.cfg.HostID {
		return fmt.Errorf("it is the store of host %q, this host is configured as %q: %w", host, s.cfg.HostID, record.ErrReject)
	}
	return s.loadKeys(row[1+len(s.id)])
}

// loadKeys prepares to read and write payloads as the store was made to.
func (s *Store) loadKeys(flags byte) error {
	switch encrypted := flags == storeEncrypted; {
	case flags > storeEncrypted:
		return corrupt("its flags are %#x, this program knows %#x", flags, storeEncrypted)
	case encrypted && s.cfg.PayloadKeys == "":
		return fmt.Errorf("its payloads are encrypted and no directory of payload keys is configured: %w", record.ErrReject)
	case !encrypted && s.cfg.PayloadKeys != "":
		return fmt.Errorf("its payloads are not encrypted, and a directory of payload keys is configured: whether they are is decided when a store is made: %w", record.ErrReject)
	case !encrypted:
		return nil
	}
	there, err := exists(s.cfg.FS, s.cfg.PayloadKeys)
	if err != nil {
		return fmt.Errorf("find payload keys: %w", err)
	}
	if !there {
		return fmt.Errorf("its directory of payload keys %s is missing; without it no payload can be read, bring it back: %w", s.cfg.PayloadKeys, record.ErrReject)
	}
	if err := checkKeyModes(s.cfg); err != nil {
		return err
	}
	s.keys = newPayloadKeys(s.cfg, s.id)
	return nil
}

func (s *Store) loadLogs() error {
	next := LogID(0)
	prefix := []byte{tableMeta, metaLog}
	err := scan(s.db, prefix, func(key, value []byte) error {
		if len(key) != len(prefix)+4 || LogID(binary.BigEndian.Uint32(key[2:])) != next {
			return corrupt("log row %x does not follow log number %d", key, next)
		}
		l, err := s.newLog(next, string(value))
		if err != nil {
			return corrupt("log number %d: %v", next, err)
		}
		s.register(l)
		next++
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(s.loadPruned(), s.loadClosed(), s.loadDropped()); err != nil {
		return err
	}
	// Logs do not depend on each other, and hashing their partial tiles takes
	// a processor.
	var loading errgroup.Group
	loading.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range s.Logs() {
		loading.Go(func() error {
			if err := s.loadHead(l); err != nil {
				return fmt.Errorf("log %s: %w", l.origin, err)
			}
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		return err
	}
	if s.host == nil || s.host.id != 0 {
		return corrupt("log number 0 is not the host log")
	}
	return nil
}

// loadHead reads a log's head and rebuilds the partial tiles from full tiles
// and leaves. The right edge that follows from them must be the head's.
func (s *Store) loadHead(l *Log) error {
	row, ok, err := get(s.db, keyLog(tableHead, l.id))
	if err != nil {
		return err
	}
	if !ok {
		return corrupt("it has no head")
	}
	h, err := parseHead(row)
	if err != nil {
		return corrupt("%v", err)
	}
	if l.fences, err = loadFences(s.db, l.id); err != nil {
		return err
	}
	d := l.dropped.Load()
	state := &logState{last: h.last, mono: h.mono, wall: h.wall}
	if d != nil {
		state.tree, err = d.tree(s.db, l.id, h.size)
		if root := state.root(); err == nil && root != foldEdge(h.edge) {
			err = corrupt("what is left of it has root %s, its head has %s at size %d", root, foldEdge(h.edge), h.size)
		}
	} else {
		state.tree, err = s.loadTree(l, &h)
	}
	if err != nil {
		return err
	}
	if tail := state.tails; h.size > 0 && (d == nil || tail[0].width > 0) {
		last, err := lastLeafHash(s.db, l.id, h.size, tail)
		if err != nil {
			return err
		}
		if last != h.last {
			return corrupt("its last leaf %d has hash %s, its head says %s", h.size-1, last, h.last)
		}
	}
	l.state.Store(state)
	if d != nil {
		l.packed.Store(h.size / tileWidth)
		return nil
	}
	return s.loadPacked(l)
}

// loadPacked finds how many bundles of a log are packed: all that lie before
// the first row of a leaf. Where the packer has left rows behind, more are: it comes
// past them again.
func (s *Store) loadPacked(l *Log) (err error) {
	it, err := s.db.NewIter(iterBounds(keyLog(tableEntry, l.id)))
	if err != nil {
		return fmt.Errorf("find first leaf: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	packed := l.Size() / tileWidth
	if it.First() && len(it.Key()) == keySeqSize {
		packed = min(packed, binary.BigEndian.Uint64(it.Key()[5:])/tileWidth)
	}
	if packed > 0 && l.goneBundle(packed-1) == nil {
		if _, ok, err := get(s.db, keySeq(tableBundle, l.id, packed-1)); err != nil || !ok && l.fenced((packed-1)*tileWidth) == nil {
			return errors.Join(corrupt("neither the leaves nor the bundle of entries %d to %d are there", (packed-1)*tileWidth, packed*tileWidth-1), err)
		}
	}
	l.packed.Store(packed)
	return it.Error()
}

// leafRowHashes appends the leaf hashes of the rows from first to before end.
// Those of rows that are fenced off are with the fence.
func leafRowHashes(db pebble.Reader, id LogID, first, end uint64, hashes []record.Hash, fenced fences) (_ []record.Hash, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: keySeq(tableEntry, id, first), UpperBound: keySeq(tableEntry, id, end)})
	if err != nil {
		return nil, fmt.Errorf("read leaves from %d: %w", first, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	next := first
	instead := func(to uint64) {
		for ; next < to; next++ {
			h, ok := fenced.hash(next)
			if !ok {
				return
			}
			hashes = append(hashes, h)
		}
	}
	for ok := it.First(); ok; ok = it.Next() {
		leaf, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("read leaf %d: %w", next, err)
		}
		at := binary.BigEndian.Uint64(it.Key()[5:])
		if instead(at); at != next {
			break
		}
		hashes = append(hashes, record.LeafHash(leaf))
		next++
	}
	instead(end)
	if next != end {
		return nil, errors.Join(corrupt("leaf %d is missing", next), it.Error())
	}
	return hashes, nil
}

// tileRoot returns the hash that the full tile at (level, index) stands for.
func tileRoot(db pebble.Reader, id LogID, level uint8, index uint64) (record.Hash, error) {
	hashes, err := readTile(db, id, level, index)
	if err != nil {
		return record.Hash{}, err
	}
	return perfectRoot(hashes), nil
}

// readTile reads a full tile.
func readTile(db pebble.Reader, id LogID, level uint8, index uint64) ([]record.Hash, error) {
	row, ok, err := get(db, keyTile(id, level, index))
	if err != nil {
		return nil, err
	}
	if !ok || len(row) != tileWidth*len(record.Hash{}) {
		return nil, corrupt("tile level %d index %d is missing or has %d bytes", level, index, len(row))
	}
	hashes := make([]record.Hash, tileWidth)
	for i := range hashes {
		copy(hashes[i][:], row[i*len(hashes[i]):])
	}
	return hashes, nil
}

func lastLeafHash(db pebble.Reader, id LogID, size uint64, tails []tile) (record.Hash, error) {
	if tail := &tails[0]; tail.width > 0 {
		return tail.at(0, uint64(tail.width-1)), nil
	}
	hashes, err := readTile(db, id, 0, size/tileWidth-1)
	if err != nil {
		return record.Hash{}, err
	}
	return hashes[tileWidth-1], nil
}

// loadCommit finds the newest commit. Its entries must be in the logs.
func (s *Store) loadCommit() (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tableCommit}, UpperBound: endOf([]byte{tableCommit})})
	if err != nil {
		return fmt.Errorf("find newest commit: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() || len(it.Key()) != 9 {
		return errors.Join(corrupt("it has no commits"), it.Error())
	}
	s.commit = binary.BigEndian.Uint64(it.Key()[1:])
	s.durable.Store(s.commit)
	row, err := it.ValueAndErr()
	if err != nil {
		return fmt.Errorf("read commit %d: %w", s.commit, err)
	}
	spans, err := parseCommit(row)
	if err != nil {
		return corrupt("commit %d: %v", s.commit, err)
	}
	for _, sp := range spans {
		l, ok := s.LogByID(sp.log)
		if !ok || l.Size() != sp.first+uint64(sp.count) {
			return corrupt("commit %d does not end where log number %d ends", s.commit, sp.log)
		}
	}
	return nil
}

// loadCheckpoint reads the newest stored checkpoint of l and compares it with
// the tree.
func (s *Store) loadCheckpoint(l *Log) (p *Published, err error) {
	prefix := keyLog(tableCheckpoint, l.id)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: endOf(prefix)})
	if err != nil {
		return nil, fmt.Errorf("find checkpoint of %s: %w", l.origin, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return nil, it.Error()
	}
	msg, err := it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("read checkpoint of %s: %w", l.origin, err)
	}
	msg = append([]byte(nil), msg...)
	c, key, err := s.openNote(l, msg, s.vmKeys)
	if err != nil {
		return nil, fmt.Errorf("stored checkpoint of %s does not verify, is this the key that the store was made with? %w: %w", l.origin, record.ErrFatal, err)
	}
	if err := l.contains(c); err != nil {
		return nil, corrupt("stored checkpoint of %s: %v", l.origin, err)
	}
	if _, err := proof.Cosignatures(msg, s.cfg.Quorum.Keys()); err != nil {
		return nil, corrupt("stored checkpoint of %s: %v", l.origin, err)
	}
	// Witnesses that are not configured any more have had their say as well.
	return &Published{Checkpoint: c, Note: msg, Cosigned: bytes.Count(msg, []byte("\n— ")) > 1, key: key}, nil
}

// contains checks that a checkpoint is of this log as it is now.
func (l *Log) contains(c proof.Checkpoint) error {
	state := l.state.Load()
	if c.Size > state.size {
		return fmt.Errorf("it has size %d, the log has %d leaves", c.Size, state.size)
	}
	root, err := l.rootAt(state, c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("it has root %s at size %d, the log has %s", c.Root, c.Size, root)
	}
	return nil
}

func (s *Store) loadQuotes() error {
	for _, l := range s.Logs() {
		row, ok, err := get(s.db, keyLog(tableQuote, l.id))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if l.quoted, err = parseQuote(row); err != nil {
			return corrupt("%s: %v", l.origin, err)
		}
		if l.quoted.size > l.Size() || l.quoted.index >= s.host.Size() {
			return corrupt("%s: the host log quotes it at size %d in entry %d, but the logs end before", l.origin, l.quoted.size, l.quoted.index)
		}
	}
	return nil
}

// checkAnchor refuses a store that is behind its anchor or not the anchor's
// own (invariant I6), and publishes the host checkpoint.
func (s *Store) checkAnchor(stored *Published) error {
	text, err := readAnchor(s.cfg.FS, s.cfg.Anchor)
	if err != nil {
		return err
	}
	if text == nil {
		return fmt.Errorf("anchor %s is missing: without it nobody can tell whether this is the newest copy of the store; "+
			"bring the file back, or make a new store: %w", s.cfg.Anchor, record.ErrFatal)
	}
	id, note, err := parseAnchor(text)
	if err != nil {
		return fmt.Errorf("read anchor %s: %w: %w", s.cfg.Anchor, record.ErrFatal, err)
	}
	c, err := proof.OpenCheckpoint(note, s.host.verifier)
	if err != nil {
		return fmt.Errorf("read anchor %s: %w: %w", s.cfg.Anchor, record.ErrFatal, err)
	}
	e := &AnchorError{File: s.cfg.Anchor, Origin: s.host.origin, AnchorSize: c.Size, AnchorRoot: c.Root}
	e.StoreSize, e.StoreRoot = s.host.Root()
	switch {
	case id != s.id:
		e.Reason = "the anchor is that of another store of this host"
		return e
	case stored == nil || stored.Size < c.Size || e.StoreSize < c.Size:
		e.Reason = "the store is older than its anchor: it was rolled back"
		return e
	}
	if e.StoreRoot, err = s.host.rootAt(s.host.state.Load(), c.Size); err != nil {
		return err
	}
	if e.StoreRoot != c.Root {
		e.Reason = "the store's history differs from what was published"
		return e
	}
	s.anchored = text
	if stored.Size == c.Size {
		s.host.published.Store(stored)
		return nil
	}
	// Stored and not anchored: a crash came between. What fsck reads it
	// leaves alone.
	if s.readOnly {
		return nil
	}
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	if err := s.anchor(stored); err != nil {
		return err
	}
	s.host.published.Store(stored)
	return nil
}
