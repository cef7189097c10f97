package policy

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/rules/event"
)

func traced(t *testing.T, condition string) (*Tracer, *Bundle) {
	t.Helper()
	b, diags := LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(`bundle {
  name = "a"
  version = "1"
  language = 1
}
macro "named" { condition = process.name == "a" || process.name == "b" }
policy "p" {
  on = ["file.modify"]
  condition = ` + condition + `
  action "alert" { message = "m" }
}
`)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return b.Tracer(b.Policies[0].Condition), b
}

// show writes a trace the way one would think it: (any false (not true)).
func show(t *Trace) string {
	var b strings.Builder
	b.WriteString(t.Kind + "=" + t.Result)
	for _, f := range t.Fields {
		b.WriteString("{" + f.Name + "=" + f.Value + "}")
	}
	for _, p := range t.Parts {
		b.WriteString(" (" + show(p) + ")")
	}
	return b.String()
}

func TestTrace(t *testing.T) {
	e := new(event.Event)
	e.SetString(event.ProcessName, "b")
	e.SetString(event.FilePath, "/etc/\x1b[2Jx\"")
	e.SetNumber(event.UserID, 7)
	for condition, want := range map[string]string{
		`under(file.path, "/etc")`:                                              `leaf=true{file.path="/etc/\x1b[2Jx\""}`,
		`!(user.id == 7) || process.pid == 1`:                                   `any=false (not=false (leaf=true{user.id=7})) (leaf=false{process.pid=null})`,
		`macro.named && user.id < 8`:                                            `all=true (macro=true (any=true (leaf=false{process.name="b"}) (leaf=true{process.name="b"}))) (leaf=true{user.id=7})`,
		`process.pid > 1 && user.id == 7`:                                       `all=error (leaf=error{process.pid=null}) (leaf=true{user.id=7})`,
		`process.pid > 1 && user.id == 8`:                                       `all=false (leaf=error{process.pid=null}) (leaf=false{user.id=7})`,
		`user.id == 7 ? process.name == "b" : user.id == 9`:                     `if=true (leaf=true{user.id=7}) (leaf=true{process.name="b"}) (leaf=false{user.id=7})`,
		`has_arg("x") || anytrue([for a in process.ancestors : a.name == "x"])`: `any=false (leaf=false{process.args=[]}) (leaf=false{process.ancestors=[]})`,
	} {
		tr, _ := traced(t, condition)
		got, err := tr.Eval(e)
		if err != nil {
			t.Errorf("%s: %v", condition, err)
		}
		if s := show(got); s != want {
			t.Errorf("%s:\ngot  %s\nwant %s", condition, s, want)
		}
	}
}

// Every part knows its place and its text; those of a macro are the macro's.
func TestTraceParts(t *testing.T) {
	tr, b := traced(t, `macro.named && user.id < 8`)
	parts := tr.Parts()
	var texts []string
	parts.Walk(func(p *Trace) {
		if p.Result != "" {
			t.Errorf("%s has a result", p.Text)
		}
		texts = append(texts, p.Text)
	})
	want := []string{`macro.named && user.id < 8`, `macro.named`, `process.name == "a" || process.name == "b"`, `process.name == "a"`, `process.name == "b"`, `user.id < 8`}
	if strings.Join(texts, "\n") != strings.Join(want, "\n") {
		t.Errorf("parts %q", texts)
	}
	if m, in := parts.Parts[0], parts.Parts[0].Parts[0]; m.Line == in.Line || !strings.HasPrefix(m.ID(), "a.policy.hcl:") || len(b.Policies) != 1 {
		t.Errorf("the macro is at line %d, its condition at %d", m.Line, in.Line)
	}
}

// The parts of generated conditions add up to what the conditions say.
func TestTraceAgrees(t *testing.T) {
	v := testEnv(t)
	r := randChooser{rand.New(rand.NewPCG(5, 6))}
	var seen [3]int
	for range 400 {
		g := generator{c: r, depth: 3 + r.n(12)}
		text := g.cond()
		c, _ := compileText(v, text)
		if c == nil {
			continue
		}
		tr := (&Bundle{}).Tracer(c)
		for range 4 {
			got, err := tr.Eval(genEvent(r))
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			seen[map[string]int{ResultFalse: 0, ResultTrue: 1, ResultError: 2}[got.Result]]++
		}
	}
	if seen[0] == 0 || seen[1] == 0 || seen[2] == 0 {
		t.Errorf("results %v: the generator no longer reaches all of them", seen)
	}
}
