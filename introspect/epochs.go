package introspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

const (
	lineagePrefix = "lineage/"
	// maxImages bounds what is remembered of the images of one domain, and maxOpened
	// of its epochs: the oldest are forgotten, and a branch from them is presumed.
	maxImages = 128
	maxOpened = 512
	// pauseWithin is how long behind the creation of a snapshot libvirt pauses the guest.
	pauseWithin = 10 * time.Second
	// maxBetween bounds how many leaves stand between the end of a log as an entry is
	// drafted and that entry: others are sealed meanwhile.
	maxBetween = 1 << 16
)

// lineage is what is known of a domain's epochs over all its incarnations on this
// host. It is written in the batch that opens an epoch or notices a save.
type lineage struct {
	Images []image  `json:"images,omitempty"`
	Opened []opened `json:"opened,omitempty"` // oldest first
}

// opened is an epoch, and where its log ended when it was opened.
type opened struct {
	Epoch  epochID `json:"epoch"`
	Origin string  `json:"origin"`
	After  uint64  `json:"after"`
}

// image is saved memory that a run was begun from, or may be.
type image struct {
	Name  string  `json:"name"`
	Save  bool    `json:"save,omitempty"` // a file that libvirt wrote as it stopped the domain; else a snapshot
	Epoch epochID `json:"epoch"`
	At    point   `json:"at"`
	Uses  uint64  `json:"uses,omitempty"`
}

// point is a leaf of a log.
type point struct {
	Origin string `json:"origin,omitempty"`
	Index  uint64 `json:"index,omitempty"`
	Hash   string `json:"hash,omitempty"`
}

// head is the newest leaf of a log.
func head(l *chain.Log) point {
	h := l.Head()
	return point{Origin: l.Origin(), Index: h.Size - 1, Hash: h.LastHash.String()}
}

func (p point) hash() []byte {
	h, err := record.ParseHash(p.Hash)
	if err != nil {
		return nil
	}
	return h[:]
}

func (r *Registry) lineage(id domain.UUID) (*lineage, error) {
	b, ok, err := r.store.Meta(lineagePrefix + id.String())
	if err != nil || !ok {
		return &lineage{}, err
	}
	var l lineage
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("read epochs of domain %s: %w: %w", id, err, record.ErrFatal)
	}
	return &l, nil
}

func (l *lineage) write(id domain.UUID) (chain.MetaWrite, error) {
	if n := len(l.Images) - maxImages; n > 0 {
		l.Images = slices.Delete(l.Images, 0, n)
	}
	if n := len(l.Opened) - maxOpened; n > 0 {
		l.Opened = slices.Delete(l.Opened, 0, n)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("write epochs of domain %s: %w", id, err)
	}
	return chain.MetaWrite{Key: lineagePrefix + id.String(), Value: b}, nil
}

// find returns the newest image that match accepts, nil for none.
func (l *lineage) find(match func(*image) bool) *image {
	for i := len(l.Images) - 1; i >= 0; i-- {
		if match(&l.Images[i]) {
			return &l.Images[i]
		}
	}
	return nil
}

// epochAt returns the epoch that a leaf stands in, which may have been opened in an
// earlier shard.
func (l *lineage) epochAt(p point) (epochID, bool) {
	at, err := proof.ParseOrigin(p.Origin)
	for i := len(l.Opened) - 1; i >= 0; i-- {
		o := &l.Opened[i]
		if o.Origin == p.Origin && o.After <= p.Index {
			return o.Epoch, true
		}
		in, perr := proof.ParseOrigin(o.Origin)
		if err == nil && perr == nil && in.HostID == at.HostID && in.Domain == at.Domain && in.Incarnation == at.Incarnation && in.Shard < at.Shard {
			return o.Epoch, true
		}
	}
	return epochID{}, false
}

// saved notices that libvirt has saved a domain's memory to a file and stopped it.
// An epoch ends with it, so that it has one such file, whatever that is called and
// wherever it is copied to.
func (l *lineage) saved(m *machine) {
	l.Images = append(l.Images, image{Name: saveOf(m.Epoch), Save: true, Epoch: m.Epoch, At: head(m.log)})
}

func saveOf(e epochID) string { return fmt.Sprintf("the save of epoch %x", e) }

// branch is where an epoch hangs in the tree.
type branch struct {
	parent   epochID
	at       point
	image    string
	uses     uint64
	presumed bool
	// abandoned: the epoch before does not go on in this one, nor did it end where
	// this one begins.
	abandoned bool
	fork      string // why memory has run twice from one state; "": it has not
}

// branches finds out where the next epoch of m begins. lin is changed where memory
// was taken from an image.
func (r *Registry) branches(ctx context.Context, m *machine, lin *lineage, cause string, o *virt.Observation) (branch, error) {
	b := branch{parent: m.Epoch}
	if m.Epoch != (epochID{}) {
		b.at = head(m.log)
	}
	var mark *virt.Mark
	if o.Snapshot != nil {
		mark = o.Snapshot.Mark
	}
	b, err := r.branchOf(ctx, m, lin, cause, mark, b)
	if takes := cause == "arrival" || cause == "restore" || cause == "revert"; err == nil && takes && o.Snapshot != nil && o.Snapshot.MarkForged != "" {
		b.presumed = true
		b.fork = strings.TrimPrefix(b.fork+"; "+o.Snapshot.MarkForged, "; ")
	}
	return b, err
}

// branchOf is branches with the marker that came with the memory, if any.
func (r *Registry) branchOf(ctx context.Context, m *machine, lin *lineage, cause string, mark *virt.Mark, b branch) (branch, error) {
	switch cause {
	case "arrival":
		if mark != nil {
			b = branch{parent: mark.Epoch, at: point{mark.Origin, mark.Index, mark.Hash.String()}}
		}
		return b.cloned(m, mark), nil
	case "restore":
		return restored(m, lin, mark, b).cloned(m, mark), nil
	case "rewound":
		b.presumed, b.abandoned = true, true
		b.fork = "the agent's memory is an earlier one of its own, and libvirt told of no revert"
	case "revert":
		return r.reverted(ctx, m, lin, mark, b)
	}
	return b, nil
}

// cloned notices memory whose marker is of another domain.
func (b branch) cloned(m *machine, mark *virt.Mark) branch {
	if mark == nil {
		return b
	}
	if name, err := proof.ParseOrigin(mark.Origin); err == nil && name.Domain != m.UUID.String() {
		b.fork = fmt.Sprintf("the memory is that of domain %s, by its marker: this is a clone", name.Domain)
	}
	return b
}

// restored is the branch of memory that comes from a file. The marker in the file
// says which epoch saved it; where there is none, it is likely the newest one.
func restored(m *machine, lin *lineage, mark *virt.Mark, b branch) branch {
	img := lin.find(func(i *image) bool { return i.Save && (mark == nil || i.Epoch == mark.Epoch) })
	b.presumed = mark == nil // there may be other files, of any age
	elsewhere := false
	switch {
	case img == nil && mark != nil:
		// Saved on another host, or so long ago that it is forgotten. It is known from
		// now on: who restores it once more begins a fork.
		elsewhere = true
		lin.Images = append(lin.Images, image{Name: saveOf(mark.Epoch), Save: true, Epoch: mark.Epoch, At: point{mark.Origin, mark.Index, mark.Hash.String()}})
		img = &lin.Images[len(lin.Images)-1]
	case img == nil:
		return b
	}
	img.Uses++
	b.parent, b.at, b.image, b.uses = img.Epoch, img.At, img.Name, img.Uses
	b.abandoned = m.Epoch != (epochID{}) && m.Epoch != img.Epoch
	if img.Uses > 1 {
		b.fork = fmt.Sprintf("%s is restored for the %d. time", img.Name, img.Uses)
	} else if b.abandoned && !elsewhere {
		b.fork = fmt.Sprintf("%s is restored, and epoch %x has run since", img.Name, m.Epoch)
	}
	return b
}

// reverted is the branch of memory that comes from a snapshot: libvirt says which,
// and when it began to take it. Libvirt may not answer: then the branch is presumed.
func (r *Registry) reverted(ctx context.Context, m *machine, lin *lineage, mark *virt.Mark, b branch) (branch, error) {
	b.abandoned, b.presumed = m.Epoch != (epochID{}), true
	b.fork = "memory was reverted to a snapshot that libvirt does not name"
	var snap *virt.Image
	if r.cfg.Reverted != nil {
		var err error
		if snap, err = r.cfg.Reverted(ctx, m.UUID); err != nil {
			if errors.Is(err, record.ErrFatal) {
				return b, err
			}
			r.log.WarnContext(ctx, "libvirt does not say which snapshot a domain was reverted to", "domain", m.Name, "error", err)
		}
	}
	if snap == nil {
		if mark != nil && mark.Epoch != m.Epoch {
			b.parent, b.at, b.presumed = mark.Epoch, point{mark.Origin, mark.Index, mark.Hash.String()}, false
		}
		return b, nil
	}
	name := fmt.Sprintf("snapshot %q of %s", snap.Name, snap.Created.UTC().Format(time.RFC3339))
	img := lin.find(func(i *image) bool { return !i.Save && i.Name == name })
	if img == nil {
		at, ok, err := r.leafBefore(m, snap.Created)
		if err != nil {
			return b, err
		}
		n := image{Name: name, Epoch: m.Epoch, At: at}
		if e, known := lin.epochAt(at); known {
			n.Epoch = e
		} else if mark != nil {
			n.Epoch = mark.Epoch
		} else {
			ok = false // too long ago for what is remembered: any epoch would be a guess
		}
		if mark != nil && at.Origin == mark.Origin && at.Index < mark.Index {
			ok = false // libvirt rounds down to seconds, and the epoch began in that second
		}
		if !ok && mark != nil { // older than what is kept: behind the beginning of its epoch
			n.Epoch, n.At, ok = mark.Epoch, point{mark.Origin, mark.Index, mark.Hash.String()}, true
		}
		if !ok {
			n.At = point{}
		}
		lin.Images = append(lin.Images, n)
		img = &lin.Images[len(lin.Images)-1]
	}
	img.Uses++
	b.parent, b.at, b.image, b.uses, b.presumed = img.Epoch, img.At, name, img.Uses, img.At == (point{})
	b.fork = fmt.Sprintf("memory was reverted to %s, the %d. time", name, img.Uses)
	return b, nil
}

// leafBefore returns the newest leaf of an incarnation that was sealed before a
// moment, or the pause by which libvirt began to take a snapshot behind it.
func (r *Registry) leafBefore(m *machine, at time.Time) (point, bool, error) {
	for name := m.log.Name(); name.Shard >= proof.FirstShard; name.Shard-- {
		l, ok := r.store.LogByOrigin(name.String())
		if !ok || l.Gone() != nil {
			return point{}, false, nil
		}
		p, ok, err := leafBefore(l, at)
		if err != nil || ok {
			return p, ok, err
		}
	}
	return point{}, false, nil
}

func leafBefore(l *chain.Log, at time.Time) (point, bool, error) {
	first, size := max(l.Minimum(), 1), l.Size()
	sealed := func(i uint64) (chain.Item, error) {
		item, err := l.Look(i)
		if err == nil && item.Leaf.Wall == 0 {
			err = chain.ErrPruned
		}
		return item, err
	}
	low, high := first, size // leaves below low are older
	for low < high {
		mid := low + (high-low)/2
		item, err := sealed(mid)
		if errors.Is(err, chain.ErrPruned) {
			return point{}, false, nil
		}
		if err != nil {
			return point{}, false, fmt.Errorf("find the leaf before a snapshot: %w", err)
		}
		if item.Leaf.Wall < at.UnixNano() {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == first {
		return point{}, false, nil
	}
	best := low - 1
	for i := low; i < size; i++ {
		item, err := sealed(i)
		if err != nil || item.Leaf.Wall > at.Add(pauseWithin).UnixNano() {
			break
		}
		if item.Leaf.Header.Class == record.ClassVMPause && item.Leaf.Origin == record.OriginHost {
			best = i
			break
		}
	}
	h, err := l.LeafHash(best)
	if err != nil {
		return point{}, false, fmt.Errorf("find the leaf before a snapshot: %w", err)
	}
	return point{Origin: l.Origin(), Index: best, Hash: h.String()}, true, nil
}

// openEpoch starts another uninterrupted execution of guest memory. It returns the
// entries that say so and the row that goes with them.
func (r *Registry) openEpoch(ctx context.Context, m *machine, cause string, o *virt.Observation) ([]chain.Entry, []chain.MetaWrite, error) {
	lin, err := r.lineage(m.UUID)
	if err != nil {
		return nil, nil, err
	}
	b, err := r.branches(ctx, m, lin, cause, o)
	if err != nil {
		return nil, nil, fmt.Errorf("open epoch of %s: %w", m.Name, err)
	}
	e := m.newEpoch(cause, o, &b)
	lin.Opened = append(lin.Opened, opened{Epoch: m.Epoch, Origin: m.log.Origin(), After: m.EpochAfter})
	row, err := lin.write(m.UUID)
	if err != nil {
		return nil, nil, err
	}
	entry, err := r.store.Draft(record.OriginHost, record.ClassVMEpoch, e)
	if err != nil {
		return nil, nil, fmt.Errorf("open epoch of %s: %w", m.Name, err)
	}
	entries := []chain.Entry{entry}
	if b.fork != "" {
		fork, err := r.store.Draft(record.OriginHost, record.ClassVMFork, &record.Event{Reason: b.fork, Vm: &record.VM{
			Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: int64(o.Domain.ID)}})
		if err != nil {
			return nil, nil, fmt.Errorf("open epoch of %s: %w", m.Name, err)
		}
		entries = append(entries, fork)
	}
	return entries, []chain.MetaWrite{row}, nil
}

// epochLeaf finds the leaf that opened a machine's epoch. Its index is not known
// before it is sealed, so only where to look for it is kept.
func (m *machine) epochLeaf() (point, error) {
	for i := m.EpochAfter; i < min(m.log.Size(), m.EpochAfter+maxBetween); i++ {
		item, err := m.log.Look(i)
		if err != nil {
			return point{}, fmt.Errorf("find the leaf of an epoch: %w", err)
		}
		if item.Leaf.Header.Class != record.ClassVMEpoch || item.Leaf.Origin != record.OriginHost {
			continue
		}
		msg, err := item.Decode()
		if err != nil {
			continue
		}
		if e, ok := msg.(*record.Epoch); ok && string(e.Epoch) == string(m.Epoch[:]) {
			return point{Origin: m.log.Origin(), Index: i, Hash: item.LeafHash.String()}, nil
		}
	}
	return point{}, fmt.Errorf("find the leaf of epoch %x in %s: there is none: %w", m.Epoch, m.log.Origin(), record.ErrReject)
}
