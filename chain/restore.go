package chain

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Behind the names of what a restore makes, and of the anchor it replaces.
const (
	restoring     = ".restoring"
	beforeRestore = ".before-restore"
)

// States of a restored ledger, as its host.restore entry says them.
const (
	RestoreComplete   = "complete"    // it has all that was published
	RestoreRolledBack = "rolled_back" // published entries are given up
	RestoreUnknown    = "unknown"     // there was no anchor to compare with
)

// RestoreOptions say what to restore, and what the operator takes on.
type RestoreOptions struct {
	Dir string // the backup
	// PayloadKeys is a copy of the payload keys that is to be put in its place.
	// Empty: the host's own are there.
	PayloadKeys string
	// AcceptRollback gives up what was published after the backup. Reason and
	// Requester are sealed then.
	AcceptRollback bool
	Reason         string
	Requester      string
	Fsck           FsckOptions
}

// RollbackError says that a restore would give up published history, and that
// nobody has said that it may.
type RollbackError struct {
	State  string // RestoreRolledBack or RestoreUnknown
	Anchor string // the file
	Have   BackupLog
	Want   BackupLog // what the anchor has; zero where it is missing
}

// Error says what would be lost and how to go on.
func (e *RollbackError) Error() string {
	if e.State == RestoreUnknown {
		return fmt.Sprintf("anchor %s is missing: nobody can tell what was published after this backup of %s at size %d; "+
			"bring the anchor back, or accept the rollback with a reason", e.Anchor, e.Have.Origin, e.Have.Size)
	}
	return fmt.Sprintf("the backup has %s at size %d root %s, anchor %s has size %d root %s: entries that were published would be given up; "+
		"restore a newer backup, or accept the rollback with a reason", e.Have.Origin, e.Have.Size, e.Have.Root, e.Anchor, e.Want.Size, e.Want.Root)
}

// Is makes a RollbackError a refusal.
func (e *RollbackError) Is(target error) bool { return target == record.ErrReject }

// Restored is what a restore has done.
type Restored struct {
	State    string
	Size     uint64 // of the host log in the backup
	Lost     uint64 // published entries of the host log that are given up
	Report   *Report
	Manifest *Manifest
}

// Restore puts a backup in the place of a store that is not there. It checks
// every file against the manifest and every row against trees, signatures and
// the anchor before anything gets its final name. A store that would be behind
// its anchor is refused (*RollbackError) unless that is accepted; what was given
// up, why and on whose word is then the first entry that is sealed.
//
// Order: copy to DIR.restoring; check; seal there, with an anchor of its own
// beside the true one; keep the true anchor as ANCHOR.before-restore; put the new
// one in its place; give the store its name. A crash before the new anchor is in
// place leaves everything as it was; a crash behind it leaves a directory that
// the next Restore gives its name.
func Restore(ctx context.Context, cfg Config, o RestoreOptions) (*Restored, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &restore{cfg: cfg, o: o, staged: cfg}
	r.staged.Dir, r.staged.Anchor = cfg.Dir+restoring, cfg.Anchor+restoring
	out, err := r.run(ctx)
	if err != nil {
		return out, fmt.Errorf("restore %s: %w", o.Dir, err)
	}
	return out, nil
}

// restore is one Restore under way.
type restore struct {
	cfg    Config // of the store as it will be
	staged Config // of the copy that is worked on
	o      RestoreOptions

	m      *Manifest
	digest [sha256.Size]byte // of the manifest
	live   []byte            // text of the anchor; nil: there is none
	lost   proof.Checkpoint  // that it holds
	state  string
}

func (r *restore) run(ctx context.Context) (*Restored, error) {
	if err := r.refuse(); err != nil {
		return nil, err
	}
	done, err := r.resume()
	if done != nil || err != nil {
		return done, err
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	if err := r.stage(ctx); err != nil {
		return nil, err
	}
	out := &Restored{State: r.state, Size: r.m.Anchored.Size, Manifest: r.m}
	if r.state == RestoreRolledBack && r.lost.Size > r.m.Anchored.Size {
		out.Lost = r.lost.Size - r.m.Anchored.Size
	}
	opts := r.o.Fsck
	opts.restoring = true
	if out.Report, err = Fsck(ctx, r.staged, opts); err != nil {
		return nil, err
	}
	if !restorable(out.Report) {
		return out, fmt.Errorf("the backup is damaged: %s (%d findings): %w", out.Report.Findings[0], len(out.Report.Findings)+out.Report.More, record.ErrReject)
	}
	if err := r.seal(out); err != nil {
		return nil, err
	}
	return out, r.place()
}

// restorable reports whether a backup is whole. Keys that are not there, as where all
// payloads are given up, are no damage of it: nothing better can be restored.
func restorable(r *Report) bool {
	return r.More == 0 && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Table != "key" && f.Table != "erasure" })
}

// refuse protects what is there.
func (r *restore) refuse() error {
	fs := r.cfg.FS
	there, err := exists(fs, r.cfg.Dir)
	if err != nil {
		return err
	}
	if there {
		names, err := listFiles(fs, r.cfg.Dir)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%s holds a store (%s); a restore overwrites nothing: move it away first, it may be evidence: %w", r.cfg.Dir, names[0], record.ErrReject)
		}
	}
	if r.o.Requester == "" || r.o.AcceptRollback && strings.TrimSpace(r.o.Reason) == "" {
		return fmt.Errorf("who restores must be named, and for a rollback the reason: both are sealed: %w", record.ErrReject)
	}
	return nil
}

// resume gives the store its name where a crash came between that and its
// anchor: the staged anchor has gone to its place, the staged store has not.
func (r *restore) resume() (*Restored, error) {
	fs := r.cfg.FS
	store, err := exists(fs, r.staged.Dir)
	anchor, err2 := exists(fs, r.staged.Anchor)
	if err := errors.Join(err, err2); err != nil || !store || anchor {
		return nil, err
	}
	half := r.cfg
	half.Dir, half.Log = r.staged.Dir, slog.New(slog.DiscardHandler)
	s, err := openDB(half, true)
	if err != nil {
		return nil, nil // not whole: made again
	}
	err = s.recover()
	out := &Restored{State: RestoreUnknown, Size: 0}
	if err == nil {
		out.Size = s.host.Size()
		out.State, out.Lost, err = s.restored()
	}
	if err = errors.Join(err, s.db.Close()); err != nil {
		return nil, nil // it is not the one that this anchor belongs to
	}
	r.cfg.Log.Warn("a restore that was cut short is completed", slog.String("dir", r.cfg.Dir))
	return out, r.name()
}

// read reads manifest and anchor, and decides whether this is a rollback.
func (r *restore) read() (err error) {
	var text []byte
	if r.m, text, err = ReadManifest(r.cfg.FS, r.o.Dir); err != nil {
		return err
	}
	r.digest = sha256.Sum256(text)
	if r.m.HostID != r.cfg.HostID {
		return fmt.Errorf("it is a backup of host %q, this host is configured as %q: %w", r.m.HostID, r.cfg.HostID, record.ErrReject)
	}
	if err := r.checkKeys(); err != nil {
		return err
	}
	if r.live, err = readAnchor(r.cfg.FS, r.cfg.Anchor); err != nil {
		return err
	}
	refusal := &RollbackError{State: RestoreUnknown, Anchor: r.cfg.Anchor, Have: r.m.Anchored}
	if r.state = RestoreUnknown; r.live != nil {
		if err := r.compare(refusal); err != nil {
			return err
		}
	}
	if r.state != RestoreComplete && !r.o.AcceptRollback {
		return refusal
	}
	return nil
}

// checkKeys refuses a restore after which no payload could be read or written.
func (r *restore) checkKeys() error {
	encrypted := r.m.Payloads == "encrypted"
	if encrypted != (r.cfg.PayloadKeys != "") {
		return fmt.Errorf("payloads of the backup are %s, and a directory of payload keys is configured: %t: %w", r.m.Payloads, r.cfg.PayloadKeys != "", record.ErrReject)
	}
	if !encrypted {
		return nil
	}
	there, err := exists(r.cfg.FS, r.cfg.PayloadKeys)
	if err != nil {
		return err
	}
	if there && r.o.PayloadKeys != "" {
		return fmt.Errorf("payload keys are in %s already; restore without a copy of them, or move them away: keys drawn later are in one of the two only: %w", r.cfg.PayloadKeys, record.ErrReject)
	}
	if !there && r.o.PayloadKeys == "" {
		return fmt.Errorf("the payload keys in %s are gone; name a copy of them, or make an empty directory there (mode 0700) and give up every payload: %w", r.cfg.PayloadKeys, record.ErrReject)
	}
	return nil
}

// compare holds the backup against the anchor.
func (r *restore) compare(refusal *RollbackError) error {
	id, note, err := parseAnchor(r.live)
	if err != nil {
		return fmt.Errorf("read anchor %s: %w", r.cfg.Anchor, err)
	}
	if hex.EncodeToString(id[:]) != r.m.StoreID {
		return fmt.Errorf("anchor %s is that of another store of this host: %w", r.cfg.Anchor, record.ErrReject)
	}
	v, err := proof.NewVerifier(proof.HostOrigin(r.cfg.HostID), r.cfg.Keys.HostPublic())
	if err != nil {
		return err
	}
	if r.lost, err = proof.OpenCheckpoint(note, v); err != nil {
		return fmt.Errorf("read anchor %s: %w", r.cfg.Anchor, err)
	}
	r.state = RestoreComplete
	refusal.Want = BackupLog{Origin: r.lost.Origin, Size: r.lost.Size, Root: r.lost.Root.String()}
	have := r.m.Anchored
	// A root that differs at a smaller size is found when the copy is opened
	// with this anchor.
	if r.lost.Size > have.Size || r.lost.Size == have.Size && refusal.Want.Root != have.Root {
		r.state, refusal.State = RestoreRolledBack, RestoreRolledBack
	}
	return nil
}

// stage copies the backup beside its place, each file checked as it is copied.
func (r *restore) stage(ctx context.Context) error {
	fs := r.cfg.FS
	// The anchor goes first: a staged store without one is complete (resume).
	text := r.live
	if r.state != RestoreComplete {
		var err error
		if text, err = readAnchor(fs, fs.PathJoin(r.o.Dir, backupAnchor)); err != nil || text == nil {
			return errors.Join(fmt.Errorf("the backup has no anchor: %w", record.ErrReject), err)
		}
	}
	if err := errors.Join(makeDir(fs, fs.PathDir(r.staged.Anchor)), writeAnchor(fs, r.staged.Anchor, text)); err != nil {
		return err
	}
	if err := fs.RemoveAll(r.staged.Dir); err != nil {
		return err
	}
	want := map[string]fileSum{}
	for _, f := range r.m.Files {
		want[f.Name] = f
	}
	if err := r.checkFile(ctx, want, backupAnchor); err != nil {
		return err
	}
	files, err := copyDir(ctx, fs, fs.PathJoin(r.o.Dir, backupLedger), r.staged.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		f.Name = path.Join(backupLedger, f.Name)
		if want[f.Name] != f {
			return r.differs(f, want)
		}
		delete(want, f.Name)
	}
	for name := range want {
		return fmt.Errorf("the backup lacks %s, which its manifest names: %w", name, record.ErrReject)
	}
	return r.stageKeys(ctx)
}

// checkFile compares a file of the backup with the manifest.
func (r *restore) checkFile(ctx context.Context, want map[string]fileSum, name string) error {
	f, err := sumFile(ctx, r.cfg.FS, r.o.Dir, name)
	if err != nil {
		return err
	}
	if want[name] != f {
		return r.differs(f, want)
	}
	delete(want, name)
	return nil
}

func (r *restore) differs(f fileSum, want map[string]fileSum) error {
	if _, ok := want[f.Name]; !ok {
		return fmt.Errorf("the backup has %s, which its manifest does not name: %w", f.Name, record.ErrReject)
	}
	return fmt.Errorf("%s of the backup was changed: it has %d bytes with SHA-256 %s, the manifest says %d and %s: %w", f.Name, f.Size, f.SHA256, want[f.Name].Size, want[f.Name].SHA256, record.ErrReject)
}

// stageKeys puts a copy of the payload keys in their place. A crash leaves
// them there, which the next restore takes for the host's own.
func (r *restore) stageKeys(ctx context.Context) error {
	if r.o.PayloadKeys == "" {
		return nil
	}
	fs, to := r.cfg.FS, r.cfg.PayloadKeys+restoring
	if err := fs.RemoveAll(to); err != nil {
		return err
	}
	files, err := copyDir(ctx, fs, r.o.PayloadKeys, to)
	if err != nil {
		return fmt.Errorf("copy payload keys: %w", err)
	}
	want := map[string]fileSum{}
	for _, f := range r.m.KeyFiles {
		want[f.Name] = f
	}
	for _, f := range files {
		if w, ok := want[f.Name]; ok && w != f {
			return r.differs(f, want)
		}
		delete(want, f.Name)
	}
	for name := range want {
		return fmt.Errorf("the copy of the payload keys lacks %s, which the manifest names: %w", name, record.ErrReject)
	}
	return moveDir(fs, to, r.cfg.PayloadKeys)
}

// restoreRow is an M 'r' row: 1 version, 8 size of the host log that was
// restored, 8 size of the last checkpoint that was given up, 1 state.
func restoreRow(size, lost uint64, state string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{restoreVersion}, size)
	return append(binary.BigEndian.AppendUint64(b, lost), state...)
}

const restoreVersion = 1

func parseRestore(b []byte) (size, lost uint64, state string, err error) {
	if len(b) < 17 || b[0] != restoreVersion {
		return 0, 0, "", fmt.Errorf("parse restore row: %d bytes do not make a row of version %d", len(b), restoreVersion)
	}
	return binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), string(b[17:]), nil
}

// restored returns what the newest restore of this store has given up.
func (s *Store) restored() (state string, lost uint64, err error) {
	err = scan(s.db, []byte{tableMeta, metaRestore}, func(_, value []byte) error {
		size, given, st, err := parseRestore(value)
		if state, lost = st, 0; given > size {
			lost = given - size
		}
		return err
	})
	return state, lost, err
}

// gaveUp reports whether a restore has given up the history that a checkpoint
// of the host log at this size may be of.
func (s *Store) gaveUp(size uint64) (bool, error) {
	known := false
	err := scan(s.db, []byte{tableMeta, metaRestore}, func(_, value []byte) error {
		from, to, _, err := parseRestore(value)
		known = known || from < size && size <= to
		return err
	})
	return known, err
}

// seal opens the staged store and makes its first entries: what is given up,
// and certificates of the keys that have come since the backup.
func (r *restore) seal(out *Restored) (err error) {
	s, err := openDB(r.staged, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.restoring = true
	if err := s.recover(); err != nil {
		return err
	}
	m := &record.Restore{
		Requester: r.o.Requester, Reason: r.o.Reason, Created: r.m.Created.UnixNano(), ManifestSha256: r.digest[:],
		Lost: out.Lost, State: r.state,
	}
	size, root := s.host.Root()
	m.Size, m.Root = size, root[:]
	if r.state == RestoreRolledBack {
		_, m.GivenUp, _ = parseAnchor(r.live) // it was parsed before
	}
	e, err := s.Draft(record.OriginOperator, record.ClassHostRestore, m)
	if err != nil {
		return err
	}
	b := Batch{Log: s.host, Entries: []Entry{e}}
	rows, err := s.certifyAgain(&b)
	if err != nil {
		return err
	}
	req := newRequest(b)
	req.extra = func(batch *pebble.Batch, sealed []Sealed) error {
		err := batch.Set(keyMeta(metaRestore, binary.BigEndian.AppendUint64(nil, sealed[0].First)), restoreRow(size, r.lost.Size, r.state), nil)
		for i, key := range rows {
			err = errors.Join(err, batch.Set(keyMeta(metaCertificate, key), certificateRow(s.host.id, sealed[0].First+1+uint64(i)), nil))
		}
		return err
	}
	if err := s.sealNow(req); err != nil {
		return err
	}
	if err := s.loadVMKeys(); err != nil {
		return err
	}
	return s.lastCheckpoints()
}

// certifyAgain adds the certificates that lead from the newest key that the
// backup knows to the one in the key directory.
func (s *Store) certifyAgain(b *Batch) (added [][]byte, err error) {
	steps, err := s.cfg.Keys.Handovers(s.vmKeys[len(s.vmKeys)-1].key)
	if err != nil {
		return nil, err
	}
	for i, h := range steps {
		if want := uint64(len(s.vmKeys) + i); h.Number != want {
			return nil, fmt.Errorf("VM-log key %x has number %d in %s, the backup would make it number %d: %w", h.Next, h.Number, keys.HandoverFile, want, record.ErrReject)
		}
		e, err := s.Draft(record.OriginHost, record.ClassKeyCertificate, &record.KeyCertificate{
			Use: keys.UseVMLog, PublicKey: h.Next, OriginPrefix: proof.VMPrefix(s.cfg.HostID), NotBefore: s.cfg.Now().UnixNano(),
			Number: h.Number, PreviousKey: h.Previous, PreviousSignature: h.Signature, Cause: "restore: it was certified after the backup",
		})
		if err != nil {
			return nil, err
		}
		b.Entries = append(b.Entries, e)
		added = append(added, h.Next)
	}
	return added, nil
}

// place puts the new anchor, then the store, in their places.
func (r *restore) place() error {
	fs := r.cfg.FS
	if r.live != nil {
		if err := writeAnchor(fs, r.cfg.Anchor+beforeRestore, r.live); err != nil {
			return err
		}
	}
	if err := moveDir(fs, r.staged.Anchor, r.cfg.Anchor); err != nil {
		return err
	}
	// A crash here: resume.
	return r.name()
}

func (r *restore) name() error {
	// An empty directory may stand there; refuse has seen that it is.
	if err := r.cfg.FS.RemoveAll(r.cfg.Dir); err != nil {
		return err
	}
	return moveDir(r.cfg.FS, r.staged.Dir, r.cfg.Dir)
}
