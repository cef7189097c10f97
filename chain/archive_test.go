package chain

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/mirror"
)

// TestArchivePruned archives and drops a log of which retention took entries, and then
// their hashes: what is left verifies, and what is gone is told.
func TestArchivePruned(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	for range 2 { // entries, then their hashes
		o.now = o.now.Add(100 * day)
		o.retain(t)
	}
	if err := o.s.CloseLog(t.Context(), o.l, "old", ""); err != nil {
		t.Fatal(err)
	}
	minimum := o.l.Minimum()
	if minimum != 2*pruneUnit {
		t.Fatalf("%d entries are pruned, want %d", minimum, 2*pruneUnit)
	}
	var b bytes.Buffer
	a, err := o.s.Archive(t.Context(), o.l, &b, ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	archive, err := mirror.OpenArchive(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	r, err := mirror.VerifyArchive(t.Context(), archive, o.s.HostLog().VerifierKey(), mirror.Options{Frame: testFrame})
	if err != nil {
		t.Fatal(err)
	}
	if l := r.Logs[0]; l.Size != a.Size || l.Root != a.Root.String() || l.Pruned == 0 || l.Pruned > minimum {
		t.Errorf("%+v, want %d entries with root %s", l, a.Size, a.Root)
	}
	if _, err := o.s.Drop(t.Context(), o.l, dropOf(t, o.s, o.l)); err != nil {
		t.Fatal(err)
	}
	o.restart(t)
	if size, root := o.l.Root(); size != a.Size || root != a.Root || o.l.Gone() == nil {
		t.Errorf("root %s at %d, want %s at %d", root, size, a.Root, a.Size)
	}
	shutdown(t, o.s, o.stop)
	if r := mustFsck(t, o.cfg); !r.OK() || r.Dropped != a.Size {
		t.Errorf("%+v", r)
	}
}
