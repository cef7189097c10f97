package bench

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var (
	results     = flag.Bool("results", false, "measure and print RESULT lines")
	repetitions = flag.Int("repetitions", 10, "runs of each workload under each configuration")
	blocked     = flag.Int("blocked", 30, "seconds for which the host does not read")
	binary      = flag.String("agent", "", "measure this binary, not one that is built now")
	only        = flag.String("workloads", "", "measure these workloads, not all")
	sections    = flag.String("sections", "overhead,programs,idle,rate,blocked", "what to measure")
)

// The benchmark's own parts work: workloads are observed and the books are
// exact, with and without a host that reads.
func TestBooks(t *testing.T) {
	dir := t.TempDir()
	b := &bench{work: buildWork(t, dir), dir: dir, rnd: rand.New(rand.NewPCG(1, 2)), spare: 1}
	bin := buildAgent(t, dir)
	b.configs = []config{{name: "agent", start: func(ctx context.Context) (observer, error) { return startAgent(ctx, bin, b.work, dir) }}}
	all := slices.DeleteFunc(workloads(20), func(w *workload) bool { return w.name == "postmark" })
	all = append(all, &workload{name: "mix", unit: "exec", args: []string{"mix", "1", "20"}, run: work},
		&workload{name: "rate", unit: "chmod", args: []string{"rate", "2000", "300", "4"}, run: work})
	got, sum, err := b.repeat(t.Context(), all, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got["exec"]["agent"]); n != 1 {
		t.Errorf("%d samples of exec, want 1", n)
	}
	if s := got["exec"]["agent"][0]; s.records < 3*s.units || s.ring == 0 || s.observer == 0 || s.wall == 0 {
		t.Errorf("sample of exec: %+v", s)
	}
	if sum.records == 0 || sum.rss == 0 || sum.wire < sum.payload {
		t.Errorf("totals: %+v", sum)
	}
}

func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	began := time.Now()
	dir := t.TempDir()
	b := &bench{work: buildWork(t, dir), dir: dir, rnd: rand.New(rand.NewPCG(rand.Uint64(), 0)), spare: 100}
	bin := buildAgent(t, dir)
	start := func(ctx context.Context) (observer, error) { return startAgent(ctx, bin, b.work, dir) }
	b.configs = []config{{name: "off", start: startNothing}, {name: "agent", start: start}}
	note("%s; load %s; %s", machine(), load(), began.UTC().Format("2006-01-02 15:04"))
	note("mode tracepoint: these figures say nothing about mode lsm, which this program does not try")
	describe(t, bin)
	b.addPeer(t, bin, os.Getenv("SCAP_OPEN"))

	for s := range strings.SplitSeq(*sections, ",") {
		var err error
		switch s {
		case "overhead":
			err = b.overhead(t.Context())
		case "programs":
			err = b.programCosts(t.Context())
		case "idle":
			err = b.idle(t.Context())
		case "rate":
			err = b.rate(t.Context(), start)
		case "blocked":
			err = b.blocked(t.Context(), start)
		default:
			err = fmt.Errorf("there is no section of this name")
		}
		if err != nil {
			t.Errorf("measure %s: %v", s, err)
		}
	}
	note("load at the end %s; took %s", load(), time.Since(began).Round(time.Second))
}

// describe prints what is known without running a workload.
func describe(t *testing.T, bin string) {
	st, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	result("probe.binary", float64(st.Size())/(1<<20), "MiB", "target<=8")
}

// addPeer adds scap-open, for the classes that the agent covers here.
func (b *bench) addPeer(t *testing.T, bin, path string) {
	if path == "" {
		note("left out: probe.*.peer.* and probe.*.agent_over_peer.*: SCAP_OPEN=PATH names no scap-open")
		return
	}
	a, err := startAgent(t.Context(), bin, b.work, b.dir)
	if err != nil {
		t.Fatal(err)
	}
	hooks := a.host.hooks
	if err := a.end(t.Context()); err != nil {
		t.Fatal(err)
	}
	add := func(name string, few bool, only map[string]bool) {
		args, err := peerArgs(path, hooks, few)
		if err != nil {
			t.Fatal(err)
		}
		b.configs = append(b.configs, config{name, func(ctx context.Context) (observer, error) { return startPeer(ctx, args) }, only})
	}
	add("peer", false, nil)
	add("peer_few", true, map[string]bool{"postmark": true, "write": true, "udp": true})
	note("peer is scap-open for the calls of the classes that the agent covers; peer_few is without %s", strings.Join(slices.Sorted(keys(joined)), ", "))
}

func keys(m map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func chosen() []*workload {
	names := strings.Split(*only, ",")
	return slices.DeleteFunc(workloads(1), func(w *workload) bool { return *only != "" && !slices.Contains(names, w.name) })
}

func (b *bench) overhead(ctx context.Context) error {
	if _, err := exec.LookPath("postmark"); err != nil {
		return fmt.Errorf("postmark is needed (Debian's package of this name): %w", err)
	}
	all := chosen()
	got, sum, err := b.repeat(ctx, all, *repetitions)
	if err != nil {
		return err
	}
	for _, w := range all {
		b.compare(w, got[w.name])
	}
	for _, name := range []string{"exec", "postmark", "connect"} {
		x := got[name]["agent"]
		if len(x) == 0 {
			continue
		}
		resultOf("probe."+name+".wakeups", paired(x, x, func(s, _ *sample) float64 { return float64(s.waits) / float64(s.records) }), "per_event", "target<=0.1")
		resultOf("probe."+name+".event_cpu", paired(x, x, func(s, _ *sample) float64 { return float64(s.observer) / float64(s.records) }), "ns/event", "")
		resultOf("probe."+name+".ring_bytes", paired(x, x, func(s, _ *sample) float64 { return float64(s.ring) / float64(s.records) }), "B/event", "")
	}
	result("probe.ring_bytes", float64(sum.ring)/float64(sum.records), "B/event", "target<=95")
	result("probe.payload_bytes", float64(sum.payload)/float64(sum.records), "B/record", "-")
	result("probe.channel_bytes", float64(sum.wire)/float64(sum.records), "B/record", "-")
	result("probe.lost", float64(sum.lost), "records", "-")
	result("probe.folded", float64(sum.folded), "acts", "-")
	result("probe.rss", float64(sum.rss)/(1<<20), "MiB", "target<=30")
	result("probe.rss_peak", float64(sum.hwm)/(1<<20), "MiB", "-")
	if sum.peerEvents > 0 {
		result("probe.peer.bytes", float64(sum.peerBytes)/float64(sum.peerEvents-sum.peerDrops), "B/event", "-")
		result("probe.peer.lost", float64(sum.peerDrops), "events", "-")
	}
	return nil
}

// programCosts lets the kernel time the programs: in runs of their own, since
// that takes time itself.
func (b *bench) programCosts(ctx context.Context) error {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("switch on the timing of programs: %w", err)
	}
	defer stats.Close()
	total := map[string]map[string]float64{}
	for _, c := range b.configs {
		if c.name == "off" || c.only != nil {
			continue
		}
		total[c.name] = map[string]float64{}
		o, err := c.start(ctx)
		if err != nil {
			return err
		}
		err = b.timed(ctx, c.name, o, total[c.name])
		if e := o.end(ctx); err != nil || e != nil {
			return fmt.Errorf("%w", errOr(err, e))
		}
	}
	for _, w := range chosen() {
		a, p := total["agent"][w.name], total["peer"][w.name]
		if p > 0 {
			result("probe."+w.name+".programs.agent_over_peer", a/p, "times", "target<=0.5")
		}
	}
	return nil
}

// timed prints the mean cost of each program that matters in a workload, and
// the cost of all programs for one unit of it.
func (b *bench) timed(ctx context.Context, name string, o observer, total map[string]float64) error {
	targets := map[string]string{"on_exec": "target<=2700", "on_fork": "target<=600"}
	for _, w := range chosen() {
		before, err := programs(o.pids()[0])
		if err != nil {
			return err
		}
		d, err := w.do(ctx, b.work, b.dir)
		if err != nil {
			return err
		}
		after, err := programs(o.pids()[0])
		if err != nil {
			return err
		}
		if err := o.drained(ctx, &d); err != nil {
			return err
		}
		units := d.counts[w.unit]
		var sum time.Duration
		for _, p := range slices.Sorted(mapKeys(after)) {
			c := cost{after[p].ns - before[p].ns, after[p].runs - before[p].runs}
			sum += c.ns
			if c.runs < units/2 {
				continue // something else on this machine
			}
			result("probe."+w.name+"."+name+".program."+p, c.mean(), "ns/run", targetOf(targets, name, w.name, p))
		}
		total[w.name] = float64(sum) / float64(units)
		result("probe."+w.name+"."+name+".programs", total[w.name], "ns/"+w.unit, "-")
	}
	return nil
}

func targetOf(targets map[string]string, config, workload, program string) string {
	if t := targets[program]; config == "agent" && workload == "exec" && t != "" {
		return t
	}
	return "-"
}

func mapKeys(m map[string]cost) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// idle measures what an observer takes when nothing is asked of it. Other
// programs of this machine may do something meanwhile.
func (b *bench) idle(ctx context.Context) error {
	const seconds = 5
	cpu, waits := map[string][]float64{}, map[string][]float64{}
	for range max(2, *repetitions/3) {
		for _, i := range b.rnd.Perm(len(b.configs)) {
			c := b.configs[i]
			if c.name == "off" || c.only != nil {
				continue
			}
			o, err := c.start(ctx)
			if err != nil {
				return err
			}
			var s sample
			if _, err = idle(1000).do(ctx, b.work, b.dir); err == nil { // what starting took has settled
				s, err = b.sample(ctx, o, idle(seconds*1000))
			}
			if e := o.end(ctx); err != nil || e != nil {
				return fmt.Errorf("%w", errOr(err, e))
			}
			cpu[c.name] = append(cpu[c.name], s.observer.Seconds()*1000/seconds)
			waits[c.name] = append(waits[c.name], float64(s.waits)/seconds)
		}
	}
	for _, c := range b.configs {
		if len(cpu[c.name]) > 0 {
			resultOf("probe.idle."+c.name+".own_cpu", spreadOf(cpu[c.name]), "ms/s", "")
			resultOf("probe.idle."+c.name+".wakeups", spreadOf(waits[c.name]), "per_second", "")
		}
	}
	return nil
}

// rate finds the largest number of events in a second at which nothing is lost.
func (b *bench) rate(ctx context.Context, start func(context.Context) (observer, error)) error {
	const ms, processes = 2000, 64
	var best, own []float64
	for range 3 {
		o, err := start(ctx)
		if err != nil {
			return err
		}
		a := o.(*agent)
		reached := 0.0
		for _, n := range []int{25000, 50000, 75000, 100000, 125000, 150000, 200000, 250000, 300000, 400000} {
			lost := a.host.anyLost
			w := &workload{name: "rate", unit: "chmod", args: []string{"rate", strconv.Itoa(n), strconv.Itoa(ms), strconv.Itoa(processes)}, run: work}
			var s sample
			if s, err = b.sample(ctx, o, w); err != nil || a.host.anyLost > lost {
				break
			}
			reached = max(reached, float64(s.units)/s.wall.Seconds())
			if n == 100000 {
				own = append(own, float64(s.observer)/float64(s.records))
			}
		}
		if e := o.end(ctx); err != nil || e != nil {
			return fmt.Errorf("%w", errOr(err, e))
		}
		best = append(best, reached)
	}
	resultOf("probe.lossless", spreadOf(best), "events/s", "target>=100000")
	if len(own) > 0 {
		resultOf("probe.event.own_cpu", spreadOf(own), "ns/event", "")
	}
	return nil
}

// blocked runs the same work while the host reads and while it does not, in
// turns. What finds no room meanwhile is declared lost: the books stay exact.
func (b *bench) blocked(ctx context.Context, start func(context.Context) (observer, error)) error {
	o, err := start(ctx)
	if err != nil {
		return err
	}
	a := o.(*agent)
	w := &workload{name: "mix", args: []string{"mix", strconv.Itoa(*blocked), "50"}, run: work}
	rounds, cpu := map[bool][]float64{}, map[bool][]float64{}
	turns := []bool{false, true, true, false}
	if b.rnd.IntN(2) == 0 {
		turns = []bool{true, false, false, true}
	}
	for _, shut := range turns {
		a.host.gate.set(shut)
		d, e := w.do(ctx, b.work, b.dir)
		a.host.gate.set(false)
		if err = e; err != nil {
			break
		}
		cpu[shut] = append(cpu[shut], float64(d.cpu)/float64(len(d.rounds)))
		for _, r := range d.rounds {
			rounds[shut] = append(rounds[shut], float64(r))
		}
		if err = a.drained(ctx, &d); err != nil {
			break
		}
	}
	lost := a.host.anyLost
	if e := o.end(ctx); err != nil || e != nil {
		return fmt.Errorf("%w", errOr(err, e))
	}
	reading, shut := spreadOf(rounds[false]), spreadOf(rounds[true])
	resultOf("probe.blocked.reading", reading, "ns/round", "")
	resultOf("probe.blocked.shut", shut, "ns/round", "")
	result("probe.blocked.shut_over_reading", shut.median/reading.median, "times", "target<=1.02")
	result("probe.blocked.cpu_shut_over_reading", spreadOf(cpu[true]).median/spreadOf(cpu[false]).median, "times", "target<=1.02")
	result("probe.blocked.lost", float64(lost), "records_all_declared", "-")
	return nil
}
