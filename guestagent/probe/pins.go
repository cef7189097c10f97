package probe

// maxPinBytes bounds what is kept of processes for what is told of them late.
const maxPinBytes = 1 << 20

// pins keeps processes whose acts the kernel adds up: they may have ended, or
// run another program, before the sum is told.
type pins struct {
	all   map[identity]pin
	bytes int
}

func newPins() *pins { return &pins{all: map[identity]pin{}} }

type identity struct {
	pid   uint32
	start uint64
}

type pin struct {
	p     *process
	until uint64
	bytes int
}

// hold keeps a process for some more sums. When too much is held, a sum has
// the number and the start of the process only.
func (s *pins) hold(pid uint32, p *process, now uint64) {
	id := identity{pid, p.start}
	old := s.all[id].bytes
	n := p.size()
	if s.bytes-old+n > maxPinBytes {
		return
	}
	s.bytes += n - old
	s.all[id] = pin{p, now + 3*uint64(sumEvery), n}
}

// sweep lets go of those that nothing was told of for long.
func (s *pins) sweep(now uint64) {
	for id, x := range s.all {
		if x.until < now {
			s.bytes -= x.bytes
			delete(s.all, id)
		}
	}
}

// then is the process as it was when a sum began.
func (d *decoder) then(pid uint32, start, first uint64) *process {
	x, held := d.pins.all[identity{pid, start}]
	if p := d.table.live[pid]; p != nil && p.start == start && (!held || p.since <= first) {
		return p
	}
	if held {
		return x.p
	}
	return d.table.find(pid, start)
}
