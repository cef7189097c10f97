package chain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// memTableSize is what is gathered in memory before it is written out. The
	// packer follows within seconds where the load lets it: what it has packed by
	// then is never written out as rows, nor merged, nor dropped again.
	memTableSize = 64 << 20
	memTables    = 3 // more of them stall commits
	cacheSize    = 32 << 20
	// Files of one table seldom overlap. Merging those of others may wait.
	l0Compact, l0Stop = 8, 24
)

// pebbleOptions returns how every part of this package opens the store.
func pebbleOptions(c Config, readOnly bool) *pebble.Options {
	log := pebbleLogger{log: c.Log, exit: c.Exit}
	opts := &pebble.Options{
		FS: orderedFS{c.FS},
		// Older formats drop synced records of a damaged WAL without a word.
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       memTableSize,
		CacheSize:          cacheSize,

		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       l0Compact,
		L0StopWritesThreshold:       l0Stop,

		Logger:   log,
		ReadOnly: readOnly,
		Cleaner:  cleaner{},
		EventListener: &pebble.EventListener{
			DiskSlow: func(i pebble.DiskSlowInfo) {
				c.Log.Warn("disk is slow", slog.String("path", i.Path), slog.Duration("took", i.Duration))
			},
			WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
				c.Log.Warn("store stalls writes", slog.String("reason", i.Reason))
			},
			BackgroundError: func(err error) {
				c.Log.Error("store background work failed", slog.Any("error", err))
			},
		},
	}
	// Hashes and ciphertext do not get smaller, and bundles are compressed
	// already. What would, the rows of leaves, goes when a bundle is packed.
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	// A file holds rows of one table. Each table grows at its end: files of it
	// do not overlap, and moving them down a level costs nothing. In a file of
	// several tables the newest rows of one lie across all rows of the next.
	opts.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		return pebble.SpanPolicy{}, []byte{start[0] + 1}, nil
	}
	if readOnly {
		// Whoever looks for damage gets the error, and goes on behind it. A store
		// that is at work ends: what it reads is no longer what it wrote.
		opts.EventListener.DataCorruption = func(pebble.DataCorruptionInfo) {}
	}
	return opts
}

// cleaner deletes files as Pebble does by itself. It passes for a cleaner that
// archives them, since for such a one Pebble does not use old write-ahead logs
// again: they would hold erased payloads until they are written over.
type cleaner struct {
	pebble.DeleteCleaner // Clean and String are these: they lie less deep
	archives
}

// archives has the unexported method by which Pebble knows such a cleaner.
type archives struct{ pebble.ArchiveCleaner }

// orderedFS makes file names durable before a marker that leads to them: Pebble
// creates a manifest and then the marker which names it, and syncs the directory
// only after both. On a file system that does not keep the order of names a
// power cut between the two could leave a marker to nothing, and a store that
// does not open.
type orderedFS struct{ vfs.FS }

// Create syncs the directory ahead of a marker.
func (f orderedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(f.PathBase(name), "marker.") {
		dir, err := f.OpenDir(f.PathDir(name))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			return nil, err
		}
	}
	return f.FS.Create(name, category)
}

// Unwrap returns the file system beneath, which Pebble asks for.
func (f orderedFS) Unwrap() vfs.FS { return f.FS }

// pebbleLogger carries Pebble's messages to slog, and its fatal ones to the
// exit hook: they come from goroutines which have nobody to return to.
type pebbleLogger struct {
	log  *slog.Logger
	exit func(int)
}

var _ pebble.Logger = pebbleLogger{}

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("store", slog.String("message", fmt.Sprintf(format, args...)))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("store error", slog.String("message", fmt.Sprintf(format, args...)))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.log.Error("store cannot go on, the process ends and recovers on its next start", slog.String("message", fmt.Sprintf(format, args...)))
	l.exit(3)
}

// makeDir makes a directory that only its owner may enter, and makes its name
// and those of its parents durable: else a crash could take away the whole
// store with everything that was synced inside.
func makeDir(f vfs.FS, dir string) error {
	if there, err := exists(f, dir); err != nil || there {
		return err
	}
	if err := f.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for {
		parent := f.PathDir(dir)
		if parent == dir {
			return nil
		}
		d, err := f.OpenDir(parent)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		dir = parent
	}
}

// exists reports whether path is there.
func exists(f vfs.FS, path string) (bool, error) {
	_, err := f.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// get returns a copy of a row, or ok = false where there is none.
func get(db pebble.Reader, key []byte) (value []byte, ok bool, err error) {
	v, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read row %x: %w", key, err)
	}
	value = append([]byte{}, v...)
	return value, true, closer.Close()
}

// scan calls f for each row whose key has the prefix, in order, until f
// returns an error. Key and value are valid during the call only.
func scan(db pebble.Reader, prefix []byte, f func(key, value []byte) error) error {
	return scanRange(db, prefix, endOf(prefix), f)
}

// scanRange is scan for the keys from first to before end.
func scanRange(db pebble.Reader, first, end []byte, f func(key, value []byte) error) (err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: end})
	if err != nil {
		return fmt.Errorf("scan rows from %x: %w", first, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan row %x: %w", it.Key(), err)
		}
		if err := f(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}
