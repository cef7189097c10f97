package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// record is the nth record of a queue.
func record(queue, n int) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(queue)), uint64(n))
}

// TestQueues sets more aside than queues hold in memory, in memory and in a file that
// was used before, and reads it back, twice.
func TestQueues(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(bytes.Repeat([]byte{0xff}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []File{nil, file} {
		s := New(f, 16)
		queues := make([]Queue, 3)
		lengths := []int{0, 3*run + 7, 2 * run}
		for n := range 3*run + 7 {
			for q := range queues {
				if n < lengths[q] {
					if err := s.Append(&queues[q], record(q, n)); err != nil {
						t.Fatal(err)
					}
				}
				if len(queues[q].tail) >= 16*run {
					t.Fatalf("queue %d holds %d bytes in memory", q, len(queues[q].tail))
				}
			}
		}
		for range 2 {
			for q := range queues {
				r := s.Read(&queues[q])
				for n := range lengths[q] {
					got, ok, err := r.Peek()
					if err != nil || !ok || !bytes.Equal(got, record(q, n)) {
						t.Fatalf("record %d of queue %d: %x, %v, %v", n, q, got, ok, err)
					}
					r.Skip()
				}
				if _, ok, err := r.Peek(); ok || err != nil {
					t.Fatalf("queue %d has a record behind the last: %v", q, err)
				}
			}
		}
	}
}

// failing is a File that is full, or was cut off.
type failing struct{ memory }

var errFull = errors.New("no space left")

func (f *failing) WriteAt([]byte, int64) (int, error) { return 0, errFull }

// TestFailures has a file take nothing, and another give back less.
func TestFailures(t *testing.T) {
	s := New(&failing{}, 16)
	var q Queue
	var err error
	for n := 0; n < run && err == nil; n++ {
		err = s.Append(&q, record(0, n))
	}
	if !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
	cut := &memory{}
	s, q = New(cut, 16), Queue{}
	for n := range run {
		if err := s.Append(&q, record(0, n)); err != nil {
			t.Fatal(err)
		}
	}
	cut.b = cut.b[:len(cut.b)-1]
	if _, ok, err := s.Read(&q).Peek(); ok || err == nil {
		t.Error("a file that was cut off gives records")
	}
}
