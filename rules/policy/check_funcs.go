package policy

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// call checks a function's name, number and types of arguments, and every
// constant that would only fail when an event comes by.
func (c *checker) call(x *hclsyntax.FunctionCallExpr, ctx *hcl.EvalContext) {
	f := functions[x.Name]
	switch {
	case f == nil:
		fix := suggest(x.Name, functionNames)
		c.failFix(CodeUnknownFunc, x.NameRange, fix, "Unknown function", fmt.Sprintf("There is no function %q.%s", x.Name, didYouMean(fix)))
		return
	case x.ExpandFinal:
		c.fail(CodeFuncArgument, x.Range(), "Expansion not allowed", "\"...\" cannot be used here; give the arguments one by one.")
		return
	case len(x.Args) != len(f.params):
		c.fail(CodeFuncArgument, x.Range(), "Wrong number of arguments",
			fmt.Sprintf("%s takes %d argument(s) and was given %d.", usage(f), len(f.params), len(x.Args)))
		return
	}
	if c.inLoop && f.name == "has_arg" {
		c.listInLoop("has_arg()", x.Range())
		return
	}
	for i, p := range f.params {
		if isNullLiteral(x.Args[i]) {
			c.fail(CodeNull, x.Args[i].Range(), "Null argument", fmt.Sprintf("Argument %d of %s is null, which makes the call meaningless.", i+1, usage(f)))
			return
		}
		if !c.argument(f, i, p, x.Args[i], ctx) {
			return
		}
	}
	c.pair(x, ctx)
}

// usage is the function as documentation writes it.
func usage(f *fn) string {
	parts := make([]string, len(f.params))
	for i, p := range f.params {
		parts[i] = paramNames[p]
	}
	return f.name + "(" + strings.Join(parts, ", ") + ")"
}

func isTextList(t cty.Type) bool {
	if t.IsListType() {
		return t.ElementType() == cty.String
	}
	if !t.IsTupleType() {
		return false
	}
	for _, e := range t.TupleElementTypes() {
		if e != cty.String {
			return false
		}
	}
	return true
}

func isNumberList(t cty.Type) bool {
	if t.IsListType() {
		return t.ElementType() == cty.Number
	}
	if !t.IsTupleType() || t.Equals(cty.EmptyTuple) {
		return false
	}
	for _, e := range t.TupleElementTypes() {
		if e != cty.Number {
			return false
		}
	}
	return true
}

// argument checks one argument; it reports and returns false on a mistake.
func (c *checker) argument(f *fn, i int, p param, x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	t := c.typeOf(x, ctx)
	if t == cty.NilType {
		return true // reported with the whole
	}
	wrong := func() bool {
		c.fail(CodeFuncArgument, x.Range(), "Wrong type of argument",
			fmt.Sprintf("Argument %d of %s is a %s.", i+1, usage(f), t.FriendlyName()))
		return false
	}
	switch p {
	case pText:
		if t != cty.String {
			return wrong()
		}
	case pNumber:
		if t != cty.Number {
			return wrong()
		}
	case pScalar:
		if t != cty.String && t != cty.Number {
			return wrong()
		}
	case pSized:
		if t != cty.String && !t.IsListType() && !t.IsTupleType() {
			return wrong()
		}
	case pTexts:
		if !isTextList(t) {
			return wrong()
		}
	case pList:
		if !isTextList(t) && !isNumberList(t) {
			return wrong()
		}
	case pBools:
		return c.boolList(x, ctx) || wrong()
	case pAddress:
		if info := c.fieldOf(x, ctx); info == nil || info.Kind != event.KindAddress {
			c.fail(CodeFuncArgument, x.Range(), "Wrong type of argument",
				fmt.Sprintf("Argument %d of %s must be an address field: source.ip or destination.ip.", i+1, usage(f)))
			return false
		}
	case pField:
		return c.fieldArgument(x, ctx)
	default:
		return c.constArgument(f, i, p, x, ctx)
	}
	return true
}

func (c *checker) boolList(x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	switch x := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.boolList(x.Expression, ctx)
	case *hclsyntax.TupleConsExpr:
		for _, e := range x.Exprs {
			c.operand(e, cty.Bool, ctx)
		}
		return true
	case *hclsyntax.ForExpr:
		t := c.typeOf(x.CollExpr, ctx)
		if t == cty.NilType {
			return true
		}
		elem := cty.DynamicPseudoType
		if t.IsListType() {
			elem = t.ElementType()
		} else if t.IsTupleType() && t.Length() > 0 {
			elem = t.TupleElementTypes()[0]
		}
		child := ctx.NewChild()
		child.Variables = map[string]cty.Value{x.ValVar: cty.UnknownVal(elem)}
		if x.KeyVar != "" {
			child.Variables[x.KeyVar] = cty.UnknownVal(cty.Number)
		}
		if x.Group {
			return false
		}
		c.operand(x.ValExpr, cty.Bool, child)
		return true
	}
	return false
}

// fieldArgument checks the argument of has().
func (c *checker) fieldArgument(x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if ok && c.isLoopVariable(t.Traversal.RootName(), ctx) {
		return true
	}
	var r ref
	if ok {
		var p *problem
		r, p = c.env.resolve(t.Traversal)
		ok = p == nil
	}
	if !ok {
		c.fail(CodeFuncArgument, x.Range(), "Wrong type of argument", "has() needs a field, such as has(file.target_path).")
		return false
	}
	if r.info.Kind == event.KindBool {
		c.fail(CodeFuncArgument, x.Range(), "Field is always present",
			"A true/false field that an event lacks is false, so has() says nothing. Write "+r.info.Name+" alone.")
		return false
	}
	return true
}

// constArgument checks arguments that must be constant, so that a mistake in
// them is found now and not by an event.
func (c *checker) constArgument(f *fn, i int, p param, x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	v, isConst := c.constValue(x, ctx)
	if p == pDir && !isConst {
		if t := c.typeOf(x, ctx); t != cty.String {
			c.fail(CodeFuncArgument, x.Range(), "Wrong type of argument", fmt.Sprintf("Argument %d of %s is a %s.", i+1, usage(f), t.FriendlyName()))
			return false
		}
		return true
	}
	if !isConst {
		c.fail(CodeFuncArgument, x.Range(), "Argument not constant",
			fmt.Sprintf("Argument %d of %s must be a constant: a literal, list.NAME or local.NAME.", i+1, usage(f)))
		return false
	}
	var err error
	code := CodeFuncArgument
	switch p {
	case pRegexp:
		code, err = CodeRegexp, checkPattern(v, func(s string) error { _, err := compileRegexp(s, false); return plainRegexpError(err) })
	case pGlob:
		code, err = CodeRegexp, checkPattern(v, func(s string) error { _, err := compileGlob(s, false); return err })
	case pDir:
		if v.Type() != cty.String {
			err = fmt.Errorf("want a directory as text")
		} else {
			err = checkDir(v.AsString())
		}
	case pDirs:
		err = eachText(v, checkDir)
	case pCIDRs:
		code, err = CodeAddress, eachText(v, func(s string) error { _, err := parsePrefix(s); return err })
	case pPorts:
		_, err = constPorts(v)
	case pIndex:
		err = checkIndex(v)
	case pClock:
		err = checkPattern(v, func(s string) error { _, err := parseClock(s); return err })
	case pZone:
		err = checkPattern(v, func(s string) error { _, err := parseZone(s); return err })
	case pLong:
		if v.Type() != cty.String || len(v.AsString()) < minBase64 {
			err = fmt.Errorf("want a text of at least %d bytes", minBase64)
		}
	}
	if err != nil {
		c.fail(code, x.Range(), "Invalid argument", fmt.Sprintf("Argument %d of %s is wrong: %s.", i+1, usage(f), err))
		return false
	}
	return true
}

func checkPattern(v cty.Value, check func(string) error) error {
	if v.Type() != cty.String {
		return fmt.Errorf("want a pattern as text")
	}
	return check(v.AsString())
}

func plainRegexpError(err error) error {
	var e *syntax.Error
	if errors.As(err, &e) {
		return fmt.Errorf("%s in %q (RE2 syntax)", e.Code, e.Expr)
	}
	return err
}

func checkDir(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%q is not an absolute path", s)
	}
	return nil
}

func eachText(v cty.Value, check func(string) error) error {
	texts, err := constTexts(v)
	if err != nil {
		return err
	}
	for _, s := range texts {
		if err := check(s); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
	}
	return nil
}

func checkIndex(v cty.Value) error {
	if v.Type() != cty.Number {
		return fmt.Errorf("want a number")
	}
	if n, ok := wholeUint(v.AsBigFloat()); !ok || n > 65535 {
		return fmt.Errorf("want a whole number from 0 to 65535")
	}
	return nil
}

// pair checks arguments against each other.
func (c *checker) pair(x *hclsyntax.FunctionCallExpr, ctx *hcl.EvalContext) {
	switch x.Name {
	case "between":
		from, _ := c.constText(x.Args[1], ctx)
		if to, ok := c.constText(x.Args[2], ctx); ok && from == to {
			c.fail(CodeFuncArgument, x.Range(), "Invalid argument", fmt.Sprintf("The span from %s to %s is empty.", from, to))
		}
	case "contains":
		c.containsPair(x, ctx)
	case "startswith", "startswith_i":
		s, ok := c.constText(x.Args[1], ctx)
		if ok && len(s) > 1 && strings.HasPrefix(s, "/") && !strings.HasSuffix(s, "/") && !strings.Contains(s[strings.LastIndexByte(s, '/')+1:], ".") && c.isPath(x.Args[0], ctx) {
			c.rep.warn(CodeSiblingPrefix, x.Args[1].Range(), "Prefix also matches sibling paths",
				fmt.Sprintf("%s(..., %q) is also true for %q. Use under(..., %q) to mean the directory.", x.Name, s, s+"x/file", s))
		}
	}
}

func (c *checker) isPath(x hclsyntax.Expression, ctx *hcl.EvalContext) bool {
	info := c.fieldOf(x, ctx)
	if info == nil {
		return false
	}
	last := info.Name[strings.LastIndexByte(info.Name, '.')+1:]
	return strings.HasSuffix(last, "path") || strings.HasSuffix(last, "directory") || last == "executable" || last == "filename" || last == "script"
}

func (c *checker) containsPair(x *hclsyntax.FunctionCallExpr, ctx *hcl.EvalContext) {
	list, val := c.typeOf(x.Args[0], ctx), c.typeOf(x.Args[1], ctx)
	if list == cty.NilType || val == cty.NilType {
		return
	}
	if !list.Equals(cty.EmptyTuple) && isTextList(list) != (val == cty.String) {
		c.fail(CodeCrossType, x.Range(), "Value is never in the list",
			fmt.Sprintf("The value is a %s and the list has elements of another type. HCL does not convert between them here.", val.FriendlyName()))
		return
	}
	info := c.fieldOf(x.Args[1], ctx)
	if info == nil {
		return
	}
	if info.Kind == event.KindAddress {
		c.fail(CodeFuncArgument, x.Range(), "Address in a list of text", fmt.Sprintf("Use in_cidr(%s, ...), which takes prefixes and single addresses in any spelling.", info.Name))
		return
	}
	v, ok := c.constValue(x.Args[0], ctx)
	if !ok || list.IsListType() { // the values of list blocks were checked by their type
		return
	}
	texts, err := constTexts(v)
	if err != nil {
		return
	}
	for _, s := range texts {
		c.fieldConstant(info, s, x.Args[0].Range())
	}
}
