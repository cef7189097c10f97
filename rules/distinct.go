package rules

// scanned is how many values a threshold with distinct looks through for each event.
// With more it keeps where each of them stands.
const scanned = 32

// newest says where the newest instant of each value stands in a ring. Older ones of the
// same value stay in their places until the ring is half of them: taking one out of the
// middle would move all behind it, for every event of a guest that repeats itself. They
// are not counted, saved or accounted for, so they change nothing of what is decided.
type newest struct {
	at   map[key]uint64 // number of the instant
	head uint64         // number of the first in the ring
}

// counted returns how many instants of a slot count.
func (s *slot) counted() int {
	if s.newest != nil {
		return len(s.newest.at)
	}
	return s.ring.n
}

// stale reports whether a newer instant of the same value makes one not count.
func (s *slot) stale(i int) bool {
	return s.newest != nil && s.newest.at[s.ring.at(i).value] != s.newest.head+uint64(i)
}

// pushDistinct adds an instant, and takes that of the same value away.
func (s *slot) pushDistinct(x instant) {
	if s.newest == nil && s.ring.n >= scanned {
		s.newest = &newest{at: make(map[key]uint64, 2*s.ring.n)}
		for i := range s.ring.n {
			s.newest.at[s.ring.at(i).value] = uint64(i)
		}
	}
	if s.newest == nil {
		for i := range s.ring.n {
			if s.ring.at(i).value == x.value {
				s.ring.remove(i)
				break
			}
		}
		s.ring.push(x)
		return
	}
	s.newest.at[x.value] = s.newest.head + uint64(s.ring.n)
	s.ring.push(x)
	if s.ring.n >= 2*len(s.newest.at)+scanned {
		s.settle()
	}
}

// expire drops what is not later than a time.
func (s *slot) expire(until int64) {
	if s.newest == nil {
		s.ring.expire(until)
		return
	}
	for s.ring.n > 0 && (s.ring.at(0).mono <= until || s.stale(0)) {
		if !s.stale(0) {
			delete(s.newest.at, s.ring.at(0).value)
		}
		s.ring.pop()
		s.newest.head++
	}
	if len(s.newest.at) < scanned/2 {
		s.settle()
	}
}

// settle takes out what does not count. Where many values are left, the next event
// looks again where they stand.
func (s *slot) settle() {
	if s.newest == nil {
		return
	}
	n := 0
	for i := range s.ring.n {
		if !s.stale(i) {
			*s.ring.at(n) = *s.ring.at(i)
			n++
		}
	}
	s.ring.n, s.newest = n, nil
}
