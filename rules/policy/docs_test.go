package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/provostd/provost/rules/event"
)

const docFile = "../../docs/policy-reference.md"

// codeTexts explain the codes in the documentation.
var codeTexts = map[Code]string{
	CodeSyntax: "Not HCL", CodeFile: "A file cannot be read or is not allowed", CodeUnknownBlock: "Unknown block or action",
	CodeUnknownArg: "Unknown argument or label", CodeMissing: "Something required is missing", CodeBadValue: "A value of the wrong type or form",
	CodeDuplicate: "Defined twice, or a name that hides another", CodeUnsupported: "Part of the language, not of this version", CodeBundle: "The bundle block is missing or of another language version, or there are no policies",
	CodeEventType: "Unknown event type", CodeUnknownField: "Unknown field", CodeNeverPresent: "No event of the policy carries the field",
	CodeNeverTrue: "The condition is never true, or can never be decided, for a type in `on`", CodeCrossType: "Operands of different types", CodeRegexp: "Wrong regular expression or pattern",
	CodeAddress: "Wrong address or prefix", CodeConstant: "A value that the field never takes", CodeUnknownFunc: "Unknown function",
	CodeFuncArgument: "Wrong argument of a function", CodeUnknownName: "Unknown list, local or macro", CodeCycle: "A definition that leads back to itself",
	CodeTooComplex: "Too large, too deep, or quadratic in what a guest sends", CodeNull: "Null where a value is needed", CodeType: "HCL's own type errors",
	CodeUnused: "Warning: a list, local or macro without a use", CodeSiblingPrefix: "Warning: a path prefix that matches siblings", CodeMissingIsTrue: "Warning: `!=` on a field that some types lack",
	CodeNotLoaded: "Warning: a file that is not part of the bundle", CodeNoEffect: "Warning: something without effect", CodeAlways: "Warning: a condition that is always true", CodeExpired: "Warning: an exception that has ended, or soon will", CodeAttack: "Warning: a technique that ATT&CK does not have",
}

func docFunctions() string {
	var b strings.Builder
	b.WriteString("| function | result | |\n| --- | --- | --- |\n")
	for _, name := range functionNames {
		f := functions[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", usage(f), f.ret.FriendlyName(), f.doc)
	}
	return b.String()
}

func docFields() string {
	var b strings.Builder
	b.WriteString("| field | type | says | on | |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range event.Names() {
		f, _ := event.Lookup(name)
		says, doc := "author", f.Doc
		if f.Host {
			says = "host"
		}
		if f.Enum != nil {
			doc += " One of: " + strings.Join(f.Enum, ", ") + "."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, f.Kind, says, docClasses(f.Classes), doc)
	}
	b.WriteString("\nEvent types: ")
	for i, c := range event.Subjects() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("`" + c.String() + "`")
	}
	b.WriteString(".\n")
	return b.String()
}

// docClasses writes a set of types, whole groups as "file.*".
func docClasses(set event.ClassSet) string {
	groups := make(map[string][]string)
	total := make(map[string]int)
	var order []string
	for _, c := range event.Subjects() {
		category, action, _ := strings.Cut(c.String(), ".")
		total[category]++
		if !set.Has(c) {
			continue
		}
		if !slices.Contains(order, category) {
			order = append(order, category)
		}
		groups[category] = append(groups[category], action)
	}
	if len(order) == len(total) {
		return "all"
	}
	var out []string
	for _, g := range order {
		switch n := len(groups[g]); {
		case n == total[g]:
			out = append(out, g+".*")
		case n > 4:
			out = append(out, g+".* in part")
		default:
			for _, a := range groups[g] {
				out = append(out, g+"."+a)
			}
		}
	}
	return strings.Join(out, ", ")
}

func docCodes() string {
	var b strings.Builder
	b.WriteString("| code | meaning |\n| --- | --- |\n")
	for _, c := range allCodes {
		fmt.Fprintf(&b, "| %s | %s |\n", c, codeTexts[c])
	}
	return b.String()
}

// The tables of the documentation are those of the code (-rewrite renews them).
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for mark, table := range map[string]string{"functions": docFunctions(), "fields": docFields(), "codes": docCodes()} {
		start := strings.Index(text, "<!-- "+mark+" -->\n")
		if start < 0 {
			t.Fatalf("%s has no mark %q", docFile, mark)
		}
		start += len("<!-- " + mark + " -->\n")
		end := start + strings.Index(text[start:], "<!-- end -->")
		if end < start {
			t.Fatalf("%s: mark %q has no end", docFile, mark)
		}
		text = text[:start] + table + text[end:]
	}
	if *rewrite {
		if err := os.WriteFile(docFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(data) {
		t.Errorf("%s is not up to date: run go test ./rules/policy -run Docs -rewrite", docFile)
	}
	for _, c := range allCodes {
		if codeTexts[c] == "" {
			t.Errorf("code %s has no text", c)
		}
	}
}
