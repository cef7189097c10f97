package chain

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// closedStore fills a store with two VM logs, one of them longer than a tile
// level, and closes it.
func closedStore(t testing.TB, fs vfs.FS, options ...func(*Config)) (Config, *Log) {
	t.Helper()
	cfg := testConfig(t, fs)
	cfg.unpacked = true
	for _, o := range options {
		o(&cfg)
	}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	other := mustCreateLog(t, s, 2)
	story(t, s, l)
	for i := range 3 {
		mustAppend(t, s, Batch{Log: other, Entries: []Entry{hostEntry(t, s, "change")}, Meta: []MetaWrite{{Key: "k", Value: []byte{byte(i)}}}})
		if err := s.CheckpointNow(context.Background(), l); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "more")}})
	}
	f, err := s.Follow("rules")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(context.Background(), s.End(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	shutdown(t, s, stop)
	return cfg, l
}

// plain makes a store without encryption.
func plain(c *Config) { c.PayloadKeys = "" }

func mustFsck(t testing.TB, cfg Config) *Report {
	t.Helper()
	r, err := Fsck(context.Background(), cfg, FsckOptions{Frame: testFrame})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// edit changes rows of a closed store behind the ledger's back.
func edit(t testing.TB, cfg Config, f func(db *pebble.DB)) {
	t.Helper()
	full, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(cfg.Dir, pebbleOptions(full, false))
	if err != nil {
		t.Fatal(err)
	}
	f(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func flipRow(t testing.TB, db *pebble.DB, key []byte, at int) {
	t.Helper()
	row, ok, err := get(db, key)
	if err != nil || !ok {
		t.Fatalf("row %x: %v %v", key, ok, err)
	}
	if at < 0 {
		at += len(row)
	}
	row[at] ^= 4
	if err := db.Set(key, row, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

func TestFsckAccepts(t *testing.T) {
	fs := vfs.NewMem()
	cfg, l := closedStore(t, fs)
	r := mustFsck(t, cfg)
	if !r.OK() {
		t.Fatalf("a sound store has findings: %v", r.Findings)
	}
	if r.Logs != 3 || r.Entries < l.Size() || r.Payloads != r.Entries || r.Tiles == 0 || r.Frames != 4 || r.Checkpoints < 5 || r.Commits < 10 || r.FramesOff {
		t.Fatalf("report %+v", r)
	}
	if r, err := Fsck(context.Background(), cfg, FsckOptions{}); err != nil || !r.OK() || !r.FramesOff {
		t.Fatalf("without a frame verifier: %+v %v", r, err)
	}
	s := mustOpen(t, cfg) // fsck has left it as it was
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFsckFindsEveryRow changes one byte in a row of each kind and expects it
// to be named.
func TestFsckFindsEveryRow(t *testing.T) {
	const vm = LogID(1)
	all := func(prefix ...byte) func(db *pebble.DB) []byte { // the last row of a table
		return func(db *pebble.DB) []byte {
			var last []byte
			if err := scan(db, prefix, func(k, _ []byte) error { last = append([]byte{}, k...); return nil }); err != nil || last == nil {
				panic("no rows")
			}
			return last
		}
	}
	key := func(k []byte) func(*pebble.DB) []byte { return func(*pebble.DB) []byte { return k } }
	tests := map[string]struct {
		key   func(*pebble.DB) []byte
		at    int
		table string
		log   string // part of the origin
		index int    // -1: none
	}{
		"leaf, commitment":     {key(keySeq(tableEntry, vm, 9)), 120, "payload", "/vm/", 9},
		"leaf, magic":          {key(keySeq(tableEntry, vm, 9)), 0, "leaf", "/vm/", 9},
		"leaf, header":         {key(keySeq(tableEntry, vm, 9)), 90, "tile", "/vm/", 9},
		"leaf, wall time":      {key(keySeq(tableEntry, vm, 9)), 26, "leaf", "/vm/", 10},
		"last leaf":            {all(tableEntry, 0, 0, 0, byte(vm)), 26, "head", "/vm/", -1},
		"leaf of the host log": {key(keySeq(tableEntry, 0, 2)), 90, "leaf", "/log/", 3},
		"payload":              {key(keySeq(tablePayload, vm, 9)), -1, "payload", "/vm/", 9},
		"salt":                 {key(keySeq(tablePayload, vm, 9)), 7, "payload", "/vm/", 9},
		"payload version":      {key(keySeq(tablePayload, vm, 9)), 0, "payload", "/vm/", 9},
		"quoting payload":      {key(keySeq(tablePayload, 0, 2)), -9, "payload", "/log/", 2},
		"tile":                 {key(keyTile(vm, 0, 0)), 32*17 + 3, "tile", "/vm/", 17},
		"head, size":           {key(keyLog(tableHead, vm)), 8, "head", "/vm/", -1},
		"head, last hash":      {key(keyLog(tableHead, vm)), 20, "head", "/vm/", -1},
		"head, mono":           {key(keyLog(tableHead, vm)), 44, "head", "/vm/", -1},
		"head, wall":           {key(keyLog(tableHead, vm)), 52, "head", "/vm/", -1},
		"head, edge":           {key(keyLog(tableHead, vm)), -1, "head", "/vm/", -1},
		"head, version":        {key(keyLog(tableHead, vm)), 0, "head", "/vm/", -1},
		"checkpoint":           {all(tableCheckpoint, 0, 0, 0, byte(vm)), -4, "checkpoint", "/vm/", -1},
		"host checkpoint":      {all(tableCheckpoint, 0, 0, 0, 0), 30, "checkpoint", "/log/", -1},
		"commit, log":          {key(keyCommit(3)), 4, "commit", "", -1},
		"commit, first":        {key(keyCommit(3)), 12, "commit", "/vm/", -1},
		"commit, count":        {key(keyCommit(3)), 16, "commit", "/vm/", -1},
		"commit, version":      {key(keyCommit(3)), 0, "commit", "", -1},
		"follower, version":    {key(keyFollower("rules")), 0, "follower", "", -1},
		"follower, commit":     {key(keyFollower("rules")), 1, "follower", "", -1},
		"quote":                {key(keyLog(tableQuote, vm)), 15, "quote", "/vm/", -1},
		"log":                  {key(keyMetaLog(vm)), -1, "log", "", -1},
		"store, version":       {key(keyMeta(metaStore, nil)), 0, "store", "", -1},
		"store, id":            {key(keyMeta(metaStore, nil)), 3, "anchor", "/log/", -1},
		"store, host":          {key(keyMeta(metaStore, nil)), -1, "store", "", -1},
		"certificate":          {all(tableMeta, metaCertificate), -1, "certificate", "/log/", -1},
		"root of a tile":       {key(keyRoot(vm, 0, 0)), 5, "root", "/vm/", -1},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, _ := closedStore(t, vfs.NewMem())
			edit(t, cfg, func(db *pebble.DB) { flipRow(t, db, c.key(db), c.at) })
			r := mustFsck(t, cfg)
			for _, f := range r.Findings {
				if f.Table == c.table && strings.Contains(f.Log, c.log) && (c.index < 0 || f.Index != nil && *f.Index == uint64(c.index)) {
					return
				}
			}
			t.Errorf("not named; findings: %v", r.Findings)
		})
	}
}

func TestFsckFindsWhatIsMissing(t *testing.T) {
	const vm = LogID(1)
	remove := func(keys ...[]byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error {
			for _, k := range keys {
				if err := db.Delete(k, pebble.Sync); err != nil {
					return err
				}
			}
			return nil
		}
	}
	set := func(k, v []byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error { return db.Set(k, v, pebble.Sync) }
	}
	for name, c := range map[string]struct {
		edit  func(*pebble.DB) error
		table string
		words string
	}{
		"leaf":           {remove(keySeq(tableEntry, vm, 9)), "leaf", "missing"},
		"payload":        {remove(keySeq(tablePayload, vm, 9)), "payload", "missing"},
		"tile":           {remove(keyTile(vm, 0, 0)), "tile", "missing"},
		"head":           {remove(keyLog(tableHead, vm)), "head", "missing"},
		"commit":         {remove(keyCommit(4)), "commit", "follows commit 3"},
		"log":            {remove(keyMetaLog(vm)), "log", "missing"},
		"stray payload":  {set(keySeq(tablePayload, vm, 5000), []byte{1}), "payload", "no leaf"},
		"stray leaf":     {set(keySeq(tableEntry, vm, 5000), []byte{1}), "leaf", "behind the head"},
		"stray tile":     {set(keyTile(vm, 3, 0), []byte{1}), "tile", "full tiles"},
		"stray root":     {set(keyRoot(vm, 0, 700), make([]byte, 32)), "root", "no partial tile"},
		"unknown table":  {set([]byte("zzz"), []byte{1}), "row", "no table"},
		"unknown log":    {set(keySeq(tableEntry, 77, 0), []byte{1}), "row", "no log"},
		"tail truncated": {truncateTail(vm), "quote", "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := closedStore(t, vfs.NewMem())
			edit(t, cfg, func(db *pebble.DB) {
				if err := c.edit(db); err != nil {
					t.Fatal(err)
				}
			})
			r := mustFsck(t, cfg)
			for _, f := range r.Findings {
				if f.Table == c.table && strings.Contains(f.Problem, c.words) {
					return
				}
			}
			t.Errorf("not named; findings: %v", r.Findings)
		})
	}
}

// truncateTail cuts the last leaf off a VM log and makes the head fit, as
// somebody would who wants it never to have been.
func truncateTail(id LogID) func(*pebble.DB) error {
	return func(db *pebble.DB) error {
		row, _, err := get(db, keyLog(tableHead, id))
		if err != nil {
			return err
		}
		h, err := parseHead(row)
		if err != nil {
			return err
		}
		h.size--
		tails, err := loadTails(db, id, h.size, nil, hashTiles)
		if err != nil {
			return err
		}
		h.edge = edgeOfTails(tails)
		last, err := leafRowHashes(db, id, h.size-1, h.size, nil, nil)
		if err != nil {
			return err
		}
		h.last = last[0]
		return errors.Join(db.Delete(keySeq(tableEntry, id, h.size), pebble.Sync), db.Delete(keySeq(tablePayload, id, h.size), pebble.Sync),
			db.Set(keyLog(tableHead, id), h.append(nil), pebble.Sync))
	}
}

// TestFsckFindsForgedFrame seals a frame whose signature does not cover the
// records before it: every hash of the ledger fits, the author's word does not.
func TestFsckFindsForgedFrame(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	a := newTestAgent(t, s, l, 1)
	a.frame(3)
	statement, err := l.Item(l.Size() - 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := statement.Decode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Draft(record.OriginHost, record.ClassAgentFrame, m)
	if err != nil {
		t.Fatal(err)
	}
	forged := mustAppend(t, s, Batch{Log: l, Entries: append(guestEntries(t, 1, 9, 3), e)})
	shutdown(t, s, stop)
	r := mustFsck(t, cfg)
	if len(r.Findings) != 1 || r.Findings[0].Table != "frame" || *r.Findings[0].Index != forged.First+3 {
		t.Fatalf("findings %v", r.Findings)
	}
}

func TestFsckRefusesMissingStore(t *testing.T) {
	if _, err := Fsck(context.Background(), testConfig(t, vfs.NewMem()), FsckOptions{}); !errors.Is(err, record.ErrReject) {
		t.Fatal(err)
	}
}

func TestFsckFindsRollback(t *testing.T) {
	cfg, _ := closedStore(t, vfs.NewMem())
	// An anchor of a longer history, as the true one of a rolled back store.
	s := mustOpen(t, cfg)
	size := s.HostLog().Size() + 5
	msg, err := proof.Checkpoint{Origin: s.HostLog().Origin(), Size: size}.Sign(s.HostLog().signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAnchor(cfg.FS, cfg.Anchor, anchorText(s.id, msg)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range mustFsck(t, cfg).Findings {
		found = found || f.Table == "anchor" && strings.Contains(f.Problem, "rolled back")
	}
	if !found {
		t.Fatal("fsck does not name the rollback")
	}
	var anchor *AnchorError
	if _, err := Open(cfg); !errors.As(err, &anchor) || anchor.AnchorSize != size || !errors.Is(err, record.ErrFatal) {
		t.Fatalf("open: %v", err)
	}
}
