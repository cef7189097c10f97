package chaintest

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain"
)

// HostID is the host of every store that Config describes.
const HostID = "kvm1.example"

// Config completes the description of a store in fs, or on the disk in a
// directory of the test where fs is nil: the caller sets the keys. Checkpoints
// are made only when the test asks for them.
func Config(t testing.TB, fs vfs.FS, c chain.Config) chain.Config {
	t.Helper()
	dir := t.TempDir()
	c.Dir, c.Anchor, c.HostID, c.FS = dir+"/store", dir+"/anchor/host", HostID, fs
	c.PayloadKeys = dir + "/payload-keys"
	c.CheckpointEvery, c.HostEvery, c.WitnessEvery = time.Hour, time.Hour, time.Hour
	c.Exit = func(int) { panic("the store called its exit hook") }
	return c
}

// Run runs s until stop is called, which returns what Run returned.
func Run(t testing.TB, s *chain.Store) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// Start creates a store, runs it, and stops and closes it with the test.
func Start(t testing.TB, c chain.Config) *chain.Store {
	t.Helper()
	s, err := chain.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	stop := Run(t, s)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run store: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}
