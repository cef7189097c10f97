package policy

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxLiterals bounds the alternatives that are followed in one pattern.
const maxLiterals = 32

// pattern returns the guard of a regular expression: words of which its text
// must have one.
func (o origin) pattern(pattern string, fold bool) []Guard {
	if !o.known {
		return nil
	}
	if fold {
		pattern = "(?i:" + pattern + ")"
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	folds := hasFold(re)
	if folds {
		if o.Fold != FoldNone || o.within {
			return nil
		}
		o.Fold = FoldASCII
	}
	l := literals{folds: folds}.of(re)
	if words := l.required(); len(words) > 0 {
		return o.texts(OpContains, words...)
	}
	return nil
}

// literals finds what a text must contain for a pattern to match it. In a
// pattern which folds anywhere, words are those of the text with its ASCII
// letters in lower case.
type literals struct{ folds bool }

// found is what is known of the texts that a pattern matches: that they are
// one of exact, and that they contain one of needed. Empty means unknown.
type found struct{ exact, needed []string }

// required returns words of which one is in each matching text, or none.
func (f found) required() []string { return better(f.exact, f.needed) }

func hasFold(re *syntax.Regexp) bool {
	return re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase != 0 || slices.ContainsFunc(re.Sub, hasFold)
}

func (l literals) of(re *syntax.Regexp) found {
	switch re.Op {
	case syntax.OpLiteral:
		return l.literal(re)
	case syntax.OpCharClass:
		return l.class(re)
	case syntax.OpCapture:
		return l.of(re.Sub[0])
	case syntax.OpPlus:
		return found{needed: l.of(re.Sub[0]).required()}
	case syntax.OpRepeat:
		if re.Min > 0 {
			return found{needed: l.of(re.Sub[0]).required()}
		}
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return found{exact: []string{""}}
	case syntax.OpConcat:
		return l.concat(re.Sub)
	case syntax.OpAlternate:
		return l.alternate(re.Sub)
	}
	return found{}
}

// literal leaves out what is written in more than one way: letters that fold
// to others than ASCII ones, and U+FFFD, which also stands for bytes that are
// not UTF-8.
func (l literals) literal(re *syntax.Regexp) found {
	whole, best := true, ""
	var run strings.Builder
	end := func() {
		if run.Len() > len(best) {
			best = run.String()
		}
		run.Reset()
	}
	for _, r := range re.Rune {
		if r == utf8.RuneError || re.Flags&syntax.FoldCase != 0 && (r >= utf8.RuneSelf || strings.ContainsRune("kKsS", r)) {
			whole = false
			end()
			continue
		}
		run.WriteString(l.rune(r))
	}
	end()
	if whole {
		return found{exact: []string{best}}
	}
	return found{needed: words(best)}
}

func (l literals) rune(r rune) string {
	if l.folds && 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return string(r)
}

// class is a set of characters, if it is small.
func (l literals) class(re *syntax.Regexp) found {
	var all []string
	for i := 0; i+1 < len(re.Rune); i += 2 {
		lo, hi := re.Rune[i], re.Rune[i+1]
		if hi-lo >= maxLiterals || len(all)+int(hi-lo) >= maxLiterals || lo <= utf8.RuneError && utf8.RuneError <= hi {
			return found{}
		}
		for r := lo; r <= hi; r++ {
			all = append(all, l.rune(r))
		}
	}
	return found{exact: distinct(all)}
}

func (l literals) concat(subs []*syntax.Regexp) found {
	run := []string{""} // what the last members match together
	var needed []string
	whole := true
	for _, s := range subs {
		f := l.of(s)
		if len(f.exact) > 0 && len(f.exact)*len(run) <= maxLiterals {
			run = product(run, f.exact)
			continue
		}
		needed = better(needed, better(run, f.required()))
		run, whole = []string{""}, false
	}
	if whole {
		return found{exact: run}
	}
	return found{needed: better(needed, run)}
}

func product(a, b []string) []string {
	all := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			all = append(all, x+y)
		}
	}
	return distinct(all)
}

func (l literals) alternate(subs []*syntax.Regexp) found {
	exact := true
	var all, needed []string
	for _, s := range subs {
		f := l.of(s)
		exact = exact && len(f.exact) > 0
		all = append(all, f.exact...)
		req := f.required()
		if len(req) == 0 {
			return found{}
		}
		needed = append(needed, req...)
	}
	if len(needed) > maxLiterals || len(all) > maxLiterals {
		return found{}
	}
	if exact {
		return found{exact: distinct(all)}
	}
	return found{needed: distinct(needed)}
}

func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// better returns the list whose shortest word is longer: it is found less
// often. A list with an empty word says nothing.
func better(a, b []string) []string {
	if shortest(b) > shortest(a) {
		return b
	}
	if shortest(a) == 0 {
		return nil
	}
	return a
}

func shortest(list []string) int {
	if len(list) == 0 {
		return 0
	}
	return len(slices.MinFunc(list, func(a, b string) int { return len(a) - len(b) }))
}

func words(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
