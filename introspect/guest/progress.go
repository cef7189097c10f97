package guest

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// progress is how far the agent of one domain has been sealed. It is written
// in the same batch as the frame it counts, so it can neither run ahead of the
// log nor fall behind it.
type progress struct {
	Key       []byte              `json:"key,omitempty"`
	Session   uint64              `json:"session,omitempty"`
	Epoch     [16]byte            `json:"epoch"`
	BootID    [16]byte            `json:"boot_id"`
	Frame     uint64              `json:"frame,omitempty"`
	FrameHash record.Hash         `json:"frame_hash"`
	Sequence  uint64              `json:"sequence,omitempty"` // next expected
	Lanes     map[uint32]laneBook `json:"lanes,omitempty"`
	// SignedEpoch is the epoch that the newest frame named.
	SignedEpoch [16]byte `json:"signed_epoch"`
	// Branched says that the session goes on from restored memory, so that its
	// counts begin anew with its next frame.
	Branched bool `json:"branched,omitempty"`
	// Rebased says that it has gone on so: of a lane that is new to these books it is
	// not known what was counted before.
	Rebased bool `json:"rebased,omitempty"`
	// Stopped says that the session has answered a stop of the host. Another
	// session, or another epoch, owes signs of life again.
	Stopped *stopMark `json:"stopped,omitempty"`
	// Arrived is the acknowledgement of another log that the session came with.
	ArrivedIndex uint64      `json:"arrived_index,omitempty"`
	ArrivedHash  record.Hash `json:"arrived_hash,omitzero"`
}

// stopMark is an authorised stop that the agent has begun. It is never changed.
type stopMark struct {
	Epoch   [16]byte `json:"epoch"`
	Command [16]byte `json:"command"`
	At      int64    `json:"at"` // host wall time of the answer, nanoseconds since 1970
}

// maxSessionLanes bounds the lanes a session may name: two rings on 512 CPUs.
const maxSessionLanes = 1024

// laneBook balances one lane over a session.
type laneBook struct {
	Base    uint64 `json:"base,omitempty"` // counts begin here
	Next    uint64 `json:"next"`           // accounted for up to here
	Arrived uint64 `json:"arrived"`        // records sealed
	Dropped uint64 `json:"dropped"`        // owned up to by the agent
	Missing uint64 `json:"missing"`        // found missing and sealed as such
}

func parseProgress(b []byte) (progress, error) {
	var p progress
	if len(b) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return progress{}, fmt.Errorf("parse progress of agent: %w: %w", err, record.ErrFatal)
	}
	return p, nil
}

func (p *progress) encode() ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode progress of agent: %w", err)
	}
	return b, nil
}

// clone copies what a frame may change, so that a batch that fails leaves the
// progress it was made from as it was.
func (p *progress) clone() progress {
	c := *p
	c.Lanes = make(map[uint32]laneBook, len(p.Lanes))
	for n, b := range p.Lanes {
		c.Lanes[n] = b
	}
	return c
}

// begin starts the books of another session.
func (p *progress) begin(id *wire.Ident) {
	*p = progress{Key: slices.Clone(id.Key[:]), Session: id.Session, Epoch: id.Epoch, BootID: id.BootID, Lanes: map[uint32]laneBook{}}
}

// branch goes on with a session whose agent's memory was restored: an earlier
// state of the same run, in another epoch.
func (p *progress) branch(id *wire.Ident) {
	p.Frame, p.FrameHash, p.Epoch = id.Frame, id.FrameHash, id.Epoch
	p.Lanes, p.Branched, p.Rebased = map[uint32]laneBook{}, true, true
}

// behind reports whether an agent of a known session has made fewer frames than
// are sealed, or another one of the newest number.
func (p *progress) behind(id *wire.Ident) bool {
	return id.Session == p.Session && (id.Frame < p.Frame || id.Frame == p.Frame && id.FrameHash != p.FrameHash)
}

// lanesWith counts the lanes the session has named once it is told of s.
func (p *progress) lanesWith(s *wire.Statement) int {
	n := len(p.Lanes)
	for _, l := range s.Lanes {
		if _, ok := p.Lanes[l.Number]; !ok {
			n++
		}
	}
	return n
}

// carriedOver reports whether a frame was made in the parent epoch and follows
// the newest sealed one of it: a fact that was on its way when memory was saved.
// From the first frame of the new epoch on there are none.
func (p *progress) carriedOver(s *wire.Statement, d *Domain) bool {
	return s.Epoch == d.ParentEpoch && d.ParentEpoch != [16]byte{} && s.Frame == p.Frame+1 &&
		(p.SignedEpoch == s.Epoch || p.Frame == 0)
}

// place says where a frame stands relative to what is sealed.
type place int

const (
	placeNext place = iota
	placeDuplicate
	placeFork  // the same number with other content
	placeAhead // frames are missing before it
)

// place compares a frame that should be sealed already with what was sealed in
// this run of the daemon. An honest agent sends none from before that: it lets
// go of everything up to the frame that Hello names.
func (p *progress) place(s *wire.Statement, hash record.Hash, recent map[uint64]record.Hash) place {
	switch {
	case p.Branched && s.Frame == p.Frame+1:
		return placeNext
	case s.Frame == p.Frame+1 && s.Prev == p.FrameHash:
		return placeNext
	case s.Frame == p.Frame && hash != p.FrameHash, s.Frame == p.Frame+1:
		return placeFork
	case s.Frame == p.Frame || s.Frame < p.Frame && recent[s.Frame] == hash:
		return placeDuplicate
	case s.Frame < p.Frame:
		return placeFork
	}
	return placeAhead
}

// consume moves the chain of frames past one that is sealed or refused.
func (p *progress) consume(s *wire.Statement, hash record.Hash) {
	p.Frame, p.FrameHash, p.Sequence = s.Frame, hash, s.First+uint64(s.Count)
	p.SignedEpoch, p.Branched = s.Epoch, false
}

// book enters a frame into the lanes and returns the holes that neither a
// record nor a drop count explains (invariant I4).
func (p *progress) book(s *wire.Statement, headers []wire.Opened) []*record.LostCount {
	for _, l := range s.Lanes {
		b, ok := p.Lanes[l.Number]
		if !ok && p.Rebased {
			b.Base = l.First
		}
		b.Next = max(b.Next, l.Next)
		for _, d := range l.Drops {
			b.Dropped = saturate(b.Dropped, d.Count)
		}
		p.Lanes[l.Number] = b
	}
	for i := range headers {
		if n := headers[i].Header.Lane; n != record.NoLane {
			b, ok := p.Lanes[n]
			if !ok {
				// A record on a lane that no statement opened counts for nothing.
				continue
			}
			b.Arrived++
			p.Lanes[n] = b
		}
	}
	var holes []*record.LostCount
	for _, l := range s.Lanes {
		b := p.Lanes[l.Number]
		have := saturate(saturate(saturate(b.Arrived, b.Dropped), b.Missing), b.Base)
		if b.Next > have {
			holes = append(holes, &record.LostCount{Lane: l.Number, Reason: record.LossReason_LOSS_REASON_UNEXPLAINED, Count: b.Next - have})
			b.Missing = saturate(b.Missing, b.Next-have)
			p.Lanes[l.Number] = b
		}
	}
	return holes
}

// saturate adds without wrapping: a guest chooses these numbers.
func saturate(a, b uint64) uint64 {
	if a+b < a {
		return ^uint64(0)
	}
	return a + b
}
