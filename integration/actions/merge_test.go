package actions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// chainOf are the images of a disk, the one that is written to first, as QEMU's own tool
// reads them from the files.
func (l *lab) chainOf(top string) []string {
	l.t.Helper()
	var all []string
	for _, line := range strings.Split(l.sh("qemu-img", "info", "-U", "--backing-chain", top), "\n") {
		if name, ok := strings.CutPrefix(line, "image: "); ok {
			all = append(all, filepath.Base(name))
		}
	}
	return all
}

// TestMerge lays three snapshots of a running guest on each other and merges what is not
// kept: on a qcow2 and on a raw disk, whose own images are never written to; what is
// merged reads as before; a second time finds it done; a plan that does not fit any more,
// and a merge that is ended, change nothing.
func TestMerge(t *testing.T) {
	l := newLab(t)
	g, id := l.define("g", l.disk("vda", "qcow2")+l.disk("vdb", "raw"))
	l.must(g.Start(l.ctx))
	made, needed := map[string][]virt.Layer{}, map[string][]string{}
	for _, name := range []string{"1-p", "2-p", "3-p"} {
		r, err := l.virt.Snapshot(l.ctx, id, virt.SnapshotRequest{Name: name, Dir: l.dir + "/memory", Spare: 1, MaxChain: 9}, time.Minute)
		l.must(err)
		clear(needed)
		for _, f := range r.Files {
			if f.Inode == 0 {
				t.Errorf("%+v has no inode", f)
			}
			made[f.Target] = append(made[f.Target], virt.Layer{Path: f.Overlay, Inode: f.Inode})
			needed[f.Target] = []string{f.Path}
		}
	}
	for target, format := range map[string]string{"vda": "qcow2", "vdb": "raw"} {
		base := filepath.Join(l.dir, target+"."+format)
		before, err := os.ReadFile(base)
		l.must(err)
		plan, err := l.virt.PlanMerge(l.ctx, id, target, made[target], needed[target])
		if err != nil || plan == nil || len(plan.Layers) != 2 || plan.Top() != needed[target][0] {
			t.Fatalf("plan for %s: %+v %v", target, plan, err)
		}
		if none, err := l.virt.PlanMerge(l.ctx, id, target, nil, nil); err != nil || none != nil {
			t.Errorf("a plan for images of somebody else: %+v %v", none, err)
		}
		wrong := *plan
		wrong.Above = base
		if err := l.virt.Merge(l.ctx, id, &wrong, time.Minute); !errors.Is(err, virt.ErrUnmerged) {
			t.Errorf("a plan that does not fit: %v", err)
		}
		swapped := *plan
		swapped.Layers = slices.Clone(plan.Layers)
		swapped.Layers[0].Inode++
		if err := l.virt.Merge(l.ctx, id, &swapped, time.Minute); !errors.Is(err, virt.ErrUnmerged) {
			t.Errorf("a file that is another: %v", err)
		}
		top := plan.Above
		content := l.sh("qemu-img", "convert", "-U", "-O", "raw", plan.Top(), filepath.Join(l.dir, "was"))
		for n := range 2 {
			start := time.Now()
			if err := l.virt.Merge(l.ctx, id, plan, time.Minute); err != nil {
				t.Fatalf("merge %d of %s: %v", n, target, err)
			}
			t.Logf("%s: %s", format, time.Since(start))
		}
		want := []string{filepath.Base(top), filepath.Base(plan.Base()), filepath.Base(base)}
		if got := l.chainOf(top); !slices.Equal(got, want) {
			t.Errorf("%s lies on %v, want %v", target, got, want)
		}
		if _, err := os.Stat(plan.Top()); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", plan.Top(), err)
		}
		content += l.sh("qemu-img", "compare", "-U", filepath.Join(l.dir, "was"), plan.Base())
		if !strings.Contains(content, "identical") {
			t.Errorf("what %s holds has changed: %s", plan.Base(), content)
		}
		if after, err := os.ReadFile(base); err != nil || !slices.Equal(after, before) {
			t.Errorf("the owner's image %s was written to (%v)", base, err)
		}
		if again, err := l.virt.PlanMerge(l.ctx, id, target, made[target], []string{plan.Base()}); err != nil || again != nil {
			t.Errorf("another plan: %+v %v", again, err)
		}
	}

	// Ended before it is begun, it leaves all as it is; and the guest runs on.
	r, err := l.virt.Snapshot(l.ctx, id, virt.SnapshotRequest{Name: "4-p", Dir: l.dir + "/memory", Spare: 1, MaxChain: 9}, time.Minute)
	l.must(err)
	made["vda"] = append(made["vda"], virt.Layer{Path: r.Files[0].Overlay, Inode: r.Files[0].Inode})
	plan, err := l.virt.PlanMerge(l.ctx, id, "vda", made["vda"], nil)
	if err != nil || plan == nil {
		t.Fatalf("%+v %v", plan, err)
	}
	ctx, cancel := context.WithCancel(l.ctx)
	cancel()
	err = l.virt.Merge(ctx, id, plan, time.Minute)
	got := l.chainOf(plan.Above)
	if err != nil && (!errors.Is(err, virt.ErrUnmerged) || len(got) != 4) || err == nil && len(got) != 3 {
		t.Errorf("a merge that was ended: %v, and %v", err, got)
	}
	if s, err := l.virt.State(l.ctx, id); err != nil || s.State != domain.Running {
		t.Errorf("the guest is %+v %v", s, err)
	}
}
