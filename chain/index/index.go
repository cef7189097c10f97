package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Config says where an index is. Store and Dir are required.
type Config struct {
	// Store is the ledger that is indexed.
	Store *chain.Store
	// Dir belongs to the index alone: what cannot be used in it is deleted.
	Dir string
	// Log receives what the index has to say. Default: nothing.
	Log *slog.Logger
	// Exit ends the process when the database cannot go on and no error can be
	// returned any more. Default: os.Exit.
	Exit func(code int)
}

// Index is the index of one ledger. It is safe for concurrent use; entries are
// taken in while Run runs.
type Index struct {
	cfg  Config
	lock *pebble.Lock

	// dbMu is held for reading while rows are read, and for writing while
	// Forget opens the database anew. Writers hold writeMu instead.
	dbMu sync.RWMutex
	db   *pebble.DB

	mu    sync.RWMutex // guards what follows; only Run and Forget write
	zones []zone       // of the chunks on disk; grows at its end only
	open  *openChunk
	wake  chan struct{} // closed and replaced as entries are taken in

	writeMu sync.Mutex // one change of rows at a time: a full chunk or a Forget

	forgets atomic.Uint64 // calls of Forget; written under mu
	commit  atomic.Uint64 // every commit up to this one is indexed
	entries atomic.Uint64
}

const (
	memTableSize = 8 << 20
	cacheSize    = 16 << 20
)

// Open opens the index in cfg.Dir, or begins a new one where there is none,
// where it is of another ledger, of an older version or damaged.
func Open(cfg Config) (*Index, error) {
	if cfg.Store == nil || cfg.Dir == "" {
		return nil, fmt.Errorf("open index: ledger and directory must both be given: %w", record.ErrReject)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Exit == nil {
		cfg.Exit = os.Exit
	}
	x, err := open(cfg)
	var unusable *unusableError
	if errors.As(err, &unusable) {
		cfg.Log.Warn("index cannot be used and is made again", slog.String("dir", cfg.Dir), slog.Any("reason", unusable.err))
		if err := os.RemoveAll(cfg.Dir); err != nil {
			return nil, fmt.Errorf("open index: delete the unusable one: %w", err)
		}
		x, err = open(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", cfg.Dir, err)
	}
	return x, nil
}

// unusableError says that an index must be made again.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return e.err.Error() }
func (e *unusableError) Unwrap() error { return e.err }

func open(cfg Config) (_ *Index, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	// The lock is taken first: a directory that another process works in must
	// not be mistaken for a damaged one.
	lock, err := pebble.LockDirectory(cfg.Dir, vfs.Default)
	if err != nil {
		return nil, fmt.Errorf("lock directory (does another provostd run?): %w", err)
	}
	x := &Index{cfg: cfg, lock: lock, wake: make(chan struct{})}
	defer func() {
		if err != nil {
			if x.db != nil {
				err = errors.Join(err, x.db.Close())
			}
			err = errors.Join(err, lock.Close())
		}
	}()
	if x.db, err = pebble.Open(cfg.Dir, options(cfg, lock)); err != nil {
		return nil, &unusableError{err}
	}
	if err := x.load(); err != nil {
		return nil, err
	}
	return x, nil
}

func options(cfg Config, lock *pebble.Lock) *pebble.Options {
	return &pebble.Options{
		Lock:               lock,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       memTableSize,
		CacheSize:          cacheSize,
		// What a crash takes is indexed again, and no log file keeps words
		// that were forgotten.
		DisableWAL: true,
		Logger:     logger{cfg.Log, cfg.Exit},
	}
}

// load reads what is kept of an index in memory, and compares it with the
// ledger.
func (x *Index) load() error {
	id := x.cfg.Store.ID()
	meta := append([]byte{indexVersion}, id[:]...)
	there, err := x.get([]byte{tableMeta}, func(b []byte) error {
		if string(b) != string(meta) {
			return &unusableError{errors.New("it is of another ledger or of another version")}
		}
		return nil
	})
	if err != nil {
		return &unusableError{err}
	}
	if !there {
		// A crash before this row is durable leaves an index without any row
		// that counts: rows behind it are durable no sooner.
		if err := x.db.Set([]byte{tableMeta}, meta, pebble.NoSync); err != nil {
			return err
		}
	}
	err = x.scan([]byte{tableZone}, []byte{tableZone + 1}, func(key, value []byte) (bool, error) {
		z, err := parseZone(value)
		if n := len(x.zones); err == nil && (string(key) != string(keyChunk(tableZone, uint32(n))) || z.first != x.next()) {
			err = fmt.Errorf("chunk %d is missing or begins at another entry", n)
		}
		x.zones = append(x.zones, z)
		return true, err
	})
	if err == nil {
		err = x.compare()
	}
	if err != nil {
		return &unusableError{err}
	}
	x.open = newChunk(x.next())
	x.entries.Store(x.open.first)
	x.commit.Store(max(x.position().Commit, 1) - 1)
	return nil
}

// next returns the first ordinal behind the chunks on disk.
func (x *Index) next() uint64 {
	if n := len(x.zones); n > 0 {
		return x.zones[n-1].first + uint64(x.zones[n-1].count)
	}
	return 0
}

func (x *Index) position() chain.Position {
	if n := len(x.zones); n > 0 {
		return x.zones[n-1].end
	}
	return chain.Position{}
}

// compare tells a ledger which is not the one that was indexed, such as one
// that was restored from a backup and has gone another way since.
func (x *Index) compare() error {
	n := len(x.zones)
	if n == 0 {
		return nil
	}
	z := &x.zones[n-1]
	if z.end.Compare(x.cfg.Store.End()) > 0 {
		return fmt.Errorf("it is ahead of the ledger, which ends with commit %d", x.cfg.Store.End().Commit-1)
	}
	l, ok := x.cfg.Store.LogByID(z.last.log)
	if !ok || z.last.index >= l.Size() {
		return fmt.Errorf("entry %d of log number %d is not in the ledger", z.last.index, z.last.log)
	}
	h, err := l.LeafHash(z.last.index)
	if errors.Is(err, chain.ErrPruned) {
		return nil // nothing is left to compare with
	}
	if err != nil {
		return err
	}
	if h != z.lastHash {
		return fmt.Errorf("entry %d of %s has another hash in the ledger", z.last.index, l.Origin())
	}
	return nil
}

// Close gives the database back. Run must have ended.
func (x *Index) Close() error {
	if err := errors.Join(x.db.Flush(), x.db.Close(), x.lock.Close()); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// Entries returns how many entries are indexed.
func (x *Index) Entries() uint64 { return x.entries.Load() }

// Lag returns how many commits of the ledger are not indexed yet.
func (x *Index) Lag() uint64 {
	indexed, end := x.commit.Load(), x.cfg.Store.End().Commit-1
	return end - min(indexed, end)
}

// Wait returns when everything that is durable now is indexed, or when ctx
// ends.
func (x *Index) Wait(ctx context.Context) error {
	end := x.cfg.Store.End().Commit - 1
	for {
		x.mu.RLock()
		wake := x.wake
		x.mu.RUnlock()
		if x.commit.Load() >= end {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("wait for the index: %w", context.Cause(ctx))
		}
	}
}

// logger carries the database's messages, and its fatal ones to the exit hook.
type logger struct {
	log  *slog.Logger
	exit func(int)
}

var _ pebble.Logger = logger{}

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("index error", slog.String("message", fmt.Sprintf(format, args...)))
}

func (l logger) Fatalf(format string, args ...any) {
	l.log.Error("index cannot go on, the process ends and recovers on its next start", slog.String("message", fmt.Sprintf(format, args...)))
	l.exit(3)
}
