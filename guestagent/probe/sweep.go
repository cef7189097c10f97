package probe

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// sweepEvery is how long the table rests between two comparisons with what
// runs: a listing takes a microsecond or so for each process.
const sweepEvery = 2 * time.Second

// sweep is the comparison of a table with the kernel's listing. What the listing
// does not have has ended, and the event of that was lost; but events of its
// life may still be in the rings. So it is forgotten when they have given all
// up to the time of the listing.
type sweep struct {
	wanted bool   // ends of processes were lost, or there is no room
	number uint64 // of listings
	taken  uint64 // time of the listing under way; 0: none
	next   uint64 // time of the next
	// newer are processes whose image the listing has newer than the table:
	// the execution is in the rings yet, or lost.
	newer map[identity]bpf.ProbeEventTask
}

// begin says whether it is time for a listing, and notes that it is made.
func (s *sweep) begin(now uint64) bool {
	if !s.wanted || s.taken != 0 || now < s.next {
		return false
	}
	s.wanted, s.taken, s.next = false, now, now+uint64(sweepEvery)
	s.newer = map[identity]bpf.ProbeEventTask{}
	s.number++
	return true
}

// listed notes a process that runs.
func (t *table) listed(x *bpf.ProbeEventTask) {
	if p := t.live[x.Tgid]; p != nil && p.start == x.Start {
		p.swept, p.hidden = t.sweep.number, false
		if behind(p, x) && len(t.sweep.newer) < maxNewer {
			t.sweep.newer[identity{x.Tgid, x.Start}] = *x
		}
	}
}

// maxNewer bounds how many images are renewed by one listing.
const maxNewer = 1024

// behind says whether the table has an older image of a process than a listing.
func behind(p *process, x *bpf.ProbeEventTask) bool {
	return int32((x.Flags>>1-p.number)<<1) > 0
}

// renew enters what the listing had of processes whose execution was lost. What
// the program is called is what /proc has by now.
func (t *table) renew() {
	for id, x := range t.sweep.newer {
		old := t.live[id.pid]
		if old == nil || old.start != id.start || !behind(old, &x) {
			continue // told meanwhile, or ended
		}
		p := &process{start: id.start, ppid: old.ppid, parentStart: old.parentStart, lineage: old.lineage,
			execs: old.execs + (x.Flags>>1 - old.number), flags: record.ProcessSnapshot}
		p.fill(&x)
		exe, deleted := executable(id.pid)
		if deleted {
			p.flags |= record.ProcessDeleted
		}
		p.setImage(id.pid, comm(&x), exe)
		t.put(id.pid, p)
		p.swept = t.sweep.number
	}
	t.sweep.newer = nil
}

// bury forgets what the listing did not have, once the rings have given
// everything up to told. What only /proc has is asked for there.
func (t *table) bury(told uint64) (n int) {
	s := &t.sweep
	if s.taken == 0 || told < s.taken {
		return 0
	}
	t.renew()
	for pid, p := range t.live {
		if p.swept == s.number || p.start >= s.taken || p.hidden && t.lookup != nil && t.lookup(pid, p.start) != nil {
			continue
		}
		t.forget(pid, p)
		n++
	}
	s.taken = 0
	if n > 0 {
		t.recount()
	}
	return n
}

// recount makes the books of orphaned images exact. When they still take more
// than a quarter of the room, processes lose their farther ancestors.
func (t *table) recount() {
	if t.orphans <= maxTableBytes/8 || t.orphans-t.counted < maxTableBytes/16 {
		return
	}
	defer func() { t.counted = t.orphans }()
	own := make(map[*record.Process]bool, len(t.live))
	for _, p := range t.live {
		own[p.image] = true
	}
	count := func() {
		seen := map[*record.Process]bool{}
		t.orphans = 0
		for _, p := range t.live {
			for _, i := range p.lineage {
				if !own[i] && !seen[i] {
					seen[i] = true
					t.orphans += imageBytes + len(i.Executable)
				}
			}
		}
	}
	if count(); t.orphans <= maxTableBytes/8 {
		return
	}
	for _, p := range t.live {
		// A copy: the old one holds the others.
		p.lineage = append([]*record.Process(nil), p.lineage[:min(1, len(p.lineage))]...)
		p.heirs = nil
	}
	count()
}

// sweepTable compares the table with what runs, if it is time to.
func (p *Probe) sweepTable(now uint64) error {
	t := p.dec.table
	if p.stats.unsure {
		p.stats.unsure, t.sweep.wanted = false, true
	}
	if !t.sweep.begin(now) {
		return nil
	}
	return p.k.list(func(x *bpf.ProbeEventTask) { t.listed(x) })
}

// list calls f for each process, in the order of the kernel's listing.
func (k *kernel) list(f func(*bpf.ProbeEventTask)) error {
	r, err := k.tasks.Open()
	if err != nil {
		return fmt.Errorf("open %s: %w", progTasks.hook, err)
	}
	defer r.Close()
	const size = int(unsafe.Sizeof(bpf.ProbeEventTask{}))
	// A read ends between two processes or within one.
	buf, have := make([]byte, 512*size), 0
	for {
		n, err := r.Read(buf[have:])
		have += n
		b := buf[:have]
		for ; len(b) >= size; b = b[size:] {
			x, _ := as[bpf.ProbeEventTask](b) // long enough
			f(&x)
		}
		have = copy(buf, b)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("list processes: %w", err)
		}
	}
}

// lookupsPerSecond bounds how often /proc is asked for a process: each takes
// some system calls of the goroutine that empties the rings.
const lookupsPerSecond = 200

// allowance lets something happen so many times a second, and as often at once
// after a second of rest.
type allowance struct {
	now  func() uint64
	paid uint64 // time up to which all that was taken is paid for
}

func (a *allowance) take() bool {
	const cost = uint64(time.Second) / lookupsPerSecond
	now := a.now()
	if from := now - min(now, uint64(time.Second)); a.paid < from {
		a.paid = from
	}
	if a.paid+cost > now {
		return false
	}
	a.paid += cost
	return true
}
