package actions

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// TestSnapshot takes snapshots of a guest that runs: with memory, of disks only, of one
// that is paused; the same request twice finds what is there; libvirt keeps no metadata.
func TestSnapshot(t *testing.T) {
	l := newLab(t)
	g, id := l.define("g", l.disk("vda", "qcow2")+l.disk("vdb", "raw"))
	l.must(g.Start(l.ctx))
	req := virt.SnapshotRequest{Name: "7-policy", Memory: true, Dir: l.dir + "/memory", Spare: 1 << 20, MaxChain: 4}
	for i, want := range []bool{false, true} {
		start := time.Now()
		r, err := l.virt.Snapshot(l.ctx, id, req, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if r.Existed != want || len(r.Files) != 3 || r.After.State != domain.Running {
			t.Fatalf("snapshot %d: %+v", i, r)
		}
		t.Logf("%s in %s: %+v", r.Variant, time.Since(start), r)
		for _, f := range r.Files {
			if f.Size == 0 {
				t.Errorf("%+v is empty", f)
			}
		}
	}
	if out, err := l.host.Virsh(l.ctx, "snapshot-list", g.UUID(), "--name"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("libvirt knows the snapshots %q (%v): they forbid migration", out, err)
	}
	l.must(g.Pause(l.ctx))
	req.Name, req.Memory = "9-policy", false
	r, err := l.virt.Snapshot(l.ctx, id, req, time.Minute)
	if err != nil || r.Variant != virt.VariantDisks || r.After.State != domain.Paused || len(r.Files) != 2 || !strings.HasSuffix(r.Files[0].Path, "7-policy") {
		t.Fatalf("of a paused domain: %+v %v", r, err)
	}

	// What fails leaves the domain as it was, and no files.
	disks, err := l.host.Virsh(l.ctx, "domblklist", g.UUID())
	l.must(err)
	req.Name = "11-policy"
	l.must(os.WriteFile(l.dir+"/vdb.raw.provost-11-policy", []byte("somebody else's"), 0o600))
	if r, err = l.virt.Snapshot(l.ctx, id, req, time.Minute); err == nil {
		t.Errorf("over a file that is there: %+v", r)
	} else {
		t.Log(err)
	}
	if b, err := os.ReadFile(l.dir + "/vdb.raw.provost-11-policy"); err != nil || string(b) != "somebody else's" {
		t.Errorf("the file of somebody else: %q %v", b, err)
	}
	if now, err := l.host.Virsh(l.ctx, "domblklist", g.UUID()); err != nil || now != disks {
		t.Errorf("the disks are %s, were %s", now, disks)
	}
	req.Name, req.Spare = "13-policy", 1<<60
	if _, err = l.virt.Snapshot(l.ctx, id, req, time.Minute); err == nil || !strings.Contains(err.Error(), "MiB free") {
		t.Errorf("without room: %v", err)
	}
	req.Spare, req.MaxChain = 1, 3
	if _, err = l.virt.Snapshot(l.ctx, id, req, time.Minute); err == nil || !strings.Contains(err.Error(), "blockcommit") {
		t.Errorf("beyond the chain: %v", err)
	}
}
