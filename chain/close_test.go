package chain

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// noTables is a file system on which no table of the store can be made, as on a
// disk without room, once it is told so. What is open can be written.
type noTables struct {
	vfs.FS
	fail atomic.Bool
}

func (f *noTables) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.fail.Load() && strings.HasSuffix(name, ".sst") {
		return nil, &os.PathError{Op: "create", Path: name, Err: os.ErrPermission}
	}
	return f.FS.Create(name, c)
}

// TestCloseDoesNotWaitForever closes a store that cannot write out what is in its
// log. Close must return, and nothing may be missing afterwards.
func TestCloseDoesNotWaitForever(t *testing.T) {
	fs := &noTables{FS: vfs.NewMem()}
	cfg := testConfig(t, fs)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	mustAppend(t, s, Batch{Log: l, Entries: guestEntries(t, 1, 0, 300)})
	size, root := l.Root()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	fs.fail.Store(true)
	if err := s.flush(10 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // a second flush would wait behind the first
		t.Fatal(err)
	}
	fs.fail.Store(false)
	s = mustOpen(t, cfg)
	l, ok := s.LogByOrigin(l.Origin())
	if !ok {
		t.Fatal("the log is gone")
	}
	if gotSize, got := l.Root(); gotSize != size || got != root {
		t.Errorf("root %s at size %d, want %s at %d", got, gotSize, root, size)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
