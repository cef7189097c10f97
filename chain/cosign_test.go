package chain

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// memoryWitness keeps to what a witness must do, and can be told to fail.
type memoryWitness struct {
	key    proof.WitnessKey
	signer *torchwood.CosignatureSigner

	mu     sync.Mutex
	size   uint64
	root   record.Hash
	latest []byte   // what it shows
	froms  []uint64 // what it was told that it had cosigned
	err    error
}

func newMemoryWitness(t testing.TB, name string) *memoryWitness {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	signer, err := torchwood.NewCosignatureSigner("witness.example/"+name, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	key, err := proof.NewWitnessKey(name, signer.Verifier().String())
	if err != nil {
		t.Fatal(err)
	}
	return &memoryWitness{key: key, signer: signer}
}

func (w *memoryWitness) Key() proof.WitnessKey { return w.key }

func (w *memoryWitness) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *memoryWitness) Cosign(_ context.Context, c proof.Checkpoint, msg []byte, from uint64, prove func(uint64) ([]record.Hash, error)) (proof.Cosignature, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.froms = append(w.froms, from)
	if w.err != nil {
		return proof.Cosignature{}, w.err
	}
	if w.size > 0 && w.size < c.Size {
		path, err := prove(w.size)
		if err != nil {
			return proof.Cosignature{}, err
		}
		p := make(tlog.TreeProof, len(path))
		for i := range path {
			p[i] = tlog.Hash(path[i])
		}
		if err := tlog.CheckTree(p, int64(c.Size), tlog.Hash(c.Root), int64(w.size), tlog.Hash(w.root)); err != nil {
			return proof.Cosignature{}, err
		}
	}
	raw, err := w.signer.Sign([]byte(c.Text()))
	if err != nil {
		return proof.Cosignature{}, err
	}
	line, err := note.Sign(&note.Note{Text: c.Text()}, fixedSigner{w.signer, raw})
	if err != nil {
		return proof.Cosignature{}, err
	}
	w.size, w.root = c.Size, c.Root
	_, answer, _ := strings.Cut(string(line), "\n\n")
	return w.key.Verify(msg, []byte(answer))
}

func (w *memoryWitness) Latest(context.Context, string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.latest == nil {
		return nil, errors.New("it shows nothing")
	}
	return w.latest, nil
}

// fixedSigner gives a signature that is there already.
type fixedSigner struct {
	*torchwood.CosignatureSigner
	sig []byte
}

func (s fixedSigner) Sign([]byte) ([]byte, error) { return s.sig, nil }

// grow seals an entry in the host log and publishes a checkpoint over it.
func grow(t testing.TB, s *Store) {
	t.Helper()
	mustAppend(t, s, Batch{Log: s.HostLog(), Entries: []Entry{hostEntry(t, s, fmt.Sprint("entry ", s.HostLog().Size()))}})
	if err := s.hostRound(); err != nil {
		t.Fatal(err)
	}
}

// classes counts the host log's entries of a class.
func countClass(t testing.TB, s *Store, c record.Class) (n int) {
	t.Helper()
	for i := range s.HostLog().Size() {
		item, err := s.HostLog().Item(i)
		if err != nil {
			t.Fatal(err)
		}
		if item.Leaf.Header.Class == c {
			n++
		}
	}
	return n
}

func mustCosign(t testing.TB, s *Store) {
	t.Helper()
	if err := s.CosignNow(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestCosign has two witnesses cosign a growing log over a restart: all
// cosigned checkpoints stay, with their cosignatures, and each witness is told
// the size that it cosigned last.
func TestCosign(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w1, w2 := newMemoryWitness(t, "w1"), newMemoryWitness(t, "w2")
	cfg.Witnesses = []Witness{w1, w2}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	var sizes []uint64
	for range 3 {
		grow(t, s)
		mustCosign(t, s)
		p, ok := s.Cosigned()
		if !ok || p.Size != s.HostLog().Size() {
			t.Fatalf("cosigned checkpoint has size %d (%v), the log has %d", p.Size, ok, s.HostLog().Size())
		}
		if shown, _ := s.HostLog().Checkpoint(); string(shown.Note) != string(p.Note) {
			t.Errorf("published is %q, cosigned %q", shown.Note, p.Note)
		}
		sizes = append(sizes, p.Size)
	}
	grow(t, s) // and not cosigned before the stop
	last := s.HostLog().Size()
	shutdown(t, s, stop)
	if w1.size != last {
		t.Errorf("the last checkpoint has size %d, witnessed is %d", last, w1.size)
	}

	s = mustOpen(t, cfg)
	if p, ok := s.Cosigned(); !ok || p.Size != last {
		t.Errorf("after the restart the cosigned checkpoint has size %d (%v), want %d", p.Size, ok, last)
	}
	for _, size := range sizes {
		msg, ok, err := get(s.db, keySeq(tableCheckpoint, s.host.id, size))
		if err != nil || !ok {
			t.Fatalf("the cosigned checkpoint of size %d is gone: %v", size, err)
		}
		if _, err := s.cfg.Quorum.Check(msg); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
	}
	stop = run(t, s)
	grow(t, s)
	mustCosign(t, s)
	if got := w2.froms[len(w2.froms)-1]; got != last {
		t.Errorf("after the restart witness w2 was told size %d, it had cosigned %d", got, last)
	}
	shutdown(t, s, stop)
	if r, err := Fsck(t.Context(), cfg, FsckOptions{}); err != nil || !r.OK() {
		t.Errorf("fsck: %v %v", r, err)
	}
}

// TestShortfall loses a witness: the log goes on, the loss is sealed once, over
// a restart, and so is the return.
func TestShortfall(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w1, w2 := newMemoryWitness(t, "w1"), newMemoryWitness(t, "w2")
	cfg.Witnesses = []Witness{w1, w2}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	grow(t, s)
	mustCosign(t, s)
	w2.fail(errors.New("connection refused"))
	for range 3 {
		grow(t, s)
		mustCosign(t, s)
	}
	if n := countClass(t, s, record.ClassWitnessShortfall); n != 1 {
		t.Errorf("the shortfall was sealed %d times", n)
	}
	states, missing, falls := s.Witnesses()
	if falls != 1 || !strings.Contains(missing, "w2 (witness.example/w2+") || strings.Contains(missing, "w1") {
		t.Errorf("missing: %q, shortfalls %d", missing, falls)
	}
	if states[1].Problem != "connection refused" || states[1].Failures != 3 || states[0].Problem != "" {
		t.Errorf("witnesses: %+v", states)
	}
	published, _ := s.HostLog().Checkpoint()
	if cosigned, _ := s.Cosigned(); cosigned.Size >= published.Size {
		t.Errorf("cosigned is %d, published %d: the log did not go on, or the quorum is not asked for", cosigned.Size, published.Size)
	}
	shutdown(t, s, stop)
	s = mustOpen(t, cfg)
	stop = run(t, s)
	grow(t, s)
	mustCosign(t, s)
	w2.fail(nil)
	for range 2 {
		grow(t, s)
		mustCosign(t, s)
	}
	if n, m := countClass(t, s, record.ClassWitnessShortfall), countClass(t, s, record.ClassWitnessRestored); n != 1 || m != 1 {
		t.Errorf("shortfall sealed %d times, restored %d times", n, m)
	}
	shutdown(t, s, stop)
}

// TestDispute has a witness say that it knows a longer history. Its word is
// sealed once and stops nothing; a checkpoint of this host's key does.
func TestDispute(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w := newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	w.fail(&proof.DisputeError{Witness: "w1", Origin: s.host.origin, Ours: 3, Theirs: 1000, Reason: "rolled back"})
	for range 2 {
		grow(t, s)
		mustCosign(t, s)
	}
	if n := countClass(t, s, record.ClassWitnessDisputed); n != 1 {
		t.Errorf("the dispute was sealed %d times", n)
	}
	if all, _, _ := s.Witnesses(); !all[0].Disputed {
		t.Error("the witness is not shown as disputing")
	}
	// What it shows is ours: no evidence of anything else.
	p, _ := s.HostLog().Checkpoint()
	w.latest = p.Note
	grow(t, s)
	mustCosign(t, s)
	// A stranger's signature is none either.
	forged := proof.Checkpoint{Origin: s.host.origin, Size: 1000, Root: record.Hash{1}}
	signer, err := testKeys(t).HostSigner(s.host.origin)
	if err != nil {
		t.Fatal(err)
	}
	if w.latest, err = forged.Sign(signer); err != nil {
		t.Fatal(err)
	}
	grow(t, s)
	mustCosign(t, s)
	if w.latest, err = forged.Sign(s.host.signer); err != nil {
		t.Fatal(err)
	}
	grow(t, s)
	var fork *ForkError
	if err := s.CosignNow(t.Context()); !errors.As(err, &fork) || !errors.Is(err, record.ErrFatal) || fork.Size != 1000 {
		t.Fatalf("a signed checkpoint of another history: %v", err)
	}
	if _, err := s.Append(t.Context(), Batch{Log: s.HostLog(), Entries: []Entry{hostEntry(t, s, "more")}}); !errors.As(err, &fork) {
		t.Errorf("append behind the proof of a fork: %v", err)
	}
	if err := stop(); !errors.As(err, &fork) {
		t.Errorf("run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestExportCosigned exports evidence: it comes under a checkpoint that the
// witnesses have cosigned.
func TestExportCosigned(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w := newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "x")}})
	var archive strings.Builder
	if err := Export(t.Context(), s, l, Selection{Indexes: []uint64{1}}, &archive); err != nil {
		t.Fatal(err)
	}
	b, err := proof.ReadBundle(strings.NewReader(archive.String()), int64(archive.Len()), proof.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	key := s.HostLog().VerifierKey()
	r, err := proof.Verify(b, key, proof.Options{Policy: cfgQuorum(t, w)})
	if err != nil || len(r.Cosigned) != 1 || r.Cosigned[0].Witness != "w1" || r.Cosigned[0].Time == 0 {
		t.Errorf("%v, cosigned %+v", err, r.Cosigned)
	}
	// It fails closed, and names who is missing.
	w2 := newMemoryWitness(t, "w2")
	r, err = proof.Verify(b, key, proof.Options{Policy: cfgQuorum(t, w, w2)})
	var invalid *proof.InvalidError
	if !errors.As(err, &invalid) || r.Valid || len(r.Proved) > 0 || len(r.Failures) != 1 || r.Failures[0].File != "host.checkpoint" || !strings.Contains(err.Error(), "no cosignature of w2") || strings.Contains(err.Error(), "w1") {
		t.Errorf("a witness is missing: %v", err)
	}
	// A policy may name the logs it trusts.
	for _, c := range []struct {
		log string
		ok  bool
	}{{key, true}, {b.VMKey, false}} {
		p, err := proof.ParsePolicy(fmt.Appendf(nil, "log %s\nquorum none\n", c.log))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := proof.Verify(b, key, proof.Options{Policy: p}); (err == nil) != c.ok {
			t.Errorf("a policy that trusts %s: %v", c.log, err)
		}
	}
	shutdown(t, s, stop)
}

func cfgQuorum(t testing.TB, all ...*memoryWitness) *proof.Policy {
	t.Helper()
	var keys []proof.WitnessKey
	for _, w := range all {
		keys = append(keys, w.key)
	}
	p, err := proof.AllOf(keys)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestWitnessConfig refuses a quorum that the witnesses cannot reach.
func TestWitnessConfig(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w1, w2 := newMemoryWitness(t, "w1"), newMemoryWitness(t, "w2")
	cfg.Witnesses, cfg.Quorum = []Witness{w1}, cfgQuorum(t, w1, w2)
	if _, err := Create(cfg); err == nil || !strings.Contains(err.Error(), "no cosignature of w2") {
		t.Errorf("a quorum out of reach: %v", err)
	}
	cfg.Witnesses = []Witness{w1, w1}
	cfg.Quorum = nil
	if _, err := Create(cfg); err == nil || !strings.Contains(err.Error(), "same key") {
		t.Errorf("one witness twice: %v", err)
	}
}

// TestCosignCrash crashes at random moments of rounds: a cosigned checkpoint
// that was shown is there afterwards, and so is what each witness was told.
func TestCosignCrash(t *testing.T) {
	for seed := range uint64(20) {
		fs := vfs.NewCrashableMem()
		cfg := testConfig(t, fs)
		w := newMemoryWitness(t, "w1")
		cfg.Witnesses = []Witness{w}
		s := mustCreate(t, cfg)
		stop := run(t, s)
		random := rand.New(rand.NewPCG(seed, 1))
		crash := func(shown Published) {
			crashed := cfg
			crashed.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
			again := mustOpen(t, crashed)
			if p, ok := again.Cosigned(); shown.Size > 0 && (!ok || p.Size < shown.Size) {
				t.Errorf("seed %d: a checkpoint of size %d was shown cosigned, after the crash there is %d", seed, shown.Size, p.Size)
			}
			if all, _, _ := again.Witnesses(); all[0].Size < shown.Size || all[0].Size > again.HostLog().Size() {
				t.Errorf("seed %d: the witness has cosigned %d, remembered is %d", seed, shown.Size, all[0].Size)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range 1 + random.IntN(5) {
			grow(t, s)
			shown, _ := s.Cosigned()
			done := make(chan error, 1)
			go func() { done <- s.CosignNow(t.Context()) }()
			if random.IntN(2) == 0 {
				crash(shown) // in the middle of it
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			shown, _ = s.Cosigned()
			crash(shown)
		}
		shutdown(t, s, stop)
	}
}

// TestFsckWitnesses damages the rows of witnesses.
func TestFsckWitnesses(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	w := newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	grow(t, s)
	mustCosign(t, s)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	key := keyMeta(metaWitness, []byte(w.key.ID()))
	row, ok, err := get(s.db, key)
	if err != nil || !ok {
		t.Fatalf("the witness has no row: %v", err)
	}
	if r, err := parseWitness(row); err != nil || string(r.append(nil)) != string(row) || r.size != w.size {
		t.Errorf("row %x: %+v, %v", row, r, err)
	}
	for _, damage := range []struct {
		key, value []byte
		words      string
	}{
		{key, row[:5], "parse witness row"},
		{key, witnessRow{size: 1 << 40}.append(nil), "has cosigned size"},
		{keyMeta(metaQuorum, nil), []byte{7}, "row of the quorum"},
	} {
		before, had, err := get(s.db, damage.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.db.Set(damage.key, damage.value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		f := &fsck{s: s, r: &Report{}, heads: map[LogID]head{0: {size: s.host.Size()}}}
		if err := f.witnessRows(t.Context()); err != nil || len(f.r.Findings) != 1 || !strings.Contains(f.r.Findings[0].Problem, damage.words) {
			t.Errorf("%q: %v %v", damage.words, err, f.r.Findings)
		}
		if had {
			err = s.db.Set(damage.key, before, pebble.Sync)
		} else {
			err = s.db.Delete(damage.key, pebble.Sync)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCosignCadence has the store itself ask: whatever is sealed is cosigned
// in a while, without anybody's doing.
func TestCosignCadence(t *testing.T) {
	cfg := testConfig(t, vfs.NewMem())
	cfg.WitnessEvery = 5 * time.Millisecond
	w := newMemoryWitness(t, "w1")
	cfg.Witnesses = []Witness{w}
	s := mustCreate(t, cfg)
	stop := run(t, s)
	for range 3 {
		at := mustAppend(t, s, Batch{Log: s.HostLog(), Entries: []Entry{hostEntry(t, s, "x")}}).First
		tick := time.NewTicker(time.Millisecond)
		deadline := time.After(time.Minute)
		for p, _ := s.Cosigned(); p.Size <= at; p, _ = s.Cosigned() {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("entry %d is not cosigned, the newest cosigned checkpoint has size %d", at, p.Size)
			}
		}
		tick.Stop()
	}
	shutdown(t, s, stop)
}
