package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/spool"
)

// maxFindings bounds a report: what comes after is counted only.
const maxFindings = 1000

// FsckOptions say how to check a store.
type FsckOptions struct {
	// Progress is called now and then with how far the check of a log is.
	// Default: nobody is told.
	Progress func(origin string, done, total uint64)
	// Frame verifies the signed statements of guest agents: guestagent/wire
	// knows how. Without it they are not checked, and the report says so.
	Frame func(statement, signature, key []byte) (proof.Frame, error)
	// Spool keeps the checkpoints that the host log quotes meanwhile, 48 bytes each: a
	// temporary file, which is written over. Default: memory.
	Spool spool.File

	restoring bool // the key of now may have come after the backup
}

// Finding is one thing that is wrong with a store.
type Finding struct {
	Table   string  `json:"table"` // what kind of row
	Log     string  `json:"log,omitempty"`
	Index   *uint64 `json:"index,omitempty"` // entry of that log
	Problem string  `json:"problem"`
}

// String returns the finding as a line of text.
func (f Finding) String() string {
	where := f.Table
	if f.Index != nil {
		where += fmt.Sprintf(" %d", *f.Index)
	}
	if f.Log != "" {
		where += " of " + f.Log
	}
	return where + ": " + f.Problem
}

// Report is what fsck has seen.
type Report struct {
	Logs        int    `json:"logs"`
	Entries     uint64 `json:"entries"`
	Packed      uint64 `json:"packed_entries"` // of them: in bundles
	Payloads    uint64 `json:"payloads"`
	Erased      uint64 `json:"erased_payloads"`
	Pruned      uint64 `json:"pruned_entries"`
	Unreadable  uint64 `json:"unreadable_payloads"` // of guests: bytes that are no record
	NoKey       uint64 `json:"payloads_without_key"`
	Dropped     uint64 `json:"dropped_entries"`
	Fenced      uint64 `json:"fenced_entries"` // damaged before, known, and kept apart
	Tiles       uint64 `json:"tiles"`
	Checkpoints uint64 `json:"checkpoints"` // stored and quoted
	Commits     uint64 `json:"commits"`
	Frames      uint64 `json:"frames"` // statements verified
	FramesOff   bool   `json:"frames_not_checked"`
	// Policies are the policy bundles that entries name, each with the first that does. Their
	// texts are not in the store.
	Policies []NamedBundle `json:"policies"`
	Findings []Finding     `json:"findings"`
	More     int           `json:"more_findings"` // left out of Findings
}

// NamedBundle is a policy bundle that an entry brings in force, or that gave a verdict.
type NamedBundle struct {
	Digest record.Hash `json:"digest"`
	Log    string      `json:"log"` // origin
	Index  uint64      `json:"index"`
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Fsck reads every row of a store, which must not be open, and changes
// nothing. It checks the rows against each other, against the trees, the
// signatures, the quotes in the host log and the anchor. What is wrong stands in
// the report; an error says that the check itself could not be made or ended.
func Fsck(ctx context.Context, cfg Config, opts FsckOptions) (_ *Report, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := openDB(cfg, true)
	if err != nil {
		return nil, fmt.Errorf("check store: %w", err)
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	f := &fsck{s: s, opts: opts, r: &Report{Policies: []NamedBundle{}, Findings: []Finding{}, FramesOff: opts.Frame == nil}, heads: map[LogID]head{}, quotes: map[string]*quotedLog{}, spool: spool.New(opts.Spool, quoteSize), next: map[LogID]uint64{}, newestQuotes: map[string]quote{}, certified: map[uint64]string{}, drops: map[uint64]*record.Dropped{}, erasing: map[erasingEntry]bool{}, bundles: map[record.Hash]bool{}, keys: proof.KeyChain{HostID: cfg.HostID}}
	if err := s.loadStoreRow(); err != nil {
		f.find("store", nil, nil, "%v", err)
	}
	if err := s.loadVMKeys(); err != nil {
		f.find("certificate", nil, nil, "%v", err)
	}
	for _, step := range []func(context.Context) error{f.unknownRows, f.logRows, f.readQuoteRows, f.readErasureRows, f.logs, f.commits, f.followers, f.quoteRows, f.certificates, f.erasureRows, f.witnessRows, f.restoreRows, f.anchor} {
		if err := step(ctx); err != nil {
			return f.r, fmt.Errorf("check store %s: %w", cfg.Dir, err)
		}
	}
	return f.r, nil
}

// fsck is one check under way.
type fsck struct {
	s    *Store
	opts FsckOptions
	r    *Report

	list   []*Log
	heads  map[LogID]head
	spool  *spool.Spool
	quotes map[string]*quotedLog // checkpoints that the host log quotes, by origin; nil: there is no such log
	// newestQuotes is what Q rows say, by origin, but for those that the host log has quoted.
	newestQuotes map[string]quote
	certified    map[uint64]string          // key by index in the host log
	keys         proof.KeyChain             // of the VM logs
	next         map[LogID]uint64           // first index that no commit has covered
	blind        bool                       // entries of the host log cannot be read
	newest       uint64                     // stored checkpoint of the host log
	erasing      map[erasingEntry]bool      // erasures that are not done; true: their entry can be read
	drops        map[uint64]*record.Dropped // by index in the host log
	bundles      map[record.Hash]bool       // of policies, that are in the report
	restored     int64                      // monotone time of the newest restore
}

func (f *fsck) find(table string, l *Log, index *uint64, format string, args ...any) {
	if len(f.r.Findings) >= maxFindings {
		f.r.More++
		return
	}
	origin := ""
	if l != nil {
		origin = l.origin
	}
	if index != nil {
		i := *index
		index = &i
	}
	f.r.Findings = append(f.r.Findings, Finding{Table: table, Log: origin, Index: index, Problem: fmt.Sprintf(format, args...)})
}

// unknownRows looks for rows that no table owns.
func (f *fsck) unknownRows(context.Context) error {
	known := []byte{tableMeta, tableEntry, tablePayload, tableBundle, tableTile, tableRoot, tableHead, tableCheckpoint, tableCommit, tableFollower, tableQuote}
	for t := range 256 {
		if slices.Contains(known, byte(t)) {
			continue
		}
		if err := scan(f.s.db, []byte{byte(t)}, func(key, _ []byte) error {
			f.find("row", nil, nil, "key %x belongs to no table", key)
			return nil
		}); err != nil {
			return err
		}
	}
	return scan(f.s.db, []byte{tableMeta}, func(key, _ []byte) error {
		switch {
		case len(key) == 2 && key[1] == metaStore, len(key) == 6 && key[1] == metaLog, len(key) == 34 && key[1] == metaCertificate, len(key) > 2 && (key[1] == metaUser || key[1] == metaWitness), len(key) == 2 && key[1] == metaQuorum, len(key) == 14 && key[1] == metaErasure, len(key) == 6 && (key[1] == metaPruned || key[1] == metaClosed || key[1] == metaDropped), len(key) == 10 && key[1] == metaRestore, len(key) == 14 && key[1] == metaFence:
		default:
			f.find("row", nil, nil, "key %x belongs to no table", key)
		}
		return nil
	})
}

// logRows reads which logs there are, and their heads.
func (f *fsck) logRows(context.Context) error {
	err := scan(f.s.db, []byte{tableMeta, metaLog}, func(key, value []byte) error {
		if len(key) != 6 {
			return nil
		}
		id := LogID(binary.BigEndian.Uint32(key[2:]))
		l, err := f.s.newLog(id, string(value))
		if err != nil {
			f.find("log", nil, nil, "number %d: %v", id, err)
			return nil
		}
		if want := LogID(len(f.list)); id != want {
			f.find("log", l, nil, "it has number %d, want %d", id, want)
		}
		if l.name.IsHost() != (id == 0) {
			f.find("log", l, nil, "it has number %d, and the host log, and no other, has number 0", id)
		}
		f.list = append(f.list, l)
		f.s.register(l)
		return nil
	})
	if err != nil {
		return err
	}
	if f.s.host == nil {
		f.find("log", nil, nil, "there is no host log")
	}
	f.r.Logs = len(f.list)
	for _, l := range f.list {
		row, ok, err := get(f.s.db, keyLog(tableHead, l.id))
		if err != nil {
			return err
		}
		if !ok {
			f.find("head", l, nil, "it is missing")
			continue
		}
		if f.heads[l.id], err = parseHead(row); err != nil {
			f.find("head", l, nil, "%v", err)
		}
	}
	return scan(f.s.db, []byte{tableHead}, func(key, _ []byte) error {
		if _, ok := f.logOf(key, 5); !ok {
			f.find("head", nil, nil, "key %x is of no log", key)
		}
		return nil
	})
}

// logOf returns the log that a key of the given length names.
func (f *fsck) logOf(key []byte, length int) (*Log, bool) {
	if len(key) != length {
		return nil, false
	}
	return f.s.LogByID(LogID(binary.BigEndian.Uint32(key[1:])))
}

// logs checks every log, the host log first: it tells what the others must be.
func (f *fsck) logs(ctx context.Context) error {
	rows := map[byte]int{tableEntry: 13, tablePayload: 13, tableBundle: 13, tableTile: 14, tableRoot: rootKeySize, tableCheckpoint: 13}
	for table, length := range rows {
		if err := f.strays(table, length); err != nil {
			return err
		}
	}
	for _, l := range f.list {
		if err := f.log(ctx, l); err != nil {
			return err
		}
	}
	for origin := range f.quotes {
		if _, ok := f.s.LogByOrigin(origin); !ok {
			f.find("log", nil, nil, "the host log quotes %s, which is missing", origin)
		}
	}
	return nil
}

// strays looks for rows of logs that do not exist, jumping over those that do.
func (f *fsck) strays(table byte, length int) (err error) {
	it, err := f.s.db.NewIter(iterBounds([]byte{table}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		if _, known := f.logOf(it.Key(), length); !known {
			f.find("row", nil, nil, "key %x is of no log", it.Key())
			ok = it.Next()
			continue
		}
		ok = it.SeekGE(endOf(bytes.Clone(it.Key()[:5])))
	}
	return it.Error()
}

// commits checks that the commit rows cover every entry exactly once.
func (f *fsck) commits(ctx context.Context) error {
	want := uint64(1)
	err := scan(f.s.db, []byte{tableCommit}, func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if len(key) != 9 {
			f.find("commit", nil, nil, "key %x is malformed", key)
			return nil
		}
		n := binary.BigEndian.Uint64(key[1:])
		if n != want {
			f.find("commit", nil, nil, "commit %d follows commit %d", n, want-1)
		}
		want = n + 1
		f.r.Commits++
		spans, err := parseCommit(value)
		if err != nil {
			f.find("commit", nil, nil, "commit %d: %v", n, err)
			return nil
		}
		for _, sp := range spans {
			l, ok := f.s.LogByID(sp.log)
			if !ok {
				f.find("commit", nil, nil, "commit %d names log number %d, which does not exist", n, sp.log)
				continue
			}
			if sp.first != f.next[sp.log] || sp.count == 0 {
				f.find("commit", l, &sp.first, "commit %d adds %d entries from %d, the one before ended at %d", n, sp.count, sp.first, f.next[sp.log])
			}
			f.next[sp.log] = sp.first + uint64(sp.count)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.s.commit = want - 1
	for _, l := range f.list {
		if size := f.heads[l.id].size; f.next[l.id] != size {
			f.find("commit", l, nil, "commits cover %d entries, the head says %d", f.next[l.id], size)
		}
	}
	return nil
}

func (f *fsck) followers(context.Context) error {
	return scan(f.s.db, []byte{tableFollower}, func(key, value []byte) error {
		p, _, err := parseFollower(value)
		if err != nil {
			f.find("follower", nil, nil, "%q: %v", key[1:], err)
		} else if p.Commit > f.s.commit+1 {
			f.find("follower", nil, nil, "%q stands at commit %d, the newest is %d", key[1:], p.Commit, f.s.commit)
		}
		return nil
	})
}

// readQuoteRows reads which quotes the host log must have: the newest of each log.
func (f *fsck) readQuoteRows(context.Context) error {
	return scan(f.s.db, []byte{tableQuote}, func(key, value []byte) error {
		l, ok := f.logOf(key, 5)
		if q, err := parseQuote(value); ok && err == nil { // else reported with the rows
			f.newestQuotes[l.origin] = q
		}
		return nil
	})
}

func (f *fsck) quoteRows(context.Context) error {
	return scan(f.s.db, []byte{tableQuote}, func(key, value []byte) error {
		l, ok := f.logOf(key, 5)
		if !ok {
			f.find("quote", nil, nil, "key %x is of no log", key)
			return nil
		}
		q, err := parseQuote(value)
		if err != nil {
			f.find("quote", l, nil, "%v", err)
		} else if _, open := f.newestQuotes[l.origin]; open && !f.blind {
			f.find("quote", l, nil, "entry %d of the host log does not quote it at size %d", q.index, q.size)
		}
		return nil
	})
}

func (f *fsck) certificates(context.Context) error {
	own := false
	err := scan(f.s.db, []byte{tableMeta, metaCertificate}, func(key, value []byte) error {
		own = own || string(key[2:]) == string(f.s.cfg.Keys.VMPublic())
		if f.blind {
			return nil // its entry may be one of those
		}
		if len(value) != 12 || f.certified[binary.BigEndian.Uint64(value[4:])] != string(key[2:]) || binary.BigEndian.Uint32(value) != 0 {
			f.find("certificate", f.s.host, nil, "no entry certifies key %x where the row says (%x)", key[2:], value)
			return nil
		}
		return nil
	})
	if f.opts.restoring {
		return err
	}
	if err == nil && !own {
		f.find("certificate", f.s.host, nil, "the key of the VM logs is not certified")
	}
	// A rotation that was cut short behind the certificate left the new key
	// prepared: the next start completes it.
	next, prepared := f.s.cfg.Keys.Next()
	if keys := f.keys.Keys(); len(keys) > 0 && !f.blind {
		last := keys[len(keys)-1].Key
		if !last.Equal(f.s.cfg.Keys.VMPublic()) && !(prepared && last.Equal(next)) {
			f.find("certificate", f.s.host, nil, "the key of the VM logs was retired: the newest is certified in entry %d", keys[len(keys)-1].Index)
		}
	}
	return err
}

// erasingEntry is an entry that tells of an erasure.
type erasingEntry struct {
	log   LogID
	index uint64
}

// readErasureRows reads which erasures are not done.
func (f *fsck) readErasureRows(context.Context) error {
	return scan(f.s.db, []byte{tableMeta, metaErasure}, func(key, _ []byte) error {
		if len(key) == 14 { // else reported as a row of no table
			f.erasing[erasingEntry{LogID(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint64(key[6:])}] = false
		}
		return nil
	})
}

// erasureRows checks that what tells of erasures which are not done can be read.
func (f *fsck) erasureRows(context.Context) error {
	return scan(f.s.db, []byte{tableMeta, metaErasure}, func(key, value []byte) error {
		if len(key) != 14 {
			return nil // reported as a row of no table
		}
		id, index := LogID(binary.BigEndian.Uint32(key[2:])), binary.BigEndian.Uint64(key[6:])
		l, ok := f.s.LogByID(id)
		if !ok {
			f.find("row", nil, nil, "key %x is of no log", key)
			return nil
		}
		if err := (&erasure{log: l, index: index}).parse(value); err != nil {
			f.find("row", l, &index, "%v", err)
		}
		if !f.erasing[erasingEntry{id, index}] {
			f.find("erasure", l, &index, "it was cut short, and its entry cannot be read: nobody knows what it names, it is not finished, and what it may name is held back from readers; bring the payload keys back, or restore a backup")
		}
		return nil
	})
}

func (f *fsck) restoreRows(context.Context) error {
	return scan(f.s.db, []byte{tableMeta, metaRestore}, func(key, value []byte) error {
		if size, _, _, err := parseRestore(value); err != nil {
			f.find("restore", nil, nil, "key %x: %v", key, err)
		} else if len(key) == 10 && size > binary.BigEndian.Uint64(key[2:]) {
			f.find("restore", f.s.host, nil, "the row of entry %d says that the host log had %d entries", binary.BigEndian.Uint64(key[2:]), size)
		}
		return nil
	})
}

// anchor compares the host log with the anchor. Its root was checked with the
// log, as one of the claims.
func (f *fsck) anchor(context.Context) error {
	c, err := f.readAnchor()
	if err != nil {
		f.find("anchor", f.s.host, nil, "%s: %v", f.s.cfg.Anchor, err)
		return nil
	}
	if _, ok, err := get(f.s.db, keySeq(tableCheckpoint, f.s.host.id, c.Size)); err != nil {
		return err
	} else if !ok && f.newest < c.Size {
		f.find("checkpoint", f.s.host, nil, "the newest one has size %d, the anchor %d", f.newest, c.Size)
	}
	if f.s.host != nil && c.Size > f.heads[f.s.host.id].size {
		f.find("anchor", f.s.host, nil, "the anchor has size %d, the host log %d: the store was rolled back", c.Size, f.heads[f.s.host.id].size)
	}
	return nil
}

func (f *fsck) readAnchor() (proof.Checkpoint, error) {
	if f.s.host == nil {
		return proof.Checkpoint{}, fmt.Errorf("there is no host log to compare it with")
	}
	text, err := readAnchor(f.s.cfg.FS, f.s.cfg.Anchor)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	if text == nil {
		return proof.Checkpoint{}, fmt.Errorf("it is missing")
	}
	id, note, err := parseAnchor(text)
	if err != nil {
		return proof.Checkpoint{}, err
	}
	if id != f.s.id {
		return proof.Checkpoint{}, fmt.Errorf("it is that of another store")
	}
	return proof.OpenCheckpoint(note, f.s.host.verifier)
}
