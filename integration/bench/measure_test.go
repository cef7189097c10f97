package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// bench is what all measurements share.
type bench struct {
	work, dir string
	configs   []config
	rnd       *rand.Rand
	spare     int // milliseconds that an observer is given after a workload
}

// config is a way to observe.
type config struct {
	name  string
	start func(context.Context) (observer, error)
	only  map[string]bool // workloads, nil: all
}

// samples by workload and configuration; the index is the repetition.
type samples map[string]map[string][]sample

// repeat runs every workload under every configuration, in random order, once
// in each repetition.
func (b *bench) repeat(ctx context.Context, all []*workload, repetitions int) (samples, *totals, error) {
	got, sum := samples{}, &totals{}
	for _, w := range all {
		got[w.name] = map[string][]sample{}
	}
	for r := range repetitions {
		for _, c := range b.rnd.Perm(len(b.configs)) {
			if err := b.once(ctx, &b.configs[c], all, got, sum); err != nil {
				return nil, nil, fmt.Errorf("repetition %d, configuration %s: %w", r+1, b.configs[c].name, err)
			}
		}
		note("repetition %d of %d, load %s, %d programs of others", r+1, repetitions, load(), sum.strangers)
	}
	return got, sum, nil
}

// totals are figures of the observers over all workloads.
type totals struct {
	rss, hwm      uint64 // the largest
	records       uint64
	ring          uint64 // bytes
	payload, wire uint64 // bytes
	lost, folded  uint64
	strangers     int
	peerEvents    uint64
	peerDrops     uint64
	peerBytes     uint64
}

func (b *bench) once(ctx context.Context, c *config, all []*workload, got samples, sum *totals) error {
	o, err := c.start(ctx)
	if err != nil {
		return err
	}
	err = b.under(ctx, c, o, all, got, sum)
	if e := o.end(ctx); e != nil {
		return errors.Join(err, e)
	}
	switch o := o.(type) {
	case *agent:
		sum.records += o.host.records
		sum.payload += o.host.payload
		sum.wire += o.host.gate.read()
		sum.lost += o.host.anyLost
		sum.folded += o.host.folded
	case *peer:
		if c.only == nil {
			sum.peerEvents += o.events
			sum.peerDrops += o.drops
			sum.peerBytes += o.bytes
		}
	}
	return err
}

func (b *bench) under(ctx context.Context, c *config, o observer, all []*workload, got samples, sum *totals) error {
	var err error
	if sum.strangers, err = strangers(o.pids()...); err != nil {
		return err
	}
	for _, i := range b.rnd.Perm(len(all)) {
		w := all[i]
		if c.only != nil && !c.only[w.name] {
			continue
		}
		s, err := b.sample(ctx, o, w)
		if err != nil {
			return err
		}
		got[w.name][c.name] = append(got[w.name][c.name], s)
		sum.ring += s.ring
	}
	if a, ok := o.(*agent); ok {
		u, err := usageOf(a.p.pid())
		if err != nil {
			return err
		}
		sum.rss, sum.hwm = max(sum.rss, u.rss), max(sum.hwm, u.hwm)
	}
	return nil
}

// sample runs one workload. Both observers get the same time to come to the
// end of it, and what they use in that time counts.
func (b *bench) sample(ctx context.Context, o observer, w *workload) (sample, error) {
	before, err := b.usage(o)
	if err != nil {
		return sample{}, err
	}
	d, err := w.do(ctx, b.work, b.dir)
	if err != nil {
		return sample{}, err
	}
	if _, err := idle(b.spare).do(ctx, b.work, b.dir); err != nil {
		return sample{}, err
	}
	after, err := b.usage(o)
	if err != nil {
		return sample{}, err
	}
	s := sample{wall: d.wall, cpu: d.cpu, observer: after.cpu - before.cpu, waits: after.waits - before.waits, units: d.counts[w.unit]}
	if err := o.drained(ctx, &d); err != nil {
		return sample{}, fmt.Errorf("books of workload %s: %w", w.name, err)
	}
	end, err := b.usage(o)
	if err != nil {
		return sample{}, err
	}
	s.records, s.ring = end.records-before.records, end.ring-before.ring
	return s, nil
}

// used is what observers have used and told.
type used struct {
	usage
	records, ring uint64
}

func (b *bench) usage(o observer) (used, error) {
	var sum used
	for _, pid := range o.pids() {
		u, err := usageOf(pid)
		if err != nil {
			return sum, err
		}
		sum.cpu += u.cpu
		sum.waits += u.waits
	}
	if a, ok := o.(*agent); ok {
		var err error
		if sum.ring, err = ringBytes(a.p.pid()); err != nil {
			return sum, err
		}
		sum.records = a.host.records
	}
	return sum, nil
}

// paired computes a figure from the runs of one repetition each.
func paired(a, b []sample, f func(a, b *sample) float64) spread {
	var v []float64
	for i := range min(len(a), len(b)) {
		v = append(v, f(&a[i], &b[i]))
	}
	return spreadOf(v)
}

// compare prints what a workload costs under each configuration.
func (b *bench) compare(w *workload, by map[string][]sample) {
	off := by["off"]
	perUnit := func(d time.Duration, s *sample) float64 { return float64(d) / float64(max(1, s.units)) }
	resultOf("probe."+w.name+".off.wall", paired(off, off, func(s, _ *sample) float64 { return perUnit(s.wall, s) }), "ns/"+w.unit, "")
	for _, c := range b.configs {
		x := by[c.name]
		if c.name == "off" || len(x) == 0 {
			continue
		}
		name := "probe." + w.name + "." + c.name
		resultOf(name+".wall", paired(x, off, func(x, o *sample) float64 { return 100 * (float64(x.wall)/float64(o.wall) - 1) }), "%", "")
		resultOf(name+".total_cpu", paired(x, off, func(x, o *sample) float64 { return 100 * (x.total()/o.total() - 1) }), "%", "")
		resultOf(name+".own_cpu", paired(x, x, func(s, _ *sample) float64 { return perUnit(s.observer, s) }), "ns/"+w.unit, "")
	}
	agent, peer := by["agent"], by["peer"]
	if len(peer) == 0 {
		note("left out: probe.%s.agent_over_peer.*: SCAP_OPEN is not set", w.name)
		return
	}
	over := func(figure string, f func(*sample) float64) {
		a := paired(agent, off, func(x, o *sample) float64 { return f(x) - f(o) })
		p := paired(peer, off, func(x, o *sample) float64 { return f(x) - f(o) })
		if p.median <= 0 || a.median <= 0 {
			note("probe.%s.agent_over_peer.%s: no ratio, the added times are %.3g and %.3g ms", w.name, figure, a.median/1e6, p.median/1e6)
			return
		}
		result("probe."+w.name+".agent_over_peer."+figure, a.median/p.median, "times", "target<=1")
	}
	over("wall", func(s *sample) float64 { return float64(s.wall) })
	over("total_cpu", (*sample).total)
}
