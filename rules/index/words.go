package index

import (
	"slices"
	"sort"
	"strings"

	"github.com/provostd/provost/rules/policy"
)

// words are the constants that one text is compared with.
type words struct {
	equal    map[string]int32
	prefixes affixes
	suffixes affixes // written backwards
	under    affixes // of the canonical path
	within   *automaton
}

// drafts collects them.
type drafts struct {
	equal, prefixes, suffixes, under, within []word
}

// word is one constant and what it names.
type word struct {
	text    string
	posting int32
}

func (d *drafts) add(a policy.Atom, posting int32) {
	w := word{a.Text, posting}
	switch a.Op {
	case policy.OpEqual:
		d.equal = append(d.equal, w)
	case policy.OpPrefix:
		d.prefixes = append(d.prefixes, w)
	case policy.OpSuffix:
		w.text = backwards(w.text)
		d.suffixes = append(d.suffixes, w)
	case policy.OpUnder:
		d.under = append(d.under, w)
	case policy.OpContains:
		d.within = append(d.within, w)
	}
}

func (d *drafts) finish(w *words) {
	if len(d.equal) > 0 {
		w.equal = make(map[string]int32, len(d.equal))
		for _, e := range d.equal {
			w.equal[e.text] = e.posting
		}
	}
	w.prefixes, w.suffixes, w.under = makeAffixes(d.prefixes), makeAffixes(d.suffixes), makeAffixes(d.under)
	if len(d.within) > 0 {
		w.within = newAutomaton(d.within)
	}
}

func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

func (w *words) find(t string, s *Scratch) {
	if w.equal != nil {
		if p, ok := w.equal[t]; ok {
			s.post(p)
		}
	}
	if len(w.prefixes) > 0 {
		w.prefixes.find(t, s)
	}
	if len(w.suffixes) > 0 {
		w.suffixes.findBackwards(t, s)
	}
	if len(w.under) > 0 {
		w.under.find(policy.Canonical(t), s)
	}
	if w.within != nil {
		w.within.find(t, s)
	}
}

// affixes are words in order. All that a text starts with stand in one chain:
// the greatest word that is not greater than the text, if any at all, starts
// with each of them.
type affixes []affix

type affix struct {
	word
	shorter int32 // the longest other word that it starts with, -1 for none
}

func makeAffixes(list []word) affixes {
	slices.SortFunc(list, func(a, b word) int { return strings.Compare(a.text, b.text) })
	all := make(affixes, len(list))
	for i, w := range list {
		j := int32(i) - 1
		for j >= 0 && !strings.HasPrefix(w.text, all[j].text) {
			j = all[j].shorter
		}
		all[i] = affix{w, j}
	}
	return all
}

func (a affixes) find(t string, s *Scratch) {
	i := sort.Search(len(a), func(i int) bool { return a[i].text > t })
	for j := int32(i) - 1; j >= 0; j = a[j].shorter {
		if strings.HasPrefix(t, a[j].text) {
			s.post(a[j].posting)
		}
	}
}

// findBackwards is find for a text that is read from its end.
func (a affixes) findBackwards(t string, s *Scratch) {
	i := sort.Search(len(a), func(i int) bool { return compareBackwards(a[i].text, t) > 0 })
	for j := int32(i) - 1; j >= 0; j = a[j].shorter {
		if w := a[j].text; len(w) <= len(t) && compareBackwards(w, t[len(t)-len(w):]) == 0 {
			s.post(a[j].posting)
		}
	}
}

// compareBackwards compares word with t read from its end.
func compareBackwards(word, t string) int {
	for i := 0; i < len(word); i++ {
		at := len(t) - 1 - i
		if at < 0 {
			return 1
		}
		if word[i] != t[at] {
			return int(word[i]) - int(t[at])
		}
	}
	if len(t) > len(word) {
		return -1
	}
	return 0
}
