package rules

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

var results = flag.Bool("results", false, "measure and print RESULT lines")

const fiveConditions = `policy "five" {
  on        = ["file.modify"]
  condition = event.type == "file.modify" && startswith(file.path, "/etc/") && !contains(["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"], process.executable) && process.parent.name != "cloud-init" && process.pid > 1
  action "alert" {
    message = "x"
  }
}
`

// mixed writes n policies in the proportions of common rule sets: executables,
// tools with a word on the command line, paths, addresses, regular expressions.
func mixed(n int) string {
	var b strings.Builder
	for i := range n {
		on, cond := "process.exec", ""
		switch r := i % 100; {
		case r < 35:
			cond = fmt.Sprintf(`process.executable == "/usr/lib/tool%d/run" && user.id != 4711`, i)
		case r < 60:
			cond = fmt.Sprintf(`endswith(process.executable, "/curl") && strcontains(process.command_line, "word%d")`, i)
		case r < 82:
			on, cond = "file.modify", fmt.Sprintf(`under(file.path, "/srv/app%d/conf") && process.name != "deploy"`, i)
		case r < 95:
			on, cond = "network.connect", fmt.Sprintf(`in_cidr(destination.ip, "100.%d.%d.0/24") && destination.port != 53`, i/250%250, i%250)
		default:
			cond = fmt.Sprintf(`matches(process.command_line, "base64 -d.*key%d")`, i)
		}
		fmt.Fprintf(&b, "policy \"p%d\" {\n on = [\"%s\"]\n condition = %s\n action \"alert\" {\n message = \"x\"\n }\n}\n", i, on, cond)
	}
	return b.String()
}

func benchFeed(t testing.TB) *feed {
	f := &feed{}
	f.genesis(t, "")
	parent := &record.Process{Pid: 7, Name: []byte("bash"), Executable: []byte("/usr/bin/bash")}
	for range 50 {
		f.guest(t, record.ClassProcessExec, &record.Event{Process: &record.Process{Pid: 9, Name: []byte("curl"), Executable: []byte("/usr/bin/curl"), Args: [][]byte{[]byte("curl"), []byte("-s"), []byte("https://example.test/index.html")}, Credentials: &record.Credentials{}}, Parent: parent})
		f.guest(t, record.ClassFileModify, &record.Event{Process: vim(), Parent: parent, File: file("/home/user/notes.txt")})
		f.guest(t, record.ClassNetworkConnect, &record.Event{Process: vim(), Parent: parent, Network: &record.Network{Family: 4, Protocol: "tcp", DestinationIp: []byte{192, 0, 2, 7}, DestinationPort: 443, Direction: "egress"}})
	}
	return f
}

func matching(t testing.TB) *event.Event {
	ev := new(event.Event)
	p := &record.Event{Process: vim(), Parent: &record.Process{Pid: 3, Name: []byte("bash")}, File: file("/etc/passwd")}
	if err := ev.Load(&record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify}}, p, &VM{UUID: testUUID, Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	return ev
}

// BenchmarkCondition is one policy of five conditions that holds: the closures,
// and cty as HCL evaluates the same expression.
func BenchmarkCondition(b *testing.B) {
	c, ev := load(b, fiveConditions).Policies[0].Condition, matching(b)
	b.Run("closure", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := c.Eval(ev); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("cty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := c.Oracle(ev); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

// BenchmarkEval judges whole entries, decoding of the payload excluded.
func BenchmarkEval(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchEval(b, engine(b, load(b, mixed(n)), Options{}), benchFeed(b))
		})
	}
}

func benchEval(b *testing.B, e *Engine, f *feed) {
	st := &State{}
	run(b, e, st, f)
	b.ReportAllocs()
	i, next := 2, st.Next()
	for b.Loop() {
		leaf := f.leaves[i]
		leaf.Index = next
		next++
		if _, err := e.Eval(st, leaf, f.hashes[i], f.payloads[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(f.leaves) {
			i = 2
		}
	}
}

// naive evaluates every policy through cty for every event, as a plain HCL
// program would.
func naive(b *testing.B, n int, f *feed) {
	bundle := load(b, mixed(n))
	ev, vm := new(event.Event), &VM{UUID: testUUID, Name: "web-1"}
	i := 2
	for b.Loop() {
		if err := ev.Load(&f.leaves[i], f.payloads[i], vm); err != nil {
			b.Fatal(err)
		}
		for _, p := range bundle.Policies {
			if _, err := p.Condition.Oracle(ev); err != nil {
				b.Fatal(err)
			}
		}
		if i++; i == len(f.leaves) {
			i = 2
		}
	}
}

// TestResults prints the figures that `make bench-rules` shows.
func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	report := func(name string, value float64, unit, target string) {
		fmt.Printf("RESULT %s %.4g %s %s\n", name, value, unit, target)
	}
	ns := func(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) }

	c, ev := load(t, fiveConditions).Policies[0].Condition, matching(t)
	closure := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Eval(ev)
		}
	})
	cty := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			c.Oracle(ev)
		}
	})
	report("rules.condition.closure", ns(closure), "ns", "target<=1000")
	report("rules.condition.allocs", float64(closure.AllocsPerOp()), "allocs", "target<=0")
	report("rules.condition.cty_over_closure", ns(cty)/ns(closure), "times", "target>=100")

	f := benchFeed(t)
	per := make(map[int]float64)
	for _, n := range []int{1, 100, 1000} {
		e := engine(t, load(t, mixed(n)), Options{})
		r := testing.Benchmark(func(b *testing.B) { benchEval(b, e, f) })
		per[n] = ns(r)
		report(fmt.Sprintf("rules.eval.%d", n), per[n], "ns/entry", fmt.Sprintf("target<=%d", 10_000+100*n))
		report(fmt.Sprintf("rules.eval.%d.allocs", n), float64(r.AllocsPerOp()), "allocs/entry", "target<=1")
	}
	for _, n := range []int{1, 100, 1000} {
		r := testing.Benchmark(func(b *testing.B) { naive(b, n, f) })
		report(fmt.Sprintf("rules.eval.%d.cty_over_closures", n), ns(r)/per[n], "times", map[int]string{1: "target>=10", 100: "target>=100", 1000: "target>=100"}[n])
	}
	report("rules.replay.100", 1e9/per[100], "entries/s", "target>=100000")

	text := "bundle {\n name = \"t\"\n version = \"1\"\n language = 1\n}\n" + mixed(1000)
	best := time.Duration(1 << 62)
	for range 5 {
		start := time.Now()
		if b, diags := policy.LoadFS(fstest.MapFS{"t.policy.hcl": {Data: []byte(text)}}); b == nil {
			t.Fatal(diags)
		}
		best = min(best, time.Since(start))
	}
	report("rules.load.1000", float64(best.Microseconds())/1000, "ms", "target<=300")
}
