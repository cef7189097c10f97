package introspect

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// factsPrefix begins the keys of the rows that hold what was last sealed, or
// taken as known, of a domain's configuration. A row is written in the batch that
// tells what is new in it, so no difference is told twice or forgotten, across
// restarts too.
const factsPrefix = "facts/"

// Bounds of a row, and of how many changes of lists one look may tell.
const (
	maxFactsBytes  = 32 << 20 // decoded
	maxListChanges = 64
)

// factsRow is what is known of a domain in the form of its row: most domains do
// not change for weeks, so it is kept packed.
type factsRow struct {
	packed  []byte
	unsaved bool // goes with the next batch of the domain
}

func packFacts(f *virt.Facts) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(f)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	return b.Bytes(), nil
}

func unpackFacts(b []byte) (*virt.Facts, error) {
	f := &virt.Facts{}
	if err := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxFactsBytes)).Decode(f); err != nil {
		return nil, fmt.Errorf("decode facts: %w: %w", err, record.ErrReject)
	}
	return f, nil
}

// readFacts reads the rows of all domains.
func (r *Registry) readFacts() error {
	for row, err := range r.store.MetaPrefix(factsPrefix) {
		if err != nil {
			return fmt.Errorf("read facts from the ledger: %w", err)
		}
		if id, err := domain.ParseUUID(row.Key[len(factsPrefix):]); err == nil {
			r.facts[id] = factsRow{packed: row.Value}
		}
	}
	return nil
}

// knownFacts returns what is known of a domain, nil where that is nothing. A row
// that cannot be read is as none: what is there now is taken as known.
func (r *Registry) knownFacts(ctx context.Context, id domain.UUID) *virt.Facts {
	r.mu.Lock()
	row, ok := r.facts[id]
	r.mu.Unlock()
	if !ok {
		return nil
	}
	f, err := unpackFacts(row.packed)
	if err != nil {
		r.log.WarnContext(ctx, "what was known of a domain's configuration is lost, it is read anew", "uuid", id.String(), "error", err)
		return nil
	}
	return f
}

// takeFacts makes f what is known of a domain. It is saved with the next batch.
func (r *Registry) takeFacts(id domain.UUID, f *virt.Facts) error {
	b, err := packFacts(f)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts[id] = factsRow{packed: b, unsaved: true}
	return nil
}

// unsavedFacts returns the row that is to be saved, if any.
func (r *Registry) unsavedFacts(id domain.UUID) []chain.MetaWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row := r.facts[id]; row.unsaved {
		return []chain.MetaWrite{{Key: factsPrefix + id.String(), Value: row.packed}}
	}
	return nil
}

// savedFacts notes that a row that unsavedFacts gave is durable.
func (r *Registry) savedFacts(id domain.UUID, rows []chain.MetaWrite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row := r.facts[id]; len(rows) == 1 && bytes.Equal(rows[0].Value, row.packed) {
		row.unsaved = false
		r.facts[id] = row
	}
}

// swept seals what a look at a domain has found to be different from what is
// known of it.
func (r *Registry) swept(ctx context.Context, o *virt.Observation) error {
	m := r.get(o.Domain.UUID)
	if m == nil || m.Ended || o.Facts == nil {
		return nil // what begins its log takes the facts as they are then
	}
	known := r.knownFacts(ctx, m.UUID)
	now := o.Facts
	if known != nil {
		now = known.Merge(o.Facts)
	}
	if err := r.takeFacts(m.UUID, now); err != nil {
		return err
	}
	if known == nil {
		return nil
	}
	var entries []chain.Entry
	for _, f := range drift(known, now) {
		f.h.Learned = o.Reason
		e, err := r.store.Draft(record.OriginHost, f.class, &record.Event{Reason: f.h.Word, Vm: &record.VM{
			Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: int64(m.LibvirtID),
			QemuPid: uint32(m.QEMU.Pid), QemuStart: m.QEMU.Start, Source: string(o.Kind), Arrived: o.Time.UnixNano(), Hypervisor: f.h}})
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil
	}
	m, err := r.reopen(ctx, m)
	if err != nil {
		return err
	}
	rows := r.unsavedFacts(m.UUID)
	// A crash in front of this line leaves the older row: the difference is found again.
	if _, err := r.store.Append(ctx, chain.Batch{Log: m.log, Entries: entries, Meta: rows}); err != nil {
		if back := r.takeFacts(m.UUID, known); back != nil {
			r.log.ErrorContext(ctx, "facts cannot be taken back", "uuid", m.UUID.String(), "error", back)
		}
		return err
	}
	r.savedFacts(m.UUID, rows)
	return nil
}

// finding is one entry to be made of a look.
type finding struct {
	class record.Class
	h     *record.Hypervisor
}

// drift tells what is different between what was known and what is there now.
// Another run of the domain has another live configuration, which its start tells.
func drift(known, now *virt.Facts) []finding {
	var all []finding
	compare := func(side string, before, after *virt.Normal) {
		if changes, omitted := virt.Diff(before, after); len(changes) > 0 {
			all = append(all, finding{record.ClassVMConfigChanged, &record.Hypervisor{Word: "config", Side: side, Changes: changes,
				Omitted: omitted, DigestBefore: before.Digest[:], Digest: after.Digest[:]}})
		}
	}
	if known.Run == now.Run && !known.Live.Empty() && !now.Live.Empty() {
		compare("live", &known.Live, &now.Live)
	}
	if !known.Config.Empty() && !now.Config.Empty() {
		compare("persistent", &known.Config, &now.Config)
	}
	switch {
	case now.File != nil && (known.File == nil || known.File.Digest != now.File.Digest):
		compare("file", &now.Config, now.File)
	case now.File == nil && known.File != nil:
		all = append(all, finding{record.ClassVMConfigChanged, &record.Hypervisor{Word: "config", Side: "file", Status: "agrees",
			DigestBefore: known.File.Digest[:], Digest: now.Config.Digest[:]}})
	}
	for _, group := range slices.Sorted(maps.Keys(now.Groups)) {
		if was, ok := known.Groups[group]; ok { // else it could not be read before
			all = append(all, listed(group, was, now.Groups[group])...)
		}
	}
	return all
}

// listed tells what came, went or changed in a group of facts.
func listed(group string, was, is map[string]string) []finding {
	names := slices.Sorted(maps.Keys(is))
	for _, n := range slices.Sorted(maps.Keys(was)) {
		if _, ok := is[n]; !ok {
			names = append(names, n)
		}
	}
	var all []finding
	for _, n := range names {
		before, had := was[n]
		after, has := is[n]
		if had && has && before == after {
			continue
		}
		if len(all) == maxListChanges {
			all[len(all)-1].h.Omitted++
			continue
		}
		all = append(all, listFinding(group, n, before, after, had, has))
	}
	return all
}

func listFinding(group, name, before, after string, had, has bool) finding {
	status := "changed"
	switch {
	case !had:
		status = "created"
	case !has:
		status = "deleted"
	}
	switch group {
	case virt.GroupSnapshots, virt.GroupCheckpoints:
		return finding{record.ClassVMSnapshot, &record.Hypervisor{Word: group, Device: name, Status: status, OldValue: before, NewValue: after}}
	}
	side := map[string]string{virt.GroupFilters: "filter", virt.GroupSaved: "saved"}[group]
	path := "/" + name
	if side == "" {
		side = "persistent"
	}
	if group == virt.GroupFilters {
		path = "/filter[" + name + "]"
	}
	return finding{record.ClassVMConfigChanged, &record.Hypervisor{Word: "config", Side: side, Status: status,
		Changes: []*record.ConfigChange{{Path: path, OldValue: before, NewValue: after}}}}
}
