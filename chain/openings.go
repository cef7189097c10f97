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
// checkpoint goes.
func (l *Log) Openings(ctx context.Context, index uint64, width int, open func(*record.Leaf) bool) ([]byte, error) {
	if err := l.covered(0, index, width); err != nil {
		return nil, fmt.Errorf("opening bundle %d width %d of %s: %w", index, width, l.origin, err)
	}
	first := index * tileWidth
	data := make([]byte, 0, 4*width)
	for item, err := range l.Read(ctx, first, first+uint64(width)) {
		if err != nil {
			return nil, fmt.Errorf("opening bundle %d of %s: %w", index, l.origin, err)
		}
		if item.Erased || !open(&item.Leaf) {
			data = binary.BigEndian.AppendUint32(data, 0)
			continue
		}
		data = binary.BigEndian.AppendUint32(data, uint32(len(item.Salt)+len(item.Payload)))
		data = append(data, item.Salt[:]...)
		data = append(data, item.Payload...)
	}
	return data, nil
}

// OpensItself reports whether anybody who may see a leaf may see its payload:
// the host wrote it, and it holds nothing but keys, signatures, signed checkpoints, epochs and ranges,
// which is what a verifier needs.
func OpensItself(l *record.Leaf) bool {
	if l.Origin != record.OriginHost {
		return false
	}
	switch l.Header.Class {
	case record.ClassKeyCertificate, record.ClassVMCheckpoint, record.ClassAgentFrame, record.ClassAgentEnrolled, record.ClassVMEpoch, record.ClassPruned:
		return true
	}
	return false
}
