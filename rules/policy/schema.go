package policy

import (
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// branch is a name in the tree of fields: "process", "process.parent". Leaves
// have a field.
type branch struct {
	field    *event.Info
	children map[string]*branch
	names    []string // of children, sorted
}

// schema is the tree of event.Fields, which are written with dots.
var schema = func() *branch {
	root := &branch{children: make(map[string]*branch)}
	for i := range event.Fields {
		f := &event.Fields[i]
		at := root
		for name := range strings.SplitSeq(f.Name, ".") {
			next := at.children[name]
			if next == nil {
				next = &branch{children: make(map[string]*branch)}
				at.children[name] = next
				at.names = append(at.names, name)
				sort.Strings(at.names)
			}
			at = next
		}
		at.field = f
	}
	return root
}()

var ancestorType = cty.Object(map[string]cty.Type{
	"pid": cty.Number, "start": cty.Number, "name": cty.String, "executable": cty.String,
})

// ctyType is the type of a field to HCL.
func ctyType(k event.Kind) cty.Type {
	switch k {
	case event.KindNumber:
		return cty.Number
	case event.KindBool:
		return cty.Bool
	case event.KindStrings:
		return cty.List(cty.String)
	case event.KindProcesses:
		return cty.List(ancestorType)
	}
	return cty.String
}

// source gives a value for each field: those of an event, or unknown ones.
type source func(f *event.Info) cty.Value

// object builds the value of one root. Metadata is an object with the keys
// that the expression names, so that a missing key is null and not an error.
func (b *branch) object(get source, meta func(key string) cty.Value, keys []string) cty.Value {
	if b.field != nil {
		if b.field.Kind != event.KindMap {
			return get(b.field)
		}
		if len(keys) == 0 {
			return cty.EmptyObjectVal
		}
		m := make(map[string]cty.Value, len(keys))
		for _, k := range keys {
			m[k] = meta(k)
		}
		return cty.ObjectVal(m)
	}
	m := make(map[string]cty.Value, len(b.children))
	for name, c := range b.children {
		m[name] = c.object(get, meta, keys)
	}
	return cty.ObjectVal(m)
}

// eventSource reads the fields of e. A missing true/false field is false and a
// missing list is empty; all others are null.
func eventSource(e *event.Event) source {
	return func(f *event.Info) cty.Value {
		switch f.Kind {
		case event.KindNumber:
			if n, ok := e.Num(f.Field); ok {
				return cty.NumberUIntVal(n)
			}
		case event.KindBool:
			return cty.BoolVal(e.Bool(f.Field))
		case event.KindStrings:
			return stringList(e.Strings(f.Field))
		case event.KindProcesses:
			return ancestorList(e.Ancestors())
		default:
			if s, ok := e.Str(f.Field); ok {
				return cty.StringVal(s)
			}
		}
		return cty.NullVal(ctyType(f.Kind))
	}
}

func stringList(list []string) cty.Value {
	if len(list) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	vals := make([]cty.Value, len(list))
	for i, s := range list {
		vals[i] = cty.StringVal(s)
	}
	return cty.ListVal(vals)
}

func ancestorList(list []event.Process) cty.Value {
	if len(list) == 0 {
		return cty.ListValEmpty(ancestorType)
	}
	vals := make([]cty.Value, len(list))
	for i, p := range list {
		vals[i] = cty.ObjectVal(map[string]cty.Value{
			"pid": cty.NumberUIntVal(p.PID), "start": cty.NumberUIntVal(p.Start),
			"name": stringOrNull(p.Name), "executable": stringOrNull(p.Executable),
		})
	}
	return cty.ListVal(vals)
}

func stringOrNull(s string) cty.Value {
	if s == "" {
		return cty.NullVal(cty.String)
	}
	return cty.StringVal(s)
}

// unknownSource stands for any event of class c: fields which such an event
// never carries are missing, all others unknown. Class 0 carries every field.
func unknownSource(c record.Class) source {
	return func(f *event.Info) cty.Value {
		t := ctyType(f.Kind)
		if c == 0 || f.Classes.Has(c) {
			v := cty.UnknownVal(t)
			if f.Kind == event.KindBool || t.IsListType() {
				v = v.RefineNotNull()
			}
			return v
		}
		switch {
		case f.Kind == event.KindBool:
			return cty.False
		case t.IsListType():
			return cty.ListValEmpty(t.ElementType())
		}
		return cty.NullVal(t)
	}
}

// ref is a resolved use of a field.
type ref struct {
	info *event.Info
	key  string // of vm.metadata
	// bound is 1 more than the number of a captured value, 0 for a field of
	// the event itself. on are the types that carried it.
	bound int
	on    event.ClassSet
}

// problem says why a traversal names no field.
type problem struct {
	what    string // summary
	detail  string
	fix     string
	code    Code
	subject hcl.Range
}

// resolve finds the field that t names.
func resolve(t hcl.Traversal) (ref, *problem) {
	at := schema
	var path []string
	for i, step := range t {
		var name string
		switch s := step.(type) {
		case hcl.TraverseRoot:
			name = s.Name
		case hcl.TraverseAttr:
			name = s.Name
		case hcl.TraverseIndex:
			if s.Key.Type() == cty.String && !s.Key.IsNull() {
				name = s.Key.AsString()
			} else {
				return ref{}, indexProblem(t, strings.Join(path, "."))
			}
		}
		if at.field != nil && at.field.Kind == event.KindMap {
			if i != len(t)-1 {
				return ref{}, &problem{code: CodeUnknownField, subject: t.SourceRange(), what: "Unknown field",
					detail: "The values of " + at.field.Name + " are text and have no fields of their own."}
			}
			return ref{info: at.field, key: name}, nil
		}
		if at.field != nil {
			return ref{}, &problem{code: CodeUnknownField, subject: t.SourceRange(), what: "Unknown field",
				detail: "The field " + at.field.Name + " is a " + at.field.Kind.String() + " and has no fields of its own."}
		}
		next := at.children[name]
		path = append(path, name)
		if next == nil {
			return ref{}, unknownField(t, path)
		}
		at = next
	}
	if at.field == nil || at.field.Kind == event.KindMap {
		return ref{}, incompleteField(t, strings.Join(path, "."), at)
	}
	return ref{info: at.field}, nil
}

func indexProblem(t hcl.Traversal, field string) *problem {
	p := &problem{code: CodeNull, subject: t.SourceRange(), what: "Element may be missing",
		detail: "An event may have fewer elements in " + field + ". "}
	switch field {
	case "process.args":
		p.detail += "Write argv(n), which is missing then instead of an error, or has_arg(\"...\") for any place."
	case "process.ancestors":
		p.detail += "Write process.parent.* for the parent, or anytrue([for a in process.ancestors : ...]) for any of them."
	default:
		p.detail += "Write contains(" + field + ", \"...\") to look at all elements."
	}
	return p
}

func unknownField(t hcl.Traversal, path []string) *problem {
	full := strings.Join(path, ".")
	p := &problem{code: CodeUnknownField, subject: t.SourceRange(), what: "Unknown field"}
	if len(path) == 1 {
		if len(t) == 1 {
			p.fix = suggest(full, append(append([]string(nil), schema.names...), event.Names()...))
			p.detail = "There is no field \"" + full + "\"." + didYouMean(p.fix)
			return p
		}
	}
	// The name as it was meant, with what follows the wrong part.
	whole := full
	for _, step := range t[len(path):] {
		if a, ok := step.(hcl.TraverseAttr); ok {
			whole += "." + a.Name
		}
	}
	if p.fix = suggest(whole, event.Names()); p.fix == "" && whole != full {
		p.fix = suggest(full, event.Names())
	}
	p.detail = "There is no field \"" + whole + "\"." + didYouMean(p.fix)
	return p
}

func incompleteField(t hcl.Traversal, name string, at *branch) *problem {
	p := &problem{code: CodeUnknownField, subject: t.SourceRange(), what: "Incomplete field"}
	if at.field != nil {
		p.detail = "The field " + name + " needs a key, as in " + name + ".zone."
		return p
	}
	var below []string
	for _, n := range event.Names() {
		if strings.HasPrefix(n, name+".") {
			below = append(below, n)
		}
	}
	if len(below) > 6 {
		below = append(below[:6], "...")
	}
	if a := aliases[name]; a != "" {
		p.fix = a
	}
	p.detail = "\"" + name + "\" is not a field but a group of fields: " + strings.Join(below, ", ") + "." + didYouMean(p.fix)
	return p
}
