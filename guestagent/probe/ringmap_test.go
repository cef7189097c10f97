package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
)

// fakeRing is a ring in ordinary memory, written as the kernel writes it.
type fakeRing struct {
	*ringMap
	reserved uint64
}

func newFakeRing(size int) *fakeRing {
	page := os.Getpagesize()
	all := make([]byte, 2*page+size)
	return &fakeRing{ringMap: &ringMap{consumer: all[:page], producer: all[page:], data: all[2*page:]}}
}

// reserve writes a record's header, busy, and its sample; it reports whether
// there was room.
func (f *fakeRing) reserve(b []byte, flags uint32) (at uint64, ok bool) {
	n := uint64(ringHeader+len(b)+7) &^ 7
	if f.reserved+n-atomic.LoadUint64(positionOf(f.consumer)) > uint64(len(f.data)) {
		return 0, false
	}
	mask := uint64(len(f.data) - 1)
	at = f.reserved & mask
	binary.NativeEndian.PutUint32(f.data[at:], uint32(len(b))|flags)
	for i, x := range b {
		f.data[(at+ringHeader+uint64(i))&mask] = x
	}
	f.reserved += n
	atomic.StoreUint64(positionOf(f.producer), f.reserved)
	return at, true
}

// Samples of all sizes come out as they went in, in order, over the ring's end
// as well; what was given up does not, and room comes back with release only.
func TestRingMap(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		f := newFakeRing(4096)
		var want [][]byte
		full := 0
		for range 5000 {
			if rnd.IntN(2) == 0 {
				b := make([]byte, rnd.IntN(900))
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				flags := uint32(0)
				if rnd.IntN(5) == 0 {
					flags = ringDiscarded
				}
				if _, ok := f.reserve(b, flags); !ok {
					full++
				} else if flags == 0 {
					want = append(want, b)
				}
				continue
			}
			got, ok, err := f.next([]byte("before"))
			if err != nil || ok != (len(want) > 0) {
				t.Fatalf("seed %d: %v, %v with %d samples in the ring", seed, ok, err, len(want))
			}
			if ok {
				if !bytes.Equal(got, append([]byte("before"), want[0]...)) {
					t.Fatalf("seed %d: another sample", seed)
				}
				want = want[1:]
			}
			if rnd.IntN(3) == 0 {
				f.release()
			}
		}
		if full == 0 {
			t.Errorf("seed %d: never full", seed)
		}
	}
}

// A record that is still being written holds those behind it back, and nothing
// is read of it.
func TestRingMapBusy(t *testing.T) {
	f := newFakeRing(4096)
	f.reserve([]byte("first"), 0)
	at, _ := f.reserve([]byte("second"), ringBusy)
	f.reserve([]byte("third"), 0)
	if b, ok, err := f.next(nil); string(b) != "first" || !ok || err != nil {
		t.Fatalf("%q %v %v", b, ok, err)
	}
	for range 3 {
		if b, ok, err := f.next(nil); len(b) != 0 || ok || err != nil {
			t.Fatalf("%q %v %v", b, ok, err)
		}
	}
	binary.NativeEndian.PutUint32(f.data[at:], 6)
	for _, want := range []string{"second", "third"} {
		if b, ok, err := f.next(nil); string(b) != want || !ok || err != nil {
			t.Fatalf("%q %v %v, want %q", b, ok, err, want)
		}
	}
}

func TestRingMapImpossible(t *testing.T) {
	f := newFakeRing(4096)
	f.reserve([]byte("x"), 0)
	binary.NativeEndian.PutUint32(f.data, 4096)
	if _, ok, err := f.next(nil); ok || !errors.Is(err, errBadRing) {
		t.Errorf("%v, %v", ok, err)
	}
}
