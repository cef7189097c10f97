package chaintest

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Disk is a disk in memory that can lose power: what was not synced may be
// gone then, each piece by itself.
type Disk struct{ fs *vfs.MemFS }

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{vfs.NewCrashableMem()} }

// FS returns the disk's file system.
func (d *Disk) FS() vfs.FS { return d.fs }

// Crash returns the disk as a power cut now would leave it, keeping each
// unsynced piece with the given probability in percent. The disk itself goes
// on.
func (d *Disk) Crash(rng *rand.Rand, keep int) *Disk {
	return &Disk{d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng})}
}

// Copy returns a copy of the disk, as somebody would make it who wants to roll
// the store back later.
func (d *Disk) Copy(t testing.TB) *Disk {
	t.Helper()
	c := NewDisk()
	if _, err := vfs.Clone(d.fs, c.fs, "/", "/", vfs.CloneSync); err != nil {
		t.Fatal(err)
	}
	return c
}

// Step wraps the disk's file system so that before is called ahead of each
// operation that changes it.
func (d *Disk) Step(before func()) vfs.FS {
	return errorfs.Wrap(d.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			before()
		}
		return nil
	}))
}

// CopyFile copies the file at path from one file system to another, durably.
func CopyFile(t testing.TB, from, to vfs.FS, path string) {
	t.Helper()
	if err := vfs.CopyAcrossFS(from, path, to, path); err != nil {
		t.Fatal(err)
	}
	d, err := to.OpenDir(to.PathDir(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
