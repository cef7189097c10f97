package chain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/mirror"
)

// served is a store as its service gives it to verifiers.
type served struct{ s *Store }

// Fetch implements mirror.Source.
func (v served) Fetch(ctx context.Context, path string, _ int) (data []byte, err error) {
	parts := strings.Split(strings.TrimPrefix(path, "logs/"), "/")
	for _, n := range []int{3, 5} {
		l, ok := v.s.LogByOrigin(strings.Join(parts[:min(n, len(parts))], "/"))
		if !ok {
			continue
		}
		rest := strings.Join(parts[n:], "/")
		p, ok := l.Checkpoint()
		if rest == "checkpoint" && ok {
			return p.Note, nil
		}
		tile, terr := torchwood.ParseTilePath(strings.Replace(rest, "openings", "entries", 1))
		switch {
		case terr != nil:
		case strings.Contains(rest, "openings"):
			data, err = l.Openings(ctx, uint64(tile.N), tile.W, OpensItself)
		case tile.L == -1:
			data, err = l.Bundle(uint64(tile.N), tile.W)
		default:
			data, err = l.Tile(uint8(tile.L), uint64(tile.N), tile.W)
		}
		if terr == nil && !errors.Is(err, ErrPruned) && !errors.Is(err, ErrNotFound) {
			return data, err
		}
	}
	return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
}

// TestWholeStore verifies whole logs of a store before and behind each tier of retention,
// and after a restart.
func TestWholeStore(t *testing.T) {
	o := newOldLog(t, vfs.NewMem())
	defer func() { shutdown(t, o.s, o.stop) }()
	verify := func(pruned uint64) {
		t.Helper()
		o.head(t)
		r, err := mirror.Verify(t.Context(), served{o.s}, o.s.host.vkey, mirror.Options{Frame: testFrame})
		if err != nil {
			t.Fatal(err, r)
		}
		if got := r.Logs[1]; got.Size != o.l.Size() || got.Pruned != pruned || got.Signed == 0 {
			t.Errorf("%d entries, of %d that are pruned: %+v", o.l.Size(), pruned, got)
		}
	}
	verify(0)
	first := o.now
	for _, c := range []struct {
		days   int
		pruned uint64
	}{{5, 0}, {10, 2*pruneUnit - tileWidth}, {120, 2*pruneUnit - tileWidth}} {
		o.now = first.AddDate(0, 0, c.days)
		o.retain(t)
		verify(c.pruned)
		o.restart(t)
		verify(c.pruned)
	}
}
