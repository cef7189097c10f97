package chaintest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain"
)

// Spoil damages what a store, which must not be open, holds of one entry: of an
// entry by itself its payload is lost, and its leaf where leaf says so; a packed
// bundle has a bit of it flipped, and its leaves and payloads are damaged from there on.
func Spoil(t testing.TB, c chain.Config, l chain.LogID, index uint64, leaf bool) {
	t.Helper()
	// Keys as docs/formats.md has them: the tests of others depend on that page, not
	// on the ledger's own code.
	key := func(table byte, n uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32([]byte{table}, uint32(l)), n)
	}
	db, err := pebble.Open(c.Dir, &pebble.Options{FS: c.FS, FormatMajorVersion: pebble.FormatNewest, ErrorIfNotExists: true, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	get := func(key []byte) []byte {
		row, closer, err := db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		defer closer.Close()
		return append([]byte{}, row...)
	}
	switch row := get(key('B', index/256)); {
	case get(key('P', index)) != nil:
		err = db.Delete(key('P', index), pebble.Sync)
		if leaf {
			err = errors.Join(err, db.Delete(key('E', index), pebble.Sync))
		}
	case row != nil:
		row[len(row)/2] ^= 4
		err = db.Set(key('B', index/256), row, pebble.Sync)
	default:
		t.Fatalf("there is no entry %d", index)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// silent is a Pebble logger that says nothing but what ends the test.
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
