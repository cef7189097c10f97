package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"sort"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/provostd/provost/rules/event"
)

// param is what an argument of a function must be; the checker enforces it
// before anything is compiled.
type param uint8

const (
	pText    param = iota + 1 // string
	pRegexp                   // constant RE2 pattern
	pGlob                     // constant wildcard pattern
	pDir                      // string; a constant must be an absolute path
	pDirs                     // constant list of absolute paths
	pList                     // list of strings or numbers
	pTexts                    // list of strings
	pScalar                   // string or number
	pSized                    // string or list
	pAddress                  // address field
	pCIDRs                    // constant CIDR prefix or list of them
	pNumber                   // number
	pPorts                    // constant list of ports and ranges
	pBools                    // list of bools
	pField                    // a field
	pIndex                    // constant whole number from 0
)

var paramNames = [...]string{
	pText: "string", pRegexp: "constant regular expression", pGlob: "constant pattern",
	pDir: "directory", pDirs: "constant list of directories", pList: "list of strings or numbers",
	pTexts: "list of strings", pScalar: "string or number", pSized: "string or list", pAddress: "address field",
	pCIDRs: "constant list of prefixes", pNumber: "number", pPorts: "constant list of ports",
	pBools: "list of true/false values", pField: "field", pIndex: "constant whole number from 0",
}

// fn is one function of the language.
type fn struct {
	name   string
	params []param
	ret    cty.Type
	// impl is the oracle's form. Arguments are known; missing ones are null.
	impl func(args []cty.Value) (cty.Value, error)
	// ofEvent marks functions that read the event besides their arguments.
	ofEvent bool
	doc     string
}

// plannedFuncs are functions of the language that this version refuses.
var plannedFuncs = map[string]bool{"hour": true, "weekday": true, "between": true, "base64_contains": true}

var functions = make(map[string]*fn)
var functionNames []string

func init() {
	for _, f := range functionTable() {
		functions[f.name] = f
		functionNames = append(functionNames, f.name)
	}
	sort.Strings(functionNames)
}

var textPredicateDocs = map[string]string{
	"startswith":  "whether the first string starts with the second",
	"endswith":    "whether the first string ends with the second",
	"strcontains": "whether the first string has the second in it",
	"equals":      "whether the strings are equal; false where one is missing",
}

func functionTable() []*fn {
	table := []*fn{
		{name: "trimspace", params: []param{pText}, ret: cty.String, impl: textMap(trimSpace), doc: "s without space at both ends"},
		{name: "lower", params: []param{pText}, ret: cty.String, impl: textMap(lower), doc: "s in lower case"},
		{name: "upper", params: []param{pText}, ret: cty.String, impl: textMap(upper), doc: "s in upper case"},
		{name: "basename", params: []param{pText}, ret: cty.String, impl: textMap(baseName), doc: "last component of a path"},
		{name: "dirname", params: []param{pText}, ret: cty.String, impl: textMap(dirName), doc: "path without its last component"},
		{name: "extension", params: []param{pText}, ret: cty.String, impl: textMap(event.Extension), doc: "what follows the last dot of a file name"},
		{name: "length", params: []param{pSized}, ret: cty.Number, impl: lengthImpl, doc: "number of characters or elements; 0 for a missing one"},
		{name: "entropy", params: []param{pText}, ret: cty.Number, impl: entropyImpl, doc: "Shannon entropy in bits for each byte; 0 for a missing string"},
		{name: "contains", params: []param{pList, pScalar}, ret: cty.Bool, impl: containsImpl, doc: "whether the list has the value"},
		{name: "intersects", params: []param{pTexts, pTexts}, ret: cty.Bool, impl: intersectsImpl, doc: "whether the lists share an element"},
		{name: "anytrue", params: []param{pBools}, ret: cty.Bool, impl: boolsImpl(false), doc: "whether any element is true"},
		{name: "alltrue", params: []param{pBools}, ret: cty.Bool, impl: boolsImpl(true), doc: "whether all elements are true; true for an empty list"},
		{name: "under", params: []param{pText, pDir}, ret: cty.Bool, impl: textPredicate(under), doc: "whether the path is the directory or below it, by components"},
		{name: "under_any", params: []param{pText, pDirs}, ret: cty.Bool, impl: underAnyImpl, doc: "under any of the directories"},
		{name: "in_cidr", params: []param{pAddress, pCIDRs}, ret: cty.Bool, impl: inCIDRImpl, doc: "whether the address is in any of the prefixes"},
		{name: "is_private", params: []param{pAddress}, ret: cty.Bool, impl: addrPredicate(isPrivate), doc: "whether the address is private, loopback, link-local or shared"},
		{name: "is_external", params: []param{pAddress}, ret: cty.Bool, impl: addrPredicate(isExternal), doc: "whether the address is neither private nor multicast, unspecified or broadcast"},
		{name: "port_in", params: []param{pNumber, pPorts}, ret: cty.Bool, impl: portInImpl, doc: "whether the port is in the list of ports and ranges"},
		{name: "has", params: []param{pField}, ret: cty.Bool, impl: hasImpl, doc: "whether the field is present; a list, whether it has elements"},
		{name: "argv", params: []param{pIndex}, ret: cty.String, ofEvent: true, doc: "the n-th element of process.args; missing beyond its end"},
		{name: "has_arg", params: []param{pText}, ret: cty.Bool, ofEvent: true, doc: "whether process.args has the string"},
	}
	for name, f := range textPredicates {
		table = append(table,
			&fn{name: name, params: []param{pText, pText}, ret: cty.Bool, impl: textPredicate(f), doc: textPredicateDocs[name]},
			&fn{name: name + "_i", params: []param{pText, pText}, ret: cty.Bool, impl: textPredicate(folded(f)), doc: textPredicateDocs[name] + ", without regard to case"})
	}
	for _, fold := range []bool{false, true} {
		suffix := ""
		if fold {
			suffix = "_i"
		}
		table = append(table,
			&fn{name: "matches" + suffix, params: []param{pText, pRegexp}, ret: cty.Bool, impl: matchImpl(fold, compileRegexp), doc: "whether the RE2 expression matches anywhere in the string" + withoutCase(fold)},
			&fn{name: "glob" + suffix, params: []param{pText, pGlob}, ret: cty.Bool, impl: matchImpl(fold, compileGlob), doc: "whether the pattern of *, ?, [...] fits the whole string" + withoutCase(fold)})
	}
	table = append(table, &fn{name: "contains_i", params: []param{pTexts, pText}, ret: cty.Bool, impl: containsFoldImpl, doc: "contains without regard to case"})
	return table
}

func withoutCase(fold bool) string {
	if fold {
		return ", without regard to case"
	}
	return ""
}

func folded(f func(s, t string) bool) func(s, t string) bool {
	return func(s, t string) bool { return f(lower(s), lower(t)) }
}

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

// ctyFunction makes the oracle's form of f. HCL must not convert arguments,
// so all parameters take any type; the checker has seen the types already.
func ctyFunction(f *fn, impl func([]cty.Value) (cty.Value, error)) function.Function {
	params := make([]function.Parameter, len(f.params))
	for i := range params {
		params[i] = function.Parameter{Name: fmt.Sprintf("arg%d", i+1), Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true}
	}
	spec := &function.Spec{
		Params: params,
		Type:   function.StaticReturnType(f.ret),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, a := range args {
				// A tuple is known when its elements are not. Only anytrue and
				// alltrue can say something then.
				if !a.IsWhollyKnown() && f.params[0] != pBools {
					return cty.UnknownVal(f.ret), nil
				}
			}
			return impl(args)
		},
	}
	if f.ret != cty.String {
		spec.RefineResult = func(b *cty.RefinementBuilder) *cty.RefinementBuilder { return b.NotNull() }
	}
	return function.New(spec)
}

// pureFunctions are the oracle's forms of all functions that read only their
// arguments.
var pureFunctions = func() map[string]function.Function {
	m := make(map[string]function.Function)
	for _, f := range functionTable() {
		if !f.ofEvent {
			m[f.name] = ctyFunction(f, f.impl)
		}
	}
	return m
}()

// eventFunctions returns the oracle's forms of all functions, given the
// event's process.args, which may be unknown.
func eventFunctions(args cty.Value) map[string]function.Function {
	m := make(map[string]function.Function, len(pureFunctions)+2)
	for name, f := range pureFunctions {
		m[name] = f
	}
	known := args.IsKnown()
	m["argv"] = ctyFunction(functions["argv"], func(a []cty.Value) (cty.Value, error) {
		if !known {
			return cty.UnknownVal(cty.String), nil
		}
		n, ok := wholeUint(a[0].AsBigFloat())
		if !ok || n >= uint64(args.LengthInt()) {
			return cty.NullVal(cty.String), nil
		}
		return args.Index(cty.NumberUIntVal(n)), nil
	})
	m["has_arg"] = ctyFunction(functions["has_arg"], func(a []cty.Value) (cty.Value, error) {
		if !known {
			return cty.UnknownVal(cty.Bool).RefineNotNull(), nil
		}
		return containsImpl([]cty.Value{args, a[0]})
	})
	return m
}
