package policy

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// bundle decodes the bodies of all files: first what others may name, then
// the policies.
func (l *loader) bundle(bodies []*hclsyntax.Body) *Bundle {
	blocks := make(map[string][]*hclsyntax.Block)
	for _, body := range bodies {
		l.bodyShape(body, fileShape)
		for _, b := range body.Blocks {
			blocks[b.Type] = append(blocks[b.Type], b)
		}
	}
	v, out := l.shared(blocks)
	l.policies(v, blocks["policy"], out)
	l.unused(v)
	out.Digest = DigestFiles(l.files)
	out.Files, out.env = l.files, v
	return out
}

// shared decodes what policies may name.
func (l *loader) shared(blocks map[string][]*hclsyntax.Block) (*env, *Bundle) {
	v := &env{lists: map[string]*list{}, locals: map[string]*local{}, macros: map[string]*macro{}, localV: map[string]cty.Value{}, rep: l.rep}
	v.listVal = cty.EmptyObjectVal
	v.setConsts()
	out := l.bundleBlock(v, blocks["bundle"])
	for _, b := range blocks["list"] {
		l.list(v, b)
	}
	v.setLists()
	for _, b := range blocks["locals"] {
		l.locals(v, b)
	}
	l.evalLocals(v)
	for _, b := range blocks["macro"] {
		l.macro(v, b)
	}
	return v, out
}

// setConsts makes the context of constant expressions from what is known.
func (v *env) setConsts() {
	v.consts = &hcl.EvalContext{Functions: pureFunctions, Variables: map[string]cty.Value{
		"list": v.listVal, "local": cty.ObjectVal(v.localV),
	}}
}

func (v *env) setLists() {
	m := make(map[string]cty.Value, len(v.lists))
	for name, li := range v.lists {
		m[name] = stringList(li.values)
	}
	v.listVal = cty.ObjectVal(m)
	v.setConsts()
}

func (l *loader) bundleBlock(v *env, blocks []*hclsyntax.Block) *Bundle {
	out := &Bundle{}
	if len(blocks) == 0 {
		if len(l.names) > 0 && !l.rep.hasErrors() {
			l.rep.file(hcl.DiagError, CodeBundle, l.names[0], "Missing bundle block",
				"One file of the bundle must hold: bundle { name = \"...\" version = \"...\" language = 1 }.")
		}
		return out
	}
	b := blocks[0]
	for _, other := range blocks[1:] {
		l.rep.err(CodeDuplicate, other.DefRange(), "Duplicate bundle", fmt.Sprintf("The bundle was described at %s:%d. A bundle has one bundle block.", b.DefRange().Filename, b.DefRange().Start.Line))
	}
	l.shapeOf(b, bundleShape)
	for _, name := range []string{"name", "version", "language"} {
		if b.Body.Attributes[name] == nil {
			l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("The bundle block needs the argument %q.", name))
		}
	}
	out.Name, _ = l.str(v, b.Body, "name")
	out.Version, _ = l.str(v, b.Body, "version")
	if m := l.oneOf(v, b.Body, "mode", modeNames[ModeOff:]); m != "" {
		out.Mode, _ = ParseMode(m)
	}
	if a, val := l.attr(v, b.Body, "language"); a != nil {
		if n, ok := wholeNumber(val); !ok || n != LanguageVersion {
			l.rep.err(CodeBundle, a.Expr.Range(), "Unsupported language version", fmt.Sprintf("This version of Provost reads policy language %d only.", LanguageVersion))
		}
	}
	return out
}

func (l *loader) list(v *env, b *hclsyntax.Block) {
	if !l.shapeOf(b, listShape) || !l.validName(b) {
		return
	}
	if first, ok := v.lists[b.Labels[0]]; ok {
		l.duplicate(b, first.rng)
		return
	}
	li := &list{name: b.Labels[0], rng: b.LabelRanges[0]}
	v.lists[li.name] = li // even where it is wrong: its uses are not
	li.typ = l.oneOf(v, b.Body, "type", listTypes)
	if b.Body.Attributes["type"] == nil {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("List %q needs the argument \"type\": one of %s.", li.name, strings.Join(listTypes, ", ")))
	}
	values, file := b.Body.Attributes["values"], b.Body.Attributes["file"]
	switch {
	case values == nil && file == nil:
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("List %q needs the argument \"values\" or \"file\".", li.name))
	case values != nil && file != nil:
		l.rep.err(CodeBadValue, file.NameRange, "Two sources of values", fmt.Sprintf("List %q has both \"values\" and \"file\". Give one of them.", li.name))
	case li.typ == "":
	case values != nil:
		l.listValues(v, b, li)
	default:
		l.listFile(v, b, li)
	}
}

func (l *loader) listValues(v *env, b *hclsyntax.Block, li *list) {
	texts, ranges := l.strs(v, b.Body, "values")
	for i, s := range texts {
		c, err := listValue(li.typ, s)
		if err != nil {
			l.rep.err(CodeBadValue, ranges[i], "Invalid list value", "List \""+li.name+"\": "+err.Error()+".")
			continue
		}
		if slices.Contains(li.values, c) && len(texts) < 1000 {
			l.rep.warn(CodeNoEffect, ranges[i], "Duplicate list value", fmt.Sprintf("List %q already has %q.", li.name, c))
			continue
		}
		li.values = append(li.values, c)
	}
}

func (l *loader) listFile(v *env, b *hclsyntax.Block, li *list) {
	name, rng := l.str(v, b.Body, "file")
	if name == "" {
		return
	}
	if path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsAny(name, "\\\x00") {
		l.rep.err(CodeFile, rng, "File outside the bundle", fmt.Sprintf("%q must be a plain path inside the bundle directory, such as \"lists/%s.txt\", without \"..\".", name, li.name))
		return
	}
	if strings.HasSuffix(name, ".hcl") {
		l.rep.err(CodeFile, rng, "Not a list file", "A list is read from a text file with one value on each line, not from an HCL file.")
		return
	}
	data, ok := l.files[name]
	if !ok {
		if data, ok = l.read(name, MaxListSize, &rng); !ok {
			return
		}
		if l.lists += len(data); l.lists > MaxLists {
			l.rep.err(CodeFile, rng, "Lists too large", fmt.Sprintf("The list files of a bundle may have %d bytes together.", MaxLists))
			return
		}
		l.files[name] = data
	}
	l.parseListFile(li, name, data)
}

func (l *loader) locals(v *env, b *hclsyntax.Block) {
	s := shape{what: "locals", attrs: keys(b.Body.Attributes)}
	if !l.shapeOf(b, s) {
		return
	}
	for _, name := range keys(b.Body.Attributes) {
		a := b.Body.Attributes[name]
		if first, ok := v.locals[name]; ok {
			l.rep.err(CodeDuplicate, a.NameRange, "Duplicate local", fmt.Sprintf("The local %q was defined at %s:%d.", name, first.rng.Filename, first.rng.Start.Line))
			continue
		}
		v.locals[name] = &local{name: name, expr: a.Expr, rng: a.NameRange}
	}
}

// evalLocals evaluates the constants in the order in which they need each
// other.
func (l *loader) evalLocals(v *env) {
	for _, name := range keys(v.locals) {
		l.evalLocal(v, v.locals[name])
	}
	v.setConsts()
}

func (l *loader) evalLocal(v *env, lo *local) {
	if lo.state != 0 {
		return
	}
	lo.state = 1
	defer func() {
		lo.state = 2
		if _, ok := v.localV[lo.name]; !ok {
			v.localV[lo.name] = cty.DynamicVal // reported; keeps its users quiet
		}
	}()
	for _, t := range lo.expr.Variables() {
		root := t.RootName()
		name, _ := secondName(t)
		switch {
		case root == "local" && v.locals[name] != nil:
			if v.locals[name].state == 1 {
				l.rep.err(CodeCycle, t.SourceRange(), "Local refers to itself", fmt.Sprintf("The value of local %q leads back to itself.", lo.name))
				return
			}
			l.evalLocal(v, v.locals[name])
		case root == "list" || root == "local":
		default:
			l.rep.err(CodeBadValue, t.SourceRange(), "Value not constant", "Locals are constants and may use only other locals and lists. Use a macro for a condition.")
			return
		}
	}
	x, uses := v.inline(lo.expr)
	lo.uses = uses
	for u := range uses {
		if name, ok := strings.CutPrefix(u, "local."); ok && v.locals[name] != nil {
			for sub := range v.locals[name].uses {
				uses[sub] = true
			}
		}
	}
	if x == nil {
		return
	}
	v.setConsts()
	val, diags := x.Value(v.consts)
	if diags.HasErrors() {
		l.rep.adopt(CodeType, diags)
		return
	}
	v.localV[lo.name] = val
}

func (l *loader) macro(v *env, b *hclsyntax.Block) {
	if !l.shapeOf(b, macroShape) || !l.validName(b) {
		return
	}
	if first, ok := v.macros[b.Labels[0]]; ok {
		l.duplicate(b, first.rng)
		return
	}
	a := b.Body.Attributes["condition"]
	if a == nil {
		l.rep.err(CodeMissing, b.DefRange(), "Missing argument", fmt.Sprintf("Macro %q needs the argument \"condition\".", b.Labels[0]))
		return
	}
	v.macros[b.Labels[0]] = &macro{name: b.Labels[0], expr: a.Expr, rng: b.LabelRanges[0], block: blockRange(b)}
}

// unused checks macros which no policy uses, and warns of every name without
// a use.
func (l *loader) unused(v *env) {
	for _, name := range keys(v.macros) {
		m := v.macros[name]
		if m.used {
			continue
		}
		l.rep.warn(CodeUnused, m.rng, "Macro is not used", fmt.Sprintf("No policy uses macro %q.", name))
		if x, _ := v.inline(m.expr); x != nil {
			checkCondition(x, v, event.ClassSet{}, false)
		}
	}
	for _, name := range keys(v.lists) {
		if li := v.lists[name]; !li.used {
			l.rep.warn(CodeUnused, li.rng, "List is not used", fmt.Sprintf("Nothing uses list %q.", name))
		}
	}
	for _, name := range keys(v.locals) {
		if lo := v.locals[name]; !lo.used {
			l.rep.warn(CodeUnused, lo.rng, "Local is not used", fmt.Sprintf("Nothing uses local %q.", name))
		}
	}
}

func (l *loader) policies(v *env, blocks []*hclsyntax.Block, out *Bundle) {
	first := make(map[string]hcl.Range)
	for _, b := range blocks {
		if len(b.Labels) == 1 {
			if at, ok := first[b.Labels[0]]; ok {
				l.duplicate(b, at)
			} else {
				first[b.Labels[0]] = b.LabelRanges[0]
			}
		}
		if p := l.policy(v, b); p != nil {
			out.Policies = append(out.Policies, p)
		}
	}
	if len(blocks) == 0 && len(l.names) > 0 && !l.rep.hasErrors() {
		l.rep.file(hcl.DiagWarning, CodeNoEffect, l.names[0], "No policies", "The bundle has no policy block, so it judges nothing.")
	}
	sort.Slice(out.Policies, func(i, j int) bool { return out.Policies[i].Name < out.Policies[j].Name })
	for i, p := range out.Policies {
		p.Number = i
	}
}
