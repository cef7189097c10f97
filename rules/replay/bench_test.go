package replay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// hundred is a bundle of 100 policies on what tapes hold.
func hundred(t testing.TB) *policy.Bundle {
	t.Helper()
	var text strings.Builder
	text.WriteString(head)
	for i := range 100 {
		text.WriteString(strings.Replace(strings.Replace(etc, "\"etc\"", fmt.Sprintf("\"etc%d\"", i), 1), "\"/etc\"", fmt.Sprintf("\"/srv/%d\"", i), 1))
	}
	return bundle(t, text.String())
}

// BenchmarkTrial is one entry judged by two bundles of 100 policies; its payload is
// decoded as a replay of a ledger does.
func BenchmarkTrial(b *testing.B) {
	many := hundred(b)
	p := newTape(b, many)
	for i := range 1000 {
		p.seal(record.OriginGuest, record.ClassFileModify, &record.Event{File: &record.File{Path: fmt.Appendf(nil, "/home/user/%d", i)}, Process: &record.Process{Pid: 7, Executable: []byte("/usr/bin/vim"), Name: []byte("vim")}})
	}
	tr := NewTrial(p.of(many), p.of(many), time.Unix(0, 0), nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := i % len(p.leaves)
		if at == 0 {
			tr.Begin(origin, "uuid", "web")
		}
		m, err := record.Decode(p.leaves[at].Header.Class, p.payload[at])
		if err != nil {
			b.Fatal(err)
		}
		if err := tr.Entry(p.leaves[at], p.hashes[at], m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkCheck is one entry of a compliance check with 100 policies.
func BenchmarkCheck(b *testing.B) {
	many := hundred(b)
	p := newTape(b, many)
	for i := range 1000 {
		p.seal(record.OriginGuest, record.ClassFileModify, &record.Event{File: &record.File{Path: fmt.Appendf(nil, "/home/user/%d", i)}, Process: &record.Process{Pid: 7, Executable: []byte("/usr/bin/vim"), Name: []byte("vim")}})
	}
	c, err := NewCheck(Options{Bundles: []*policy.Bundle{many}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := i % len(p.leaves)
		if err := c.Entry(fmt.Sprint(origin, i/len(p.leaves)), p.leaves[at], p.hashes[at], p.payload[at]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
