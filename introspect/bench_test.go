package introspect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// costlyBundle has n policies whose conditions nothing guards: each looks at the whole
// command line with a regular expression.
func costlyBundle(n int) string {
	var b strings.Builder
	b.WriteString("bundle {\n  name = \"costly\"\n  version = \"1\"\n  language = 1\n}\n")
	for i := range n {
		fmt.Fprintf(&b, `policy "costly_%d" {
  on        = ["process.exec"]
  condition = matches(process.command_line, "([a-f]|[0-9a-z]{2})+[^a-z0-9/]{%d}$")
  action "alert" {
    message = "x"
  }
}
`, i, 2+i)
	}
	b.WriteString(`policy "each" {
  on = ["file.modify"]
  action "alert" {
    message = "changed"
  }
}
`)
	return b.String()
}

// BenchmarkNeighbour has one guest send long command lines against 100 unguarded
// regular expressions, and a neighbour one entry behind them: how long its verdict takes
// (neighbour-ms), and how long all that was sealed ahead of it (ahead-ms), which is what
// it would take in the order of commits.
func BenchmarkNeighbour(b *testing.B) {
	engine := engineOf(b, costlyBundle(100))
	var neighbour, ahead time.Duration
	for range b.N {
		p := newStepper(b, engine, 2)
		hostile, calm := p.logs[0], p.logs[1]
		began := time.Now()
		p.judge.cfg.Clock = func() time.Duration { return time.Since(began) }
		p.drain()
		long := []byte(strings.Repeat("a9f3/", 3200)) // 16 kB
		for range 2 {
			var entries []chain.Entry
			for i := range 8 {
				payload, err := record.Encode(&record.Event{Process: &record.Process{Pid: 7, Args: [][]byte{long}}})
				if err != nil {
					b.Fatal(err)
				}
				n := hostile.Size() + uint64(i)
				seed := record.Seed{1, byte(n), byte(n >> 8)}
				salt := seed.Salt(n)
				entries = append(entries, chain.Entry{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassProcessExec, Session: 1, Sequence: n, LaneSequence: n},
					Payload: payload, Seed: seed, Commitment: record.Commit(&salt, payload)})
			}
			if _, err := p.store.Append(b.Context(), chain.Batch{Log: hostile, Entries: entries}); err != nil {
				b.Fatal(err)
			}
		}
		p.modify(calm, "/etc/passwd")
		began = time.Now()
		size := calm.Size()
		for calm.Size() == size {
			p.round()
		}
		neighbour += time.Since(began)
		p.drain()
		ahead += time.Since(began)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(neighbour.Microseconds())/1e3/float64(b.N), "neighbour-ms")
	b.ReportMetric(float64(ahead.Microseconds())/1e3/float64(b.N), "ahead-ms")
	b.ReportMetric(float64(ahead)/float64(neighbour), "ahead/neighbour")
}
