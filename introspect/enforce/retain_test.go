package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// layers are a disk that snapshots lay image on image of, with memory, as real files.
type layers struct {
	t   *testing.T
	dir string
	at  string // what the domain writes to
	n   int
}

func (l *layers) file(name string) (string, uint64) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
		l.t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return path, st.Sys().(*syscall.Stat_t).Ino
}

func (l *layers) snapshot(string) []virt.SnapshotFile {
	l.n++
	memory, m := l.file(fmt.Sprintf("memory%d", l.n))
	overlay, o := l.file(fmt.Sprintf("o%d", l.n))
	files := []virt.SnapshotFile{{Role: "memory", Path: memory, Inode: m}, {Role: "disk", Target: "vda", Path: l.at, Overlay: overlay, Inode: o}}
	l.at = overlay
	return files
}

func newLayers(t *testing.T) *layers {
	l := &layers{t: t, dir: t.TempDir()}
	l.at, _ = l.file("base")
	return l
}

func (l *layers) there() string {
	all, err := os.ReadDir(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	var names []string
	for _, f := range all {
		names = append(names, f.Name())
	}
	return strings.Join(names, " ")
}

func (h *host) removed(n int) []*record.SnapshotRemoved {
	return sealed[*record.SnapshotRemoved](h, record.ClassPolicySnapshotRemoved, n)
}

// TestKeep has a policy keep one snapshot: of those before it the memory goes, with the
// digest that was sealed of it, the owner's image stays, images of ours become one, and
// what is kept is sealed anew where it lies now.
func TestKeep(t *testing.T) {
	h := newHost(t)
	l := newLayers(t)
	a := &actor{state: domain.Running, layer: l.snapshot}
	stop := h.enforce(a, nil)
	defer func() { stop() }()
	first := h.verdict("snapshot memory=true keep=1")
	h.outcomes(1)
	digests := sealed[*record.Snapshotted](h, record.ClassPolicySnapshot, 1)[0]
	h.verdict("snapshot memory=true keep=1")
	got := h.removed(1)[0]
	if got.VerdictIndex != first || got.Keep != 1 || len(got.Files) != 1 || got.Files[0].Role != "memory" || !slices.Equal(got.Files[0].Sha256, digests.Files[0].Sha256) ||
		!strings.Contains(got.Detail, "base stays: Provost did not make it") {
		t.Errorf("removed %v", got)
	}
	if there := l.there(); there != "base memory2 o1 o2" {
		t.Errorf("files %s", there)
	}
	// The daemon dies between the merge and its entry.
	in := func(n string) virt.Layer { return virt.Layer{Path: filepath.Join(l.dir, n), Inode: 1} }
	a.mu.Lock()
	a.plan = &virt.MergePlan{Target: "vda", Above: filepath.Join(l.dir, "o3"), Layers: []virt.Layer{in("o2"), in("o1")}}
	a.fail = map[string]error{"merge " + in("o2").Path + " into " + in("o1").Path: fmt.Errorf("libvirt is gone: %w", record.ErrRetry)}
	a.mu.Unlock()
	h.verdict("snapshot memory=true keep=1")
	if got = h.removed(3)[2]; !got.Intended || got.Target != "vda" || got.Into != in("o1").Path || len(got.Files) != 1 || got.Files[0].Path != in("o2").Path || len(got.Files[0].Sha256) == 0 {
		t.Errorf("intended %v", got)
	}
	stop()
	h.restart()
	a.fail = nil
	stop = h.enforce(a, nil)
	if got = h.removed(4)[3]; got.Intended || got.Error != "" || got.Files[0].Path != in("o2").Path {
		t.Errorf("merged %v", got)
	}
	// What is kept lies in o1 now; the second snapshot is forgotten, and the first is as
	// long as its image is there.
	last := sealed[*record.Snapshotted](h, record.ClassPolicySnapshot, 4)[3]
	if last.Name == digests.Name || last.Files[1].Path != in("o1").Path {
		t.Errorf("sealed anew: %v", last)
	}
	rows, err := h.e.kept(h.id)
	if err != nil || len(rows) != 2 || !rows[0].Retired || rows[1].Retired || rows[1].Files[1].Path != in("o1").Path {
		t.Errorf("rows %+v %v", rows, err)
	}
}

// TestSnapshotBeforeMerge ends a merge that is under way when a snapshot is to be taken.
func TestSnapshotBeforeMerge(t *testing.T) {
	h := newHost(t)
	l := newLayers(t)
	a := &actor{state: domain.Running, layer: l.snapshot, mergeGate: make(chan struct{})}
	a.plan = &virt.MergePlan{Target: "vda", Above: "x", Layers: []virt.Layer{{Path: "b"}, {Path: "a"}}}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("snapshot memory=true keep=1")
	h.outcomes(1)
	h.verdict("snapshot memory=true keep=1")
	if got := h.removed(2)[1]; !got.Intended {
		t.Fatalf("%v", got)
	}
	h.verdict("snapshot memory=true keep=1")
	if o := h.outcomes(3)[2]; o.Result != resultDone {
		t.Errorf("outcome %v", o)
	}
	if got := h.removed(3)[2]; got.Intended || !strings.Contains(got.Error, "canceled") {
		t.Errorf("a merge that was ended: %v", got)
	}
	close(a.mergeGate)
	all := h.removed(6)
	if got := all[5]; got.Intended || got.Error != "" || got.Into != "a" {
		t.Errorf("behind the snapshot: %v", got)
	}
	if said := a.said(); !strings.Contains(said, "merge ended") || strings.Count(said, "snapshot") != 3 {
		t.Error(said)
	}
}

// TestOnlyOurFiles are removed: what lies there under the name of ours is told and left.
func TestOnlyOurFiles(t *testing.T) {
	h := newHost(t)
	l := newLayers(t)
	a := &actor{state: domain.Running, layer: l.snapshot}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("snapshot memory=true keep=1")
	sealed[*record.Snapshotted](h, record.ClassPolicySnapshot, 1)
	path := filepath.Join(l.dir, "memory1")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	l.file("memory1")
	h.verdict("snapshot memory=true keep=1")
	if got := h.removed(1)[0]; len(got.Files) != 1 || !strings.Contains(got.Files[0].Error, "not the file that the snapshot made") {
		t.Errorf("removed %v", got)
	}
	if there := l.there(); !strings.Contains(there, "memory1 memory1.moved") {
		t.Errorf("files %s", there)
	}
}
