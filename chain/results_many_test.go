package chain

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/provostd/provost/chain/keys"
)

// manyLogs is over how many logs the ten million entries go.
const manyLogs = 100

// fillDir is the environment variable by which TestResultsFill knows that it is
// the child of a measurement.
const fillDir = "PROVOST_RESULTS_FILL"

// manyConfig is the store that parent and child share.
func manyConfig(t testing.TB, dir string) Config {
	t.Helper()
	k, err := keys.Open(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), PayloadKeys: filepath.Join(dir, "payload-keys"), HostID: "kvm1.example", Keys: k}
}

// measureMany fills a store with ten million records as a probe makes them, in a
// process of its own, whose memory is watched; kills it in the middle of that,
// and opens the store: after the crash, and after it was closed.
func measureMany(t *testing.T, report reporter) {
	dir := t.TempDir()
	if _, err := keys.Create(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	want := scaled(10_000_000)
	peak, rate := fillInChild(t, dir, want)
	report("chain.many.fill", rate, "records/s", "")
	report("chain.many.rss_peak", peak/1024, "MiB", "target<=512")
	var settled int64
	for _, after := range []string{"crash", "stop"} {
		start := time.Now()
		s := mustOpen(t, manyConfig(t, dir))
		took := time.Since(start)
		entries := uint64(0)
		for _, l := range s.Logs() {
			entries += l.Size()
		}
		if entries < uint64(want) {
			t.Fatalf("the store has %d entries, %d were acknowledged", entries, want)
		}
		report("chain.many.open_after_"+after, float64(took.Milliseconds()), "ms", "target<=1000")
		stop := run(t, s)
		if after == "stop" {
			settled = settle(t, s)
		}
		start = time.Now()
		shutdown(t, s, stop)
		if after == "crash" {
			report("chain.many.stop", float64(time.Since(start).Milliseconds()), "ms", "target<=1000")
		}
	}
	report("chain.many.disk", float64(settled)/float64(want), "bytes/record", "target<=100")
}

// settle waits until everything is packed and the store has nothing to compact
// that it would compact by itself, and returns what its files take.
func settle(t *testing.T, s *Store) (bytes int64) {
	t.Helper()
	waitPacked(t, s)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	quiet := 0
	for deadline := time.Now().Add(2 * time.Minute); quiet < 5; <-look.C {
		if quiet++; s.db.Metrics().Compact.NumInProgress > 0 {
			quiet = 0
		}
		if time.Now().After(deadline) {
			t.Fatal("the store does not come to rest")
		}
	}
	files, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if i, err := f.Info(); err == nil {
			bytes += i.Size()
		}
	}
	return bytes
}

// fillInChild has a child fill the store and kills it while it goes on. It
// returns the child's peak of resident memory in KiB, and records a second with
// everything packed.
func fillInChild(t *testing.T, dir string, n int) (peak, rate float64) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestResultsFill$", "-test.timeout", "20m")
	cmd.Env = append(os.Environ(), fillDir+"="+dir, fmt.Sprintf("%s_ENTRIES=%d", fillDir, n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "filled" {
		fmt.Println("#", lines.Text())
	}
	rate = float64(n) / time.Since(start).Seconds()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || lines.Text() != "filled" {
		t.Fatalf("the child ended before it was done: %v, %v", err, cmd.Wait())
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			peak, err = strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
		}
	}
	if err != nil || peak == 0 {
		t.Fatalf("no peak of memory in %q: %v", status, err)
	}
	kill()
	_ = cmd.Wait() // killed: that is what it says
	return peak, rate
}

// TestResultsFill is the child of TestResults/many: it fills a store, says so,
// and goes on appending until it is killed.
func TestResultsFill(t *testing.T) {
	dir := os.Getenv(fillDir)
	if dir == "" {
		t.Skip("runs as a child of TestResults")
	}
	n, err := strconv.Atoi(os.Getenv(fillDir + "_ENTRIES"))
	if err != nil {
		t.Fatal(err)
	}
	s := mustCreate(t, manyConfig(t, dir))
	_ = run(t, s)
	var logs []*Log
	for i := range manyLogs {
		logs = append(logs, mustCreateLog(t, s, i))
	}
	day := newGuestDay()
	frames := make([][]Entry, 128)
	for i := range frames {
		frames[i], _ = day.frame(t, s, 255)
	}
	const onTheWay = 32
	var ring [onTheWay]*Pending
	for i := 0; ; i++ {
		p := &ring[i%onTheWay]
		if *p != nil {
			if _, err := (*p).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if *p, err = s.Submit(t.Context(), Batch{Log: logs[i%manyLogs], Entries: frames[i%len(frames)]}); err != nil {
			t.Fatal(err)
		}
		if i == n/len(frames[0])+onTheWay {
			waitPacked(t, s)
			fmt.Println("filled")
		}
	}
}
