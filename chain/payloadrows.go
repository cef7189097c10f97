package chain

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// besideEntries is how many entries make it worth while to encrypt on another
// processor.
const besideEntries = 64

// payloadRun is the entries of one batch, whose payloads have their places.
type payloadRun struct {
	log     LogID
	first   uint64
	entries []Entry
	keys    [keyErasable + 1]*payloadKey // nil: not encrypted
}

// payloadRows makes the P rows of a commit while its leaves are hashed: each
// leaf needs the one before it, a payload needs nothing but its place. It is one
// goroutine's; another one works for it between add and finish.
type payloadRows struct {
	store   *Store
	waiting []payloadRun // not handed over yet
	entries int          // of waiting
	batch   *pebble.Batch
	runs    chan []payloadRun
	done    chan error
}

// add takes a run in. Its entries must not change until finish returns.
func (p *payloadRows) add(r payloadRun) {
	p.waiting = append(p.waiting, r)
	if p.entries += len(r.entries); p.entries < besideEntries {
		return
	}
	if p.runs == nil {
		p.batch = p.store.db.NewBatch()
		// A commit of the queue has no more than these. One that has waits.
		p.runs, p.done = make(chan []payloadRun, 2*commitEntries/besideEntries), make(chan error, 1)
		go func() {
			var err error
			for runs := range p.runs {
				if err == nil {
					err = p.store.writePayloads(p.batch, runs)
				}
			}
			p.done <- err
		}()
	}
	p.runs <- p.waiting
	p.waiting, p.entries = nil, 0
}

// finish adds all rows to a commit; nil throws them away. It may be called more
// than once.
func (p *payloadRows) finish(to *pebble.Batch) (err error) {
	if p.runs != nil {
		close(p.runs)
		err = <-p.done
		if err == nil && to != nil {
			err = to.Apply(p.batch, nil)
		}
		err = errors.Join(err, p.batch.Close())
		p.runs = nil
	}
	if err == nil && to != nil {
		err = p.store.writePayloads(to, p.waiting)
	}
	p.waiting = nil
	return err
}

func (s *Store) writePayloads(to *pebble.Batch, runs []payloadRun) error {
	for i := range runs {
		r := &runs[i]
		for j := range r.entries {
			e := &r.entries[j]
			if err := s.writePayload(to, r.log, r.first+uint64(j), e, r.keys[kindOf(e.Origin)]); err != nil {
				return err
			}
		}
	}
	return nil
}

// writePayload writes the P row of an entry, encrypted where there is a key.
func (s *Store) writePayload(batch *pebble.Batch, id LogID, index uint64, e *Entry, key *payloadKey) error {
	n := 1 + len(e.Salt) + len(e.Payload)
	if key == nil {
		op := batch.SetDeferred(keySeqSize, n)
		putKeySeq(op.Key, tablePayload, id, index)
		putPayload(op.Value, e)
		return op.Finish()
	}
	op := batch.SetDeferred(keySeqSize, n+sealedRowExtra)
	putKeySeq(op.Key, tablePayload, id, index)
	putPayload(op.Value[sealedRowHead:sealedRowHead+n], e)
	s.keys.sealRow(key, op.Value, index)
	return op.Finish()
}

// putPayload makes the P row of an entry in b.
func putPayload(b []byte, e *Entry) {
	b[0] = payloadSalt
	copy(b[1:], e.Salt[:])
	if e.Salt == (record.Salt{}) {
		b[0] = payloadSeed
		copy(b[1:], e.Seed[:])
	}
	copy(b[1+len(e.Salt):], e.Payload)
}
