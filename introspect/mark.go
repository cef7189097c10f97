package introspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

const (
	// markTimeout bounds one attempt to mark a domain: it waits for the domain's job,
	// which a migration may hold for long.
	markTimeout = 3 * time.Second
	markPause   = 3 * time.Second // between rounds, and behind the first failure
	markMax     = 5 * time.Minute // the longest pause behind failures
)

// marking is what became of the marker of a domain's epoch.
type marking struct {
	epoch  epochID
	done   bool
	failed int       // attempts
	next   time.Time // attempt
}

// markEpochs writes the marker of each new epoch into the metadata of its domain, until
// ctx ends or the ledger fails. It is no part of what is sealed: until it has come
// about, a save or a migration leaves without it, and the next epoch's parent is
// presumed.
func (r *Registry) markEpochs(ctx context.Context) error {
	if r.cfg.Mark == nil {
		return nil
	}
	tick := time.NewTicker(markPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.kick:
		}
		for _, m := range r.unmarked() {
			if err := r.mark(ctx, m); err != nil && ctx.Err() == nil {
				return fmt.Errorf("mark domain %s: %w", m.Name, err)
			}
		}
	}
}

// unmarked returns the machines whose marker is due.
func (r *Registry) unmarked() []*machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	var due []*machine
	for id, m := range r.machines {
		if m.Ended || m.QEMU.Pid == 0 || m.Epoch == (epochID{}) || !r.hearing {
			delete(r.marks, id)
			continue
		}
		if k := r.marks[id]; k.epoch != m.Epoch || !k.done && !now.Before(k.next) {
			due = append(due, m)
		}
	}
	return due
}

// mark writes one marker. Only a failure of the ledger is an error: all else is tried
// again, ever more rarely.
func (r *Registry) mark(ctx context.Context, m *machine) error {
	err := r.writeMark(ctx, m)
	if errors.Is(err, record.ErrFatal) {
		return err
	}
	if first := r.marked(m.UUID, m.Epoch, err); first && err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "an epoch could not be marked, trying on: where memory goes meanwhile will be presumed", "domain", m.Name, "error", err)
	}
	return nil
}

func (r *Registry) writeMark(ctx context.Context, m *machine) error {
	leaf, err := m.epochLeaf()
	if err != nil {
		return err
	}
	c, ok := m.log.Checkpoint()
	if !ok || c.Size <= leaf.Index {
		if err := r.store.CheckpointNow(ctx, m.log); err != nil {
			return err
		}
		c, _ = m.log.Checkpoint()
	}
	k := virt.Mark{Origin: leaf.Origin, Epoch: m.Epoch, Index: leaf.Index, Hash: record.Hash(leaf.hash()), Note: c.Note}
	limited, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	return r.cfg.Mark(limited, m.UUID, &k)
}

// marked notes what became of an attempt and reports whether it was the first one.
func (r *Registry) marked(id domain.UUID, epoch epochID, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.marks[id]
	if k.epoch != epoch {
		k = marking{epoch: epoch}
	}
	if k.done = err == nil; !k.done {
		k.next = r.cfg.Now().Add(min(markPause<<min(k.failed, 10), markMax))
		k.failed++
	}
	r.marks[id] = k
	return k.failed <= 1
}

// noteMark takes over what a snapshot shows of the marker: after a restart of the
// daemon it is there already, and who may change the domain may have taken it away.
func (r *Registry) noteMark(m *machine, s *virt.Snapshot) {
	if s != nil && s.Mark != nil && s.Mark.Epoch == m.Epoch && m.Epoch != (epochID{}) && s.Mark.Origin == m.log.Origin() {
		r.marked(m.UUID, m.Epoch, nil)
		return
	}
	if s != nil && m.QEMU.Pid != 0 {
		r.unmark(m)
	}
	select {
	case r.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// unmark has a marker written anew that was there and is not any more: later each time,
// since libvirt tells of what is written, and that brings us here.
func (r *Registry) unmark(m *machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.marks[m.UUID]; k.done && k.epoch == m.Epoch {
		k.done, k.next = false, r.cfg.Now().Add(min(markPause<<min(k.failed, 10), markMax))
		k.failed++
		r.marks[m.UUID] = k
	}
}

// believe returns an observation without its marker where that says something of a log of
// this host which is not so: a marker is a claim of whoever may change the domain, and
// what it says would be sealed as the parent of an epoch.
func (r *Registry) believe(o *virt.Observation) *virt.Observation {
	if o.Snapshot == nil || o.Snapshot.Mark == nil {
		return o
	}
	why := r.forged(o.Snapshot.Mark)
	if why == "" {
		return o
	}
	c, s := *o, *o.Snapshot // observations are not changed
	s.Mark, s.MarkForged, c.Snapshot = nil, "the marker in the metadata was written by somebody else: "+why, &s
	return &c
}

// forged says why a marker is not of this host's making although it says so, "" where nobody
// can tell.
func (r *Registry) forged(k *virt.Mark) string {
	name, err := proof.ParseOrigin(k.Origin)
	if err != nil {
		return "it names no log"
	}
	l, ok := r.store.LogByOrigin(k.Origin)
	if !ok || name.HostID != r.cfg.HostID || l.Gone() != nil {
		return ""
	}
	if k.Index >= l.Size() {
		return fmt.Sprintf("%s has no entry %d", k.Origin, k.Index)
	}
	h, err := l.LeafHash(k.Index)
	if err == nil && h != k.Hash {
		return fmt.Sprintf("entry %d of %s has another hash", k.Index, k.Origin)
	}
	item, err := l.Look(k.Index)
	if err != nil || item.Leaf.Wall == 0 {
		return "" // pruned, or not to be read now
	}
	if item.Leaf.Header.Class != record.ClassVMEpoch {
		return fmt.Sprintf("entry %d of %s opens no epoch", k.Index, k.Origin)
	}
	if m, err := item.Decode(); err == nil {
		if e, ok := m.(*record.Epoch); ok && string(e.Epoch) != string(k.Epoch[:]) {
			return fmt.Sprintf("entry %d of %s opens another epoch", k.Index, k.Origin)
		}
	}
	return ""
}

// wentBack opens an epoch where an agent's memory was found to be an earlier one of its
// own and libvirt has told of nothing: until then its agent is refused. The finding
// stands in the log already.
func (r *Registry) wentBack(ctx context.Context) error {
	for _, s := range r.sessions.Status() {
		m := r.get(s.UUID)
		if m == nil || m.Ended || s.WentBack == [16]byte{} || m.Epoch != epochID(s.WentBack) {
			continue
		}
		r.observing.Lock()
		err := r.observeDomain(ctx, &virt.Observation{
			Kind: virt.KindNotice, Type: record.ClassVMChange.String(), Word: wordWentBack, Reason: "the agent's memory is an earlier one",
			Event: -1, Detail: -1, Domain: domain.Domain{UUID: m.UUID, Name: m.Name, ID: m.LibvirtID, State: m.State}, Time: r.cfg.Now(),
		}, record.OriginHost)
		r.observing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// wordWentBack is the word of an observation that no source makes but wentBack.
const wordWentBack = "went-back"
