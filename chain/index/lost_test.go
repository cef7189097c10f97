package index

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
)

// TestLostKeys indexes a ledger whose payload keys are gone: the index gets to
// its end, finds entries by what their leaves say, and those sealed since by
// their words.
func TestLostKeys(t *testing.T) {
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), PayloadKeys: filepath.Join(dir, "payload-keys"), HostID: host, Keys: k,
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour}
	l := &ledger{t: t, dir: dir, seq: map[uint64]uint64{}}
	begin := func(open func(chain.Config) (*chain.Store, error)) (stop func()) {
		if l.Store, err = open(cfg); err != nil {
			t.Fatal(err)
		}
		s := l.Store
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	stop := begin(chain.Create)
	vm := l.vm(1)
	for range 300 { // packed and not
		l.guest(vm, 1, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), "/lost"))
	}
	stop()
	if err := os.RemoveAll(cfg.PayloadKeys); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cfg.PayloadKeys, 0o700); err != nil {
		t.Fatal(err)
	}
	stop = begin(chain.Open)
	vm, _ = l.LogByOrigin(vm.Origin())
	l.guest(vm, 1, does(record.ClassFileModify, proc(5, 1, "/usr/bin/vi"), "/kept"))
	x, stopIndex := l.start(filepath.Join(dir, "index"))
	if got := find(t, x, Query{Path: Exactly([]byte("/lost"))}); len(got) != 0 {
		t.Errorf("%d entries are found by words that nobody can read", len(got))
	}
	if got := find(t, x, Query{Path: Exactly([]byte("/kept"))}); len(got) != 1 || got[0].Unreadable != nil {
		t.Errorf("%d entries are found by words sealed since, want 1", len(got))
	}
	got := find(t, x, Query{Classes: []record.Class{record.ClassFileModify}})
	unread := 0
	for _, f := range got {
		if f.Unreadable != nil {
			unread++
		}
	}
	if len(got) != 301 || unread != 300 {
		t.Errorf("%d entries are found by class, %d of them unreadable, want 301 and 300", len(got), unread)
	}
	if l.Unreadable() == 0 {
		t.Error("nothing is counted")
	}
	stopIndex()
	stop()
}
