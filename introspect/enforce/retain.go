package enforce

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// mergeTimeout bounds the merging of images of one disk.
const mergeTimeout = 30 * time.Minute

// keptRow is a snapshot of ours. It stands in the ledger from its outcome on, for as long
// as one of its files is there: nothing is removed that no row names.
type keptRow struct {
	Domain  domain.UUID `json:"domain"`
	Policy  string      `json:"policy"`
	Verdict uint64      `json:"verdict"`
	Index   uint32      `json:"index"`
	Name    string      `json:"name"`
	Taken   int64       `json:"taken"` // Unix nanoseconds
	Keep    int         `json:"keep,omitempty"`
	// Retired says that it is not kept any more; images of its own still lie below
	// those that the domain runs on.
	Retired bool       `json:"retired,omitempty"`
	Files   []keptFile `json:"files"`
}

type keptFile struct {
	virt.SnapshotFile
	Sha256 []byte `json:"sha256,omitempty"`
}

// mergeRow is a merge that was begun. A crash leaves it, and the next run brings the
// merge to its end, or finds it there.
type mergeRow struct {
	Policy string         `json:"policy"`
	Keep   int            `json:"keep"`
	Plan   virt.MergePlan `json:"plan"`
}

const (
	keptPrefix  = "enforce/kept/"
	mergePrefix = "enforce/merge/"
)

func (r *keptRow) key() string { return keptPrefix + r.Domain.String() + "/" + r.Name }

// write is the row as it is now; none where nothing is left of the snapshot.
func (r *keptRow) write() (chain.MetaWrite, error) {
	if r.Retired && len(r.Files) == 0 {
		return chain.MetaWrite{Key: r.key()}, nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("encode snapshot %s: %w", r.Name, err)
	}
	return chain.MetaWrite{Key: r.key(), Value: b}, nil
}

// kept are the snapshots of a domain, the oldest first.
func (e *Enforcer) kept(id domain.UUID) ([]*keptRow, error) {
	var all []*keptRow
	for row, err := range e.cfg.Store.MetaPrefix(keptPrefix + id.String() + "/") {
		if err != nil {
			return nil, fmt.Errorf("read snapshots from the ledger: %w", err)
		}
		r := &keptRow{}
		if err := json.Unmarshal(row.Value, r); err != nil {
			return nil, fmt.Errorf("read snapshot %s from the ledger: %w: %w", row.Key, err, record.ErrFatal)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *keptRow) int { return cmp.Or(cmp.Compare(a.Taken, b.Taken), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}

// keptDigests is the row of a snapshot with the digests of its files.
func (e *Enforcer) keptDigests(s *snapshotRow, files []*record.SnapshotFile) (*chain.MetaWrite, error) {
	r := &keptRow{Domain: s.Domain, Name: s.Name}
	b, ok, err := e.cfg.Store.Meta(r.key())
	if err != nil || !ok {
		return nil, err
	}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read snapshot %s from the ledger: %w: %w", s.Name, err, record.ErrFatal)
	}
	for i := range r.Files {
		for _, f := range files {
			if f.Role == r.Files[i].Role && f.Path == r.Files[i].Path {
				r.Files[i].Sha256, r.Files[i].Size = f.Sha256, int64(f.Size)
			}
		}
	}
	w, err := r.write()
	return &w, err
}

// loadRetain has those policies looked at again whose removals an earlier run may not
// have ended.
func (e *Enforcer) loadRetain() error {
	seen := map[retention]bool{}
	for row, err := range e.cfg.Store.MetaPrefix(keptPrefix) {
		if err != nil {
			return fmt.Errorf("read snapshots from the ledger: %w", err)
		}
		var r keptRow
		if err := json.Unmarshal(row.Value, &r); err != nil {
			return fmt.Errorf("read snapshot %s from the ledger: %w: %w", row.Key, err, record.ErrFatal)
		}
		if due := (retention{r.Domain, r.Policy}); r.Keep > 0 && !seen[due] {
			seen[due] = true
			e.retains = append(e.retains, due)
		}
	}
	return nil
}

// retention is what keeps so many snapshots and no more: a policy, on a domain.
type retention struct {
	id     domain.UUID
	policy string
}

// retain gives up what a policy has on a domain beyond the snapshots that it keeps: of
// each the memory, and then the images that nobody needs any more. It is called
// behind the digests of a snapshot, so that what goes is known by its digest. An error is
// one of the ledger.
func (e *Enforcer) retain(ctx context.Context, due retention) error {
	all, err := e.kept(due.id)
	if err != nil {
		return err
	}
	mine := slices.DeleteFunc(slices.Clone(all), func(r *keptRow) bool { return r.Policy != due.policy || r.Retired })
	if len(mine) == 0 {
		return nil
	}
	keep := mine[len(mine)-1].Keep // as its newest snapshot wants it
	if keep <= 0 {
		return nil
	}
	for _, r := range mine[:max(0, len(mine)-keep)] {
		if err := e.retire(ctx, r, keep, all); err != nil {
			return err
		}
	}
	return e.mergeImages(ctx, due, keep, all)
}

// retire removes the memory of a snapshot. Stopped behind that and before the seal, the
// next run finds the file gone, and seals what was known of it.
func (e *Enforcer) retire(ctx context.Context, r *keptRow, keep int, all []*keptRow) error {
	m := &record.SnapshotRemoved{Policy: r.Policy, Keep: uint32(keep), Name: r.Name, VerdictIndex: r.Verdict, ActionIndex: r.Index}
	var rest []keptFile
	var notes []string
	for _, f := range r.Files {
		if f.Role == "memory" {
			gone := f.record()
			if err := virt.RemoveMade(f.Path, f.Inode); err != nil {
				gone.Error = "not removed: " + err.Error()
			}
			m.Files = append(m.Files, gone)
			continue
		}
		if made(all, f.Path) == nil {
			notes = append(notes, f.Path+" stays: Provost did not make it")
		}
		if f.Overlay != "" {
			rest = append(rest, f)
		}
	}
	m.Detail = strings.Join(notes, "; ")
	r.Files, r.Retired = rest, true
	w, err := r.write()
	if err != nil {
		return err
	}
	return e.sealRemoved(ctx, r.Domain, m, w)
}

func (f *keptFile) record() *record.SnapshotFile {
	out := recordFiles([]virt.SnapshotFile{f.SnapshotFile})[0]
	out.Sha256 = f.Sha256
	return out
}

// made returns the file of the snapshot that has made an image; nil: none of ours.
func made(all []*keptRow, path string) *keptFile {
	for _, r := range all {
		for i := range r.Files {
			if r.Files[i].Role == "disk" && r.Files[i].Overlay == path {
				return &r.Files[i]
			}
		}
	}
	return nil
}

// mergeImages merges the images of a domain that no kept snapshot needs. Libvirt may say
// no: then the images stay, which is sealed, and the next snapshot tries it again.
func (e *Enforcer) mergeImages(ctx context.Context, due retention, keep int, all []*keptRow) error {
	if done, err := e.resumeMerge(ctx, due.id, all); err != nil || !done {
		return err
	}
	ours, needed := map[string][]virt.Layer{}, map[string][]string{}
	for _, r := range all {
		for _, f := range r.Files {
			if f.Role != "disk" {
				continue
			}
			if f.Overlay != "" {
				ours[f.Target] = append(ours[f.Target], virt.Layer{Path: f.Overlay, Inode: f.Inode})
			}
			if !r.Retired {
				needed[f.Target] = append(needed[f.Target], f.Path)
			}
		}
	}
	for target := range ours {
		for range len(ours[target]) { // each merge leaves one less
			if !slices.ContainsFunc(all, func(r *keptRow) bool { return r.Retired }) {
				return nil
			}
			plan, err := e.cfg.Actor.PlanMerge(ctx, due.id, target, ours[target], needed[target])
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				m := &record.SnapshotRemoved{Policy: due.policy, Keep: uint32(keep), Target: target, Error: err.Error()}
				if err := e.sealRemoved(ctx, due.id, m); err != nil {
					return err
				}
				break
			}
			if plan == nil {
				break
			}
			row := &mergeRow{due.policy, keep, *plan}
			if err := e.intendMerge(ctx, due.id, row, all); err != nil {
				return err
			}
			if done, err := e.merge(ctx, due.id, row, all); err != nil || !done {
				return err
			}
			needed[target] = slices.DeleteFunc(needed[target], func(p string) bool { return p == plan.Top() })
			needed[target] = append(needed[target], plan.Base())
		}
	}
	return nil
}

func mergeKey(id domain.UUID) string { return mergePrefix + id.String() }

// resumeMerge ends what an earlier run, or an earlier attempt, has begun.
func (e *Enforcer) resumeMerge(ctx context.Context, id domain.UUID, all []*keptRow) (bool, error) {
	b, ok, err := e.cfg.Store.Meta(mergeKey(id))
	if err != nil || !ok {
		return err == nil, err
	}
	row := &mergeRow{}
	if err := json.Unmarshal(b, row); err != nil || len(row.Plan.Layers) < 2 {
		return false, fmt.Errorf("read merge of domain %s from the ledger: %v: %w", id, err, record.ErrFatal)
	}
	return e.merge(ctx, id, row, all)
}

// intendMerge seals which images are about to be merged. A crash behind it leaves the
// plan, which tells the images that were merged from those of somebody else.
func (e *Enforcer) intendMerge(ctx context.Context, id domain.UUID, row *mergeRow, all []*keptRow) error {
	b, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode merge: %w", err)
	}
	m := row.entry(all)
	m.Intended = true
	return e.sealRemoved(ctx, id, m, chain.MetaWrite{Key: mergeKey(id), Value: b})
}

// entry tells of a merge: the images that go, and what was sealed of them.
func (row *mergeRow) entry(all []*keptRow) *record.SnapshotRemoved {
	p := &row.Plan
	m := &record.SnapshotRemoved{Policy: row.Policy, Keep: uint32(row.Keep), Target: p.Target, Into: p.Base()}
	for _, l := range p.Layers[:len(p.Layers)-1] {
		f := &record.SnapshotFile{Role: "disk", Target: p.Target, Path: l.Path}
		for _, r := range all { // the snapshot that froze it knows its digest
			for _, k := range r.Files {
				if k.Role == "disk" && k.Path == l.Path {
					f = k.record()
				}
			}
		}
		m.Files = append(m.Files, f)
	}
	return m
}

// merge does a merge that is sealed as intended, and seals what became of it. It reports
// whether it was done.
func (e *Enforcer) merge(ctx context.Context, id domain.UUID, row *mergeRow, all []*keptRow) (bool, error) {
	d := e.dom(id)
	mctx, end, ok := e.beginMerge(ctx, d)
	if !ok {
		e.putOff(row, id)
		return false, nil
	}
	err := e.cfg.Actor.Merge(mctx, id, &row.Plan, mergeTimeout)
	end()
	m := row.entry(all)
	if err != nil {
		if !errors.Is(err, virt.ErrUnmerged) && !errors.Is(err, virt.ErrNotFound) || ctx.Err() != nil {
			// What became of it is not known, or it goes on when the daemon does: the plan stays.
			e.cfg.Log.WarnContext(ctx, "images of snapshots cannot be merged now, trying on", "uuid", id.String(), "disk", row.Plan.Target, "error", err)
			e.putOff(row, id)
			return false, nil
		}
		m.Error = err.Error()
		return false, e.sealRemoved(ctx, id, m, chain.MetaWrite{Key: mergeKey(id)})
	}
	rows := []chain.MetaWrite{{Key: mergeKey(id)}}
	var again []string
	for _, r := range all {
		changed, moved := r.merged(&row.Plan)
		if !changed {
			continue
		}
		w, err := r.write()
		if err != nil {
			return false, err
		}
		if rows = append(rows, w); moved && !r.Retired {
			// Its image has another name and other bytes: they are sealed as well.
			s := snapshotRow{Domain: r.Domain, Policy: r.Policy, Verdict: r.Verdict, Index: r.Index, Name: r.Name}
			for _, f := range r.Files {
				s.Files = append(s.Files, f.SnapshotFile)
			}
			w, err := s.write()
			if err != nil {
				return false, err
			}
			rows, again = append(rows, w), append(again, w.Key)
		}
	}
	if err := e.sealRemoved(ctx, id, m, rows...); err != nil {
		return false, err
	}
	e.mu.Lock()
	e.hash = append(e.hash, again...)
	e.mu.Unlock()
	return true, nil
}

// merged takes over in a row what a merge has changed: images that are gone, and the one
// that holds what another held.
func (r *keptRow) merged(p *virt.MergePlan) (changed, moved bool) {
	gone := func(path string) bool {
		return slices.ContainsFunc(p.Layers[:len(p.Layers)-1], func(l virt.Layer) bool { return l.Path == path })
	}
	for i := range r.Files {
		f := &r.Files[i]
		if f.Role != "disk" || f.Target != p.Target {
			continue
		}
		if gone(f.Overlay) {
			f.Overlay, f.Inode, changed = "", 0, true
		}
		if f.Path == p.Top() {
			f.Path, f.Sha256, changed, moved = p.Base(), nil, true, true
		}
	}
	if r.Retired {
		r.Files = slices.DeleteFunc(r.Files, func(f keptFile) bool { return f.Overlay == "" })
	}
	return changed, moved
}

func (e *Enforcer) sealRemoved(ctx context.Context, id domain.UUID, m *record.SnapshotRemoved, rows ...chain.MetaWrite) error {
	err := e.cfg.Seal(context.WithoutCancel(ctx), id, rows, func() (chain.Entry, error) {
		return e.cfg.Store.Draft(record.OriginHost, record.ClassPolicySnapshotRemoved, m)
	})
	if err != nil {
		return fmt.Errorf("seal %s: %w", record.ClassPolicySnapshotRemoved, err)
	}
	e.cfg.Log.InfoContext(ctx, "files of snapshots", "uuid", id.String(), "policy", m.Policy, "snapshot", m.Name, "disk", m.Target, "into", m.Into,
		"intended", m.Intended, "files", len(m.Files), "detail", m.Detail, "error", m.Error)
	return nil
}

// putOff has a merge tried again with the next sweep.
func (e *Enforcer) putOff(row *mergeRow, id domain.UUID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retainLater = append(e.retainLater, retention{id, row.Policy})
}

// beginMerge begins a merge, unless a snapshot is being taken of the domain: libvirt takes
// none of disks that it merges.
func (e *Enforcer) beginMerge(ctx context.Context, d *dom) (mctx context.Context, end func(), ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.shooting > 0 {
		return nil, nil, false
	}
	mctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	d.stopMerge = func(ctx context.Context) {
		cancel()
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return mctx, func() {
		cancel()
		e.mu.Lock()
		defer e.mu.Unlock()
		d.stopMerge = nil
		close(done)
	}, true
}

// beginShot ends a merge that is under way, which goes on behind the snapshot: evidence
// does not wait for housekeeping.
func (e *Enforcer) beginShot(ctx context.Context, d *dom) (end func()) {
	e.mu.Lock()
	d.shooting++
	stop := d.stopMerge
	e.mu.Unlock()
	if stop != nil {
		stop(ctx)
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		d.shooting--
	}
}
