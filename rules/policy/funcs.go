package policy

import (
	"fmt"
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
	pClock                    // constant time of the day
	pZone                     // constant time zone
	pLong                     // constant string of at least minBase64 bytes
)

var paramNames = [...]string{
	pText: "string", pRegexp: "constant regular expression", pGlob: "constant pattern",
	pDir: "directory", pDirs: "constant list of directories", pList: "list of strings or numbers",
	pTexts: "list of strings", pScalar: "string or number", pSized: "string or list", pAddress: "address field",
	pCIDRs: "constant list of prefixes", pNumber: "number", pPorts: "constant list of ports",
	pBools: "list of true/false values", pField: "field", pIndex: "constant whole number from 0",
	pClock: "constant time of the day", pZone: "constant time zone", pLong: "constant string",
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
	null    bool // a number that may be missing
	doc     string
}

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
		{name: "between", params: []param{pText, pClock, pClock, pZone}, ret: cty.Bool, impl: timeImpl(cty.False, betweenValue), doc: "whether the time is between the times of the day, the first included; over midnight if the first is later"},
		{name: "hour", params: []param{pText, pZone}, ret: cty.Number, null: true, impl: timeImpl(cty.NullVal(cty.Number), hourValue), doc: "hour of the time, 0 to 23"},
		{name: "weekday", params: []param{pText, pZone}, ret: cty.String, impl: timeImpl(cty.NullVal(cty.String), weekdayValue), doc: "day of the time: Monday to Sunday"},
		{name: "base64_contains", params: []param{pText, pLong}, ret: cty.Bool, impl: textPredicate(base64Contains), doc: "whether the string has Base64 in it of a text that has the second, of 4 bytes or more, in it"},
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
	if f.ret != cty.String && !f.null {
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
