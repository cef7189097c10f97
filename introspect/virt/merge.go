package virt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Layer is an image that a snapshot of ours has made, known by its name and its inode.
type Layer struct {
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
}

// MergePlan says which images of a disk are to become one. The JSON form is kept in the
// ledger, so that a merge which was cut short can be brought to its end.
type MergePlan struct {
	Target string `json:"target"`
	Above  string `json:"above"` // lies on the first of them, and on the last afterwards
	// Layers are the images from the top down. The last one stays and holds afterwards
	// what the first one held; the others are removed.
	Layers []Layer `json:"layers"`
}

// Top is the image whose content is kept, Base the one that it is kept in.
func (p *MergePlan) Top() string  { return p.Layers[0].Path }
func (p *MergePlan) Base() string { return p.Layers[len(p.Layers)-1].Path }

// ErrUnmerged: the images lie on each other as they did before.
var ErrUnmerged = errors.New("nothing was merged")

const (
	mergeRate  = 128              // MiB a second: the disks are the domains'
	mergeStall = time.Minute      // without progress a merge is given up
	mergeGrace = 30 * time.Second // for libvirt to end it
)

// PlanMerge returns images of a disk that can become one: all of them ours, none
// written to by the domain, and of those that only the content above them is needed of.
// nil: there are none.
func (h *Host) PlanMerge(ctx context.Context, id domain.UUID, target string, ours []Layer, needed []string) (*MergePlan, error) {
	p, err := withDomain(ctx, h, id, false, func(dom *libvirt.Domain) (*MergePlan, error) {
		chain, err := images(dom, target)
		if err != nil {
			return nil, err
		}
		is := map[string]uint64{}
		for _, l := range ours {
			if l.same() && strings.Contains(l.Path, overlayMark) {
				is[l.Path] = l.Inode
			}
		}
		return planMerge(target, chain, is, needed), nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the images of domain %s: %w", id, err)
	}
	return p, nil
}

// planMerge finds the lowest images that can become one in a chain, whose first image is
// the one that is written to. An image that nobody needs takes the content of the one
// above it, which goes; neither is ever the first one, nor somebody else's.
func planMerge(target string, chain []string, ours map[string]uint64, needed []string) *MergePlan {
	spare := func(i int) bool { return ours[chain[i]] != 0 && !slices.Contains(needed, chain[i]) }
	for base := len(chain) - 1; base >= 2; base-- {
		if !spare(base) || ours[chain[base-1]] == 0 {
			continue
		}
		top := base - 1
		for top > 1 && spare(top) && ours[chain[top-1]] != 0 {
			top--
		}
		p := &MergePlan{Target: target, Above: chain[top-1]}
		for i := top; i <= base; i++ {
			p.Layers = append(p.Layers, Layer{chain[i], ours[chain[i]]})
		}
		return p
	}
	return nil
}

// Merge makes images of a running domain one, as planned, and removes those that are left
// over. What was done of it before is found. An error that is ErrUnmerged says that the
// images are as they were. Cancelled, or where nothing goes on, it ends what libvirt does.
func (h *Host) Merge(ctx context.Context, id domain.UUID, p *MergePlan, limit time.Duration) error {
	job, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// The call outlives its cancelling, so that what it has left is known.
	_, err := do(context.WithoutCancel(ctx), h.calls, id, false, limit+2*mergeGrace, func() (struct{}, error) {
		l, conn, err := h.borrow()
		if err != nil {
			return struct{}{}, err
		}
		defer h.giveBack(l, conn)
		dom, err := conn.LookupDomainByUUID(id[:])
		if err != nil {
			return struct{}{}, err
		}
		defer dom.Free()
		return struct{}{}, join(job, dom, p)
	})
	if err != nil {
		return fmt.Errorf("merge images of disk %s of domain %s: %w", p.Target, id, err)
	}
	return nil
}

func join(ctx context.Context, dom *libvirt.Domain, p *MergePlan) error {
	merged, err := p.merged(dom)
	if err != nil {
		return err
	}
	if !merged {
		if err := commit(ctx, dom, p); err != nil {
			// It may have been too late to end it: what libvirt says now counts.
			if merged, rerr := p.merged(dom); rerr != nil || !merged {
				return errors.Join(err, rerr)
			}
		} else if merged, err = p.merged(dom); err != nil || !merged {
			return errors.Join(fmt.Errorf("libvirt says yes, and %s does not lie on %s: %w: %w", p.Above, p.Base(), ErrUnmerged, record.ErrReject), err)
		}
	}
	for _, l := range p.Layers[:len(p.Layers)-1] {
		if !l.same() {
			continue // gone, or somebody else's by now
		}
		if err := os.Remove(l.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what was merged: %w: %w", err, record.ErrRetry)
		}
	}
	return nil
}

// merged reads back whether the images are one. Images that lie otherwise than planned,
// before and behind, were changed by somebody else, and are left alone.
func (p *MergePlan) merged(dom *libvirt.Domain) (bool, error) {
	chain, err := images(dom, p.Target)
	if err != nil {
		return false, err
	}
	want := []string{p.Above}
	for _, l := range p.Layers {
		want = append(want, l.Path)
	}
	at := slices.Index(chain, p.Above)
	switch {
	case at >= 0 && at+1 < len(chain) && chain[at+1] == p.Base():
		return true, nil
	case at >= 0 && len(chain) >= at+len(want) && slices.Equal(chain[at:at+len(want)], want):
		return false, nil
	}
	return false, fmt.Errorf("the images of disk %s are not as they were when this was planned: %w: %w", p.Target, ErrUnmerged, record.ErrReject)
}

// commit has libvirt write the images down into the last one, and waits until that is over.
func commit(ctx context.Context, dom *libvirt.Domain, p *MergePlan) error {
	for _, l := range p.Layers {
		if !l.same() {
			return fmt.Errorf("%s is not the file that the snapshot made: %w: %w", l.Path, ErrUnmerged, record.ErrReject)
		}
	}
	info, err := dom.GetBlockJobInfo(p.Target, 0)
	if err != nil {
		return err
	}
	// One of an earlier run goes on; somebody else's is told from it by what is read back.
	if info.Type == 0 {
		if err := dom.BlockCommit(p.Target, p.Base(), p.Top(), mergeRate, 0); err != nil {
			return fmt.Errorf("%w: %w", ErrUnmerged, err)
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var done uint64
	var ending time.Time // when it was asked to end
	var why error
	moved := time.Now()
	for {
		if info, err = dom.GetBlockJobInfo(p.Target, 0); err != nil {
			return err
		}
		if info.Type == 0 {
			return why
		}
		if info.Cur != done {
			done, moved = info.Cur, time.Now()
		}
		switch {
		case !ending.IsZero() && time.Since(ending) > mergeGrace:
			return errors.Join(why, fmt.Errorf("and libvirt does not end it: %w", record.ErrRetry))
		case !ending.IsZero():
		case ctx.Err() != nil:
			why = fmt.Errorf("%w: %w: %w", ErrUnmerged, record.ErrRetry, ctx.Err())
		case time.Since(moved) > mergeStall:
			why = fmt.Errorf("no progress for %s, at %d of %d bytes: %w: %w", mergeStall, info.Cur, info.End, ErrUnmerged, record.ErrRetry)
		}
		if why != nil && ending.IsZero() {
			ending = time.Now()
			if err := dom.BlockJobAbort(p.Target, libvirt.DOMAIN_BLOCK_JOB_ABORT_ASYNC); err != nil {
				why = fmt.Errorf("%w; and it cannot be ended: %w", why, err)
			}
		}
		<-tick.C
	}
}

// images are the files of a disk of the running domain, the one that is written to first.
func images(dom *libvirt.Domain, target string) ([]string, error) {
	s, err := status(dom)
	if err != nil {
		return nil, err
	}
	if !s.State.Active() {
		return nil, fmt.Errorf("%w: %w: it is %s (%s)", record.ErrReject, ErrInactive, s.State, s.Reason)
	}
	def, err := definition(dom, 0)
	if err != nil {
		return nil, err
	}
	for i := range def.Devices.Disks {
		x := &def.Devices.Disks[i]
		if x.Target == nil || x.Target.Dev != target || x.Source == nil {
			continue
		}
		all := []string{sourcePath(x.Source)}
		for b := x.BackingStore; b != nil && b.Source != nil && sourcePath(b.Source) != ""; b = b.BackingStore {
			all = append(all, sourcePath(b.Source))
		}
		return all, nil
	}
	return nil, fmt.Errorf("the domain has no disk %s: %w: %w", target, ErrUnmerged, record.ErrReject)
}

// same reports whether the file is still the one that the snapshot made.
func (l Layer) same() bool {
	n, err := inode(l.Path)
	return err == nil && n != 0 && n == l.Inode
}

// inode is the number of a file, of no other kind and not behind a link.
func inode(path string) (uint64, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is no file", path)
	}
	return sys.Ino, nil
}

// RemoveMade removes a file that a snapshot has made, and no other; one that is gone is
// no error.
func RemoveMade(path string, made uint64) error {
	l := Layer{path, made}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !l.same() {
		return fmt.Errorf("%s is not the file that the snapshot made: %w", path, record.ErrReject)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
