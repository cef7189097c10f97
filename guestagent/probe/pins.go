package probe

// maxPins bounds how many processes are kept for what is told of them late.
const maxPins = 8192

// pins keeps processes whose acts the kernel adds up: they may have ended, or
// run another program, before the sum is told.
type pins map[identity]pin

type identity struct {
	pid   uint32
	start uint64
}

type pin struct {
	p     *process
	until uint64
}

// hold keeps a process for some more sums. When too many are held, a sum has
// the number and the start of the process only.
func (s pins) hold(pid uint32, p *process, now uint64) {
	id := identity{pid, p.start}
	if _, ok := s[id]; !ok && len(s) >= maxPins {
		return
	}
	s[id] = pin{p, now + 3*uint64(sumEvery)}
}

// sweep lets go of those that nothing was told of for long.
func (s pins) sweep(now uint64) {
	for id, x := range s {
		if x.until < now {
			delete(s, id)
		}
	}
}

// then is the process as it was when a sum began.
func (d *decoder) then(pid uint32, start, first uint64) *process {
	x, held := d.pins[identity{pid, start}]
	if p := d.table.live[pid]; p != nil && p.start == start && (!held || p.since <= first) {
		return p
	}
	if held {
		return x.p
	}
	return d.table.find(pid, start)
}
