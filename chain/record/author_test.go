package record

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

// What an author computes for each record is spelled out for speed; here it is
// as the format says it.
func TestSaltIsHMAC(t *testing.T) {
	for _, sequence := range []uint64{0, 1, 255, 1 << 40, 1<<64 - 1} {
		seed := Seed(sha256.Sum256(binary.BigEndian.AppendUint64(nil, sequence)))
		m := hmac.New(sha256.New, seed[:])
		m.Write(binary.BigEndian.AppendUint64(nil, sequence))
		if got := seed.Salt(sequence); !bytes.Equal(got[:], m.Sum(nil)) {
			t.Errorf("salt %d: %x, want %x", sequence, got, m.Sum(nil))
		}
	}
}

func TestCommitLengths(t *testing.T) {
	salt := Salt{1, 2, 3}
	payload := bytes.Repeat([]byte("0123456789"), 400)
	for _, n := range []int{0, 1, shortPayload - 1, shortPayload, shortPayload + 1, len(payload)} {
		d := sha256.New()
		d.Write([]byte("provost/commitment/v1\x00"))
		d.Write(salt[:])
		d.Write(payload[:n])
		if got := Commit(&salt, payload[:n]); !bytes.Equal(got[:], d.Sum(nil)) {
			t.Errorf("commitment of %d bytes: %s, want %x", n, got, d.Sum(nil))
		}
	}
}

func TestAppendEncode(t *testing.T) {
	e := &Event{Process: &Process{Pid: 7, Name: []byte("x")}, Reason: "y"}
	want, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 3, 100} {
		got, err := AppendEncode(append(make([]byte, 0, 3+room), "abc"...), e)
		if err != nil || string(got) != "abc"+string(want) {
			t.Errorf("room for %d: %x, %v; want abc and %x", room, got, err, want)
		}
	}
}

func BenchmarkAuthor(b *testing.B) {
	seed, payload := Seed{1}, make([]byte, 400)
	b.ReportAllocs()
	for b.Loop() {
		salt := seed.Salt(7)
		RecordHash(Header{}, Commit(&salt, payload))
	}
}
