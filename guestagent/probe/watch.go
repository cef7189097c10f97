package probe

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// finding is what a check tells the reader, which alone speaks with the sink.
type finding struct {
	tamper *record.Tamper
	// missed, where not 0, is how many calls of a program the kernel left out.
	class  record.Class
	missed uint64
}

// watcher proves again and again that the hooks are there and fire. It is used
// from one goroutine.
type watcher struct {
	p      *Probe
	stats  *stats // of its own: they read into a buffer
	proven [types]bool
	bad    map[string]bool // what is told already, by what it is about
	missed map[string]uint64
}

func newWatcher(p *Probe) (*watcher, error) {
	s, err := newStats(p.k.maps["stats"])
	if err != nil {
		return nil, err
	}
	return &watcher{p: p, stats: s, proven: p.proven, bad: map[string]bool{}, missed: map[string]uint64{}}, nil
}

// run checks every so often until ctx ends. The reader takes the findings: while
// it is behind, checks wait, and so does nobody else.
func (w *watcher) run(ctx context.Context, every time.Duration, findings chan<- finding) {
	t := time.NewTicker(every)
	defer t.Stop()
	often := time.NewTicker(min(every, time.Second))
	defer often.Stop()
	for {
		var found []finding
		select {
		case <-ctx.Done():
			return
		case <-often.C:
			found = w.sight()
		case <-t.C:
			found = w.check(ctx)
		}
		for _, f := range found {
			select {
			case findings <- f:
			case <-ctx.Done():
				return
			}
		}
	}
}

// findings are those of a watcher under way, for the reader.
type findings struct {
	c  chan finding // full: the watcher waits
	wg sync.WaitGroup
}

// watch starts the checks. They end with ctx.
func (p *Probe) watch(ctx context.Context) (*findings, error) {
	f := &findings{c: make(chan finding, 64)}
	if p.cfg.Check <= 0 {
		return f, nil
	}
	w, err := newWatcher(p)
	if err != nil {
		return nil, err
	}
	f.wg.Go(func() { w.run(ctx, p.cfg.Check, f.c) })
	return f, nil
}

func (f *findings) wait() { f.wg.Wait() }

// collect tells what there is and returns how much that was.
func (f *findings) collect(p *Probe, sink Sink) (n int) {
	for {
		select {
		case x := <-f.c:
			p.tell(x, sink)
			n++
		default:
			return n
		}
	}
}

// check makes one round. What is wrong is told once, and once more when it is
// right again.
func (w *watcher) check(ctx context.Context) []finding {
	var all []finding
	// change notes whether something is wrong, and tells if that is new.
	change := func(about string, wrong bool, t *record.Tamper, back string) {
		if wrong == w.bad[about] {
			return
		}
		w.bad[about] = wrong
		if !wrong {
			t.Detail = back
		}
		all = append(all, finding{tamper: t})
	}
	w.canary(ctx, change)
	w.links(change)
	w.holders(change)
	return append(all, w.recursion()...)
}

// sight looks whether function tracing was turned off since the last time, and
// turns it on again. Each time is told.
func (w *watcher) sight() []finding {
	was, err := traceable(w.p.k.tracing)
	failed := err != nil
	if failed == w.bad["ftrace"] && (was || failed) {
		return nil // as before: on, or not to be seen
	}
	w.bad["ftrace"] = failed
	t := &record.Tamper{Kind: "blind", Hook: progSysctl.hook, Detail: "kernel.ftrace_enabled was 0, and hooks of functions and of BPF LSM not called: turned on again"}
	switch {
	case failed:
		t.Detail = brief(err)
	case was:
		t.Detail = "kernel.ftrace_enabled can be looked at again"
	}
	return []finding{{tamper: t}}
}

// canary expects what it has seen before.
func (w *watcher) canary(ctx context.Context, change func(string, bool, *record.Tamper, string)) {
	var seen [types]bool
	var err error
	if len(w.p.cfg.Canary) > 0 {
		seen, err = w.p.k.child(ctx, w.stats, w.p.cfg.Canary, w.p.cfg.Allocate)
	} else {
		seen, _, err = canary(w.stats, w.p.cfg.Allocate) // what cannot be done any more is not seen any more
	}
	if ctx.Err() != nil {
		return
	}
	t := &record.Tamper{Kind: "canary"}
	if err != nil {
		t.Detail = brief(err)
	}
	change("canary", err != nil, t, "it acts again")
	if err != nil {
		return
	}
	for i := range seen {
		if !w.proven[i] {
			w.proven[i] = seen[i]
			continue
		}
		class := kinds[i].class
		change(fmt.Sprint("type ", i), !seen[i], &record.Tamper{Kind: "canary", Hook: w.p.hookOf(class), Detail: class.String() + " is not seen any more"},
			class.String()+" is seen again")
	}
}

// links looks after what the programs hang on.
func (w *watcher) links(change func(string, bool, *record.Tamper, string)) {
	for name, l := range w.p.k.links {
		err := attached(l)
		t := &record.Tamper{Kind: "detach", Hook: name}
		if err != nil {
			t.Detail = brief(err)
		}
		change("link "+name, err != nil, t, "attached again")
	}
}

// holders looks for others that hold the maps.
func (w *watcher) holders(change func(string, bool, *record.Tamper, string)) {
	held, err := w.p.holders.look()
	t := &record.Tamper{Kind: "hold", Hook: progHolders.hook, Detail: describeHeld(held)}
	if err != nil {
		t.Detail = brief(err)
	}
	change("holders", err != nil || len(held) > 0, t, "nobody else holds a map any more")
}

func attached(l link.Link) error {
	i, err := l.Info()
	if err != nil {
		return fmt.Errorf("examine link: %w", err)
	}
	if c := i.Cgroup(); c != nil && c.CgroupId == 0 {
		return fmt.Errorf("link %d is detached from its control group", i.ID)
	}
	return nil
}

// recursion counts what the kernel left out because a program ran already.
func (w *watcher) recursion() []finding {
	var all []finding
	for name, p := range w.p.k.programs {
		s, err := p.Stats()
		if err != nil {
			continue // before 5.12 nothing counts them; the links were examined above
		}
		n := s.RecursionMisses
		if before := w.missed[name]; n > before {
			all = append(all, finding{class: w.p.classes[name], missed: n - before})
		}
		w.missed[name] = n
	}
	return all
}

// hookOf is what covers a class, as the hooks record has it.
func (p *Probe) hookOf(class record.Class) string {
	for _, h := range p.hooks.Hooks {
		if record.Class(h.Class) == class {
			return h.Name
		}
	}
	return ""
}

// tell gives a finding to the sink.
func (p *Probe) tell(f finding, sink Sink) {
	if f.missed > 0 {
		sink.Lose(record.NoLane, f.class, record.LossReason_LOSS_REASON_MISSED, f.missed)
		return
	}
	e := &record.Event{Tamper: f.tamper, Reason: f.tamper.Kind}
	if self := p.dec.table.live[uint32(os.Getpid())]; self != nil {
		// Who did it is not known: what is told is the agent, as its own witness.
		e.Process = self.subject(self.image.Pid, uint32(os.Geteuid()), self.mntns)
		self.kin(e)
		e.Object = self.image
	}
	payload, err := record.Encode(e)
	if err != nil {
		p.cfg.Log.ErrorContext(context.Background(), "finding cannot be told", "kind", f.tamper.Kind, "error", err)
		return
	}
	p.cfg.Log.WarnContext(context.Background(), "check of the hooks", "kind", f.tamper.Kind, "hook", f.tamper.Hook, "detail", f.tamper.Detail)
	sink.Observe(record.Header{Class: record.ClassAgentTamper, Lane: record.NoLane, Time: bootTime()}, payload)
}

// prove marks what the canary has seen in the hooks record.
func (p *Probe) prove(seen [types]bool) {
	p.proven = seen
	for _, h := range p.hooks.Hooks {
		h.Proven = h.Name != "" && slices.ContainsFunc(allTypes(), func(t bpf.ProbeEventType) bool {
			return seen[t] && kinds[t].class == record.Class(h.Class)
		})
	}
}

func allTypes() []bpf.ProbeEventType {
	all := make([]bpf.ProbeEventType, types)
	for i := range all {
		all[i] = bpf.ProbeEventType(i)
	}
	return all
}
