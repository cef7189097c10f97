package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// scopeName is what diagnostics call the text of a scope.
const scopeName = "condition"

// MaxScope bounds the text of a scope, in bytes.
const MaxScope = 16 << 10

// CompileScope compiles a condition that stands outside any bundle, such as an
// approval's: it may use all fields and functions, and no lists, locals and
// macros. on are the event types that it is asked about; none means all. An
// error tells of everything that is wrong, with its place, and wraps
// record.ErrReject.
func CompileScope(text string, on []record.Class) (*Condition, error) {
	if len(text) > MaxScope {
		return nil, fmt.Errorf("the condition has %d bytes, the limit is %d: %w", len(text), MaxScope, record.ErrReject)
	}
	src := []byte(text)
	l := &loader{rep: newReport(), files: map[string][]byte{scopeName: src}, uses: make(map[string]bool)}
	v := &env{lists: map[string]*list{}, locals: map[string]*local{}, macros: map[string]*macro{}, localV: map[string]cty.Value{},
		listVal: cty.EmptyObjectVal, rep: l.rep}
	v.setConsts()
	var c *Condition
	if l.shallow(scopeName, src) {
		x, diags := hclsyntax.ParseExpression(src, scopeName, hcl.InitialPos)
		l.rep.adopt(CodeSyntax, diags)
		if x != nil && !diags.HasErrors() {
			c = l.compile(v, x, event.SetOf(on...), false)
		}
	}
	if !l.rep.hasErrors() && c != nil {
		return c, nil
	}
	var b strings.Builder
	if err := WriteDiagnostics(&b, l.sorted(), l.files, 0, false); err != nil {
		return nil, fmt.Errorf("compile condition: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", errors.New(strings.TrimSpace(b.String())), record.ErrReject)
}
