package probe

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// sumEvery is how long acts that are told as sums gather.
const sumEvery = 5 * time.Second

// sums are the acts that the programs add up. Two maps take turns: the kernel
// lets nobody see the outer map's change before all programs that use the old
// inner one have ended, so its content is final when swap returns.
type sums struct {
	outer *ebpf.Map
	inner [2]*ebpf.Map
	cur   int
	next  uint64 // time of the next turn
}

// newSums makes both maps and lets the programs use the first.
func newSums(k *kernel) (*sums, error) {
	s := &sums{outer: k.maps["sums"]}
	for i := range s.inner {
		m, err := ebpf.NewMap(k.spec.Maps["sums"].InnerMap)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make map of sums: %w", err), s.Close())
		}
		s.inner[i] = m
	}
	if err := s.outer.Put(uint32(0), s.inner[0]); err != nil {
		return nil, errors.Join(fmt.Errorf("enter map of sums: %w", err), s.Close())
	}
	return s, nil
}

// Close lets go of the maps.
func (s *sums) Close() error {
	var errs []error
	for _, m := range s.inner {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// due says whether it is time to look.
func (s *sums) due(now uint64) bool {
	if now < s.next {
		return false
	}
	s.next = now + uint64(sumEvery)
	return true
}

// take empties what the programs have added up until now and calls f for each.
func (s *sums) take(f func(*bpf.ProbeSumKey, *bpf.ProbeSum)) error {
	m := s.inner[s.cur]
	var key bpf.ProbeSumKey
	if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for sums: %w", err)
	}
	other := 1 - s.cur
	if err := s.outer.Put(uint32(0), s.inner[other]); err != nil {
		return fmt.Errorf("change maps of sums: %w", err)
	}
	s.cur = other
	// Some hundred of them with one system call: one for each would keep the
	// rings waiting for as long as it takes to fill them.
	keys, values := make([]bpf.ProbeSumKey, sumBatch), make([]bpf.ProbeSum, sumBatch)
	for cursor := new(ebpf.MapBatchCursor); ; {
		n, err := m.BatchLookupAndDelete(cursor, keys, values, nil)
		for i := range n {
			if keys[i].Layout != uint8(bpf.ProbeSumLayoutSUM_ENTRIES) {
				f(&keys[i], &values[i])
			}
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("empty map of sums: %w", err)
		}
	}
}

// sumBatch is how many sums are taken at once: their memory is needed for a
// moment only.
const sumBatch = 256

// actorThen begins the event of a sum, and keeps its process for the next one.
func (d *decoder) actorThen(h *bpf.ProbeEventHead, s *bpf.ProbeSum) *record.Event {
	p := d.then(h.Tgid, h.Start, s.First)
	d.pins.hold(h.Tgid, p, s.Last)
	e := &record.Event{Process: p.subject(h.Tid, h.Euid, h.Mntns)}
	e.Process.ContainerId = d.groups.find(p.cgroup).container
	p.kin(e)
	return e
}

// taken are sums that are told once the rings have given everything up to their
// time: the programs and the starts of processes that the sums are about.
type taken struct {
	time uint64
	all  []oneSum
}

type oneSum struct {
	key bpf.ProbeSumKey
	sum bpf.ProbeSum
}

// takeSums takes what has been added up, if it is time to, or at the end.
func (p *Probe) takeSums(now uint64, end bool) error {
	if len(p.taken.all) > 0 && !end || !p.sums.due(now) && !end {
		return nil
	}
	err := p.sums.take(func(k *bpf.ProbeSumKey, s *bpf.ProbeSum) { p.taken.all = append(p.taken.all, oneSum{*k, *s}) })
	if err != nil {
		return fmt.Errorf("take sums: %w", err)
	}
	p.taken.time = bootTime()
	return nil
}

// tellSums makes a record of each sum that was taken, and says how many. They
// are the agent's: no lane counts them.
func (p *Probe) tellSums(sink Sink) int {
	for i := range p.taken.all {
		k, s := &p.taken.all[i].key, &p.taken.all[i].sum
		class := classOf(k.Type)
		e, err := p.dec.sum(k, s)
		var payload []byte
		if err == nil {
			payload, err = record.Encode(e)
		}
		if err != nil {
			p.cfg.Log.ErrorContext(context.Background(), "sum cannot be decoded", "type", k.Type, "error", err)
			sink.Lose(record.NoLane, class, record.LossReason_LOSS_REASON_UNDECODABLE, s.Count)
			continue
		}
		sink.Observe(record.Header{Class: class, Lane: record.NoLane, Time: s.First}, payload)
	}
	n := len(p.taken.all)
	if n > 0 {
		p.taken.all = nil // some hundreds of bytes each
		p.dec.pins.sweep(bootTime())
	}
	return n
}

// sum returns the event that stands for all acts of a sum.
func (d *decoder) sum(k *bpf.ProbeSumKey, s *bpf.ProbeSum) (*record.Event, error) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&s.Event[0])), len(s.Event))
	var e *record.Event
	switch bpf.ProbeSumLayout(k.Layout) {
	case bpf.ProbeSumLayoutSUM_FLOW:
		x, err := as[bpf.ProbeEventNet](b)
		if err != nil {
			return nil, err
		}
		x.Packets, x.Bytes = s.Count, s.Bytes
		e = d.actorThen(&x.H, s)
		e.Network = networkOf(&x)
		if k.Object == 0 && k.Place == 0 && k.Address == [16]uint8{} {
			// All for which there was no sum of their own.
			n := e.Network
			n.SourceIp, n.SourcePort, n.DestinationIp, n.DestinationPort, n.Cookie = nil, 0, nil, 0, 0
			e.Reason = "others"
			break
		}
		d.name(e, &x.H)
	case bpf.ProbeSumLayoutSUM_NET:
		x, err := as[bpf.ProbeEventNet](b)
		if err != nil {
			return nil, err
		}
		e = d.actorThen(&x.H, s)
		e.Network = networkOf(&x)
		d.name(e, &x.H)
	case bpf.ProbeSumLayoutSUM_FILE:
		x, err := as[bpf.ProbeEventFile](b)
		if err != nil {
			return nil, err
		}
		t := tailOf[bpf.ProbeEventFile](b)
		names := t.next(x.PathLen)
		if t.err != nil {
			return nil, t.err
		}
		f := bpf.ProbeEventFlag(s.Flags)
		e = d.actorThen(&x.H, s)
		// What the acts have in common is the directory.
		e.File = &record.File{Path: pathOf(names, f&bpf.ProbeEventFlagFL_PATH_TRUNC != 0, f&bpf.ProbeEventFlagFL_DETACHED != 0),
			Device: device(x.Dev), Inode: x.Ino, Mode: x.Mode, Flags: fileFlags(f), Bytes: s.Bytes}
	case bpf.ProbeSumLayoutSUM_MEMORY:
		x, err := as[bpf.ProbeEventMemory](b)
		if err != nil {
			return nil, err
		}
		e = d.actorThen(&x.H, s)
		e.Memory = memoryOf(&x)
		e.Memory.Length = s.Bytes // of all together
	case bpf.ProbeSumLayoutSUM_HEAD:
		h, err := as[bpf.ProbeEventHead](b)
		if err != nil {
			return nil, err
		}
		e = d.actorThen(&h, s)
	default:
		return nil, fmt.Errorf("sum of unknown layout %d", k.Layout)
	}
	e.Until = s.Last
	if layout := bpf.ProbeSumLayout(k.Layout); layout != bpf.ProbeSumLayoutSUM_FLOW || s.Count > 1 {
		e.Count = s.Count
		e.Flags |= record.EventAggregated
	}
	return e, nil
}

var sumKinds = map[bpf.ProbeEventType]kind{
	bpf.ProbeEventTypeEV_AGGREGATE: {record.ClassAgentAggregating, (*decoder).aggregating},
}

// aggregating tells that a process went over its budget, so that what follows
// is told as sums, or that it is within its budget again.
func (d *decoder) aggregating(b []byte) (*record.Event, error) {
	x, err := as[bpf.ProbeEventAggregate](b)
	if err != nil {
		return nil, err
	}
	e := d.actor(&x.H)
	e.Reason = "ended"
	if x.H.Arg != 0 {
		e.Reason = "began"
		d.pins.hold(x.H.Tgid, d.known(&x.H), x.H.Time)
	}
	e.Count = x.Count
	return e, nil
}
