package policy

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/zclconf/go-cty/cty"
)

// matcher is a compiled pattern of matches or glob.
type matcher interface{ MatchString(s string) bool }

type globMatcher struct{ *Glob }

func (g globMatcher) MatchString(s string) bool { return g.Match(s) }

func compileRegexp(pattern string, fold bool) (matcher, error) {
	if fold {
		pattern = "(?i:" + pattern + ")"
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return re, nil
}

func compileGlob(pattern string, fold bool) (matcher, error) {
	g, err := parseGlob(pattern, fold)
	if err != nil {
		return nil, err
	}
	return globMatcher{g}, nil
}

// The forms below plug plain functions into cty. A null argument makes a
// predicate false and a text missing: functions are total.

func textMap(f func(string) string) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		if a[0].IsNull() {
			return cty.NullVal(cty.String), nil
		}
		return cty.StringVal(f(a[0].AsString())), nil
	}
}

func textPredicate(f func(s, t string) bool) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		if a[0].IsNull() || a[1].IsNull() {
			return cty.False, nil
		}
		return cty.BoolVal(f(a[0].AsString(), a[1].AsString())), nil
	}
}

func addrPredicate(f func(netip.Addr) bool) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		addr, ok := addrOf(a[0])
		return cty.BoolVal(ok && f(addr)), nil
	}
}

func addrOf(v cty.Value) (netip.Addr, bool) {
	if v.IsNull() {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(v.AsString())
	return a, err == nil
}

func matchImpl(fold bool, compile func(string, bool) (matcher, error)) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		if a[0].IsNull() || a[1].IsNull() {
			return cty.False, nil
		}
		m, err := compile(a[1].AsString(), fold)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.BoolVal(m.MatchString(a[0].AsString())), nil
	}
}

func lengthImpl(a []cty.Value) (cty.Value, error) {
	switch v := a[0]; {
	case v.IsNull():
		return cty.Zero, nil
	case v.Type() == cty.String:
		return cty.NumberUIntVal(runeCount(v.AsString())), nil
	case v.CanIterateElements():
		return cty.NumberIntVal(int64(v.LengthInt())), nil
	}
	return cty.NilVal, fmt.Errorf("want a string or a list")
}

func entropyImpl(a []cty.Value) (cty.Value, error) {
	if a[0].IsNull() {
		return cty.Zero, nil
	}
	return cty.NumberFloatVal(entropy(a[0].AsString())), nil
}

// elements returns the elements of a list or tuple that are not null.
func elements(v cty.Value) []cty.Value {
	if v.IsNull() || !v.CanIterateElements() {
		return nil
	}
	var all []cty.Value
	for it := v.ElementIterator(); it.Next(); {
		if _, e := it.Element(); !e.IsNull() {
			all = append(all, e)
		}
	}
	return all
}

func containsImpl(a []cty.Value) (cty.Value, error) {
	if a[1].IsNull() {
		return cty.False, nil
	}
	for _, e := range elements(a[0]) {
		if e.Type().Equals(a[1].Type()) && e.Equals(a[1]).True() {
			return cty.True, nil
		}
	}
	return cty.False, nil
}

func containsFoldImpl(a []cty.Value) (cty.Value, error) {
	if a[1].IsNull() {
		return cty.False, nil
	}
	for _, e := range elements(a[0]) {
		if lower(e.AsString()) == lower(a[1].AsString()) {
			return cty.True, nil
		}
	}
	return cty.False, nil
}

func intersectsImpl(a []cty.Value) (cty.Value, error) {
	set := make(map[string]bool)
	for _, x := range elements(a[0]) {
		set[x.AsString()] = true
	}
	for _, y := range elements(a[1]) {
		if set[y.AsString()] {
			return cty.True, nil
		}
	}
	return cty.False, nil
}

func boolsImpl(all bool) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		if a[0].IsNull() {
			return cty.BoolVal(all), nil
		}
		result := cty.BoolVal(all)
		for _, e := range elements(a[0]) {
			switch {
			case !e.IsKnown():
				result = cty.UnknownVal(cty.Bool)
			case e.Type() != cty.Bool:
				return cty.NilVal, fmt.Errorf("want true/false values")
			case e.True() != all:
				return cty.BoolVal(!all), nil
			}
		}
		return result, nil
	}
}

func underAnyImpl(a []cty.Value) (cty.Value, error) {
	if a[0].IsNull() {
		return cty.False, nil
	}
	for _, d := range elements(a[1]) {
		if under(a[0].AsString(), d.AsString()) {
			return cty.True, nil
		}
	}
	return cty.False, nil
}

// constTexts returns the strings of a constant string or list of strings.
func constTexts(v cty.Value) ([]string, error) {
	if v.IsNull() {
		return nil, fmt.Errorf("want a value, not null")
	}
	if v.Type() == cty.String {
		return []string{v.AsString()}, nil
	}
	if !v.CanIterateElements() || v.Type().IsObjectType() || v.Type().IsMapType() {
		return nil, fmt.Errorf("want a list of strings")
	}
	all := make([]string, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			return nil, fmt.Errorf("want a list of strings")
		}
		all = append(all, e.AsString())
	}
	return all, nil
}

func inCIDRImpl(a []cty.Value) (cty.Value, error) {
	addr, ok := addrOf(a[0])
	if !ok {
		return cty.False, nil
	}
	texts, err := constTexts(a[1])
	if err != nil {
		return cty.NilVal, err
	}
	for _, s := range texts {
		p, err := parsePrefix(s)
		if err != nil {
			return cty.NilVal, err
		}
		if p.Contains(addr) {
			return cty.True, nil
		}
	}
	return cty.False, nil
}

// constPorts reads a port, a range as text, or a list of both.
func constPorts(v cty.Value) ([]portRange, error) {
	var all []portRange
	list := []cty.Value{v}
	if !v.IsNull() && v.CanIterateElements() {
		list = nil
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			list = append(list, e)
		}
	}
	for _, e := range list {
		var text string
		switch {
		case e.IsNull():
			return nil, fmt.Errorf("want a port, not null")
		case e.Type() == cty.String:
			text = e.AsString()
		case e.Type() == cty.Number:
			text = e.AsBigFloat().Text('f', -1)
		default:
			return nil, fmt.Errorf("want ports as numbers, or ranges such as \"8000-8999\"")
		}
		r, err := parsePort(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func portInImpl(a []cty.Value) (cty.Value, error) {
	if a[0].IsNull() {
		return cty.False, nil
	}
	set, err := constPorts(a[1])
	if err != nil {
		return cty.NilVal, err
	}
	n, ok := wholeUint(a[0].AsBigFloat())
	return cty.BoolVal(ok && inPorts(set, n)), nil
}

func hasImpl(a []cty.Value) (cty.Value, error) {
	if a[0].IsNull() {
		return cty.False, nil
	}
	if a[0].Type().IsListType() {
		return cty.BoolVal(a[0].LengthInt() > 0), nil
	}
	return cty.True, nil
}
