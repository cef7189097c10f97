package policy

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
)

// Code is the stable number of a kind of diagnostic; docs/policy-reference.md
// has a line for each. Numbers are never reused.
type Code string

// The codes.
const (
	CodeSyntax        Code = "POL001"
	CodeFile          Code = "POL002"
	CodeUnknownBlock  Code = "POL003"
	CodeUnknownArg    Code = "POL004"
	CodeMissing       Code = "POL005"
	CodeBadValue      Code = "POL006"
	CodeDuplicate     Code = "POL007"
	CodeUnsupported   Code = "POL008"
	CodeBundle        Code = "POL009"
	CodeEventType     Code = "POL010"
	CodeUnknownField  Code = "POL011"
	CodeNeverPresent  Code = "POL012"
	CodeNeverTrue     Code = "POL013"
	CodeCrossType     Code = "POL014"
	CodeRegexp        Code = "POL015"
	CodeAddress       Code = "POL016"
	CodeConstant      Code = "POL017"
	CodeUnknownFunc   Code = "POL018"
	CodeFuncArgument  Code = "POL019"
	CodeUnknownName   Code = "POL020"
	CodeCycle         Code = "POL021"
	CodeTooComplex    Code = "POL022"
	CodeNull          Code = "POL023"
	CodeType          Code = "POL024"
	CodeUnused        Code = "POL030"
	CodeSiblingPrefix Code = "POL031"
	CodeMissingIsTrue Code = "POL032"
	CodeNotLoaded     Code = "POL033"
	CodeNoEffect      Code = "POL034"
	CodeAlways        Code = "POL035"
	CodeExpired       Code = "POL036"
	CodeAttack        Code = "POL037"
)

// allCodes lists every code; docs/policy-reference.md must explain each.
var allCodes = []Code{CodeSyntax, CodeFile, CodeUnknownBlock, CodeUnknownArg, CodeMissing, CodeBadValue, CodeDuplicate, CodeUnsupported, CodeBundle, CodeEventType, CodeUnknownField, CodeNeverPresent, CodeNeverTrue, CodeCrossType, CodeRegexp, CodeAddress, CodeConstant, CodeUnknownFunc, CodeFuncArgument, CodeUnknownName, CodeCycle, CodeTooComplex, CodeNull, CodeType, CodeUnused, CodeSiblingPrefix, CodeMissingIsTrue, CodeNotLoaded, CodeNoEffect, CodeAlways, CodeExpired, CodeAttack}

// Detail is what a diagnostic of this package carries besides hcl's fields,
// in its Extra.
type Detail struct {
	Code       Code
	Suggestion string // the text to write instead of the subject, if known
}

// DetailOf returns the code and suggestion of a diagnostic.
func DetailOf(d *hcl.Diagnostic) Detail {
	if x, ok := hcl.DiagnosticExtra[Detail](d); ok {
		return x
	}
	return Detail{Code: CodeSyntax}
}

// report collects the diagnostics of one load. Each is reported once, though a
// macro may be compiled for many policies.
type report struct {
	diags hcl.Diagnostics
	seen  map[string]bool
}

func newReport() *report { return &report{seen: make(map[string]bool)} }

func (r *report) add(d *hcl.Diagnostic) {
	key := d.Summary + "\x00" + d.Detail
	if d.Subject != nil {
		key += "\x00" + d.Subject.String()
	}
	if r.seen[key] {
		return
	}
	r.seen[key] = true
	r.diags = append(r.diags, d)
}

func (r *report) err(code Code, subject hcl.Range, summary, detail string) {
	r.add(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &subject, Extra: Detail{Code: code}})
}

func (r *report) errFix(code Code, subject hcl.Range, fix, summary, detail string) {
	r.add(&hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &subject, Extra: Detail{Code: code, Suggestion: fix}})
}

func (r *report) warn(code Code, subject hcl.Range, summary, detail string) {
	r.add(&hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: &subject, Extra: Detail{Code: code}})
}

// file reports a problem of a whole file, which has no position.
func (r *report) file(sev hcl.DiagnosticSeverity, code Code, name, summary, detail string) {
	start := hcl.Pos{Line: 1, Column: 1}
	r.add(&hcl.Diagnostic{Severity: sev, Summary: summary, Detail: detail,
		Subject: &hcl.Range{Filename: name, Start: start, End: start}, Extra: Detail{Code: code}})
}

// adopt takes over diagnostics that hcl made and gives them a code. Values of
// variables are dropped: at load they are all unknown.
func (r *report) adopt(code Code, diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Extra == nil {
			d.Extra = Detail{Code: code}
		} else if _, ok := hcl.DiagnosticExtra[Detail](d); !ok {
			d.Extra = Detail{Code: code}
		}
		d.Expression, d.EvalContext = nil, nil
		r.add(d)
	}
}

func (r *report) hasErrors() bool { return r.diags.HasErrors() }

// FirstError returns the first error among diagnostics as an error, or nil.
func FirstError(diags hcl.Diagnostics) error {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		where := ""
		if d.Subject != nil {
			where = fmt.Sprintf("%s:%d: ", d.Subject.Filename, d.Subject.Start.Line)
		}
		return fmt.Errorf("%s%s: %s", where, d.Summary, d.Detail)
	}
	return nil
}
