package rules

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

var results = flag.Bool("results", false, "measure and print RESULT lines")

type reporter func(name string, value float64, unit, target string)

func nanoseconds(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) }

// TestResults prints the figures that `make bench-rules` shows. What is
// compared with other engines takes turns with them.
func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	report := func(name string, value float64, unit, target string) {
		fmt.Printf("RESULT %s %.4g %s %s\n", name, value, unit, target)
	}
	peers := buildPeers(t)
	measureCondition(t, report, peers)
	for _, n := range []int{1, 100, 1000, 10_000} {
		measureEval(t, report, peers, n)
	}
	measureReplay(t, report)
	measureLoad(t, report)
}

// peerNames are the engines that bench/policies knows.
var peerNames = []string{"hcl", "cel", "opa", "expr"}

func measureCondition(t *testing.T, report reporter, peers string) {
	c, ev := load(t, fiveConditions).Policies[0].Condition, matching(t)
	closure := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Eval(ev)
		}
	})
	report("rules.condition", nanoseconds(closure), "ns", "target<=70")
	report("rules.condition.allocs", float64(closure.AllocsPerOp()), "allocs", "target<=0")
	for _, name := range peerNames {
		ns, allocs := runPeer(t, peers, name, 0, 1)
		report("rules.condition."+name, ns, "ns", "")
		report("rules.condition."+name+".allocs", allocs, "allocs", "")
		report("rules.condition."+name+"_over_ours", ns/nanoseconds(closure), "times", "")
	}
}

func measureEval(t *testing.T, report reporter, peers string, n int) {
	e, f := engine(t, loadMixed(t, n), Options{}), benchFeed(t)
	r := testing.Benchmark(func(b *testing.B) { benchEval(b, e, f) })
	ours := nanoseconds(r)
	target := map[int]string{1000: "target<=1300", 10_000: "target<=30000"}[n]
	report(fmt.Sprintf("rules.eval.%d", n), ours, "ns/entry", target)
	report(fmt.Sprintf("rules.eval.%d.allocs", n), float64(r.AllocsPerOp()), "allocs/entry", "target<=0")
	hits := len(run(t, e, &State{}, hitFeed(t)))
	for _, name := range peerNames {
		if n > 1000 && name != "opa" {
			continue // linear in the number of conditions
		}
		ns, _ := runPeer(t, peers, name, n, hits)
		report(fmt.Sprintf("rules.eval.%d.%s", n, name), ns, "ns/entry", "")
		report(fmt.Sprintf("rules.eval.%d.%s_over_ours", n, name), ns/ours, "times", "")
	}
}

// hitFeed holds an entry for one policy of each kind in mixed, which the peers
// must find too.
func hitFeed(t testing.TB) *feed {
	f := &feed{}
	f.genesis(t, "")
	exec := func(path string, args ...string) {
		p := &record.Process{Pid: 9, Name: []byte("x"), Executable: []byte(path), Credentials: &record.Credentials{}}
		for _, a := range args {
			p.Args = append(p.Args, []byte(a))
		}
		f.guest(t, record.ClassProcessExec, &record.Event{Process: p})
	}
	exec("/usr/lib/tool0/run", "run")
	exec("/usr/bin/curl", "curl", "word35")
	exec("/bin/sh", "sh", "-c", "base64 -d x key95")
	f.guest(t, record.ClassFileModify, &record.Event{Process: vim(), File: file("/srv/app60/conf/x")})
	f.guest(t, record.ClassNetworkConnect, &record.Event{Process: vim(), Network: &record.Network{Family: 4, Protocol: "tcp", DestinationIp: []byte{100, 0, 82, 9}, DestinationPort: 443}})
	return f
}

// measureReplay judges entries as they are read from a ledger.
func measureReplay(t *testing.T, report reporter) {
	e, f := engine(t, loadMixed(t, 100), Options{}), benchFeed(t)
	payloads := make([][]byte, len(f.payloads))
	for i, p := range f.payloads {
		var err error
		if payloads[i], err = record.Encode(p); err != nil {
			t.Fatal(err)
		}
	}
	r := testing.Benchmark(func(b *testing.B) {
		st := &State{}
		run(b, e, st, f)
		i, next := 2, st.Next()
		for b.Loop() {
			leaf := f.leaves[i]
			leaf.Index = next
			p, err := record.Decode(leaf.Header.Class, payloads[i])
			if err != nil {
				b.Fatal(err)
			}
			next++
			if _, err := e.Eval(st, leaf, hashOf(next), p); err != nil {
				b.Fatal(err)
			}
			if i++; i == len(f.leaves) {
				i = 2
			}
		}
	})
	report("rules.replay.100", 1e9/nanoseconds(r), "entries/s", "target>=500000")
	win := testing.Benchmark(BenchmarkWindow)
	report("rules.window.100000", nanoseconds(win)/1000, "us/entry", "target<=0.6")
	report("rules.window.100000.allocs", float64(win.AllocsPerOp()), "allocs/entry", "target<=0")
}

func measureLoad(t *testing.T, report reporter) {
	parse, build := time.Duration(1<<62), time.Duration(1<<62)
	for range 5 {
		start := time.Now()
		b := loadMixed(t, 1000)
		parse = min(parse, time.Since(start))
		start = time.Now()
		engine(t, b, Options{})
		build = min(build, time.Since(start))
	}
	report("rules.load.1000", float64((parse+build).Microseconds())/1000, "ms", "target<=150")
	report("rules.load.1000.index", float64(build.Microseconds())/1000, "ms", "")
}

func buildPeers(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policies")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "../bench", "-o", path, "./policies")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the peers: %v\n%s", err, out)
	}
	return path
}

// runPeer measures another engine, which must find as many matches.
func runPeer(t *testing.T, program, name string, n, hits int) (ns, allocs float64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "-engine", name, "-rules", fmt.Sprint(n))
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, problem.Bytes())
	}
	var matched int
	if _, err := fmt.Sscan(string(out), &ns, &allocs, &matched); err != nil {
		t.Fatalf("%s says %q: %v", cmd, out, err)
	}
	if matched != hits {
		t.Errorf("%s finds %d matches, want %d", cmd, matched, hits)
	}
	return ns, allocs
}
