package chain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Copies of directories, for backup and restore. Directories of this package
// hold plain files only.

// copyBlock is how much is copied between two looks at the context, in bytes.
const copyBlock = 1 << 20

// fileSum is one file of a copy.
type fileSum struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// sumFile hashes a file, and has the disk keep what was read.
func sumFile(ctx context.Context, fs vfs.FS, dir, name string) (_ fileSum, err error) {
	f, err := fs.Open(fs.PathJoin(dir, name))
	if err != nil {
		return fileSum{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := copyBytes(ctx, h, f)
	if err != nil {
		return fileSum{}, fmt.Errorf("read %s: %w", name, err)
	}
	return sum(name, n, h), nil
}

func sum(name string, n int64, h hash.Hash) fileSum {
	return fileSum{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}
}

// copyFile copies a file durably; the name is durable when the directory is
// synced. The copy is its owner's alone.
func copyFile(ctx context.Context, fs vfs.FS, from, to, name string) (_ fileSum, err error) {
	src, err := fs.Open(fs.PathJoin(from, name))
	if err != nil {
		return fileSum{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := fs.Create(fs.PathJoin(to, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fileSum{}, err
	}
	h := sha256.New()
	err = private(dst)
	n := int64(0)
	if err == nil {
		n, err = copyBytes(ctx, io.MultiWriter(h, dst), src)
	}
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return fileSum{}, fmt.Errorf("copy %s: %w", name, err)
	}
	return sum(name, n, h), nil
}

func copyBytes(ctx context.Context, w io.Writer, r io.Reader) (n int64, err error) {
	for {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		m, err := io.CopyN(w, r, copyBlock)
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// copyDir copies all files of a directory to a new one, durably.
func copyDir(ctx context.Context, fs vfs.FS, from, to string) (files []fileSum, err error) {
	names, err := listFiles(fs, from)
	if err != nil {
		return nil, err
	}
	if err := makeDir(fs, to); err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := copyFile(ctx, fs, from, to, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, syncDir(fs, to)
}

// listFiles returns the sorted names in a directory.
func listFiles(fs vfs.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(names)
	return names, nil
}

// syncDir makes the names in a directory durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// moveDir gives a directory or file its final name, durably.
func moveDir(fs vfs.FS, from, to string) error {
	if err := fs.Rename(from, to); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(to))
}

// private takes a file's rights from everybody but its owner. What is not on
// a disk has none.
func private(f vfs.File) error {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		return unix.Fchmod(int(fd), 0o600)
	}
	return nil
}
