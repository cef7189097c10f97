package index

// automaton finds the words that stand anywhere in a text, reading it once
// (Aho-Corasick, all transitions made beforehand).
type automaton struct {
	class [256]uint16 // of bytes; 0 for those in no word
	width int
	next  []int32 // width transitions for each node; 0 is the start
	found []int32 // posting of the word that ends at the node, none for none
	// also is the nearest node at which a shorter word ends that the node's
	// text ends in; 0 for none.
	also []int32
}

// maxTable bounds the transitions of one automaton. Words are cut where there
// would be more: a cut word is in each text that the word is in.
const maxTable = 1 << 22

func newAutomaton(list []word) *automaton {
	for _, cut := range []int{64, 16, 8} {
		if a := buildAutomaton(list, cut, maxTable); a != nil {
			return a
		}
	}
	return buildAutomaton(list, 4, 1<<31-1)
}

// buildAutomaton returns nil where the table would have more than limit
// transitions.
func buildAutomaton(list []word, cut, limit int) *automaton {
	a := &automaton{width: 1}
	for _, w := range list {
		for _, c := range []byte(w.text[:min(len(w.text), cut)]) {
			if a.class[c] == 0 {
				a.class[c] = uint16(a.width)
				a.width++
			}
		}
	}
	a.node()
	for _, w := range list {
		at := int32(0)
		for _, c := range []byte(w.text[:min(len(w.text), cut)]) {
			to := int(at)*a.width + int(a.class[c])
			if a.next[to] == 0 {
				if len(a.next) > limit-a.width {
					return nil
				}
				n := a.node() // moves the table
				a.next[to] = n
			}
			at = a.next[to]
		}
		a.end(at, w.posting)
	}
	a.link()
	return a
}

func (a *automaton) node() int32 {
	a.next = append(a.next, make([]int32, a.width)...)
	a.found, a.also = append(a.found, none), append(a.also, 0)
	return int32(len(a.found) - 1)
}

// end has a node name a posting. Words that were cut may end at the same node:
// the others get nodes of their own, which are reached from it alone.
func (a *automaton) end(at, posting int32) {
	for a.found[at] != none {
		if a.also[at] == 0 {
			extra := a.node()
			a.also[at] = extra
		}
		at = a.also[at]
	}
	a.found[at] = posting
}

// link gives each node the transitions of the longest proper end of its text
// that is a node too, in order of length.
func (a *automaton) link() {
	fail := make([]int32, len(a.found))
	var queue []int32
	for _, n := range a.next[:a.width] {
		if n != 0 {
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		f := fail[at]
		last := at // behind the words that end here
		for a.also[last] != 0 {
			last = a.also[last]
		}
		if a.found[f] != none {
			a.also[last] = f
		} else {
			a.also[last] = a.also[f]
		}
		for c := 1; c < a.width; c++ {
			child, other := &a.next[int(at)*a.width+c], a.next[int(f)*a.width+c]
			if *child == 0 {
				*child = other
				continue
			}
			fail[*child] = other
			queue = append(queue, *child)
		}
	}
}

func (a *automaton) find(t string, s *Scratch) {
	at := 0
	for i := 0; i < len(t); i++ {
		c := int(a.class[t[i]])
		if c == 0 {
			at = 0
			continue
		}
		at = int(a.next[at*a.width+c])
		for n := at; n != 0; n = int(a.also[n]) {
			if p := a.found[n]; p >= 0 {
				s.post(p)
			}
		}
	}
}
