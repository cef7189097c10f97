package chain_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// raceDetector says that rounds take many times as long.
var raceDetector bool

var seed = flag.Uint64("seed", 0, "seed of one crash round, as a failure has printed it")

// isLong reports whether -long was given; the flag belongs to package chain's
// own tests, which are in the same binary.
func isLong() bool { return flag.Lookup("long").Value.String() == "true" }

// witness is what the outside world has seen of a store: it must still be true
// after a crash.
type witness struct {
	mu    sync.Mutex
	acked map[string]chain.Sealed // by origin: the newest
	notes map[string][]byte       // by origin: the newest published checkpoint
}

func (w *witness) saw(l *chain.Log, s chain.Sealed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.acked[l.Origin()]; !ok || s.First >= old.First {
		w.acked[l.Origin()] = s
	}
}

func (w *witness) look(s *chain.Store) {
	for _, l := range s.Logs() {
		if p, ok := l.Checkpoint(); ok {
			w.mu.Lock()
			w.notes[l.Origin()] = p.Note
			w.mu.Unlock()
		}
	}
}

// copy returns what is known now, for a crash that comes later.
func (w *witness) copy() *witness {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &witness{acked: map[string]chain.Sealed{}, notes: map[string][]byte{}}
	for k, v := range w.acked {
		c.acked[k] = v
	}
	for k, v := range w.notes {
		c.notes[k] = v
	}
	return c
}

// holds checks that a recovered store bears out what the world has seen.
func (w *witness) holds(s *chain.Store, rng *rand.Rand) error {
	if err := chaintest.CheckStore(context.Background(), s); err != nil {
		return err
	}
	for origin, sealed := range w.acked {
		l, ok := s.LogByOrigin(origin)
		if !ok {
			return fmt.Errorf("log %s was acknowledged and is gone", origin)
		}
		last := sealed.First + uint64(sealed.Count) - 1
		h, err := l.LeafHash(last)
		if err != nil || h != sealed.LastHash {
			return fmt.Errorf("leaf %d of %s was acknowledged with hash %s, now %s (%v)", last, origin, sealed.LastHash, h, err)
		}
	}
	for origin, note := range w.notes {
		l, ok := s.LogByOrigin(origin)
		if !ok {
			return fmt.Errorf("log %s was published and is gone", origin)
		}
		if err := chaintest.CheckCheckpoint(l, note, rng); err != nil {
			return err
		}
	}
	return nil
}

// crashRound works on a store with several writers, cuts the power at a random
// moment, and checks what comes up. Then it does so again on that.
func crashRound(t *testing.T, k *keys.Keys, seed uint64) (packed uint64) {
	rng := rand.New(rand.NewPCG(seed, 99))
	disk := chaintest.NewDisk()
	cfg := chaintest.Config(t, disk.FS(), chain.Config{Keys: k})
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{acked: map[string]chain.Sealed{}, notes: map[string][]byte{}}
	for generation := range 2 {
		crashed, seen := workAndCrash(t, disk, s, w, rng)
		cfg.FS = crashed.FS()
		if s, err = chain.Open(cfg); err != nil {
			t.Fatalf("seed %d generation %d: %v", seed, generation, err)
		}
		if err := seen.holds(s, rng); err != nil {
			t.Fatalf("seed %d generation %d: %v", seed, generation, err)
		}
		disk, w = crashed, seen
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := chain.Fsck(context.Background(), cfg, chain.FsckOptions{})
	if err != nil || !r.OK() {
		t.Fatalf("seed %d: fsck: %v %v", seed, r.Findings, err)
	}
	return r.Packed
}

// workAndCrash returns the disk after a crash amid the work, and what was seen
// up to then.
func workAndCrash(t *testing.T, disk *chaintest.Disk, s *chain.Store, w *witness, rng *rand.Rand) (*chaintest.Disk, *witness) {
	stop := chaintest.Run(t, s)
	var logs []*chain.Log
	for i := range 3 {
		logs = append(logs, logNumber(t, s, i))
	}
	var writers sync.WaitGroup
	for i, l := range logs {
		sizes := rand.New(rand.NewPCG(rng.Uint64(), 1))
		// Mostly small batches, for what goes wrong does so between them; one log of
		// every second round grows so large that it is packed meanwhile.
		most := []int{1, 8, 30}[rng.IntN(3)]
		if i == 1 {
			most = []int{8, 16, 50, 90}[rng.IntN(4)]
		}
		writers.Go(func() {
			for n := range 10 {
				b := chain.Batch{Log: l}
				for j := range 1 + sizes.IntN(most) {
					e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint(n, j)})
					if err != nil {
						t.Error(err)
						return
					}
					b.Entries = append(b.Entries, e)
				}
				sealed, err := s.Append(context.Background(), b)
				if err != nil {
					t.Error(err)
					return
				}
				w.saw(l, sealed)
				if sizes.IntN(3) == 0 {
					if err := s.CheckpointNow(context.Background(), l); err != nil {
						t.Error(err)
						return
					}
					w.look(s)
				}
			}
		})
	}
	// At a random commit, or behind the last.
	finished, done := context.WithCancel(context.Background())
	go func() { writers.Wait(); done() }()
	for range rng.IntN(50) {
		if _, err := s.Wait(finished, s.End().Commit-1); err != nil {
			break
		}
	}
	// What was seen is taken before the crash: all of it must survive.
	seen := w.copy()
	crashed := disk.Crash(rng, []int{0, 30, 70, 100}[rng.IntN(4)])
	<-finished.Done()
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return crashed, seen
}

func storeConfig(t *testing.T, fs vfs.FS) chain.Config {
	t.Helper()
	return chaintest.Config(t, fs, chain.Config{Keys: createKeys(t)})
}

func createKeys(t *testing.T) *keys.Keys {
	t.Helper()
	k, err := keys.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// logNumber returns the log of a domain, making it where it is not there.
func logNumber(t *testing.T, s *chain.Store, i int) *chain.Log {
	origin := proof.VMOrigin(chaintest.HostID, fmt.Sprintf("6a2f41a3-c54c-4f54-9d3b-%012x", i), 1)
	if l, ok := s.LogByOrigin(origin); ok {
		return l
	}
	l, err := s.CreateLog(context.Background(), origin, &record.Genesis{Cause: "define"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// crashRounds is how many rounds one run of the tests makes. A failure prints the
// seed of its round; go test ./chain -run 'TestCrash$' -seed N makes that one again.
const crashRounds = 2000

func TestCrash(t *testing.T) {
	if *seed != 0 {
		crashRound(t, createKeys(t), *seed)
		return
	}
	rounds := crashRounds
	if raceDetector && !isLong() {
		rounds = 40
		t.Logf("short run: %d rounds with the race detector; -long makes %d", rounds, crashRounds)
	}
	first := rand.Uint64()>>16 + 1
	t.Logf("seeds %d to %d", first, first+uint64(rounds)-1)
	var wg sync.WaitGroup
	var packed atomic.Uint64
	next := make(chan uint64)
	for range 4 {
		k := createKeys(t) // which a store alone writes beside, and one store after the other
		wg.Go(func() {
			for s := range next {
				if !t.Failed() {
					t.Run(fmt.Sprint(s), func(t *testing.T) { packed.Add(crashRound(t, k, s)) })
				}
			}
		})
	}
	for i := range rounds {
		next <- first + uint64(i)
	}
	close(next)
	wg.Wait()
	if packed.Load() == 0 && !t.Failed() {
		t.Error("no round has packed anything: the crashes prove nothing of it")
	}
}

// TestCrashAtEveryStep runs the same short life again and again and cuts the
// power ahead of each single operation on the disk: losing all that was not
// synced, losing none, and losing some.
func TestCrashAtEveryStep(t *testing.T) {
	steps := lifeWithCrash(t, -1)
	if steps < 50 {
		t.Fatalf("a life has only %d steps", steps)
	}
	stride := 1
	if !isLong() {
		stride = 3
		t.Logf("short run: every %drd of %d steps; -long takes each", stride, steps)
	}
	for at := 0; at < steps; at += stride {
		lifeWithCrash(t, at)
	}
}

// lifeWithCrash creates a store, uses it, stops and opens it, crashing ahead of
// the operation with number at. It returns how many there are.
func lifeWithCrash(t *testing.T, at int) (steps int) {
	t.Helper()
	disk := chaintest.NewDisk()
	cfg := storeConfig(t, nil)
	var mu sync.Mutex // Pebble works in the background too
	rng := rand.New(rand.NewPCG(uint64(at), 7))
	w := &witness{acked: map[string]chain.Sealed{}, notes: map[string][]byte{}}
	created := false
	var crashes []*chaintest.Disk
	var seen *witness
	var seenCreated bool
	cfg.FS = disk.Step(func() {
		mu.Lock()
		defer mu.Unlock()
		if steps == at {
			seen, seenCreated = w.copy(), created
			crashes = append(crashes, disk.Crash(rng, 0), disk.Crash(rng, 100), disk.Crash(rng, 50))
		}
		steps++
	})
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	created = true
	mu.Unlock()
	for range 2 {
		stop := chaintest.Run(t, s)
		l := logNumber(t, s, 1)
		for range 2 {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "step"})
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := s.Append(context.Background(), chain.Batch{Log: l, Entries: []chain.Entry{e}})
			if err != nil {
				t.Fatal(err)
			}
			w.saw(l, sealed)
			if err := s.CheckpointNow(context.Background(), l); err != nil {
				t.Fatal(err)
			}
			w.look(s)
		}
		if err := errors.Join(stop(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if s, err = chain.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, crashed := range crashes {
		cfg.FS = crashed.FS()
		s, err := chain.Open(cfg)
		if err != nil && !seenCreated {
			continue // Create had not returned: an unfinished store is refused
		}
		if err != nil {
			t.Fatalf("crash ahead of step %d (%d): %v", at, i, err)
		}
		if err := seen.holds(s, rng); err != nil {
			t.Fatalf("crash ahead of step %d (%d): %v", at, i, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return steps
}

// TestRollback brings back an older copy of a store: it must be refused,
// because it would fork what was published.
func TestRollback(t *testing.T) {
	disk := chaintest.NewDisk()
	cfg := storeConfig(t, disk.FS())
	append1 := func(cfg chain.Config, create bool, text string) (size uint64) {
		s, err := chain.Open(cfg)
		if create {
			s, err = chain.Create(cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		stop := chaintest.Run(t, s)
		l := logNumber(t, s, 1)
		e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: text})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(context.Background(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stop(), s.Close()); err != nil {
			t.Fatal(err)
		}
		return s.HostLog().Size()
	}
	append1(cfg, true, "one")
	old := disk.Copy(t)
	size := append1(cfg, false, "two")

	refused := func(name string, store, anchor *chaintest.Disk) *chain.AnchorError {
		mixed := mix(t, cfg, store, anchor)
		var e *chain.AnchorError
		if _, err := chain.Open(mixed); !errors.As(err, &e) || !errors.Is(err, record.ErrFatal) {
			t.Fatalf("%s: %v", name, err)
		}
		return e
	}
	if e := refused("older store", old, disk); e.AnchorSize != size || e.StoreSize >= size {
		t.Errorf("older store: %v", e)
	}
	// A copy that went on by itself is another history of the same length.
	fork := old.Copy(t)
	forked := cfg
	forked.FS = fork.FS()
	if append1(forked, false, "other") != size {
		t.Fatal("the fork has another length")
	}
	if e := refused("fork", fork, disk); e.StoreSize != size || e.StoreRoot == e.AnchorRoot {
		t.Errorf("fork: %v", e)
	}
	// The newest store with an older anchor is what a crash ahead of writing
	// the anchor leaves.
	s, err := chain.Open(mix(t, cfg, disk, old))
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := s.HostLog().Checkpoint(); !ok || p.Size != size {
		t.Errorf("host checkpoint at size %d, want %d", p.Size, size)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// mix returns a configuration with the store of one disk and the anchor of
// another.
func mix(t *testing.T, cfg chain.Config, store, anchor *chaintest.Disk) chain.Config {
	t.Helper()
	m := store.Copy(t)
	chaintest.CopyFile(t, anchor.FS(), m.FS(), cfg.Anchor)
	cfg.FS = m.FS()
	return cfg
}

// TestTwoWriters lets a second process write the anchor: the first must stop
// before it publishes.
func TestTwoWriters(t *testing.T) {
	disk := chaintest.NewDisk()
	cfg := storeConfig(t, disk.FS())
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := chaintest.Run(t, s)
	l := logNumber(t, s, 1)
	other := disk.Copy(t)
	second := cfg
	second.FS = other.FS()
	s2, err := chain.Open(second)
	if err != nil {
		t.Fatal(err)
	}
	stop2 := chaintest.Run(t, s2)
	l2 := logNumber(t, s2, 2)
	if err := s2.CheckpointNow(context.Background(), l2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stop2(), s2.Close()); err != nil {
		t.Fatal(err)
	}
	before, _ := s.HostLog().Checkpoint()
	chaintest.CopyFile(t, other.FS(), disk.FS(), cfg.Anchor)
	var e *chain.AnchorError
	if err := s.CheckpointNow(context.Background(), l); !errors.As(err, &e) {
		t.Fatalf("checkpoint beside another writer: %v", err)
	}
	if after, _ := s.HostLog().Checkpoint(); after.Size != before.Size {
		t.Errorf("it published size %d after all", after.Size)
	}
	entry, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(context.Background(), chain.Batch{Log: l, Entries: []chain.Entry{entry}}); !errors.Is(err, record.ErrFatal) {
		t.Errorf("append beside another writer: %v", err)
	}
	if err := stop(); !errors.Is(err, record.ErrFatal) {
		t.Errorf("run beside another writer: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
