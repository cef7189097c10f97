package proof

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// move checks memory that came into a log from another one: what the log that it left
// says of it, the checkpoint of that log which came along, and the agent's frames.
func (w *treeWork) move(d *TreeDomain, e *TreeEpoch) {
	m := w.at(e.Log, e.Index).message.(*record.Epoch)
	to := w.logs[e.Log]
	from, err := ParseOrigin(m.ParentOrigin)
	if e.Cause != "arrival" && e.Cause != "restore" || err != nil || sameIncarnation(from, to.origin) {
		return
	}
	v := TreeMove{From: m.ParentOrigin, To: e.Log, Epoch: e.Parent, State: "whole"}
	broken := func(format string, args ...any) {
		v.State = "broken"
		w.fail("from %s to %s: %s", v.From, v.To, fmt.Sprintf(format, args...))
	}
	if from.Domain != to.origin.Domain {
		w.tell("from %s to %s: the memory is another domain's", v.From, v.To)
	}
	arrived, _ := to.handover("arrived", m.Parent)
	if arrived != nil {
		v.Session, v.First = arrived.Session, w.firstFrame(to, arrived)
		if v.First > arrived.Frame+1 {
			broken("the agent knew frame %d to be sealed there, and frame %d is the first here: frames between are missing", arrived.Frame, v.First)
		}
	}
	src := w.logs[m.ParentOrigin]
	if src == nil {
		if v.State == "whole" {
			v.State = "unproved"
		}
		w.tell("from %s to %s: no bundle is of the log that memory left: what is said of it is a claim", v.From, v.To)
		d.Moves = append(d.Moves, v)
		return
	}
	proved := w.came(src, to, broken) || e.Link == "holds"
	if e.Link == "broken" {
		broken("the leaf that it branches from does not hold")
	}
	if e.Cause == "arrival" {
		if left, _ := src.handover("departed", m.Parent); left == nil {
			proved = false
			w.tell("from %s to %s: the log that memory left does not tell of its departure", v.From, v.To)
		} else {
			v.Left = left.Frame
			w.went(left, arrived, broken)
		}
	}
	if arrived != nil {
		if leaf := w.at(arrived.Origin, arrived.Index); leaf != nil && !bytes.Equal(leaf.hash[:], arrived.Hash) {
			broken("the agent holds an acknowledgement for entry %d with leaf hash %x, it has %s", arrived.Index, arrived.Hash, leaf.hash)
		}
	}
	if !proved && v.State == "whole" {
		v.State = "unproved"
	}
	d.Moves = append(d.Moves, v)
}

func sameIncarnation(a, b Origin) bool {
	return a.HostID == b.HostID && a.Domain == b.Domain && a.Incarnation == b.Incarnation
}

// came holds the checkpoint that came with memory against the log that it left, and reports
// whether it is of that log.
func (w *treeWork) came(src, to *treeLog, broken func(string, ...any)) bool {
	pair := [2]string{src.name, to.name}
	if held, done := w.held[pair]; done {
		return held // its failure is told
	}
	w.held[pair] = w.compare(src, to, broken)
	return w.held[pair]
}

func (w *treeWork) compare(src, to *treeLog, broken func(string, ...any)) bool {
	first := to.entries[0]
	if first == nil {
		return false
	}
	g, ok := first.message.(*record.Genesis)
	if !ok || g.Source == nil || g.Source.Origin != src.name {
		return false
	}
	var c Checkpoint
	err := fmt.Errorf("no key is certified: %w", record.ErrReject)
	for _, key := range src.keys {
		v, verr := NewVerifier(src.name, key)
		if verr != nil {
			continue
		}
		if c, err = OpenCheckpoint(g.Source.Note, v); err == nil {
			break
		}
	}
	if err != nil {
		broken("the checkpoint that came along is not signed with a key of that log: %v", err)
		return false
	}
	hashes := make([]record.Hash, 0, min(c.Size, uint64(len(src.order))))
	for i := range c.Size {
		e := src.entries[i]
		if e == nil {
			return false // the bundle does not hold all of it: nothing to hold the root against
		}
		hashes = append(hashes, e.hash)
	}
	if root := record.Root(hashes); root != c.Root {
		broken("the checkpoint that came along has root %s at %d entries, that log has %s: there are two histories of it", c.Root, c.Size, root)
		return false
	}
	return true
}

// went holds what the source says of a departure against what arrived.
func (w *treeWork) went(left, arrived *record.Handover, broken func(string, ...any)) {
	switch {
	case arrived == nil || left.Session == 0:
	case left.Session != arrived.Session:
		w.tell("the agent of session %x left %s, and session %x arrived: it was started anew on the way", left.Session, left.Origin, arrived.Session)
	case !bytes.Equal(left.Key, arrived.Key):
		broken("session %x left with key %x and arrived with key %x", left.Session, left.Key, arrived.Key)
	case arrived.Frame > left.Frame:
		broken("the agent says that frame %d of session %x is sealed there, and frame %d is the newest", arrived.Frame, left.Session, left.Frame)
	case arrived.Frame < left.Frame:
		w.tell("frames %d to %d of session %x are sealed in %s and, sent again, behind it", arrived.Frame+1, left.Frame, left.Session, left.Origin)
	}
	if leaf := w.at(left.Origin, left.Index); leaf != nil && !bytes.Equal(leaf.hash[:], left.Hash) {
		broken("entry %d has leaf hash %s, the departure names %x", left.Index, leaf.hash, left.Hash)
	}
}

// firstFrame returns the number of the first frame of an agent that arrived, 0: none is
// in the bundles.
func (w *treeWork) firstFrame(l *treeLog, arrived *record.Handover) uint64 {
	if w.opts.Frame == nil {
		return 0
	}
	for _, index := range l.order {
		m, ok := l.entries[index].message.(*record.Frame)
		if !ok {
			continue
		}
		if f, err := w.opts.Frame(m.Statement, m.Signature, arrived.Key); err == nil && f.Session == arrived.Session {
			return f.Number
		}
	}
	return 0
}

// twice tells of memory that went on in two places.
func (w *treeWork) twice(d *TreeDomain) {
	seen := map[string]string{}
	for _, m := range d.Moves {
		if first, ok := seen[m.Epoch]; ok {
			w.tell("the memory of epoch %s goes on in %s and in %s: one of the two is a copy", m.Epoch, first, m.To)
		}
		seen[m.Epoch] = m.To
	}
}

// beside tells of one UUID that lived on two hosts at a time, without a move between.
func (w *treeWork) beside(d *TreeDomain) {
	for i := range d.Logs {
		for j := i + 1; j < len(d.Logs); j++ {
			a, b := d.Logs[i], d.Logs[j]
			ao, _ := ParseOrigin(a.Origin)
			bo, _ := ParseOrigin(b.Origin)
			moved := slices.ContainsFunc(d.Moves, func(m TreeMove) bool {
				return m.From == a.Origin && m.To == b.Origin || m.From == b.Origin && m.To == a.Origin
			})
			if ao.HostID != bo.HostID && !moved && a.Begun < b.Last && b.Begun < a.Last {
				w.tell("domain %s lives in %s and in %s at the same time, and neither came from the other: one is a clone", d.UUID, a.Origin, b.Origin)
			}
		}
	}
}

// copied tells of keys of agents that were enrolled for more than one domain.
func (w *treeWork) copied(names []string) {
	owner := map[string]string{}
	told := map[string]bool{}
	for _, name := range names {
		l := w.logs[name]
		for _, index := range l.order {
			m, ok := l.entries[index].message.(*record.Enrolled)
			if !ok {
				continue
			}
			key := string(m.Key)
			if first, known := owner[key]; known && first != l.origin.Domain && !told[key+l.origin.Domain] {
				told[key+l.origin.Domain] = true
				w.tell("the agent's key %x is enrolled for domain %s and for domain %s: memory was copied", m.Key, first, l.origin.Domain)
			} else if !known {
				owner[key] = l.origin.Domain
			}
		}
	}
}
