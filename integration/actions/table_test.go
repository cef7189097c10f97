package actions

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

var rewrite = flag.Bool("rewrite", false, "write docs/actions.md anew, with what was measured")

const tablePage = "../../docs/actions.md"

// table is what was tried, a line each; what took how long is its last column.
type table struct {
	t *testing.T
	b strings.Builder
}

func (b *table) row(took time.Duration, cells ...string) {
	fmt.Fprintf(&b.b, "| %s | %d |\n", strings.Join(cells, " | "), took.Milliseconds())
}

// outcome says what came of an attempt: what was done, or that it was refused for good.
func (b *table) outcome(did string, err error) string {
	b.t.Helper()
	switch {
	case err == nil:
		return did
	case errors.Is(err, record.ErrReject):
		return "refused"
	}
	b.t.Errorf("%v", err)
	return "failed"
}

// TestTable tries every variant of snapshots and of network isolation, and compares what
// came of it with docs/actions.md; -rewrite writes it there.
func TestTable(t *testing.T) {
	l := newLab(t)
	l.network("lan")
	l.network("cell")
	b := &table{t: t}
	b.b.WriteString("## Snapshots\n\n| disks | asked for | done | left out | ms |\n| --- | --- | --- | --- | --- |\n")
	kinds := map[string]string{}
	kinds["qcow2"] = l.disk("vda", "qcow2")
	kinds["raw"] = l.disk("vdb", "raw")
	kinds["qcow2 and raw"] = l.disk("vdc", "qcow2") + l.disk("vdd", "raw")
	kinds["raw, only read"] = strings.Replace(l.disk("vde", "raw"), "</disk>", "<readonly/></disk>", 1)
	kinds["raw, shared"] = strings.Replace(l.disk("vdg", "raw"), "</disk>", "<shareable/></disk>", 1)
	for _, of := range []string{"qcow2", "raw", "qcow2 and raw", "raw, only read", "raw, shared"} {
		b.snapshots(l, of, kinds[of])
	}
	b.b.WriteString("\n## Network\n\n| interface | mode | cut off | given back | ms to cut | ms to give back |\n| --- | --- | --- | --- | --- | --- |\n")
	b.links(l)

	old, err := os.ReadFile(tablePage)
	if err != nil && !*rewrite {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(old), "## Snapshots\n")
	if !found {
		t.Fatalf("%s has no section \"## Snapshots\"", tablePage)
	}
	if *rewrite {
		l.must(os.WriteFile(tablePage, []byte(head+b.b.String()), 0o644))
		return
	}
	if got, want := untimed(head+b.b.String()), untimed(string(old)); got != want {
		t.Errorf("what was tried came out otherwise than %s says (-rewrite writes it anew):\n%s", tablePage, b.b.String())
	}
}

// untimed leaves out columns that are numbers only.
func untimed(page string) string {
	var out []string
	for _, line := range strings.Split(page, "\n") {
		cells := strings.Split(line, " | ")
		for i, c := range cells {
			if strings.Trim(c, "0123456789 |") == "" {
				cells[i] = ""
			}
		}
		out = append(out, strings.Join(cells, " | "))
	}
	return strings.Join(out, "\n")
}

func (b *table) snapshots(l *lab, of, disks string) {
	b.t.Helper()
	g, id := l.define("s"+strings.NewReplacer(" ", "", ",", "").Replace(of), disks)
	l.must(g.Start(l.ctx))
	var layers []virt.Layer
	var last *virt.SnapshotResult
	take := func(n int, memory bool) (*virt.SnapshotResult, time.Duration, error) {
		start := time.Now()
		r, err := l.virt.Snapshot(l.ctx, id, virt.SnapshotRequest{Name: fmt.Sprintf("%d-p", n), Memory: memory, Dir: l.dir + "/memory-" + g.UUID(), Spare: 1, MaxChain: 9}, time.Minute)
		return r, time.Since(start), err
	}
	for n, asked := range []string{"disks", "memory and disks", "memory and disks, of one that is paused", "disks, of one that is paused"} {
		if n == 2 {
			l.must(g.Pause(l.ctx))
		}
		r, took, err := take(n, strings.HasPrefix(asked, "memory"))
		did, out := "", "-"
		if err == nil {
			did, last = r.Variant, r
			for _, note := range r.Notes {
				out = strings.TrimPrefix(out+"; "+note, "-; ")
			}
			for _, f := range r.Files {
				if f.Role == "disk" && f.Target == r.Files[len(r.Files)-1].Target {
					layers = append(layers, virt.Layer{Path: f.Overlay, Inode: f.Inode})
				}
			}
		}
		b.row(took, of, asked, b.outcome(did, err), out)
	}
	if len(layers) < 3 {
		g.Close()
		return
	}
	// The images of the snapshots before the last one become one, as keep has it.
	f := last.Files[len(last.Files)-1]
	plan, err := l.virt.PlanMerge(l.ctx, id, f.Target, layers, []string{f.Path})
	if err != nil || plan == nil {
		b.t.Fatalf("%s: %+v %v", of, plan, err)
	}
	for _, asked := range []string{"images made one, of one that is paused", "images made one"} {
		start := time.Now()
		err = l.virt.Merge(l.ctx, id, plan, time.Minute)
		did := "yes"
		if errors.Is(err, virt.ErrUnmerged) {
			b.t.Log(err)
			did, err = "no, the images stay", nil
		}
		b.row(time.Since(start), of, asked, b.outcome(did, err), "-")
		_, _, err = l.virt.Resume(l.ctx, id)
		l.must(err)
	}
	if s, err := l.virt.State(l.ctx, id); err != nil || s.State != domain.Running {
		b.t.Errorf("%s: it is %+v %v behind all that", of, s, err)
	}
	g.Close()
}

func (b *table) links(l *lab) {
	b.t.Helper()
	up := strings.Replace(nics, "<link state='down'/>", "", 1)
	g, id := l.define("n", up)
	l.must(g.Start(l.ctx), g.WaitReady(l.ctx))
	all, err := l.virt.Interfaces(l.ctx, id)
	l.must(err)
	for i, n := range all {
		for _, mode := range []string{virt.ModeLink, virt.ModeIsolate, virt.ModeUnplug} {
			var after []virt.Interface
			start := time.Now()
			switch mode {
			case virt.ModeLink:
				after, err = l.virt.LinksDown(l.ctx, id, []string{n.Key})
			case virt.ModeIsolate:
				after, err = l.virt.Isolate(l.ctx, id, []string{n.Key}, "cell")
			default:
				after, err = l.virt.Unplug(l.ctx, id, []string{n.Key})
			}
			cut := time.Since(start)
			did := "not cut off"
			at := func(all []virt.Interface) *virt.Interface {
				for j := range all {
					if all[j].Key == n.Key {
						return &all[j]
					}
				}
				return nil
			}
			switch now := at(after); {
			case now == nil && mode == virt.ModeUnplug, now != nil && mode == virt.ModeLink && now.Down(),
				now != nil && mode == virt.ModeIsolate && virt.NetworkOf(now.Live) == "cell" && virt.NetworkOf(now.Config) == "cell":
				did = "yes"
			}
			did = b.outcome(did, err)
			start = time.Now()
			back, err := l.virt.RestoreLinks(l.ctx, id, all[i:i+1], mode)
			took := time.Since(start)
			again := "no"
			if now := at(back); err == nil && now != nil && now.LiveLink == n.LiveLink && virt.NetworkOf(now.Live) == virt.NetworkOf(n.Live) {
				again = "yes"
			}
			b.row(took, n.Type, mode, did, b.outcome(again, err), fmt.Sprint(cut.Milliseconds()))
		}
	}
}
