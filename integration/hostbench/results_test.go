package hostbench

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/introspect/guest"
)

var (
	results  = flag.Bool("results", false, "measure and print RESULT lines")
	sections = flag.String("sections", "pipeline,neighbour,pause,cut", "what to measure")
	events   = flag.Int("events", 1_200_000, "events of the pipeline section")
)

func indexOf(b []byte, word string) int { return max(0, bytes.Index(b, []byte(word))) }

func result(name string, value float64, unit, target string) {
	fmt.Printf("RESULT %s %.4g %s %s\n", name, value, unit, target)
}

func note(format string, args ...any) { fmt.Printf("NOTE "+format+"\n", args...) }

// quantile returns the q-th quantile of what is measured.
func quantile(v []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(math.Ceil(q*float64(len(s))))-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// TestParts holds that the parts of the benchmark work and their books are
// exact: every event that the sender sends is sealed and judged.
func TestParts(t *testing.T) {
	h := newHost(t, thousand(20), guest.Config{RecordsPerSecond: 1 << 30, BytesPerSecond: 1 << 30})
	logs, err := h.guests(t.Context(), []int{40, 4}, []int{50, 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.sender.tell(nil, "flood 0"); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	if err := h.sender.tell(&took, "round 1 4"); err != nil || len(took) != 4 {
		t.Fatalf("%d rounds: %v", len(took), err)
	}
	// Each log: genesis, activation, enrolment, and for each frame its records and its statement.
	if want := uint64(3 + 4*4); logs[1].Size() < want {
		t.Errorf("the quiet guest's log has %d entries, want at least %d", logs[1].Size(), want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.caughtUp(ctx, logs[1].Size()); err != nil {
		t.Error(err)
	}
}

func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	note("%d processors, %s", runtime.NumCPU(), time.Now().UTC().Format("2006-01-02 15:04"))
	for s := range strings.SplitSeq(*sections, ",") {
		measure, ok := map[string]func(*testing.T){"pipeline": pipeline, "neighbour": neighbour, "pause": pauses, "cut": cuts}[s]
		if !ok {
			t.Fatalf("there is no section %q", s)
		}
		t.Run(s, measure)
	}
}

// pipeline measures the whole path: decode, verify, seal, index, judge by 1,000
// policies, from the first frame to the last entry judged and indexed.
func pipeline(t *testing.T) {
	const guests, each = 4, 500
	h := newHost(t, thousand(1000), guest.Config{RecordsPerSecond: 1 << 30, BytesPerSecond: 1 << 30})
	frames := *events / guests / each
	logs, err := h.guests(t.Context(), slices.Repeat([]int{frames}, guests), slices.Repeat([]int{each}, guests))
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if _, err := peakMemory(); err != nil {
		t.Fatal(err)
	}
	_, before, _ := h.judge.Judged()
	began := time.Now()
	var sealed time.Duration
	if err := h.sender.tell(&sealed, "stream"); err != nil {
		t.Fatal(err)
	}
	n := uint64(guests * frames * (each + 1))
	if err := h.caughtUp(t.Context(), before+n); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	peak, err := peakMemory()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if l.Size() < n/guests {
			t.Errorf("log %s has %d entries, want at least %d", l.Origin(), l.Size(), n/guests)
		}
	}
	count := float64(guests * frames * each)
	result("host.pipeline", count/took.Seconds(), "events/s", "target>=100000")
	result("host.pipeline.sealed", count/sealed.Seconds(), "events/s", "-")
	result("host.pipeline.memory", float64(peak)/(1<<20), "MiB", "target<=1024")
}

// neighbour measures how long a quiet guest waits for its frames to be durable,
// alone and beside a guest that sends all it can, in turns.
func neighbour(t *testing.T) {
	const turns, perTurn = 10, 300
	h := newHost(t, thousand(1000), guest.Config{}) // with the quotas of the daemon
	if _, err := h.guests(t.Context(), []int{2*turns*perTurn + 1, 4000}, []int{4, 500}); err != nil {
		t.Fatal(err)
	}
	var alone, beside []time.Duration
	flooded := 0
	for range turns {
		var took []time.Duration
		if err := h.sender.tell(&took, "round 0 %d", perTurn); err != nil {
			t.Fatal(err)
		}
		alone = append(alone, took...)
		if err := h.sender.tell(nil, "flood 1"); err != nil {
			t.Fatal(err)
		}
		took = nil
		if err := h.sender.tell(&took, "round 0 %d", perTurn); err != nil {
			t.Fatal(err)
		}
		beside = append(beside, took...)
		n := 0
		if err := h.sender.tell(&n, "calm 1"); err != nil {
			t.Fatal(err)
		}
		flooded += n
	}
	if flooded == 0 {
		t.Error("the flood has sent nothing")
	}
	note("the flood: %d frames of 500 records", flooded)
	for _, q := range []float64{0.5, 0.99} {
		a, b := quantile(alone, q), quantile(beside, q)
		result(fmt.Sprintf("host.neighbour.alone.p%g", 100*q), ms(a), "ms", "-")
		result(fmt.Sprintf("host.neighbour.beside.p%g", 100*q), ms(b), "ms", "-")
		target := "-"
		if q == 0.99 {
			target = "target<=2"
		}
		result(fmt.Sprintf("host.neighbour.ratio.p%g", 100*q), float64(b)/float64(a), "x", target)
	}
}

// thousand is a bundle of n policies in the proportions of common rule sets.
func thousand(n int) fstest.MapFS {
	files := fstest.MapFS{"a.policy.hcl": {Data: []byte("bundle {\n  name     = \"bench\"\n  version  = \"1\"\n  language = 1\n  mode     = \"enforce\"\n}\n" + malicious)}}
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
		fmt.Fprintf(&b, "policy \"p%d\" {\n  title    = \"t\"\n  severity = \"low\"\n  on        = [\"%s\"]\n  condition = %s\n  action \"alert\" {\n    message = \"x\"\n  }\n}\n", i, on, cond)
	}
	files["p.policy.hcl"] = &fstest.MapFile{Data: []byte(b.String())}
	return files
}

// malicious pauses a guest in which one program starts.
const malicious = `
policy "malicious" {
  title     = "A program that must not run"
  severity  = "critical"
  mode      = "enforce"
  on        = ["process.exec"]
  condition = process.executable == "/tmp/xmrig"
  action "pause" {
  }
}
`
