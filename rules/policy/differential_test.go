package policy

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/rules/event"
)

var long = flag.Bool("long", false, "run long loops")

const testShared = `
bundle {
  name = "test"
  version = "1"
  language = 1
}
list "strings" {
  type = "string"
  values = ["bash", "sh", "-c", "prod", "a", "b", "caf\u00e9"]
}
list "paths" {
  type = "path"
  values = ["/etc", "/usr/bin/bash", "/bin/sh"]
}
list "nets" {
  type = "cidr"
  values = ["192.0.2.0/24", "2001:db8::/32", "10.0.0.1"]
}
locals {
  word = "bash"
  names = ["bash", "sh"]
}
macro "etc" { condition = under(file.path, "/etc") || file.inode > 1 }
macro "shell" { condition = contains(list.paths, process.executable) && macro.etc }
`

// testEnv returns the names of testShared for expressions of tests.
func testEnv(t testing.TB) *env {
	l := &loader{rep: newReport(), files: map[string][]byte{"t.policy.hcl": []byte(testShared)}, names: []string{"t.policy.hcl"}, fsys: fstest.MapFS{}}
	body := l.parse("t.policy.hcl", l.files["t.policy.hcl"])
	if body == nil {
		t.Fatal(l.rep.diags)
	}
	blocks := make(map[string][]*hclsyntax.Block)
	for _, b := range body.Blocks {
		blocks[b.Type] = append(blocks[b.Type], b)
	}
	v, _ := l.shared(blocks)
	if l.rep.hasErrors() {
		t.Fatal(l.rep.diags)
	}
	return v
}

// compileText checks and compiles an expression; nil where it is refused.
func compileText(v *env, text string) (*Condition, hcl.Diagnostics) {
	v.rep = newReport()
	if !(&loader{rep: v.rep}).shallow("x.hcl", []byte(text)) {
		return nil, v.rep.diags
	}
	x, diags := hclsyntax.ParseExpression([]byte(text), "x.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	in, _ := v.inline(x)
	if in == nil || !checkCondition(in, v, event.ClassSet{}, false) {
		return nil, v.rep.diags
	}
	return compileCondition(in, v), nil
}

// agree demands that closures and cty say the same, errors included.
func agree(t testing.TB, text string, c *Condition, e *event.Event) Tri {
	got := c.Closure(e)
	want, err := c.Oracle(e)
	switch {
	case err != nil:
		if got != Failed {
			t.Fatalf("%s\nclosure says %v, cty fails: %v\n%s", text, got, err, describe(e))
		}
	case got == Failed:
		t.Fatalf("%s\nclosure fails, cty says %v\n%s", text, want, describe(e))
	case (got == True) != want:
		t.Fatalf("%s\nclosure says %v, cty says %v\n%s", text, got, want, describe(e))
	}
	if ok, err2 := c.Eval(e); (err2 != nil) != (err != nil) || ok != want {
		t.Fatalf("%s\nEval says %v, %v; cty says %v, %v", text, ok, err2, want, err)
	}
	return got
}

func describe(e *event.Event) string {
	out := ""
	for _, f := range event.Fields {
		if e.Has(f.Field) && f.Kind <= event.KindStrings {
			out += "  " + f.Name + " = " + valueText(eventSource(e)(&f)) + "\n"
		}
	}
	return out
}

// Closures equal cty on generated expressions and events.
func TestDifferentialGenerated(t *testing.T) {
	rounds := 3_000
	if *long {
		rounds = 200_000
	} else {
		t.Logf("short run: %d expressions; -long runs 200000", rounds)
	}
	v := testEnv(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := randChooser{rand.New(rand.NewPCG(seed, 1))}
	var compiled, slow int
	var answers [3]int
	for range rounds {
		g := generator{c: r, depth: 3 + r.n(12)}
		text := g.cond()
		c, diags := compileText(v, text)
		if c == nil {
			for _, d := range diags {
				if strings.Contains(d.Detail, "panic") {
					t.Fatalf("%s\n%v", text, d)
				}
			}
			continue
		}
		compiled++
		if len(c.Slow()) > 0 {
			slow++
		}
		for range 8 {
			answers[agree(t, text, c, genEvent(r))]++
		}
	}
	t.Logf("%d of %d expressions accepted, %d with slow parts; false %d, true %d, failed %d", compiled, rounds, slow, answers[False], answers[True], answers[Failed])
	if compiled < rounds/2 || answers[False] == 0 || answers[True] == 0 || answers[Failed] == 0 {
		t.Error("the generator no longer reaches all answers")
	}
}

// Closures equal cty for every example policy.
func TestDifferentialExamples(t *testing.T) {
	dirs, _ := filepath.Glob("../../examples/policies/*")
	r := randChooser{rand.New(rand.NewPCG(1, 2))}
	for _, dir := range dirs {
		b, diags := Load(dir)
		if b == nil {
			t.Fatal(diags)
		}
		for _, p := range b.Policies {
			if p.Condition == nil {
				continue
			}
			for range 2_000 {
				agree(t, p.Name, p.Condition, genEvent(r))
			}
		}
	}
}

func FuzzDifferential(f *testing.F) {
	for i := range 20 {
		r := rand.New(rand.NewPCG(uint64(i), 3))
		b := make([]byte, 200)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
	v := testEnv(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &byteChooser{data}
		g := generator{c: c, depth: 12}
		text := g.cond()
		cond, _ := compileText(v, text)
		if cond == nil {
			return
		}
		for range 4 {
			agree(t, text, cond, genEvent(c))
		}
	})
}
