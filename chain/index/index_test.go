package index

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const host = "kvm1.example"

// ledger is a running store for tests.
type ledger struct {
	*chain.Store
	t   testing.TB
	dir string
	seq map[uint64]uint64
}

func newLedger(t testing.TB, change ...func(*chain.Config)) *ledger {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: host, Keys: k,
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour}
	for _, f := range change {
		f(&cfg)
	}
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &ledger{Store: s, t: t, dir: dir, seq: map[uint64]uint64{}}
}

func (l *ledger) vm(n int) *chain.Log {
	l.t.Helper()
	g, err := l.CreateLog(context.Background(), proof.VMOrigin(host, fmt.Sprintf("6a2f41a3-c54c-4f54-9d3b-%012x", n), 1), &record.Genesis{Cause: "define", DomainName: fmt.Sprint("vm", n)})
	if err != nil {
		l.t.Fatal(err)
	}
	return g
}

// event is one thing a guest does.
type event struct {
	class record.Class
	*record.Event
}

// guest seals what a guest's session says, and returns the first index.
func (l *ledger) guest(log *chain.Log, session uint64, events ...event) uint64 {
	l.t.Helper()
	b := chain.Batch{Log: log}
	seed := record.Seed{1, byte(session)}
	for _, e := range events {
		p, err := record.Encode(e.Event)
		if err != nil {
			l.t.Fatal(err)
		}
		n := l.seq[session]
		l.seq[session]++
		salt := seed.Salt(n)
		b.Entries = append(b.Entries, chain.Entry{Origin: record.OriginGuest, Payload: p, Salt: salt, Commitment: record.Commit(&salt, p),
			Header: record.Header{Class: e.class, Lane: 1, Session: session, Sequence: n, LaneSequence: n, Time: n}})
	}
	s, err := l.Append(context.Background(), b)
	if err != nil {
		l.t.Fatal(err)
	}
	return s.First
}

// enroll seals that a session runs in a boot.
func (l *ledger) enroll(log *chain.Log, session uint64, boot [16]byte) {
	l.t.Helper()
	e, err := l.Draft(record.OriginHost, record.ClassAgentEnrolled, &record.Enrolled{Session: session, BootId: boot[:]})
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), chain.Batch{Log: log, Entries: []chain.Entry{e}}); err != nil {
		l.t.Fatal(err)
	}
}

// start opens an index and runs it; stop closes it again.
func (l *ledger) start(dir string) (x *Index, stop func()) {
	l.t.Helper()
	x, err := Open(Config{Store: l.Store, Dir: dir})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
		if err := x.Close(); err != nil {
			l.t.Error(err)
		}
	}
	l.t.Cleanup(stop)
	l.wait(x)
	return x, stop
}

func (l *ledger) wait(x *Index) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := x.Wait(ctx); err != nil {
		l.t.Fatal(err)
	}
	if x.Lag() != 0 {
		l.t.Fatalf("it has caught up and lags by %d", x.Lag())
	}
}

func find(t testing.TB, x *Index, q Query) []*Found {
	t.Helper()
	var all []*Found
	for f, err := range x.Find(context.Background(), &q, nil) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

var paths = []string{"/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config", "/home/a b/x", "/tmp/é", "/usr/bin/vim", "/usr/bin/vi", "/var/log/\xff\x00odd"}

// randomEvent draws an event from few words, so that filters meet.
func randomEvent(r *rand.Rand) event {
	p := &record.Process{Pid: 1 + r.Uint32N(4), Start: uint64(r.Uint32N(3)), Ppid: 1 + r.Uint32N(4), ParentStart: uint64(r.Uint32N(3)),
		Executable:  []byte(paths[5+r.IntN(2)]),
		Credentials: &record.Credentials{Uid: r.Uint32N(3), Euid: r.Uint32N(3)}}
	e := &record.Event{Process: p}
	switch r.IntN(6) {
	case 0:
		e.Network = &record.Network{Family: 4, Protocol: "tcp", SourceIp: []byte{10, 0, 0, byte(r.IntN(3))}, SourcePort: 1 + r.Uint32N(2),
			DestinationIp: []byte{192, 0, byte(r.IntN(3)), 1}, DestinationPort: 443, Name: []byte("a.example")}
		return event{record.ClassNetworkConnect, e}
	case 1:
		return event{record.ClassProcessExec, e}
	case 2:
		p.Sha256 = bytes.Repeat([]byte{byte(r.IntN(3))}, 32)
		return event{record.ClassProcessDigest, e}
	case 3:
		e.File, e.Target = &record.File{Path: []byte(paths[r.IntN(len(paths))])}, &record.File{Path: []byte(paths[r.IntN(len(paths))])}
		return event{record.ClassFileRename, e}
	}
	e.File = &record.File{Path: []byte(paths[r.IntN(len(paths))])}
	return event{record.ClassFileModify, e}
}

// fill seals n random events in the logs, in batches.
func (l *ledger) fill(r *rand.Rand, logs []*chain.Log, n int) {
	for n > 0 {
		batch := make([]event, min(n, 1+r.IntN(500)))
		for i := range batch {
			batch[i] = randomEvent(r)
		}
		k := r.IntN(len(logs))
		l.guest(logs[k], uint64(100+k), batch...)
		n -= len(batch)
	}
}

func randomQuery(r *rand.Rand, logs []*chain.Log) Query {
	q := Query{Oldest: r.IntN(2) == 0}
	maybe := func(f func()) {
		if r.IntN(4) == 0 {
			f()
		}
	}
	maybe(func() { q.Logs = []chain.LogID{logs[r.IntN(len(logs))].ID()} })
	maybe(func() { q.Classes = []record.Class{record.ClassFileModify, record.ClassProcessExec} })
	maybe(func() {
		text := []string{"/etc/passwd", "/etc/", "/etc/s*", "/usr/bin/vi", "/none", "/etc/**", "/home/a b/[xy]"}[r.IntN(7)]
		var err error
		if q.Path, err = ParsePattern(text); err != nil {
			panic(err)
		}
	})
	maybe(func() { q.Exe = Exactly([]byte("/usr/bin/vim")) })
	maybe(func() { q.Sha256 = bytes.Repeat([]byte{1}, 32) })
	maybe(func() {
		q.Address = netip.MustParsePrefix([]string{"10.0.0.1/32", "192.0.0.0/23", "0.0.0.0/0"}[r.IntN(3)])
	})
	maybe(func() { q.Port = 443 })
	maybe(func() { q.Process = Process{Pid: 1 + r.Uint32N(4), Start: uint64(r.Uint32N(3))} })
	maybe(func() { uid := r.Uint32N(4); q.UID = &uid })
	return q
}

// readAll reads the whole ledger.
func readAll(t *testing.T, s *chain.Store) (all []chain.Item) {
	t.Helper()
	f := s.Tail(chain.Position{})
	defer f.Close()
	for {
		i, ok, err := f.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, i)
	}
}

// naive answers a query by looking at every entry.
func naive(all []chain.Item, q *Query) (out []string) {
	probes := q.probes()
	for _, i := range all {
		wanted := q.Since == 0 || i.Leaf.Wall >= q.Since
		wanted = wanted && (q.Until == 0 || i.Leaf.Wall <= q.Until)
		for _, p := range probes {
			met := false
			terms(i.Log.ID(), i.Leaf.Header.Class, decode(&i), func(kind byte, term []byte) { met = met || kind == p.kind && p.admits(term) })
			wanted = wanted && met
		}
		if wanted {
			out = append(out, fmt.Sprint(i.Log.ID(), "/", i.Index))
		}
	}
	if !q.Oldest {
		slices.Reverse(out)
	}
	return out
}

// TestAnswersEqualAScan holds the index against a reading of the whole ledger,
// over chunks in memory and on disk, behind a restart and behind a rebuild.
func TestAnswersEqualAScan(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	l := newLedger(t)
	logs := []*chain.Log{l.vm(1), l.vm(2), l.vm(3)}
	dir := filepath.Join(l.dir, "index")
	l.fill(r, logs, chunkSize+5000)
	x, stop := l.start(dir)
	check := func(x *Index) {
		t.Helper()
		items := readAll(t, l.Store)
		for range 12 {
			q := randomQuery(r, logs)
			want := naive(items, &q)
			if len(want) > 0 && r.IntN(3) == 0 {
				// From the middle on: what a page's token asks for.
				all := find(t, x, q)
				k := r.IntN(len(all))
				q.From = &all[k].Ordinal
				want = want[k:]
			}
			var got []string
			for _, f := range find(t, x, q) {
				got = append(got, fmt.Sprint(f.Log.ID(), "/", f.Index))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("query %+v: %d entries, want %d\n%.200v\n%.200v", q, len(got), len(want), got, want)
			}
		}
	}
	check(x)
	if len(x.zones) != 1 {
		t.Fatalf("%d chunks on disk, want 1", len(x.zones))
	}
	l.fill(r, logs, 3000)
	l.wait(x)
	check(x)
	stop()
	l.fill(r, logs, 3000)
	x, stop = l.start(dir)
	check(x)
	if int(x.Entries()) != total(l.Store) {
		t.Errorf("%d entries indexed of %d", x.Entries(), total(l.Store))
	}
	stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	x, _ = l.start(dir)
	check(x)
}

func total(s *chain.Store) (n int) {
	for _, l := range s.Logs() {
		n += int(l.Size())
	}
	return n
}

// TestTime holds bounds of time, which are inclusive.
func TestTime(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	for range 5 {
		l.guest(vm, 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/a")}}})
	}
	x, _ := l.start(filepath.Join(l.dir, "index"))
	all := find(t, x, Query{Path: Exactly([]byte("/a")), Oldest: true})
	if len(all) != 5 {
		t.Fatalf("%d entries, want 5", len(all))
	}
	got := find(t, x, Query{Path: Exactly([]byte("/a")), Since: all[1].Leaf.Wall, Until: all[3].Leaf.Wall})
	if len(got) != 3 || got[0].Index != all[3].Index || got[2].Index != all[1].Index {
		t.Errorf("%d entries in the bounds of three", len(got))
	}
	if got := find(t, x, Query{Until: all[0].Leaf.Wall - int64(time.Hour)}); len(got) != 0 {
		t.Errorf("%d entries before the beginning", len(got))
	}
}

// TestLongTerms holds terms that are longer than what is kept of them.
func TestLongTerms(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	long := "/" + string(bytes.Repeat([]byte{'x'}, 3*maxTerm))
	for _, p := range []string{long + "a", long + "b", long[:maxTerm]} {
		l.guest(vm, 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(p)}}})
	}
	dir := filepath.Join(l.dir, "index")
	x, _ := l.start(dir)
	onDisk := func(step string) {
		for want, q := range map[string]Query{
			"exact a":   {Path: Exactly([]byte(long + "a"))},
			"exact cut": {Path: Exactly([]byte(long[:maxTerm]))},
			"prefix":    {Path: Pattern{text: long, prefix: true}, Oldest: true},
			"glob":      {Path: Pattern{text: "/x", glob: "/x*b"}},
		} {
			n := 1
			if want == "prefix" {
				n = 2
			}
			if got := find(t, x, q); len(got) != n {
				t.Errorf("%s, %s: %d entries, want %d", step, want, len(got), n)
			}
		}
	}
	onDisk("memory")
	if err := x.flush(); err != nil { // Run waits for the ledger and touches nothing
		t.Fatal(err)
	}
	onDisk("disk")
}

// TestBoots tells processes of two boots apart that have pid and start in
// common.
func TestBoots(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	boots := [][16]byte{{1}, {2}}
	for k, b := range boots {
		l.enroll(vm, uint64(k+1), b)
		l.guest(vm, uint64(k+1), event{record.ClassFileModify, &record.Event{Process: &record.Process{Pid: 1, Start: 7}, File: &record.File{Path: fmt.Appendf(nil, "/%d", k)}}})
	}
	x, _ := l.start(filepath.Join(l.dir, "index"))
	check := func() {
		for k, b := range boots {
			got := find(t, x, Query{Process: Process{Pid: 1, Start: 7, Boot: b}})
			if len(got) != 1 || got[0].Message.(*record.Event).File.Path[1] != byte('0'+k) {
				t.Errorf("boot %d: %d entries", k, len(got))
			}
		}
	}
	check()
	if err := x.flush(); err != nil {
		t.Fatal(err)
	}
	check()
}

// holds reports whether a file below dir holds the word.
func holds(t *testing.T, dir, word string) (in string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(word)) {
			in = p
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return in
}

// TestForget wants the bytes of forgotten words gone from memory and disk, and
// everything else to be found as before.
func TestForget(t *testing.T) {
	l := newLedger(t)
	vm, other := l.vm(1), l.vm(2)
	secret, kept := "/qzxjv-5f81c7/wkpfy-0a9b3e", "/qzxjv-5f81c7/mhtrd-77d4aa" // no common run that a block could share is looked for
	at := l.guest(vm, 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(secret)}}},
		event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(kept)}}})
	l.guest(other, 2, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(kept)}}})
	dir := filepath.Join(l.dir, "index")
	x, stop := l.start(dir)
	if err := x.flush(); err != nil {
		t.Fatal(err)
	}
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if holds(t, dir, "wkpfy-0a9b3e") == "" {
		t.Fatal("the word is not in the index before: the test sees nothing")
	}
	// A second copy in memory.
	again := l.guest(vm, 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte(secret)}}})
	l.wait(x)
	for _, i := range []uint64{at, again} {
		if err := x.Forget(t.Context(), vm.ID(), []proof.Range{{First: i, Last: i}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := find(t, x, Query{Path: Exactly([]byte(secret))}); len(got) != 0 {
		t.Errorf("%d entries are found by what was forgotten", len(got))
	}
	if got := find(t, x, Query{Path: Exactly([]byte(kept))}); len(got) != 2 {
		t.Errorf("%d entries are found by what was not, want 2", len(got))
	}
	if got := find(t, x, Query{Logs: []chain.LogID{vm.ID()}, Classes: []record.Class{record.ClassFileModify}}); len(got) != 3 {
		t.Errorf("%d entries are found by their class, want 3", len(got))
	}
	for term := range x.open.terms {
		if bytes.Contains([]byte(term), []byte("wkpfy-0a9b3e")) {
			t.Error("the word is still in memory")
		}
	}
	stop() // ends the deletion of files
	if in := holds(t, dir, "wkpfy-0a9b3e"); in != "" {
		t.Errorf("%s still holds the word", in)
	}
	if holds(t, dir, "mhtrd-77d4aa") == "" {
		t.Error("what was not forgotten is gone from the disk")
	}
}

// TestUnusable has an index of another ledger, a damaged one and one that is
// ahead of the ledger made again, and one that is in use refused.
func TestUnusable(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	l.guest(vm, 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/a")}}})
	dir := filepath.Join(l.dir, "index")
	x, stop := l.start(dir)
	if err := x.flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Store: l.Store, Dir: dir}); err == nil {
		t.Fatal("an index is open twice")
	}
	if got := find(t, x, Query{Path: Exactly([]byte("/a"))}); len(got) != 1 {
		t.Fatalf("refusing a second opening took the index away: %d entries", len(got))
	}
	stop()
	other := newLedger(t)
	o, stop := other.start(dir)
	if got := find(t, o, Query{Path: Exactly([]byte("/a"))}); len(got) != 0 || o.Entries() != 2 {
		t.Errorf("index of another ledger: %d of %d entries", len(got), o.Entries())
	}
	other.guest(other.vm(1), 1, event{record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/b")}}})
	other.wait(o)
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	stop()
	for _, damage := range []func(*Index) error{
		func(x *Index) error { // of a ledger that goes on otherwise
			z := x.zones[0]
			z.lastHash[0]++
			return x.db.Set(keyChunk(tableZone, 0), z.append(nil), pebble.NoSync)
		},
		func(x *Index) error { // of a ledger that is longer
			z := x.zones[0]
			z.end.Commit += 1000
			return x.db.Set(keyChunk(tableZone, 0), z.append(nil), pebble.NoSync)
		},
		func(x *Index) error { return x.db.Set(keyChunk(tableZone, 0), []byte("junk"), pebble.NoSync) },
		func(x *Index) error { return x.db.Set([]byte{tableMeta}, []byte{9}, pebble.NoSync) },
	} {
		x, err := Open(Config{Store: other.Store, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if len(x.zones) == 0 {
			x.open.terms["pgone"] = &[]uint16{0}
		}
		if err := damageAnd(x, damage); err != nil {
			t.Fatal(err)
		}
		y, stop := other.start(dir)
		if got := find(t, y, Query{Path: Exactly([]byte("/b"))}); len(got) != 1 || int(y.Entries()) != total(other.Store) {
			t.Errorf("rebuilt index: %d found, %d of %d entries", len(got), y.Entries(), total(other.Store))
		}
		if err := y.flush(); err != nil {
			t.Fatal(err)
		}
		stop()
	}
	for _, name := range glob(t, dir, "MANIFEST-*") {
		if err := os.Truncate(name, 3); err != nil {
			t.Fatal(err)
		}
	}
	y, _ := other.start(dir)
	if int(y.Entries()) != total(other.Store) {
		t.Errorf("index behind a broken manifest: %d of %d entries", y.Entries(), total(other.Store))
	}
}

func damageAnd(x *Index, damage func(*Index) error) error {
	if err := damage(x); err != nil {
		return err
	}
	return x.Close()
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return all
}

// TestLongChunk ends a chunk early where guests chose too many words.
func TestLongChunk(t *testing.T) {
	l := newLedger(t)
	vm := l.vm(1)
	x, _ := l.start(filepath.Join(l.dir, "index"))
	const n = 25_000
	pad := string(bytes.Repeat([]byte{'y'}, 2*maxTerm))
	for first := 0; first < n; first += 500 {
		batch := make([]event, 500)
		for i := range batch {
			batch[i] = event{record.ClassFileRename, &record.Event{
				File:   &record.File{Path: fmt.Appendf(nil, "/a%d%s", first+i, pad), FilesystemPath: fmt.Appendf(nil, "/b%d%s", first+i, pad)},
				Target: &record.File{Path: fmt.Appendf(nil, "/c%d%s", first+i, pad), FilesystemPath: fmt.Appendf(nil, "/d%d%s", first+i, pad)}}}
		}
		l.guest(vm, 1, batch...)
	}
	l.wait(x)
	if len(x.zones) == 0 || x.zones[0].count >= chunkSize || x.open.bytes > maxChunkBytes {
		t.Fatalf("%d chunks on disk, %d bytes in the open one", len(x.zones), x.open.bytes)
	}
	for _, k := range []int{0, int(x.zones[0].count) - 4, int(x.zones[0].count), n - 1} {
		if got := find(t, x, Query{Path: Exactly(fmt.Appendf(nil, "/c%d%s", k, pad))}); len(got) != 1 {
			t.Errorf("entry %d is found %d times", k, len(got))
		}
	}
}

// copyDir copies files as they are while somebody writes them.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(from, n.Name()))
		if os.IsNotExist(err) || n.Name() == "LOCK" {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, n.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTornCopies opens what a crash or a careless copy could leave, while
// questions, writes and forgetting go on: answers are right or the index is made
// again.
func TestTornCopies(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	l := newLedger(t)
	logs := []*chain.Log{l.vm(1), l.vm(2)}
	dir := filepath.Join(l.dir, "index")
	x, _ := l.start(dir)
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(seed, 3))
		for ctx.Err() == nil {
			q := randomQuery(r, logs)
			n := 0
			for _, err := range x.Find(ctx, &q, nil) {
				if err != nil && ctx.Err() == nil {
					asked <- err
					return
				}
				if n++; n > 50 {
					break
				}
			}
		}
		asked <- nil
	}()
	for round := range 4 {
		l.fill(r, logs, chunkSize/3)
		if round == 2 {
			if err := x.Forget(t.Context(), logs[0].ID(), []proof.Range{{First: 11, Last: 20}, {First: 1, Last: 10}}); err != nil {
				t.Fatal(err)
			}
		}
		torn := filepath.Join(l.dir, fmt.Sprint("copy", round))
		copyDir(t, dir, torn)
		y, stop := l.start(torn)
		items := readAll(t, l.Store)
		for range 4 {
			q := randomQuery(r, logs)
			want := naive(items, &q)
			var got []string
			for _, f := range find(t, y, q) {
				if f.Log != logs[0] || f.Index > 20 { // what was forgotten may be found again: it is not erased
					got = append(got, fmt.Sprint(f.Log.ID(), "/", f.Index))
				}
			}
			want = slices.DeleteFunc(want, func(s string) bool {
				id, index := 0, 0
				_, err := fmt.Sscanf(s, "%d/%d", &id, &index)
				return err != nil || id == int(logs[0].ID()) && index <= 20
			})
			if !slices.Equal(got, want) {
				t.Fatalf("copy %d, query %+v: %d entries, want %d", round, q, len(got), len(want))
			}
		}
		stop()
	}
	cancel()
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
}

// TestPlacesRoundTrip holds both forms of a row, and where they meet.
func TestPlacesRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 100, maxVarint, maxVarint + 1, chunkSize} {
		var want places
		for want.count() < n {
			want.add(uint16(r.IntN(chunkSize)))
		}
		var got places
		b := appendPlaces(nil, want.list())
		if err := got.addPlaces(b); err != nil || got != want {
			t.Errorf("%d places come back as %d: %v", n, got.count(), err)
		}
		down := 0
		for k := got.before(chunkSize - 1); k >= 0; k = got.before(k - 1) {
			down++
		}
		if down != n || len(got.list()) != n {
			t.Errorf("%d places: %d upwards, %d downwards", n, len(got.list()), down)
		}
	}
}

// FuzzRows gives the parsers of rows bytes that nobody wrote: an error or a
// value that encodes to something which parses to the same.
func FuzzRows(f *testing.F) {
	f.Add(appendPlaces(nil, []uint16{0, 1, 70, 32767}))
	f.Add(appendRuns(nil, []run{{place{1, 5}, 0, 3}, {place{2, 0}, 3, 9}}))
	z := zone{first: 1, count: 12}
	f.Add(z.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q places
		if p.addPlaces(b) == nil {
			if err := q.addPlaces(appendPlaces(nil, p.list())); err != nil || p != q {
				t.Fatalf("places come back otherwise: %v", err)
			}
		}
		if runs, err := parseRuns(b, 12); err == nil {
			again, err := parseRuns(appendRuns(nil, runs), 12)
			if err != nil || !slices.Equal(runs, again) {
				t.Fatalf("runs come back otherwise: %v", err)
			}
		}
		if z, err := parseZone(b); err == nil && !bytes.Equal(z.append(nil), b) {
			t.Fatal("zone comes back otherwise")
		}
	})
}

func (p *places) count() (n int) {
	for _, w := range p {
		n += bits.OnesCount64(w)
	}
	return n
}
