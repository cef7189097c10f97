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
}

// laneBook balances one lane over a session.
type laneBook struct {
	Next    uint64 `json:"next"`    // accounted for up to here
	Arrived uint64 `json:"arrived"` // records sealed
	Dropped uint64 `json:"dropped"` // owned up to by the agent
	Missing uint64 `json:"missing"` // found missing and sealed as such
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

// place says where a frame stands relative to what is sealed.
type place int

const (
	placeNext place = iota
	placeDuplicate
	placeFork  // the same number with other content
	placeAhead // frames are missing before it
)

func (p *progress) place(s *wire.Statement, hash record.Hash) place {
	switch {
	case s.Frame == p.Frame+1 && s.Prev == p.FrameHash:
		return placeNext
	case s.Frame == p.Frame && hash != p.FrameHash, s.Frame == p.Frame+1:
		return placeFork
	case s.Frame <= p.Frame:
		return placeDuplicate
	}
	return placeAhead
}

// consume moves the chain of frames past one that is sealed or refused.
func (p *progress) consume(s *wire.Statement, hash record.Hash) {
	p.Frame, p.FrameHash, p.Sequence = s.Frame, hash, s.First+uint64(s.Count)
}

// book enters a frame into the lanes and returns the holes that neither a
// record nor a drop count explains (invariant I4).
func (p *progress) book(s *wire.Statement, headers []wire.Opened) []*record.LostCount {
	for _, l := range s.Lanes {
		b := p.Lanes[l.Number]
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
		have := saturate(saturate(b.Arrived, b.Dropped), b.Missing)
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
