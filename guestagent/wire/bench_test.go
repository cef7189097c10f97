package wire

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// benchFrame is a frame as a busy guest sends it: 256 records of 180 bytes.
func benchFrame() (Frame, Statement) {
	const n, size = 256, 180
	f := Frame{Records: make([]Record, n)}
	s := Statement{Session: 8, Frame: 3, Count: n, First: 0, Lanes: []Lane{{Number: 0, Next: n / 2}, {Number: 1, Next: n / 2}}}
	payload := bytes.Repeat([]byte{7}, size)
	for i := range f.Records {
		f.Records[i] = Record{record.Header{Class: record.ClassFileModify, Lane: uint32(i & 1), Session: 8, Sequence: uint64(i), LaneSequence: uint64(i / 2)}, payload}
	}
	seal(&f, &s)
	return f, s
}

// seal commits and signs, as the agent does.
func seal(f *Frame, s *Statement) {
	hashes := make([]record.Hash, len(f.Records))
	for i := range f.Records {
		salt := f.Seed.Salt(f.Records[i].Header.Sequence)
		hashes[i] = record.RecordHash(f.Records[i].Header, record.Commit(&salt, f.Records[i].Payload))
	}
	s.Root = record.Root(hashes)
	f.Statement = s.AppendBinary(nil)
	f.Signature = SignStatement(testKey(), f.Statement)
}

// The agent's side: commit, sign, encode, write.
func BenchmarkEncode(b *testing.B) {
	f, s := benchFrame()
	w := NewWriter(io.Discard)
	var body []byte
	b.ReportAllocs()
	for b.Loop() {
		seal(&f, &s)
		body = f.AppendBinary(body[:0])
		if err := w.Write(TypeFrame, body); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, len(f.Records))
}

// The host's first step: read the envelope, take the frame apart.
func BenchmarkDecode(b *testing.B) {
	f, _ := benchFrame()
	env := AppendEnvelope(nil, TypeFrame, 0, f.AppendBinary(nil))
	in := bytes.NewReader(env)
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(env)
		e, err := NewReader(in).Read()
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := ParseFrame(e.Body); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, len(f.Records))
}

// The host's second step: signature, commitments, root.
func BenchmarkOpen(b *testing.B) {
	f, s := benchFrame()
	key := testKey().Public().(ed25519.PublicKey)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Open(&s, key); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, len(f.Records))
}

// targets in records per second on one core; a guest's quota is far below.
var targets = map[string]float64{"BenchmarkEncode": 150_000, "BenchmarkDecode": 2_000_000, "BenchmarkOpen": 150_000}

func perSecond(b *testing.B, records int) {
	rate := float64(records) * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "records/s")
	results[b.Name()] = rate // the last run of each is the longest
}

var results = map[string]float64{}

// printResults prints what `make bench-wire` is read for.
func printResults() {
	for _, name := range []string{"BenchmarkEncode", "BenchmarkDecode", "BenchmarkOpen"} {
		if r, ok := results[name]; ok {
			fmt.Printf("RESULT wire_%s %.0f records/s target>=%.0f\n", name[len("Benchmark"):], r, targets[name])
		}
	}
}
