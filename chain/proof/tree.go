package proof

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// Tree is what bundles tell of the epochs of their domains, over hosts and
// incarnations, and whether what one log says of another holds.
type Tree struct {
	// Failures are links that do not hold. None: what the bundles say of each other
	// is so, as far as they go.
	Failures []string `json:"failures,omitempty"`
	// Told are forks, copies and gaps that are sealed, and links of which the other
	// end is not here.
	Told    []string     `json:"told,omitempty"`
	Domains []TreeDomain `json:"domains"`
}

// TreeDomain is one domain, wherever it has run.
type TreeDomain struct {
	UUID   string      `json:"uuid"`
	Logs   []TreeLog   `json:"logs"`
	Epochs []TreeEpoch `json:"epochs"` // in the order of their host times
	Moves  []TreeMove  `json:"moves,omitempty"`
}

// TreeLog is one log of a domain, as far as the bundles hold it.
type TreeLog struct {
	Origin string `json:"origin"`
	Cause  string `json:"cause,omitempty"`
	Begun  int64  `json:"begun"` // host wall time of the first and the last entry here
	Last   int64  `json:"last"`
	Closed bool   `json:"closed"`
}

// TreeEpoch is one uninterrupted execution of guest memory.
type TreeEpoch struct {
	Epoch  string `json:"epoch"`
	Cause  string `json:"cause"`
	Log    string `json:"log"`
	Index  uint64 `json:"index"`
	Wall   int64  `json:"wall"`
	Parent string `json:"parent,omitempty"`
	// ParentLog and ParentIndex name the leaf that it branches from.
	ParentLog      string `json:"parent_log,omitempty"`
	ParentIndex    uint64 `json:"parent_index,omitempty"`
	Abandoned      string `json:"abandoned,omitempty"`
	AbandonedIndex uint64 `json:"abandoned_index,omitempty"`
	Image          string `json:"image,omitempty"`
	Uses           uint64 `json:"image_uses,omitempty"`
	Presumed       bool   `json:"presumed,omitempty"`
	// Link: first, holds, elsewhere (the leaf is in no bundle), broken.
	Link string `json:"link"`
}

// TreeMove is memory that left one log and goes on in another.
type TreeMove struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Epoch string `json:"epoch"` // that it had before
	// Session is the agent's, whose frames go on: sealed at From up to Left, at To
	// from First on. Zero: no agent came with it.
	Session uint64 `json:"session,omitempty"`
	Left    uint64 `json:"left_frame,omitempty"`
	First   uint64 `json:"first_frame,omitempty"`
	// State: whole, unproved (neither the leaf that memory left behind nor a checkpoint
	// which came along could be held against the log it left, or that log does not tell of
	// its departure), broken.
	State string `json:"state"`
}

// treeLog is one log with the entries that the bundles hold of it.
type treeLog struct {
	origin  Origin
	name    string
	entries map[uint64]*treeEntry
	order   []uint64
	keys    [][]byte // certified ones that signed for it
	closed  bool
}

type treeEntry struct {
	leaf    record.Leaf
	hash    record.Hash
	message record.Message // nil: not disclosed
}

// treeWork is one NewTree under way.
type treeWork struct {
	t      *Tree
	opts   Options
	logs   map[string]*treeLog
	epochs map[string]*TreeEpoch
	held   map[[2]string]bool // notes that came along and hold, by the two logs: each is computed once
}

// NewTree puts bundles together that Verify has found valid, each with the key of its
// host: it believes their proofs, and checks what they say of each other.
func NewTree(bundles []*Bundle, opts Options) *Tree {
	w := &treeWork{t: &Tree{}, opts: opts, logs: map[string]*treeLog{}, epochs: map[string]*TreeEpoch{}, held: map[[2]string]bool{}}
	for _, b := range bundles {
		w.take(b)
	}
	byDomain := map[string]*TreeDomain{}
	names := slices.Sorted(maps.Keys(w.logs))
	for _, name := range names {
		l := w.logs[name]
		slices.Sort(l.order)
		d := byDomain[l.origin.Domain]
		if d == nil {
			d = &TreeDomain{UUID: l.origin.Domain, Logs: []TreeLog{}, Epochs: []TreeEpoch{}}
			byDomain[l.origin.Domain] = d
		}
		d.Logs = append(d.Logs, w.describe(l))
		w.collect(l)
	}
	for _, e := range w.epochs {
		o, _ := ParseOrigin(e.Log)
		byDomain[o.Domain].Epochs = append(byDomain[o.Domain].Epochs, *e)
	}
	for _, uuid := range slices.Sorted(maps.Keys(byDomain)) {
		d := byDomain[uuid]
		slices.SortFunc(d.Epochs, func(a, b TreeEpoch) int {
			return cmp.Or(cmp.Compare(a.Wall, b.Wall), cmp.Compare(a.Log, b.Log), cmp.Compare(a.Index, b.Index))
		})
		for i := range d.Epochs {
			w.link(&d.Epochs[i])
			w.move(d, &d.Epochs[i])
		}
		w.twice(d)
		w.beside(d)
		w.t.Domains = append(w.t.Domains, *d)
	}
	w.copied(names)
	return w.t
}

func (w *treeWork) fail(format string, args ...any) {
	w.t.Failures = append(w.t.Failures, fmt.Sprintf(format, args...))
}

func (w *treeWork) tell(format string, args ...any) {
	w.t.Told = append(w.t.Told, fmt.Sprintf(format, args...))
}

// take adds the entries of a bundle to those of its log.
func (w *treeWork) take(b *Bundle) {
	origin, err := ParseOrigin(b.VMOrigin)
	if err != nil {
		return // no bundle that verifies
	}
	l := w.logs[b.VMOrigin]
	if l == nil {
		l = &treeLog{origin: origin, name: b.VMOrigin, entries: map[uint64]*treeEntry{}}
		w.logs[b.VMOrigin] = l
	}
	for _, s := range append(slices.Clone(b.Certificates), b.Certificate) {
		if len(s.Opening) < len(record.Salt{}) {
			continue
		}
		if m, err := record.Decode(record.ClassKeyCertificate, s.Opening[len(record.Salt{}):]); err == nil {
			l.keys = append(l.keys, m.(*record.KeyCertificate).PublicKey)
		}
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		n := &treeEntry{hash: record.LeafHash(e.Leaf)}
		if n.leaf, err = record.ParseLeaf(e.Leaf); err != nil {
			continue
		}
		if old := l.entries[e.Index]; old != nil {
			if old.hash != n.hash {
				w.fail("%s: two bundles have another entry %d: there are two histories of it", l.name, e.Index)
			}
			if old.message != nil {
				continue
			}
		} else {
			l.order = append(l.order, e.Index)
		}
		if len(e.Opening) >= len(record.Salt{}) {
			if m, err := record.Decode(n.leaf.Header.Class, e.Opening[len(record.Salt{}):]); err == nil {
				n.message = m
			}
		}
		l.closed = l.closed || n.leaf.Header.Class == record.ClassClosed
		l.entries[e.Index] = n
	}
}

func (w *treeWork) describe(l *treeLog) TreeLog {
	d := TreeLog{Origin: l.name, Closed: l.closed}
	for i, index := range l.order {
		e := l.entries[index]
		if g, ok := e.message.(*record.Genesis); ok && index == 0 {
			d.Cause = g.Cause
		}
		if i == 0 {
			d.Begun = e.leaf.Wall
		}
		d.Last = max(d.Last, e.leaf.Wall)
	}
	return d
}

// collect takes the epochs of a log, and what it tells of forks and copies.
func (w *treeWork) collect(l *treeLog) {
	for _, index := range l.order {
		e := l.entries[index]
		switch m := e.message.(type) {
		case *record.Epoch:
			id := hex.EncodeToString(m.Epoch)
			if old := w.epochs[id]; old != nil {
				if m.Cause != "shard" && old.Cause != "shard" {
					w.fail("epoch %s is opened by entry %d of %s and by entry %d of %s", id, old.Index, old.Log, index, l.name)
				}
				if m.Cause == "shard" {
					continue // it goes on
				}
			}
			w.epochs[id] = &TreeEpoch{Epoch: id, Cause: m.Cause, Log: l.name, Index: index, Wall: e.leaf.Wall,
				Parent: hex.EncodeToString(m.Parent), ParentLog: m.ParentOrigin, ParentIndex: m.ParentIndex,
				Abandoned: hex.EncodeToString(m.Abandoned), AbandonedIndex: m.AbandonedIndex, Image: m.Image, Uses: m.ImageUses, Presumed: m.Presumed}
		case *record.Event:
			if e.leaf.Header.Class == record.ClassVMFork {
				w.tell("entry %d of %s: fork: %s", index, l.name, m.Reason)
			}
		case *record.AgentState:
			switch e.leaf.Header.Class {
			case record.ClassAgentForked, record.ClassAgentCloned, record.ClassAgentRewound:
				w.tell("entry %d of %s: %s: %s", index, l.name, e.leaf.Header.Class, m.Reason)
			}
		}
	}
}

// at returns the entry of a log, nil where no bundle holds it.
func (w *treeWork) at(log string, index uint64) *treeEntry {
	if l := w.logs[log]; l != nil {
		return l.entries[index]
	}
	return nil
}

// link checks that the leaf which an epoch branches from is as it says, and stands in
// its parent.
func (w *treeWork) link(e *TreeEpoch) {
	m := w.at(e.Log, e.Index).message.(*record.Epoch)
	parent := w.epochs[e.Parent]
	leaf := w.at(m.ParentOrigin, m.ParentIndex)
	switch {
	case e.Parent == "":
		e.Link = "first"
	case leaf != nil && !bytes.Equal(leaf.hash[:], m.ParentHash):
		e.Link = "broken"
		w.fail("epoch %s: entry %d of %s has leaf hash %s, it names %x", e.Epoch, m.ParentIndex, m.ParentOrigin, leaf.hash, m.ParentHash)
	case parent != nil && leaf != nil && parent.Log == m.ParentOrigin && m.ParentIndex < parent.Index && parent.Cause != "shard":
		e.Link = "broken"
		w.fail("epoch %s: it branches from entry %d of %s, and its parent %s begins behind that, with entry %d", e.Epoch, m.ParentIndex, m.ParentOrigin, e.Parent, parent.Index)
	case parent != nil && !w.within(parent, m):
		e.Link = "broken"
		w.fail("epoch %s: it branches from entry %d of %s, which is no log that its parent %s has run in", e.Epoch, m.ParentIndex, cmp.Or(m.ParentOrigin, "no log"), e.Parent)
	case parent != nil && leaf != nil && w.between(parent, m):
		e.Link = "broken"
		w.fail("epoch %s: entry %d of %s stands in a later epoch than its parent %s", e.Epoch, m.ParentIndex, m.ParentOrigin, e.Parent)
	case parent == nil || leaf == nil:
		e.Link = "elsewhere"
		if e.Cause != "shard" {
			w.tell("epoch %s: its parent %s, entry %d of %s, is in none of the bundles", e.Epoch, e.Parent, m.ParentIndex, cmp.Or(m.ParentOrigin, "a log that it does not name"))
		}
	default:
		e.Link = "holds"
	}
	if e.Presumed {
		w.tell("epoch %s: its parent is presumed: nothing says what its memory was taken from", e.Epoch)
	}
	if a := w.at(e.Log, m.AbandonedIndex); len(m.Abandoned) > 0 && a != nil && !bytes.Equal(a.hash[:], m.AbandonedHash) {
		w.fail("epoch %s: entry %d of %s has leaf hash %s, it abandons %x there", e.Epoch, m.AbandonedIndex, e.Log, a.hash, m.AbandonedHash)
	}
}

// within reports whether the log that a branch names is of the incarnation in which its parent was
// opened. One that names none says that it does not know.
func (w *treeWork) within(parent *TreeEpoch, m *record.Epoch) bool {
	if m.ParentOrigin == "" {
		return m.Presumed || m.Cause == "shard"
	}
	from, err := ParseOrigin(m.ParentOrigin)
	in, _ := ParseOrigin(parent.Log) // of a bundle
	// Of an epoch that goes on in a shard, the bundles may not hold where it began.
	return err == nil && sameIncarnation(from, in) && (from.Shard >= in.Shard || parent.Cause == "shard")
}

// between reports whether another epoch was opened between a parent and the leaf that is
// said to stand in it.
func (w *treeWork) between(parent *TreeEpoch, m *record.Epoch) bool {
	l := w.logs[m.ParentOrigin]
	if parent.Cause == "shard" && parent.Log != m.ParentOrigin {
		return false // where it began is not here
	}
	for _, index := range l.order {
		if index > m.ParentIndex {
			break
		}
		x, ok := l.entries[index].message.(*record.Epoch)
		if ok && hex.EncodeToString(x.Epoch) != parent.Epoch && (parent.Log != m.ParentOrigin || index > parent.Index) {
			return true
		}
	}
	return false
}

// find returns the first entry of a log for which match holds.
func (l *treeLog) find(match func(*treeEntry) bool) (*treeEntry, uint64) {
	for _, index := range l.order {
		if e := l.entries[index]; match(e) {
			return e, index
		}
	}
	return nil, 0
}

// handover returns the first handover of a log with the given word and epoch.
func (l *treeLog) handover(what string, epoch []byte) (*record.Handover, uint64) {
	e, index := l.find(func(e *treeEntry) bool {
		h, ok := e.message.(*record.Handover)
		return ok && e.leaf.Origin == record.OriginHost && h.What == what && bytes.Equal(h.Epoch, epoch)
	})
	if e == nil {
		return nil, 0
	}
	return e.message.(*record.Handover), index
}
