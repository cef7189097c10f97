package chain

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

var long = flag.Bool("long", false, "run the long loops")

func testKeys(t testing.TB) *keys.Keys {
	t.Helper()
	k, err := keys.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// noPause has rounds of witnesses follow each other at once.
var noPause = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

// testConfig is a store in memory whose cadence never comes: tests make
// checkpoints themselves.
func testConfig(t testing.TB, fs vfs.FS) Config {
	t.Helper()
	if err := fs.MkdirAll("/", 0o755); err != nil {
		t.Fatal(err)
	}
	return Config{
		Dir: "/store", Anchor: "/anchor", PayloadKeys: "/payload-keys", HostID: "kvm1.example", Keys: testKeys(t), FS: fs,
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour,
		Exit:  func(int) { panic("the store called its exit hook") },
		after: func(time.Duration) <-chan time.Time { return noPause },
	}
}

// run starts a store and returns how to stop it.
func run(t testing.TB, s *Store) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// shutdown stops and closes a store that is expected to be well.
func shutdown(t testing.TB, s *Store, stop func() error) {
	t.Helper()
	if err := stop(); err != nil {
		t.Fatalf("run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustCreateLog(t testing.TB, s *Store, n int) *Log {
	t.Helper()
	uuid := fmt.Sprintf("6a2f41a3-c54c-4f54-9d3b-%012x", n)
	l, err := s.CreateLog(context.Background(), proof.VMOrigin(s.cfg.HostID, uuid, 1), &record.Genesis{Cause: "define", DomainName: fmt.Sprint("vm", n)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hostEntry is an observation of the host with the given text in it.
func hostEntry(t testing.TB, s *Store, text string) Entry {
	t.Helper()
	e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: text})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// guestEntries are n records of one frame.
func guestEntries(t testing.TB, session, first uint64, n int) []Entry {
	t.Helper()
	seed := record.Seed{byte(first), byte(session), 1}
	entries := make([]Entry, n)
	derived := first%2 == 0 // an author who gives salts is heard as well
	for i := range entries {
		sequence := first + uint64(i)
		payload, err := record.Encode(&record.Event{File: &record.File{Path: fmt.Appendf(nil, "/etc/file-%d", sequence)}})
		if err != nil {
			t.Fatal(err)
		}
		salt := seed.Salt(sequence)
		entries[i] = Entry{
			Origin:  record.OriginGuest,
			Header:  record.Header{Class: record.ClassFileModify, Lane: 1, Session: session, Sequence: sequence, LaneSequence: sequence, Time: sequence * 1000},
			Payload: payload, Commitment: record.Commit(&salt, payload),
		}
		if derived {
			entries[i].Seed = seed
		} else {
			entries[i].Salt = salt
		}
	}
	return entries
}

func mustAppend(t testing.TB, s *Store, b Batch) Sealed {
	t.Helper()
	sealed, err := s.Append(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}
