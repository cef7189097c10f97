package enforce

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// actor is a domain that counts what is done to it. errs are returned first.
type actor struct {
	mu     sync.Mutex
	state  domain.State
	pauses int
	errs   []error
	gate   chan struct{} // closed: go on; nil: no gate

	resumes int
	links   []virt.Interface
	mark    string
	calls   []string
	fail    map[string]error // by call
	after   func(call string)
	seen    map[domain.UUID]int // reads of the state
	gone    bool
	snaps   map[string]*virt.SnapshotResult
	// layer makes the files of a snapshot by its name; plan is what can be merged.
	layer     func(name string) []virt.SnapshotFile
	plan      *virt.MergePlan
	mergeGate chan struct{}
}

func (a *actor) Pause(ctx context.Context, id domain.UUID) (before, after virt.Status, err error) {
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return before, after, ctx.Err()
		}
	}
	a.mu.Lock()
	a.pauses++
	if len(a.errs) > 0 {
		err, a.errs = a.errs[0], a.errs[1:]
		a.mu.Unlock()
		return before, after, err
	}
	before = virt.Status{State: a.state, Reason: "user"}
	a.state = domain.Paused
	a.mu.Unlock()
	return before, virt.Status{State: domain.Paused, Reason: "user"}, a.done("pause")
}

// done notes a call that has taken effect, and returns the error that is to come of it.
func (a *actor) done(call string) error {
	a.mu.Lock()
	a.calls = append(a.calls, call)
	err, after := a.fail[call], a.after
	a.mu.Unlock()
	if after != nil {
		after(call)
	}
	return err
}

func (a *actor) State(_ context.Context, id domain.UUID) (virt.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[domain.UUID]int{}
	}
	if a.seen[id]++; a.gone {
		return virt.Status{}, virt.ErrNotFound
	}
	return virt.Status{State: a.state, Reason: "user"}, nil
}

func (a *actor) Resume(context.Context, domain.UUID) (before, after virt.Status, err error) {
	a.mu.Lock()
	before = virt.Status{State: a.state, Reason: "user"}
	a.state, a.resumes = domain.Running, a.resumes+1
	a.mu.Unlock()
	return before, virt.Status{State: domain.Running, Reason: "unpaused"}, a.done("resume")
}

func (a *actor) Interfaces(context.Context, domain.UUID) ([]virt.Interface, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.links), nil
}

func (a *actor) LinksDown(_ context.Context, _ domain.UUID, keys []string) ([]virt.Interface, error) {
	a.mu.Lock()
	for i, n := range a.links {
		if keys == nil || slices.Contains(keys, n.Key) {
			a.links[i].LiveLink = virt.LinkDown
		}
	}
	all := slices.Clone(a.links)
	a.mu.Unlock()
	return all, a.done("down")
}

func (a *actor) Unplug(_ context.Context, _ domain.UUID, keys []string) ([]virt.Interface, error) {
	a.mu.Lock()
	a.links = slices.DeleteFunc(a.links, func(n virt.Interface) bool { return slices.Contains(keys, n.Key) })
	all := slices.Clone(a.links)
	a.mu.Unlock()
	return all, a.done("unplug")
}

func (a *actor) Isolate(context.Context, domain.UUID, []string, string) ([]virt.Interface, error) {
	return nil, fmt.Errorf("no isolated network here")
}

func (a *actor) RestoreLinks(_ context.Context, _ domain.UUID, saved []virt.Interface, mode string) ([]virt.Interface, error) {
	a.mu.Lock()
	for _, s := range saved {
		i := slices.IndexFunc(a.links, func(n virt.Interface) bool { return n.Key == s.Key })
		switch {
		case i >= 0:
			a.links[i].LiveLink = s.LiveLink
		case mode == virt.ModeUnplug:
			a.links = append(a.links, s)
		}
	}
	all := slices.Clone(a.links)
	a.mu.Unlock()
	return all, a.done("restore")
}

func (a *actor) QuarantineMark(context.Context, domain.UUID) (string, string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fail["read mark"]; err != nil {
		delete(a.fail, "read mark") // once
		return "", "", err
	}
	return a.mark, a.mark, nil
}

func (a *actor) SetQuarantineMark(_ context.Context, _ domain.UUID, text string) error {
	a.mu.Lock()
	a.mark = text
	a.mu.Unlock()
	return a.done("mark")
}

func (a *actor) Snapshot(_ context.Context, _ domain.UUID, req virt.SnapshotRequest, _ time.Duration) (*virt.SnapshotResult, error) {
	a.mu.Lock()
	if a.snaps == nil {
		a.snaps = map[string]*virt.SnapshotResult{}
	}
	r := a.snaps[req.Name]
	if r == nil {
		r = &virt.SnapshotResult{Variant: virt.VariantDisks, Files: []virt.SnapshotFile{{Role: "disk", Target: "vda", Path: req.Dir + "/vda"}}}
		if a.layer != nil {
			r.Files = a.layer(req.Name)
		}
		a.snaps[req.Name] = r
	} else {
		again := *r
		again.Existed = true
		r = &again
	}
	a.mu.Unlock()
	return r, a.done("snapshot")
}

func (a *actor) PlanMerge(_ context.Context, _ domain.UUID, target string, _ []virt.Layer, needed []string) (*virt.MergePlan, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.plan == nil || a.plan.Target != target || slices.Contains(needed, a.plan.Base()) {
		return nil, nil
	}
	return a.plan, nil
}

func (a *actor) Merge(ctx context.Context, _ domain.UUID, p *virt.MergePlan, _ time.Duration) error {
	if a.mergeGate != nil {
		select {
		case <-a.mergeGate:
		case <-ctx.Done():
			_ = a.done("merge ended")
			return fmt.Errorf("%w: %w", virt.ErrUnmerged, ctx.Err())
		}
	}
	a.mu.Lock()
	a.plan = nil
	a.mu.Unlock()
	return a.done("merge " + p.Top() + " into " + p.Base())
}

func (a *actor) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.calls, " ")
}

func (a *actor) state3() (domain.State, []virt.Interface, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state, slices.Clone(a.links), a.mark
}

// twoLinks are one interface that is up and one that its owner has down.
func twoLinks() []virt.Interface {
	return []virt.Interface{{Key: "52:54:00:00:00:01", Device: "vnet0", Type: "network", Live: "<interface/>", LiveLink: virt.LinkUp},
		{Key: "52:54:00:00:00:02", Device: "vnet1", Type: "bridge", Live: "<interface/>", LiveLink: virt.LinkDown}}
}

func linkStates(all []virt.Interface) string {
	m := map[string]string{}
	for _, n := range all {
		m[n.Key[len(n.Key)-1:]] = n.LiveLink
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k + m[k] + " ")
	}
	return strings.TrimSpace(b.String())
}
