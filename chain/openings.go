package chain

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// Openings returns the first width entries of the opening bundle at index, as
// package chain/mirror has it: salts and payloads of the entries that open
// names, as far as they were not erased. It is served as far as the published
// checkpoint goes. Where one of them, or a leaf, cannot be read the error is an
// *UnreadableError; a payload that is not asked for may lack.
func (l *Log) Openings(ctx context.Context, index uint64, width int, open func(*record.Leaf) bool) ([]byte, error) {
	return l.openings(ctx, index, width, open, false)
}

// openings is Openings, which leaves out what is fenced where rest says so.
func (l *Log) openings(ctx context.Context, index uint64, width int, open func(*record.Leaf) bool, rest bool) ([]byte, error) {
	if err := l.Gone(); err != nil {
		return nil, err
	}
	if err := l.covered(0, index, width); err != nil {
		return nil, fmt.Errorf("opening bundle %d width %d of %s: %w", index, width, l.origin, err)
	}
	first := index * tileWidth
	data := make([]byte, 0, 4*width)
	for i := first; i < first+uint64(width); i++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		item, err := l.Look(i)
		if err == nil && item.Unreadable != nil && !(rest && l.fenced(i) != nil) && (item.LeafBytes == nil || open(&item.Leaf)) {
			err = item.Unreadable
		}
		if err != nil {
			return nil, fmt.Errorf("opening bundle %d of %s: %w", index, l.origin, err)
		}
		if item.Unreadable != nil || item.Erased || !open(&item.Leaf) {
			data = binary.BigEndian.AppendUint32(data, 0)
			continue
		}
		data = binary.BigEndian.AppendUint32(data, uint32(len(item.secret)+len(item.Payload)))
		data = append(data, item.opening()...)
	}
	return data, nil
}

// OpensItself reports whether anybody who may see a leaf may see its payload:
// the host wrote it, and it holds nothing but keys, signatures, signed checkpoints, epochs and ranges
// (those of damage and of dropped logs with what is said of them), which is what a verifier needs.
func OpensItself(l *record.Leaf) bool {
	if l.Origin != record.OriginHost {
		return false
	}
	switch l.Header.Class {
	case record.ClassKeyCertificate, record.ClassVMCheckpoint, record.ClassAgentFrame, record.ClassAgentEnrolled, record.ClassVMEpoch, record.ClassVMHandover, record.ClassAgentArrived, record.ClassPruned, record.ClassDropped, record.ClassDamage:
		return true
	}
	return false
}
