package chain

import (
	"encoding/binary"
	"fmt"

	"github.com/provostd/provost/chain/record"
)

// Tables: the first byte of every key. Part of the format, see doc.go.
const (
	tableMeta       = 'M'
	tableEntry      = 'E'
	tablePayload    = 'P'
	tableBundle     = 'B'
	tableTile       = 'T'
	tableRoot       = 'R'
	tableHead       = 'H'
	tableCheckpoint = 'C'
	tableCommit     = 'O'
	tableFollower   = 'F'
	tableQuote      = 'Q'
)

// Sub-tables of tableMeta: the second byte.
const (
	metaStore       = 's'
	metaLog         = 'l'
	metaCertificate = 'k'
	metaUser        = 'u'
	metaErasure     = 'e'
	metaPruned      = 'p'
	metaClosed      = 'c'
	metaDropped     = 'd'
	metaWitness     = 'w'
	metaQuorum      = 'q'
	metaRestore     = 'r'
	metaFence       = 'f'
)

// Versions of row values. Part of the format.
const (
	storeVersion    = 2 // 1 had no bundles and no seeds; it was never released
	payloadSalt     = 1 // salt, payload
	payloadSeed     = 2 // seed that the salt derives from, payload
	payloadSealed   = 3 // one of the two, encrypted under a shared key: of stores of before
	payloadErased   = 4 // index of the entry that erased it
	payloadKeyed    = 5 // 1 or 2, encrypted under the key of its author and generation
	headVersion     = 1
	commitVersion   = 1
	followerVersion = 1
)

// LogID is the dense number of a log in one store. It is never reused and
// never leaves the host: outside, logs are named by their origins.
type LogID uint32

func keyLog(table byte, id LogID) []byte {
	return binary.BigEndian.AppendUint32([]byte{table}, uint32(id))
}

func keySeq(table byte, id LogID, n uint64) []byte {
	return binary.BigEndian.AppendUint64(keyLog(table, id), n)
}

// keySeqSize is the length of what keySeq returns.
const keySeqSize = 13

// putKeySeq is keySeq into memory that is there.
func putKeySeq(b []byte, table byte, id LogID, n uint64) {
	b[0] = table
	binary.BigEndian.PutUint32(b[1:], uint32(id))
	binary.BigEndian.PutUint64(b[5:], n)
}

func keyTile(id LogID, level uint8, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(keyLog(tableTile, id), level), index)
}

func keyCommit(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableCommit}, n)
}

func keyMeta(sub byte, name []byte) []byte {
	return append([]byte{tableMeta, sub}, name...)
}

func keyMetaLog(id LogID) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableMeta, metaLog}, uint32(id))
}

func keyFollower(name string) []byte { return append([]byte{tableFollower}, name...) }

// endOf returns the smallest key that is greater than every key with prefix.
func endOf(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// corrupt reports a row that this program cannot have written.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: the store is damaged: %w", fmt.Sprintf(format, args...), record.ErrFatal)
}

// head is the newest state of a log as the H row holds it:
//
//	offset size field
//	     0    1 version = 1
//	     1    8 size of the log, leaves
//	     9   32 leaf hash of the last leaf
//	    41    8 host monotone time of the last leaf
//	    49    8 host wall time of the last leaf
//	    57    1 number of right-edge hashes
//	    58 32n right-edge hashes, the largest subtree first
type head struct {
	size uint64
	last record.Hash
	mono int64
	wall int64
	edge []record.Hash
}

const headFixed = 58

func (h *head) append(b []byte) []byte {
	b = append(b, headVersion)
	b = binary.BigEndian.AppendUint64(b, h.size)
	b = append(b, h.last[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.mono))
	b = binary.BigEndian.AppendUint64(b, uint64(h.wall))
	b = append(b, byte(len(h.edge)))
	for i := range h.edge {
		b = append(b, h.edge[i][:]...)
	}
	return b
}

func parseHead(b []byte) (head, error) {
	if len(b) < headFixed || b[0] != headVersion || len(b) != headFixed+32*int(b[57]) {
		return head{}, fmt.Errorf("parse head: %d bytes do not make a head of version %d", len(b), headVersion)
	}
	h := head{
		size: binary.BigEndian.Uint64(b[1:]),
		last: record.Hash(b[9:41]),
		mono: int64(binary.BigEndian.Uint64(b[41:])),
		wall: int64(binary.BigEndian.Uint64(b[49:])),
	}
	for e := b[headFixed:]; len(e) > 0; e = e[32:] {
		h.edge = append(h.edge, record.Hash(e[:32]))
	}
	return h, nil
}

// parsePayload splits a P row: 1 form, 32 salt or seed, payload.
func parsePayload(b []byte) (opening, error) {
	if len(b) == 9 && b[0] == payloadErased {
		return opening{kind: kindErased, erased: binary.BigEndian.Uint64(b[1:])}, nil
	}
	if len(b) < 33 {
		return opening{}, fmt.Errorf("parse payload row: %d bytes, want at least 33", len(b))
	}
	o := opening{secret: [32]byte(b[1:33]), payload: b[33:]}
	switch b[0] {
	case payloadSalt:
		o.kind = kindSalt
	case payloadSeed:
		o.kind = kindSeed
	default:
		return opening{}, fmt.Errorf("parse payload row: form %d, this program reads %d and %d", b[0], payloadSalt, payloadSeed)
	}
	return o, nil
}

// span is what one commit added to one log.
type span struct {
	log   LogID
	first uint64
	count uint32
}

const spanSize = 16

// appendCommit encodes an O row: 1 version, then for each span 4 log, 8 first
// index, 4 count.
func appendCommit(b []byte, spans []span) []byte {
	b = append(b, commitVersion)
	for _, s := range spans {
		b = binary.BigEndian.AppendUint32(b, uint32(s.log))
		b = binary.BigEndian.AppendUint64(b, s.first)
		b = binary.BigEndian.AppendUint32(b, s.count)
	}
	return b
}

func parseCommit(b []byte) ([]span, error) {
	if len(b) < 1+spanSize || b[0] != commitVersion || (len(b)-1)%spanSize != 0 {
		return nil, fmt.Errorf("parse commit row: %d bytes do not make a commit of version %d", len(b), commitVersion)
	}
	spans := make([]span, 0, len(b)/spanSize)
	for b = b[1:]; len(b) > 0; b = b[spanSize:] {
		spans = append(spans, span{
			log:   LogID(binary.BigEndian.Uint32(b)),
			first: binary.BigEndian.Uint64(b[4:]),
			count: binary.BigEndian.Uint32(b[12:]),
		})
	}
	return spans, nil
}

// quote says where the host log quotes a VM log's checkpoint: the Q row holds
// 8 size of the VM log, 8 index of the entry in the host log.
type quote struct {
	size  uint64
	index uint64
}

func (q quote) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, q.size), q.index)
}

func parseQuote(b []byte) (quote, error) {
	if len(b) != 16 {
		return quote{}, fmt.Errorf("parse quote row: %d bytes, want 16", len(b))
	}
	return quote{size: binary.BigEndian.Uint64(b), index: binary.BigEndian.Uint64(b[8:])}, nil
}
