package introspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
)

// When the log of an incarnation goes on in another shard.
const (
	DefaultShardEntries = 1 << 24
	DefaultShardAge     = 30 * 24 * time.Hour
	shardEvery          = time.Minute // between looks
)

// closeReasonEnd is why the last shard of an incarnation is closed.
const closeReasonEnd = "the incarnation has ended"

// rollShards closes logs that are large or old enough and begins the next shard of
// each, closes those of incarnations that have ended, and goes on where a crash has
// cut that short.
func (r *Registry) rollShards(ctx context.Context) error {
	r.observing.Lock()
	defer r.observing.Unlock()
	r.mu.Lock()
	var due []*machine
	for _, m := range r.machines {
		due = append(due, m)
	}
	r.mu.Unlock()
	for _, m := range due {
		var err error
		if m.Ended {
			err = r.store.CloseLog(ctx, m.log, closeReasonEnd, "")
		} else if reason, rerr := r.shardDue(m); rerr != nil {
			err = rerr
		} else if reason != "" {
			_, err = r.nextShard(ctx, m, reason)
		}
		if err != nil {
			return fmt.Errorf("shards of domain %s: %w", m.Name, err)
		}
	}
	return nil
}

// shardDue says why the log of a machine should go on in another shard, "" where it
// should not.
func (r *Registry) shardDue(m *machine) (string, error) {
	if _, closed := m.log.Closed(); closed {
		return "a crash came between two shards", nil // the old one says the true reason
	}
	if size := m.log.Size(); size >= r.cfg.ShardEntries {
		return fmt.Sprintf("it has %d entries", size), nil
	}
	first, err := m.log.Look(0) // its payload may not open any more: that stops nothing
	if err != nil {
		return "", err
	}
	if first.Leaf.Wall == 0 {
		return "", nil // nor can its leaf be read: its size decides
	}
	if age := r.cfg.Now().Sub(time.Unix(0, first.Leaf.Wall)); age >= r.cfg.ShardAge {
		return fmt.Sprintf("it is %d hours old", age/time.Hour), nil
	}
	return "", nil
}

// nextShard closes the log of a machine and begins the next shard. The agent's
// session is ended before and begun anew behind, as at a restart of the daemon: what
// was not acknowledged is sent again, and seals into the new shard.
//
// Order: the old shard is closed and signed; the genesis of the new one quotes that
// checkpoint; then stand there the epoch, the policies, the state and, with them in
// one commit, that the machine and its agent go on there. A crash between leaves a
// closed log, and the next observation or look begins here again. The caller holds
// observing.
func (r *Registry) nextShard(ctx context.Context, known *machine, reason string) (*machine, error) {
	r.sessions.Remove(known.UUID)
	m := *known
	name := known.log.Name()
	name.Shard++
	m.Shard = name.Shard
	origin := name.String()
	if err := r.store.CloseLog(ctx, known.log, reason, origin); err != nil {
		return nil, err
	}
	l, ok := r.store.LogByOrigin(origin)
	if !ok {
		g, err := r.shardGenesis(ctx, known)
		if err != nil {
			return nil, err
		}
		if l, err = r.store.CreateLog(ctx, origin, g); err != nil {
			return nil, err
		}
	}
	m.log, m.Bundle, m.EpochAfter = l, "", 0
	entries, err := r.shardEntries(&m, known)
	if err != nil {
		return nil, err
	}
	row, err := m.write()
	if err != nil {
		return nil, err
	}
	meta := []chain.MetaWrite{row}
	if progress, ok, err := r.store.Meta(guest.ProgressKey(known.log)); err != nil {
		return nil, err
	} else if ok {
		meta = append(meta, chain.MetaWrite{Key: guest.ProgressKey(l), Value: progress})
	}
	if _, err := r.store.Append(ctx, chain.Batch{Log: l, Entries: entries, Meta: meta}); err != nil {
		return nil, fmt.Errorf("begin shard %d: %w", m.Shard, err)
	}
	r.mu.Lock()
	r.machines[m.UUID] = &m
	r.mu.Unlock()
	r.serve(&m)
	return &m, nil
}

// reopen begins the next shard where a crash came right behind the closing of the
// last one.
func (r *Registry) reopen(ctx context.Context, m *machine) (*machine, error) {
	if _, closed := m.log.Closed(); !closed {
		return m, nil
	}
	return r.nextShard(ctx, m, "")
}

// shardGenesis is the first entry of the next shard: the facts of now where libvirt
// tells them, and else those that the shard before began with.
func (r *Registry) shardGenesis(ctx context.Context, known *machine) (*record.Genesis, error) {
	g := &record.Genesis{DomainName: known.Name, Cause: "shard", Software: r.cfg.Software, PreviousOrigin: known.log.Origin()}
	c, ok := known.log.Checkpoint()
	if !ok {
		return nil, fmt.Errorf("log %s has no checkpoint: %w", known.log.Origin(), record.ErrFatal)
	}
	g.PreviousCheckpoint = c.Note
	if s, err := r.cfg.Inspect(ctx, known.UUID); err == nil {
		genesisFacts(g, &s)
		return g, nil
	}
	item, err := known.log.Look(0)
	if err != nil {
		return nil, err
	}
	m, err := item.Decode()
	if errors.Is(err, chain.ErrUnreadable) {
		return g, nil // libvirt tells the facts when it is back
	}
	if err != nil {
		return nil, fmt.Errorf("read genesis of %s: %w", known.log.Origin(), err)
	}
	if old, ok := m.(*record.Genesis); ok {
		g.DomainXml, g.Disks, g.LiveXml, g.Boot = old.DomainXml, old.Disks, old.LiveXml, old.Boot
		g.Machine, g.Architecture, g.CpuXml = old.Machine, old.Architecture, old.CpuXml
	}
	return g, nil
}

// shardEntries are what a shard needs to stand for itself: the policies that judge
// it, the epoch that goes on, and the state of the domain.
func (r *Registry) shardEntries(m, known *machine) ([]chain.Entry, error) {
	entries, err := r.activate(m)
	if err != nil {
		return nil, err
	}
	if m.Epoch != (epochID{}) {
		e := &record.Epoch{Epoch: m.Epoch[:], Cause: "shard", QemuPid: uint32(m.QEMU.Pid), QemuStart: m.QEMU.Start, GenerationId: m.GenerationID, LibvirtId: int64(m.LibvirtID)}
		if m.Parent != (epochID{}) {
			e.Parent = m.Parent[:]
		}
		entry, err := r.store.Draft(record.OriginHost, record.ClassVMEpoch, e)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	entry, err := r.store.Draft(record.OriginHost, record.ClassVMChange, &record.Event{
		Vm:     &record.VM{Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: int64(m.LibvirtID)},
		Reason: "continues " + known.log.Origin(),
	})
	return append(entries, entry), err
}

// origin returns the name of the log that a machine's row is about.
func (m *machine) origin(hostID string) string {
	return proof.Origin{HostID: hostID, Domain: m.UUID.String(), Incarnation: m.Incarnation, Shard: max(m.Shard, proof.FirstShard)}.String()
}

// sameIncarnation reports whether a log is a shard of a machine's incarnation.
func (m *machine) sameIncarnation(l *chain.Log) bool {
	id, err := domain.ParseUUID(l.Name().Domain)
	return err == nil && id == m.UUID && l.Name().Incarnation == m.Incarnation
}
