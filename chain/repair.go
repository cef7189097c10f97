package chain

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/spool"
)

// Behind the names of what a repair makes, and of the store that it leaves.
const (
	repairing = ".repairing"
	damaged   = ".damaged"
)

// Repaired is what a repair has found and done.
type Repaired struct {
	Before *Report // what fsck found; nil: it could not read on
	Broken error   // why not
	After  *Report // what it finds now
	Done   []*record.Damage
	Kept   string // where the damaged store is; empty: nothing was done
}

// Fenced reports whether evidence was lost. Parts of files that cannot be read
// are none by themselves: what was in them may have been rebuilt.
func (r *Repaired) Fenced() bool {
	return slices.ContainsFunc(r.Done, func(d *record.Damage) bool { return d.Done != "rebuilt" && d.Table != "file" })
}

// Repair checks a store, which must not be open, and mends what it can: rows
// that follow from others are rebuilt, rows of evidence are fenced off. It works
// on a copy of all rows that can be read: the damaged store is left as it is,
// under another name. What was done is sealed in the host log. Where the copy
// does not come out sound nothing is changed.
//
// Order: copy to DIR.repairing; rebuild; check; seal, with an anchor of its own
// beside the true one; give the damaged store its other name; put anchor and
// copy in their places. A crash at any step leaves what the next Repair makes
// anew or completes.
func Repair(ctx context.Context, cfg Config, opts FsckOptions) (*Repaired, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &repairer{cfg: cfg, place: restore{cfg: cfg, staged: cfg}, opts: opts, spool: spool.New(opts.Spool, quoteSize), quotes: map[string]*quotedLog{}, newest: map[string]quote{}, notes: map[string][]byte{}, closed: map[LogID]uint64{}, keys: proof.KeyChain{HostID: cfg.HostID}}
	r.place.staged.Dir, r.place.staged.Anchor = cfg.Dir+repairing, cfg.Anchor+repairing
	out, err := r.run(ctx)
	if err != nil {
		return out, fmt.Errorf("repair store %s: %w", cfg.Dir, err)
	}
	return out, nil
}

// repairer is one Repair under way.
type repairer struct {
	cfg   Config
	place restore // knows how to put a staged store in its place
	opts  FsckOptions
	s     *Store // the copy

	done   []*record.Damage
	logs   []*logRepair
	keys   proof.KeyChain
	certs  []vmKey
	spool  *spool.Spool          // Fsck before and behind it has the same file
	quotes map[string]*quotedLog // by origin
	newest map[string]quote
	notes  map[string][]byte // of the newest quotes
	closed map[LogID]uint64  // entries that closed their logs
}

func (r *repairer) did(l *Log, table string, first, last uint64, done, format string, args ...any) {
	d := &record.Damage{Table: table, First: first, Last: last, Done: done, Problem: fmt.Sprintf(format, args...)}
	if l != nil {
		d.Origin = l.origin
	}
	r.done = append(r.done, d)
}

func (r *repairer) run(ctx context.Context) (*Repaired, error) {
	if err := r.resume(); err != nil {
		return nil, err
	}
	out := &Repaired{}
	if out.Before, out.Broken = Fsck(ctx, r.cfg, r.opts); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if out.Broken == nil && mended(out.Before) {
		out.After = out.Before
		return out, nil
	}
	if err := r.copy(ctx); err != nil {
		return out, err
	}
	err := r.rebuild(ctx)
	if len(r.done) == 0 { // roots of tiles are not copied
		r.did(nil, "root", 0, 0, "rebuilt", "rows that follow from tiles are made anew")
	}
	if err == nil {
		err = r.s.db.Flush()
	}
	if err = errors.Join(err, r.s.db.Close()); err != nil {
		return out, fmt.Errorf("%w; nothing was changed: restore a backup", err)
	}
	if out.After, err = Fsck(ctx, r.place.staged, r.opts); err != nil {
		return out, err
	}
	if !mended(out.After) {
		return out, fmt.Errorf("it cannot be mended, %d findings are left, such as: %s; nothing was changed: restore a backup: %w", len(out.After.Findings)+out.After.More, out.After.Findings[0], record.ErrReject)
	}
	if err := r.seal(); err != nil {
		return out, err
	}
	out.Done = r.done
	out.Kept, err = r.swap()
	return out, err
}

// mended reports whether a store can be used: what is left is no damage of rows.
func mended(r *Report) bool {
	return r.More == 0 && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Table != "key" && f.Table != "frame" && f.Table != "erasure" })
}

// resume completes a repair that a crash has cut short behind the renaming of
// the damaged store.
func (r *repairer) resume() error {
	store, err := exists(r.cfg.FS, r.cfg.Dir)
	staged, err2 := exists(r.cfg.FS, r.place.staged.Dir)
	if err = errors.Join(err, err2); err != nil || store || !staged {
		return err
	}
	anchor, err := exists(r.cfg.FS, r.place.staged.Anchor)
	if err != nil {
		return err
	}
	r.cfg.Log.Warn("a repair that was cut short is completed", slog.String("dir", r.cfg.Dir))
	if !anchor {
		return r.place.name()
	}
	if r.place.live, err = readAnchor(r.cfg.FS, r.cfg.Anchor); err != nil {
		return err
	}
	return r.place.place()
}

// copy makes the copy of all rows that can be read.
func (r *repairer) copy(ctx context.Context) error {
	fs, staged := r.cfg.FS, r.place.staged
	live, err := readAnchor(fs, r.cfg.Anchor)
	if err != nil {
		return err
	}
	if live == nil {
		return fmt.Errorf("anchor %s is missing: without it nobody can tell whether this is the newest copy of the store: %w", r.cfg.Anchor, record.ErrReject)
	}
	r.place.live = live
	if err := errors.Join(writeAnchor(fs, staged.Anchor, live), fs.RemoveAll(staged.Dir), makeDir(fs, staged.Dir)); err != nil {
		return err
	}
	old, err := openDB(r.cfg, true)
	if err != nil {
		return fmt.Errorf("%w: what leads to the rows is damaged: restore a backup", err)
	}
	opts := pebbleOptions(staged, false)
	opts.ErrorIfExists = true
	db, err := pebble.Open(staged.Dir, opts)
	if err != nil {
		return errors.Join(err, old.db.Close())
	}
	r.s = newStore(staged, db)
	s := &salvage{from: old.db, to: db}
	if err := errors.Join(s.run(ctx), old.db.Close()); err != nil {
		return errors.Join(err, db.Close())
	}
	for _, hole := range s.holes {
		r.did(nil, "file", 0, 0, "dropped", "%s", hole)
	}
	return nil
}

// rebuild mends the copy: the host log first, since it says what the others
// must be.
func (r *repairer) rebuild(ctx context.Context) error {
	if err := r.storeRow(); err != nil {
		return err
	}
	sizes, err := r.findLogs()
	if err != nil {
		return err
	}
	if len(sizes) == 0 {
		return errors.New("no entry of any log is left")
	}
	for _, l := range r.s.Logs() {
		p := &logRepair{r: r, l: l, size: sizes[l.id]}
		r.logs = append(r.logs, p)
		if err := r.log(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", l.origin, err)
		}
		if l.name.IsHost() && p.unread() {
			if err := r.keysOfRows(p.size); err != nil {
				return err
			}
		}
	}
	for _, step := range []func() error{r.certificateRows, r.quoteRows, r.closedRows, r.commitRows, r.otherRows} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (r *repairer) log(ctx context.Context, p *logRepair) error {
	row, ok, err := get(r.s.db, keyLog(tableHead, p.l.id))
	if err != nil {
		return err
	}
	if ok {
		if p.head, err = parseHead(row); err == nil {
			p.hasHead = true
		}
	}
	if p.fenced, err = loadFences(r.s.db, p.l.id); err != nil {
		return err
	}
	if row, ok, err := get(r.s.db, keyPruned(p.l.id)); err != nil {
		return err
	} else if ok {
		if p.pruned, err = parsePruned(row); err != nil {
			return err
		}
	}
	if err := r.checkpointRows(p); err != nil {
		return err
	}
	if p.size == 0 {
		return fmt.Errorf("none of its entries is left")
	}
	if row, ok, err := get(r.s.db, keyDropped(p.l.id)); err != nil || ok {
		return errors.Join(err, p.keepDropped(row))
	}
	if err := p.openClaims(); err != nil {
		return err
	}
	g, err := p.decide(ctx)
	if err := errors.Join(err, p.claimed.rows.Close()); err != nil {
		return err
	}
	return p.settle(ctx, g)
}

// keysOfRows takes keys whose certificates cannot be read from the rows that
// lead to them: the same that a store which opens goes by.
func (r *repairer) keysOfRows(size uint64) error {
	if err := r.s.loadVMKeys(); errors.Is(err, record.ErrFatal) {
		return fmt.Errorf("certificates of keys are gone, and so is what leads to them: %w", err)
	} else if err != nil {
		return err
	}
	for _, k := range r.s.vmKeys {
		if k.index < size && !slices.ContainsFunc(r.certs, func(c vmKey) bool { return c.key.Equal(k.key) }) {
			r.certs = append(r.certs, k)
		}
	}
	slices.SortFunc(r.certs, func(a, b vmKey) int { return cmp.Compare(a.index, b.index) })
	return nil
}

// checkpointRows drops the rows of checkpoints whose signatures do not hold, and has a
// log be as long as what was signed for it. The anchor's and the newest quoted
// checkpoints are put back.
func (r *repairer) checkpointRows(p *logRepair) error {
	l, db := p.l, r.s.db
	certified := r.certs
	newest := uint64(0)
	err := scan(db, keyLog(tableCheckpoint, l.id), func(key, value []byte) error {
		size := binary.BigEndian.Uint64(key[5:])
		c, _, err := r.s.openNote(l, value, certified)
		if err == nil && c.Size == size {
			newest = max(newest, size)
			return nil
		}
		r.did(l, "checkpoint", 0, 0, "dropped", "at size %d: %v", size, err)
		return db.Delete(slices.Clone(key), pebble.NoSync)
	})
	if err != nil {
		return err
	}
	p.size = max(p.size, newest)
	if q := r.quotes[l.origin]; q != nil {
		p.size = max(p.size, q.last.size)
	}
	note := r.notes[l.origin]
	if l.name.IsHost() {
		if _, note, err = parseAnchor(r.place.live); err != nil {
			return err
		}
	}
	if note == nil {
		return nil
	}
	c, _, err := r.s.openNote(l, note, certified)
	if err != nil {
		return fmt.Errorf("the checkpoint that was published last: %w", err)
	}
	p.claimed.note = &claim{size: c.Size, root: c.Root, table: "anchor"}
	p.size = max(p.size, c.Size)
	if c.Size > newest {
		r.did(l, "checkpoint", 0, 0, "rebuilt", "that of size %d was not there; it is the one that was published", c.Size)
		return db.Set(keySeq(tableCheckpoint, l.id, c.Size), note, pebble.NoSync)
	}
	return nil
}

// sound is told of every entry that can be read: what the host log says of keys
// and checkpoints, and what closes a log.
func (r *repairer) sound(l *Log, leaf *record.Leaf, o *opening) error {
	if leaf.Header.Class == record.ClassClosed && leaf.Origin == record.OriginHost {
		r.closed[l.id] = leaf.Index
	}
	if !l.name.IsHost() || o.kind == kindErased {
		return nil
	}
	switch leaf.Header.Class {
	case record.ClassKeyCertificate, record.ClassVMCheckpoint:
	default:
		return nil
	}
	m, err := record.Decode(leaf.Header.Class, o.payload)
	if err != nil {
		return nil // fsck reports it
	}
	switch m := m.(type) {
	case *record.KeyCertificate:
		if r.keys.Add(leaf.Index, m) == nil {
			r.certs = append(r.certs, vmKey{key: slices.Clone(m.PublicKey), index: leaf.Index})
		}
	case *record.VMCheckpoint:
		r.newest[m.Origin] = quote{size: m.Size, index: leaf.Index}
		r.notes[m.Origin] = slices.Clone(m.Note)
		vm, ok := r.s.LogByOrigin(m.Origin)
		key, certified := r.keys.At(leaf.Index)
		if !ok || !certified {
			return nil
		}
		if c, err := vm.openWith(m.Note, key.Key); err == nil {
			if r.quotes[m.Origin] == nil {
				r.quotes[m.Origin] = &quotedLog{}
			}
			if c.Size < r.quotes[m.Origin].last.size {
				return nil // fsck finds that the log went back, and then nothing is mended
			}
			return r.quotes[m.Origin].add(r.spool, claim{size: c.Size, root: c.Root, entry: leaf.Index})
		}
	}
	return nil
}

// seal opens the mended copy and says in its host log what was done.
func (r *repairer) seal() (err error) {
	s, err := openDB(r.place.staged, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.recover(); err != nil {
		return err
	}
	b := Batch{Log: s.host}
	for _, d := range r.done {
		if len(b.Entries) == maxDamageEntries {
			break
		}
		e, err := s.Draft(record.OriginHost, record.ClassDamage, d)
		if err != nil {
			return err
		}
		b.Entries = append(b.Entries, e)
	}
	if len(b.Entries) == 0 {
		return fmt.Errorf("fsck finds damage, and nothing that repair knows was wrong: %w", record.ErrFatal)
	}
	if err := s.sealNow(newRequest(b)); err != nil {
		return err
	}
	return s.lastCheckpoints()
}

// maxDamageEntries bounds how much of a repair is sealed; the report has all.
const maxDamageEntries = 1000

// swap gives the damaged store another name and puts the mended one in its
// place.
func (r *repairer) swap() (kept string, err error) {
	for n := 1; ; n++ {
		kept = fmt.Sprintf("%s%s-%d", r.cfg.Dir, damaged, n)
		if there, err := exists(r.cfg.FS, kept); err != nil {
			return "", err
		} else if !there {
			break
		}
	}
	if err := moveDir(r.cfg.FS, r.cfg.Dir, kept); err != nil {
		return "", err
	}
	// A crash here: resume.
	return kept, r.place.place()
}
