package chain

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// ErrClosed is returned by calls on a store that was closed or whose Run has
// ended.
var ErrClosed = errors.New("store is closed")

// Store is the ledger of one host: its host log and all its VM logs. It is
// safe for concurrent use. Entries are sealed while Run runs.
type Store struct {
	cfg   Config
	db    *pebble.DB
	id    [16]byte // of this store, for ever
	runID uint64   // session of the entries the host makes in this run
	clock *clock

	queue *queue

	logsMu sync.RWMutex // guards the maps; logs themselves are safe for concurrent use
	logs   map[LogID]*Log
	origin map[string]*Log
	host   *Log

	createMu sync.Mutex // one CreateLog at a time, so that no origin is made twice

	// Owned by the committer: the goroutine in Run, or whoever opens the
	// store before Run and whoever stops it after.
	commit uint64 // number of the newest commit
	row    []byte // scratch

	making  atomic.Uint64 // newest commit that was begun, for Progress
	durable atomic.Uint64 // newest durable commit
	wakeMu  sync.Mutex
	wake    chan struct{} // closed and replaced at each durable commit

	checkpointMu sync.Mutex // one checkpoint round at a time; guards anchored, vmKeys and Log.quoted
	anchored     []byte     // what the anchor file holds
	vmKeys       []vmKey    // certified, the newest last

	cosigning *cosigning // what witnesses do

	backingUp sync.Mutex // one backup at a time

	packMu  sync.Mutex // who rewrites durable rows: the packer
	bundles bundleCache

	unreadable unreadables
	tiles      *tileCache
	keys       *payloadKeys // nil where payloads are not encrypted

	retainMu  sync.Mutex // one round of the keeper at a time, which holds eraseMu within it
	retention RetentionStats

	eraseMu    sync.Mutex // one erasure at a time; guards unfinished
	unfinished []*erasure // left by a crash
	recent     recent
	erasures   atomic.Uint64
	background context.Context // of work that goes on when nobody waits for it any more
	retreat    context.CancelFunc

	followMu  sync.Mutex
	following map[string]bool

	failMu sync.Mutex
	failed error // why nothing may be sealed any more

	readOnly  bool // for fsck
	restoring bool // from a backup: the newest key may not be certified yet
	closed    chan struct{}
	closeOnce sync.Once
	running   atomic.Bool
}

// storeRow is the M row of the store: 1 version, 16 store id, 1 flags, host id.
func storeRow(id [16]byte, encrypted bool, hostID string) []byte {
	flags := byte(0)
	if encrypted {
		flags = storeEncrypted
	}
	return append(append(append([]byte{storeVersion}, id[:]...), flags), hostID...)
}

// storeEncrypted is the flag of a store whose payloads are encrypted.
const storeEncrypted = 1

// Create makes a new store with its host log: leaf 0 is the genesis, leaf 1
// certifies the key of the VM logs. It refuses where a store or an anchor
// exists already: a store that vanished must be explained, not replaced.
func Create(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := refuseExisting(cfg); err != nil {
		return nil, err
	}
	dirs := []string{cfg.Dir, cfg.FS.PathDir(cfg.Anchor)}
	if cfg.PayloadKeys != "" {
		dirs = append(dirs, cfg.PayloadKeys)
	}
	for _, dir := range dirs {
		if err := makeDir(cfg.FS, dir); err != nil {
			return nil, fmt.Errorf("create store: %w", err)
		}
	}
	opts := pebbleOptions(cfg, false)
	opts.ErrorIfExists = true
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, fmt.Errorf("create store %s: %w", cfg.Dir, err)
	}
	s := newStore(cfg, db)
	if err := s.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("create store %s: %w", cfg.Dir, err), db.Close())
	}
	return s, nil
}

func refuseExisting(cfg Config) error {
	if there, err := exists(cfg.FS, cfg.Anchor); err != nil {
		return fmt.Errorf("create store: look for the anchor: %w", err)
	} else if there {
		return fmt.Errorf("create store: anchor %s exists, so a store was made before; open or restore that one, or move the anchor away if its evidence is given up: %w", cfg.Anchor, record.ErrReject)
	}
	names, err := cfg.FS.List(cfg.Dir)
	if there, statErr := exists(cfg.FS, cfg.Dir); statErr == nil && !there {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create store: look for an older one: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("create store: %s is not empty (it holds %s); open the store in it, or name an empty directory: %w", cfg.Dir, names[0], record.ErrReject)
	}
	return nil
}

func newStore(cfg Config, db *pebble.DB) *Store {
	background, retreat := context.WithCancel(context.Background())
	return &Store{
		cfg: cfg, db: db, background: background, retreat: retreat,
		runID:     randomID(),
		queue:     newQueue(),
		tiles:     newTileCache(tileCacheSize),
		cosigning: newCosigning(cfg.Witnesses),
		logs:      map[LogID]*Log{},
		origin:    map[string]*Log{},
		wake:      make(chan struct{}),
		recent:    recent{limit: recentBytes},
		closed:    make(chan struct{}),
		following: map[string]bool{},
	}
}

// randomID draws a number that is not zero.
func randomID() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// create fills an empty database.
func (s *Store) create() error {
	_, _ = rand.Read(s.id[:]) // never fails
	if s.cfg.PayloadKeys != "" {
		s.keys = newPayloadKeys(s.cfg, s.id)
	}
	s.clock = newClock(s.cfg, 0)
	origin := proof.HostOrigin(s.cfg.HostID)
	host, err := s.newLog(0, origin)
	if err != nil {
		return err
	}
	g := &record.Genesis{Cause: "create"}
	s.fillGenesis(host, g)
	genesis, err := s.Draft(record.OriginHost, record.ClassGenesis, g)
	if err != nil {
		return err
	}
	certificate, err := s.Draft(record.OriginHost, record.ClassKeyCertificate, &record.KeyCertificate{
		Use: keys.UseVMLog, PublicKey: s.cfg.Keys.VMPublic(), OriginPrefix: proof.VMPrefix(s.cfg.HostID), NotBefore: s.cfg.Now().UnixNano(),
	})
	if err != nil {
		return err
	}
	r := newRequest(Batch{Log: host, Entries: []Entry{genesis, certificate}})
	r.create = true
	r.extra = func(b *pebble.Batch, _ []Sealed) error {
		if err := b.Set(keyMeta(metaCertificate, s.cfg.Keys.VMPublic()), certificateRow(host.id, 1), nil); err != nil {
			return err
		}
		return b.Set(keyMeta(metaStore, nil), storeRow(s.id, s.keys != nil, s.cfg.HostID), nil)
	}
	// A crash before this commit leaves an empty database, which Open refuses
	// by name and which may be deleted: nothing was published.
	if err := s.sealNow(r); err != nil {
		return err
	}
	s.register(host)
	// A crash behind it leaves a store without an anchor. Open refuses it:
	// nobody can tell it from one whose anchor was taken away.
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	if err := s.loadVMKeys(); err != nil {
		return err
	}
	if err := s.settleKeys(); err != nil {
		return err
	}
	if err := s.checkpointHost(); err != nil {
		return err
	}
	if _, err := s.cfg.Keys.PublishVerifier(origin); err != nil {
		return err
	}
	return nil
}

// fillGenesis sets what the ledger knows better than its caller.
func (s *Store) fillGenesis(l *Log, g *record.Genesis) {
	g.Origin = l.origin
	g.StoreId = s.id[:]
	g.HostId = s.cfg.HostID
	g.VerifierKeys = []string{l.VerifierKey()}
	if o := l.name; !o.IsHost() {
		g.DomainUuid, g.Incarnation = o.Domain, o.Incarnation
	}
	g.Shard = l.name.Shard
}

// Open opens the store in cfg.Dir, checks its heads against its rows and its
// host log against the anchor, and makes it ready for Run. It refuses a store
// that is missing, one of another host, and one that is behind its anchor
// (*AnchorError).
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := openDB(cfg, false)
	if err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", cfg.Dir, err), s.db.Close())
	}
	s.cfg.Log.Info("store is open", slog.String("origin", s.host.origin), slog.Int("logs", len(s.logs)), slog.Uint64("commit", s.commit))
	return s, nil
}

func openDB(cfg Config, readOnly bool) (*Store, error) {
	if there, err := exists(cfg.FS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	} else if !there {
		return nil, fmt.Errorf("open store: %s does not exist; make a store first, or restore one: %w", cfg.Dir, record.ErrReject)
	}
	opts := pebbleOptions(cfg, readOnly)
	opts.ErrorIfNotExists = true
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	s := newStore(cfg, db)
	s.readOnly = readOnly
	return s, nil
}

// newLog makes a log that nobody sees yet.
func (s *Store) newLog(id LogID, origin string) (*Log, error) {
	name, err := proof.ParseOrigin(origin)
	if err != nil {
		return nil, err
	}
	if name.HostID != s.cfg.HostID {
		return nil, fmt.Errorf("origin %s is not of host %s: %w", origin, s.cfg.HostID, record.ErrReject)
	}
	l := &Log{store: s, id: id, origin: origin, name: name}
	if name.IsHost() {
		pub := s.cfg.Keys.HostPublic()
		if l.signer, err = s.cfg.Keys.HostSigner(origin); err != nil {
			return nil, err
		}
		if l.vkey, err = proof.VerifierKey(origin, pub); err != nil {
			return nil, err
		}
		if l.verifier, err = proof.NewVerifier(origin, pub); err != nil {
			return nil, err
		}
	}
	l.state.Store(&logState{})
	return l, nil
}

// register makes a log visible.
func (s *Store) register(l *Log) {
	s.logsMu.Lock()
	defer s.logsMu.Unlock()
	s.logs[l.id] = l
	s.origin[l.origin] = l
	if l.name.IsHost() {
		s.host = l
	}
}

// HostLog returns the log of this host.
func (s *Store) HostLog() *Log { return s.host }

// LogByOrigin returns the log with the given origin.
func (s *Store) LogByOrigin(origin string) (*Log, bool) {
	s.logsMu.RLock()
	defer s.logsMu.RUnlock()
	l, ok := s.origin[origin]
	return l, ok
}

// LogByID returns the log with the given number.
func (s *Store) LogByID(id LogID) (*Log, bool) {
	s.logsMu.RLock()
	defer s.logsMu.RUnlock()
	l, ok := s.logs[id]
	return l, ok
}

// Logs returns all logs in the order they were made, the host log first.
func (s *Store) Logs() []*Log {
	s.logsMu.RLock()
	all := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		all = append(all, l)
	}
	s.logsMu.RUnlock()
	slices.SortFunc(all, func(a, b *Log) int { return cmp.Compare(a.id, b.id) })
	return all
}

// ID returns the 16 random bytes that tell this store from every other.
func (s *Store) ID() [16]byte { return s.id }

// RunID returns the session of the entries that the host makes until Close.
func (s *Store) RunID() uint64 { return s.runID }

// Mono returns the host's monotone time now, in nanoseconds.
func (s *Store) Mono() int64 { return s.clock.mono() }

// Err returns why nothing may be sealed any more, or nil.
func (s *Store) Err() error {
	s.failMu.Lock()
	defer s.failMu.Unlock()
	return s.failed
}

// fail stops sealing for good. The first reason stays.
func (s *Store) fail(err error) error {
	s.failMu.Lock()
	if s.failed == nil {
		if !errors.Is(err, record.ErrFatal) {
			err = fmt.Errorf("%w: %w", record.ErrFatal, err)
		}
		s.failed = err
	}
	err = s.failed
	s.failMu.Unlock()
	s.queue.close(err)
	return err
}

// Close releases the store. Run must have ended and followers must be done:
// a call that is still on its way gets ErrClosed.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.queue.close(ErrClosed)
		close(s.closed)
		s.retreat()
		if !s.readOnly && s.Err() == nil {
			err = s.flush(closeFlush)
		}
		if err = errors.Join(err, s.db.Close()); err != nil {
			err = fmt.Errorf("close store: %w", err)
		}
	})
	return err
}

// closeFlush is how long Close waits for what it flushes.
const closeFlush = 10 * time.Second

// flush writes out what is only in the log of the store, so that the next Open need
// not read it from there. Everything is durable without it: where it takes longer
// than d, as on a disk that is full, where the database tries for ever, it is left.
func (s *Store) flush(d time.Duration) error {
	if s.db.Metrics().MemTable.Count > 1 {
		return nil // one is being flushed already; asking for another could wait for it
	}
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-flushed:
	case <-late.C:
		s.cfg.Log.Warn("store is closed before it has written out everything; the next start reads it from its log", slog.Duration("waited", d))
	}
	return nil
}
