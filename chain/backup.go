package chain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/record"
)

// What a backup directory holds: the files of the store, the anchor of that
// moment, and the manifest, which is written last.
const (
	backupFormat   = "provost-backup/v1"
	backupLedger   = "ledger"
	backupAnchor   = "anchor"
	backupManifest = "manifest.json"
	backupBeside   = "beside"   // files that the caller wants in it
	backupPartial  = ".partial" // behind the name of a directory that is not whole yet

	maxManifest = 64 << 20
)

// Manifest describes a backup. It is JSON; docs/formats.md has the fields.
type Manifest struct {
	Format   string      `json:"format"`
	Created  time.Time   `json:"created"`
	Software string      `json:"software,omitempty"`
	StoreID  string      `json:"store_id"`
	HostID   string      `json:"host_id"`
	Version  int         `json:"store_version"`
	Commit   uint64      `json:"commit"`
	Payloads string      `json:"payloads"` // "encrypted" or "plain"
	Anchored BackupLog   `json:"anchored"` // the host log as the anchor has it
	Logs     []BackupLog `json:"logs"`     // as the files have them
	Files    []fileSum   `json:"files"`    // of the store, and the anchor
	// Beside are files of the caller, below the directory of that name.
	Beside []fileSum `json:"beside,omitempty"`
	// KeyFiles are those of payload keys that were copied to another place.
	KeyFiles []fileSum `json:"payload_key_files,omitempty"`
}

// BackupLog is one log of a backup.
type BackupLog struct {
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   string `json:"root"`
}

// BackupOptions say where a backup goes. Directories are made and must not be
// there.
type BackupOptions struct {
	Dir string
	// PayloadKeys is where the keys of the payloads go. Empty: they are not
	// copied, and the backup is worthless for payloads without them.
	PayloadKeys string
	Requester   string // who asked for it, for the host log
	Software    string // program and version, for the manifest
	// Beside copies what belongs to the store and lies elsewhere into a directory, which is
	// there. It is called behind the copy of the store, so all that entries of it name is
	// copied. Nil: nothing.
	Beside func(ctx context.Context, dir string) error
}

// Backup copies the store as it is at one moment between two commits, with the
// anchor that belongs to it, while the store goes on. Run must be running, or
// not have been called at all. What was copied has been opened and compared
// with its anchor when Backup returns, and every file is on disk.
//
// Order: the host log says that a backup is made; everything is signed; the
// files are copied to DIR.partial; the copy is opened; the caller copies what belongs to it; payload keys are copied
// (each was durable before a payload under it was); the manifest is written; the
// directories get their names. A crash leaves directories called partial, which
// the next backup to the same place replaces.
func (s *Store) Backup(ctx context.Context, o BackupOptions) (*Manifest, error) {
	if err := s.checkBackup(&o); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if !s.backingUp.TryLock() {
		return nil, fmt.Errorf("backup: another one is under way: %w", record.ErrRetry)
	}
	defer s.backingUp.Unlock()
	if err := s.sealBackup(ctx, &o); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	m, err := s.backup(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("backup to %s: %w", o.Dir, err)
	}
	s.cfg.Log.Info("backup is done", slog.String("dir", o.Dir), slog.Int("files", len(m.Files)), slog.Uint64("commit", m.Commit))
	return m, nil
}

// checkBackup refuses places that would make a worthless backup.
func (s *Store) checkBackup(o *BackupOptions) error {
	if o.Requester == "" {
		return fmt.Errorf("nobody is named who asks for it: %w", record.ErrReject)
	}
	for _, d := range []string{o.Dir, o.PayloadKeys} {
		if d == "" && d == o.PayloadKeys {
			continue
		}
		if !filepath.IsAbs(d) {
			return fmt.Errorf("directory %q is not absolute, and the daemon has a working directory of its own: %w", d, record.ErrReject)
		}
		for _, taken := range []string{s.cfg.Dir, s.cfg.PayloadKeys} {
			if taken != "" && within(d, taken) {
				return fmt.Errorf("%s lies in %s; a backup belongs elsewhere, best on another disk: %w", d, taken, record.ErrReject)
			}
		}
		if there, err := exists(s.cfg.FS, d); err != nil {
			return err
		} else if there {
			return fmt.Errorf("%s exists; name a directory that is not there yet: %w", d, record.ErrReject)
		}
	}
	if o.PayloadKeys == "" {
		return nil
	}
	if s.keys == nil {
		return fmt.Errorf("payloads of this store are not encrypted: there are no keys to copy: %w", record.ErrReject)
	}
	if within(o.PayloadKeys, o.Dir) || within(o.Dir, o.PayloadKeys) {
		return fmt.Errorf("the keys of the payloads would lie beside the payloads; name two places, so that erasing is possible in the one: %w", record.ErrReject)
	}
	return nil
}

// within reports whether path is dir or lies in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(filepath.Clean(dir), filepath.Clean(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// sealBackup seals who gets a copy, and signs everything, so that the copy is
// covered by its own checkpoints.
func (s *Store) sealBackup(ctx context.Context, o *BackupOptions) error {
	e, err := s.Draft(record.OriginOperator, record.ClassHostBackup, &record.Backup{
		Requester: o.Requester, Directory: o.Dir, PayloadKeys: o.PayloadKeys != "",
	})
	if err != nil {
		return err
	}
	seal := s.sealNow
	if s.running.Load() {
		seal = s.submitAndWait(ctx)
	}
	if err := seal(newRequest(Batch{Log: s.host, Entries: []Entry{e}})); err != nil {
		return err
	}
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	return s.signAll(seal)
}

// signAll signs and quotes all logs, for a holder of checkpointMu.
func (s *Store) signAll(seal func(*request) error) error {
	logs := s.Logs()
	if err := s.checkpointVMs(logs); err != nil {
		return err
	}
	if err := s.quote(logs, seal); err != nil {
		return err
	}
	return s.checkpointHost()
}

func (s *Store) backup(ctx context.Context, o *BackupOptions) (*Manifest, error) {
	fs, partial := s.cfg.FS, o.Dir+backupPartial
	if err := errors.Join(fs.RemoveAll(partial), makeDir(fs, partial)); err != nil {
		return nil, err
	}
	ledger := fs.PathJoin(partial, backupLedger)
	if err := s.copyStore(partial, ledger); err != nil {
		return nil, err
	}
	m, err := s.describe(partial, ledger)
	if err != nil {
		return nil, fmt.Errorf("the copy does not open: %w", err)
	}
	m.Software, m.Created = o.Software, s.cfg.Now().UTC()
	if m.Beside, err = copyBeside(ctx, fs, o, fs.PathJoin(partial, backupBeside)); err != nil {
		return nil, err
	}
	names, err := listFiles(fs, ledger)
	if err != nil {
		return nil, err
	}
	for _, name := range append(names, "../"+backupAnchor) {
		f, err := sumFile(ctx, fs, ledger, name)
		if err != nil {
			return nil, err
		}
		f.Name = fs.PathJoin(backupLedger, name)
		m.Files = append(m.Files, f)
	}
	if o.PayloadKeys != "" {
		if m.KeyFiles, err = s.copyKeys(ctx, o.PayloadKeys+backupPartial); err != nil {
			return nil, fmt.Errorf("copy payload keys: %w", err)
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := writeAnchor(fs, fs.PathJoin(partial, backupManifest), append(text, '\n')); err != nil {
		return nil, err
	}
	// The keys first: a backup that has its name is whole.
	if o.PayloadKeys != "" {
		if err := moveDir(fs, o.PayloadKeys+backupPartial, o.PayloadKeys); err != nil {
			return nil, err
		}
	}
	return m, moveDir(fs, partial, o.Dir)
}

// copyStore copies store and anchor of one moment: checkpoints are signed and
// anchored under checkpointMu only.
func (s *Store) copyStore(dir, ledger string) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	// The packer does not sync; what it has put in the place of rows must not
	// be in the copy without them.
	if err := s.db.Checkpoint(ledger, pebble.WithFlushedWAL()); err != nil {
		return err
	}
	return writeAnchor(s.cfg.FS, s.cfg.FS.PathJoin(dir, backupAnchor), s.anchored)
}

// describe opens the copy, which changes nothing in it, and says what is in it.
func (s *Store) describe(dir, ledger string) (_ *Manifest, err error) {
	cfg := s.cfg
	cfg.Dir, cfg.Anchor = ledger, cfg.FS.PathJoin(dir, backupAnchor)
	cfg.Log = slog.New(slog.DiscardHandler)
	c, err := openDB(cfg, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.db.Close()) }()
	if err := c.recover(); err != nil {
		return nil, err
	}
	p, ok := c.host.Checkpoint()
	if !ok {
		return nil, fmt.Errorf("its anchor is not its newest checkpoint")
	}
	m := &Manifest{
		Format: backupFormat, StoreID: hex.EncodeToString(c.id[:]), HostID: cfg.HostID, Version: storeVersion, Commit: c.commit,
		Payloads: "plain", Anchored: BackupLog{Origin: p.Origin, Size: p.Size, Root: p.Root.String()},
	}
	if c.keys != nil {
		m.Payloads = "encrypted"
	}
	for _, l := range c.Logs() {
		size, root := l.Root()
		m.Logs = append(m.Logs, BackupLog{Origin: l.origin, Size: size, Root: root.String()})
	}
	return m, nil
}

// copyKeys copies the files of payload keys. Keys that are drawn meanwhile are
// of payloads behind the copy of the store.
func (s *Store) copyKeys(ctx context.Context, to string) ([]fileSum, error) {
	if err := s.cfg.FS.RemoveAll(to); err != nil {
		return nil, err
	}
	return copyDir(ctx, s.cfg.FS, s.cfg.PayloadKeys, to)
}

// copyBeside has the caller copy what belongs to the store, and sums it.
func copyBeside(ctx context.Context, fs vfs.FS, o *BackupOptions, dir string) (files []fileSum, err error) {
	if o.Beside == nil {
		return nil, nil
	}
	if err := makeDir(fs, dir); err != nil {
		return nil, err
	}
	if err := o.Beside(ctx, dir); err != nil {
		return nil, err
	}
	return sumTree(ctx, fs, dir, "")
}

// sumTree sums all files below a directory.
func sumTree(ctx context.Context, fs vfs.FS, dir, below string) (files []fileSum, err error) {
	names, err := listFiles(fs, fs.PathJoin(dir, below))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		name = path.Join(below, name)
		st, err := fs.Stat(fs.PathJoin(dir, name))
		if err != nil {
			return nil, err
		}
		if st.IsDir() {
			more, err := sumTree(ctx, fs, dir, name)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
			continue
		}
		f, err := sumFile(ctx, fs, dir, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// ReadBeside returns a file of the caller in the backup in dir, as the manifest has it.
func (m *Manifest) ReadBeside(dir, name string) ([]byte, error) {
	i := slices.IndexFunc(m.Beside, func(f fileSum) bool { return f.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("the manifest of the backup names no file %s: %w", name, record.ErrReject)
	}
	want := m.Beside[i]
	root, err := os.OpenRoot(filepath.Join(dir, backupBeside))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, want.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if got := sha256.Sum256(b); int64(len(b)) != want.Size || hex.EncodeToString(got[:]) != want.SHA256 {
		return nil, fmt.Errorf("%s of the backup was changed: it has %d bytes with SHA-256 %x, the manifest says %d and %s: %w", name, len(b), got, want.Size, want.SHA256, record.ErrReject)
	}
	return b, nil
}

// BesideNames returns the names of the caller's files, in order.
func (m *Manifest) BesideNames() []string {
	var all []string
	for _, f := range m.Beside {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	return all
}

// OpenBackup reads the manifest of the backup in a directory of this machine.
func OpenBackup(dir string) (*Manifest, error) {
	m, _, err := ReadManifest(vfs.Default, dir)
	return m, err
}

// ReadManifest reads the manifest of the backup in dir.
func ReadManifest(fs vfs.FS, dir string) (_ *Manifest, text []byte, err error) {
	path := fs.PathJoin(dir, backupManifest)
	f, err := fs.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest of a backup (one that was not completed has none): %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if text, err = io.ReadAll(io.LimitReader(f, maxManifest+1)); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	m := &Manifest{}
	if len(text) > maxManifest {
		return nil, nil, fmt.Errorf("read %s: more than %d bytes: %w", path, maxManifest, record.ErrReject)
	}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w: %w", path, err, record.ErrReject)
	}
	if m.Format != backupFormat || m.Version != storeVersion {
		return nil, nil, fmt.Errorf("read %s: it has format %q and a store of version %d, this program reads %q and %d: %w", path, m.Format, m.Version, backupFormat, storeVersion, record.ErrReject)
	}
	return m, text, nil
}
