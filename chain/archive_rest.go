package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// bundleOfRest is Bundle of a bundle with entries that are fenced off: of those there is
// a length of zero, which no leaf has. Their hashes stand in the tile.
func (l *Log) bundleOfRest(ctx context.Context, index uint64, width int) ([]byte, error) {
	data := make([]byte, 0, width*(2+record.LeafSize))
	for i := index * tileWidth; i < index*tileWidth+uint64(width); i++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		item, err := l.Look(i)
		if err == nil && item.LeafBytes == nil && l.fenced(i) == nil {
			err = item.Unreadable
		}
		if err != nil {
			return nil, fmt.Errorf("entry bundle %d of %s: %w", index, l.origin, err)
		}
		data = binary.BigEndian.AppendUint16(data, uint16(len(item.LeafBytes)))
		data = append(data, item.LeafBytes...)
	}
	return data, nil
}

// sealedDamage is an entry of the host log that tells of a fence, with its proof.
type sealedDamage struct {
	index uint64
	proof.Sealed
}

// damages finds what the host log says of the entries of a log that are fenced off, and
// proves it under a checkpoint of the host log. Where there are any it reads the headers
// of the host log to its end.
func (s *Store) damages(ctx context.Context, l *Log, note []byte) (all []sealedDamage, err error) {
	if len(l.fences) == 0 {
		return nil, nil
	}
	head, err := proof.ParseCheckpoint(note)
	if err != nil {
		return nil, err
	}
	for i := range s.host.Size() {
		if i%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		item, ok, err := s.fenceTold(l, i)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if i >= head.Size {
			return nil, fmt.Errorf("entry %d of the host log, which tells of damage in it, is not covered by the checkpoint of %d entries that is to prove it: try again when witnesses have cosigned a newer one: %w", i, head.Size, record.ErrRetry)
		}
		if len(all) == mirror.MaxArchiveDamage {
			break // a verifier names what else lacks as gaps that nobody tells of
		}
		path, err := s.host.ProveInclusion(i, head.Size)
		if err != nil {
			return nil, err
		}
		p := proof.Inclusion{Index: i, Note: note, Path: fromPath(path)}
		all = append(all, sealedDamage{i, proof.Sealed{Leaf: item.LeafBytes, Opening: item.opening(), Proof: p.Format()}})
	}
	return all, nil
}

// fenceTold returns an entry of the host log if it tells of a fence in a log. One that
// cannot be read tells nothing.
func (s *Store) fenceTold(l *Log, index uint64) (item Item, ok bool, err error) {
	leaf, err := s.host.readHeader(index)
	if errors.Is(err, ErrUnreadable) {
		return item, false, nil
	}
	if err != nil || leaf.Header.Class != record.ClassDamage || leaf.Origin != record.OriginHost {
		return item, false, err
	}
	if item, err = s.host.Look(index); err != nil || item.Unreadable != nil {
		return item, false, err
	}
	m, err := item.Decode()
	if err != nil {
		return item, false, err
	}
	d, ok := m.(*record.Damage)
	return item, ok && d.Origin == l.origin && d.Done == "fenced", nil
}
