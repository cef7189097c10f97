package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func numCPU() int { return runtime.NumCPU() }

// buildWork compiles the workloads.
func buildWork(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(dir, "work")
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-static", "-o", bin, "testdata/work.c").CombinedOutput(); err != nil {
		t.Fatalf("compile workloads: %v: %s", err, out)
	}
	return bin
}

// buildAgent makes the agent as it is shipped.
func buildAgent(t *testing.T, dir string) string {
	t.Helper()
	if *binary != "" {
		return *binary
	}
	bin := filepath.Join(dir, "provost-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "github.com/provostd/provost/cmd/provost-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build provost-agent: %v: %s", err, out)
	}
	return bin
}

// done is one run of a workload.
type done struct {
	pid    uint32
	wall   time.Duration
	cpu    time.Duration // user and system, children included
	counts map[string]uint64
	rounds []time.Duration // of the mix
}

// workload is something to run. The unit of its figures is one of what unit
// counts.
type workload struct {
	name string
	unit string // a key of done.counts
	args []string
	run  func(ctx context.Context, w *workload, bin, dir string) (done, error)
}

func (w *workload) do(ctx context.Context, bin, dir string) (done, error) {
	d, err := w.run(ctx, w, bin, dir)
	if err != nil {
		return d, fmt.Errorf("run workload %s: %w", w.name, err)
	}
	return d, nil
}

// work runs a workload of the small program.
func work(ctx context.Context, w *workload, bin, dir string) (done, error) {
	cmd := exec.CommandContext(ctx, bin, w.args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return done{}, fmt.Errorf("%w: %s", err, &stderr)
	}
	d := done{counts: map[string]uint64{}}
	for _, f := range strings.Fields(string(out)) {
		k, v, _ := strings.Cut(f, "=")
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return done{}, fmt.Errorf("parse %q: %w", f, err)
		}
		switch k {
		case "pid":
			d.pid = uint32(n)
		case "wall_ns":
			d.wall = time.Duration(n)
		case "user_us", "system_us":
			d.cpu += time.Duration(n) * time.Microsecond
		case "round":
			d.rounds = append(d.rounds, time.Duration(n))
		default:
			d.counts[k] = n
		}
	}
	if d.pid == 0 || d.wall == 0 {
		return done{}, fmt.Errorf("no result in %q", out)
	}
	return d.withItself(), nil
}

// withItself adds the workload's own process to what it did.
func (d done) withItself() done {
	for _, k := range []string{"fork", "exec", "exit"} {
		d.counts[k]++
	}
	return d
}

var postmarkReport = regexp.MustCompile(`(?m)^\s+(\d+) (created|appended|deleted) \(`)

// postmark runs Debian's, which tells what it did and nothing finer than
// seconds, so the time is taken here.
func postmark(ctx context.Context, w *workload, _, dir string) (done, error) {
	where, err := os.MkdirTemp(dir, "postmark")
	if err != nil {
		return done{}, err
	}
	defer os.RemoveAll(where)
	cmd := exec.CommandContext(ctx, "postmark")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(strings.Join(append(w.args, "set location "+where, "run", "quit"), "\n") + "\n")
	began := time.Now()
	out, err := cmd.CombinedOutput()
	d := done{wall: time.Since(began), counts: map[string]uint64{}}
	if err != nil {
		return done{}, fmt.Errorf("%w: %s", err, out)
	}
	ru := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	d.pid, d.cpu = uint32(cmd.Process.Pid), time.Duration(ru.Utime.Nano()+ru.Stime.Nano())
	for _, m := range postmarkReport.FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			return done{}, err
		}
		switch m[2] {
		case "created":
			d.counts["create"], d.counts["file"] = n, n
			d.counts["modify"] += n
		case "appended":
			d.counts["modify"] += n
		case "deleted":
			d.counts["delete"] = n
		}
	}
	if d.counts["create"] == 0 || d.counts["delete"] == 0 {
		return done{}, fmt.Errorf("no report in %q", out)
	}
	return d.withItself(), nil
}

// workloads are what is measured; each takes some tenths of a second.
func workloads(scale int) []*workload {
	n := func(v int) string { return strconv.Itoa(max(1, v/scale)) }
	return []*workload{
		{name: "exec", unit: "exec", args: []string{"exec", n(2000)}, run: work},
		{name: "postmark", unit: "file", args: []string{"set size 500 10000", "set number " + n(1000), "set transactions " + n(8000)}, run: postmark},
		{name: "connect", unit: "connect", args: []string{"connect", n(20000)}, run: work},
		{name: "udp", unit: "send", args: []string{"udp", n(300000)}, run: work},
		{name: "write", unit: "write", args: []string{"write", n(800000)}, run: work},
		{name: "null", unit: "call", args: []string{"null", n(3000000)}, run: work},
	}
}

func idle(ms int) *workload {
	return &workload{name: "idle", args: []string{"idle", strconv.Itoa(ms)}, run: work}
}
