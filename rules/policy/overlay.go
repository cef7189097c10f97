package policy

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Overlay returns base with files put in the place of those of the same name:
// texts that are not saved yet, or have no place on a disk at all. A nil base
// has nothing. The caller must not change files while it is in use.
func Overlay(base fs.FS, files map[string][]byte) fs.FS { return &overlay{base, files} }

type overlay struct {
	base  fs.FS
	files map[string][]byte
}

func (o *overlay) Open(name string) (fs.File, error) {
	if data, ok := o.files[name]; ok {
		return &memFile{memInfo{path.Base(name), len(data)}, bytes.NewReader(data)}, nil
	}
	if o.base == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return o.base.Open(name)
}

func (o *overlay) Stat(name string) (fs.FileInfo, error) {
	if data, ok := o.files[name]; ok {
		return memInfo{path.Base(name), len(data)}, nil
	}
	if o.base == nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return fs.Stat(o.base, name)
}

// ReadDir lists the base's entries and those put over them.
func (o *overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	if o.base != nil {
		below, err := fs.ReadDir(o.base, name)
		if err != nil {
			return nil, err
		}
		for _, e := range below {
			if _, ok := o.files[path.Join(name, e.Name())]; !ok {
				all = append(all, e)
			}
		}
	}
	for n, data := range o.files {
		if path.Dir(n) == path.Clean(name) {
			all = append(all, fs.FileInfoToDirEntry(memInfo{path.Base(n), len(data)}))
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// memFile is an open file of an overlay.
type memFile struct {
	info memInfo
	*bytes.Reader
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *memFile) Close() error               { return nil }

type memInfo struct {
	name string
	size int
}

func (i memInfo) Name() string     { return i.name }
func (i memInfo) Size() int64      { return int64(i.size) }
func (memInfo) Mode() fs.FileMode  { return 0o444 }
func (memInfo) ModTime() time.Time { return time.Time{} }
func (memInfo) IsDir() bool        { return false }
func (memInfo) Sys() any           { return nil }
