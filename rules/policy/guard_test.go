package policy

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/rules/event"
)

// holds answers an atom as simply as can be.
func (a Atom) holds(e *event.Event) bool {
	switch a.Source.Field.Info().Kind {
	case event.KindNumber:
		n, ok := e.Num(a.Source.Field)
		return ok && n == a.Number
	case event.KindBool:
		return e.Bool(a.Source.Field)
	case event.KindAddress:
		ip, ok := e.Addr(a.Source.Field)
		return ok && a.Prefix.Contains(ip)
	}
	for _, s := range a.Source.values(e) {
		switch a.Source.Fold {
		case FoldLower:
			s = lower(s)
		case FoldASCII:
			s = string(bytes.Map(func(r rune) rune {
				if 'A' <= r && r <= 'Z' {
					r += 'a' - 'A'
				}
				return r
			}, []byte(s)))
		}
		switch a.Op {
		case OpEqual:
			if s == a.Text {
				return true
			}
		case OpPrefix:
			if strings.HasPrefix(s, a.Text) {
				return true
			}
		case OpSuffix:
			if strings.HasSuffix(s, a.Text) {
				return true
			}
		case OpContains:
			if strings.Contains(s, a.Text) {
				return true
			}
		case OpUnder:
			if strings.HasPrefix(canonical(s), a.Text) {
				return true
			}
		}
	}
	return false
}

func (s Source) values(e *event.Event) []string {
	switch s.Field.Info().Kind {
	case event.KindStrings:
		return e.Strings(s.Field)
	case event.KindProcesses:
		var all []string
		for _, p := range e.Ancestors() {
			all = append(all, map[Part]string{PartName: p.Name, PartExecutable: p.Executable}[s.Part])
		}
		return all
	}
	if v, ok := e.Str(s.Field); ok {
		return []string{v}
	}
	return nil
}

// guarded demands that no guard leaves out an event of which the condition is
// true or an error, and returns how many guards did leave it out.
func guarded(t testing.TB, text string, c *Condition, e *event.Event) int {
	out := 0
	for _, g := range c.Guards() {
		hit := false
		for _, a := range g {
			hit = hit || a.holds(e)
		}
		if hit {
			continue
		}
		out++
		if got := c.Closure(e); got != False {
			t.Fatalf("%s\nthe guard %s does not hold, but the condition is %v\n%s", text, g, got, describe(e))
		}
	}
	return out
}

// indexable returns a condition as people write them: often a constant that
// must be there, beside anything else.
func (g *generator) indexable() string {
	switch g.c.n(6) {
	case 0:
		return g.cond()
	case 1:
		return g.anchor() + " || " + g.anchor()
	case 2:
		return "!(" + g.anchor() + ") && " + g.anchor()
	case 3:
		return "(" + g.anchor() + " || " + g.anchor() + ") && " + g.cond()
	}
	return g.anchor() + " && " + g.cond()
}

// anchor returns a comparison with a constant.
func (g *generator) anchor() string {
	list := []string{"process.args", "process.ancestors[*].name", "process.ancestors[*].executable", "vm.tags"}
	text := pick(g.c, genTexts)
	if g.c.n(3) == 0 {
		text = pick(g.c, []string{"lower", "trimspace", "basename", "extension", "dirname", "upper"}) + "(" + text + ")"
	}
	switch g.c.n(12) {
	case 0:
		return text + " == " + g.literal()
	case 1, 2:
		return pick(g.c, []string{"startswith", "endswith", "strcontains", "equals"}) + pick(g.c, []string{"", "_i"}) + "(" + text + ", " + g.literal() + ")"
	case 3:
		return pick(g.c, []string{"matches", "matches_i"}) + "(" + text + ", " + pick(g.c, genPatterns) + ")"
	case 4:
		return pick(g.c, []string{"glob", "glob_i"}) + "(" + text + ", " + pick(g.c, []string{`"/etc/*"`, `"*sh"`, `"*[a-c]as*"`, `"*ss*d*"`, `"*\\*"`, `"\u00e9*"`}) + ")"
	case 5:
		return pick(g.c, []string{"under(", "under(", "startswith("}) + text + ", " + pick(g.c, []string{`"/etc"`, `"/tmp/"`, `"/usr/bin"`, `"/usr/../etc"`}) + ")"
	case 6:
		return pick(g.c, []string{"contains(", "contains_i("}) + pick(g.c, list) + ", " + g.literal() + ")"
	case 7:
		return "intersects(" + pick(g.c, list) + ", list.strings)"
	case 8:
		return pick(g.c, []string{"anytrue", "alltrue"}) + "([for a in process.ancestors : " + pick(g.c, []string{`endswith(a.name, "sh")`, `a.name == "bash"`,
			`contains(list.paths, a.executable)`, `a.pid > 1 && a.name == "nginx"`, `a.executable == file.path || a.name == "sh"`}) + pick(g.c, []string{"", ` if a.name == "bash"`, " if a.pid == 1"}) + "])"
	case 9:
		return pick(g.c, []string{"anytrue", "alltrue"}) + `([for w in ["bash", "s", "Passwd"] : strcontains_i(` + text + ", w)" + pick(g.c, []string{"", ` if w != "s"`}) + "])"
	case 10:
		return pick(g.c, []string{"destination.port == 443", "user.id == 0", "contains([22, 443, 1.5], destination.port)", "port_in(destination.port, [22, \"440-450\"])",
			"in_cidr(destination.ip, list.nets)", "in_cidr(source.ip, [\"10.0.0.0/8\", \"10.0.0.1\", \"0.0.0.0/0\"])", "destination.ip == \"10.0.0.1\"", "destination.ip == \"010.0.0.1\"",
			"contains([\"192.0.2.7\", \"x\"], destination.ip)", "has_arg(\"-c\")", "argv(1) == \"-c\"", "lower(argv(0)) == \"-c\"", "file.mode_executable"})
	}
	return "contains" + pick(g.c, []string{"(list.paths, ", "_i(list.strings, ", "([], "}) + text + ")"
}

var genPatterns = []string{`"^/etc"`, `"s+h"`, `"(bash|sh|nginx)$"`, `"(?i)PASSWD"`, `"[bB]as(h|e)"`, `"x?y*z?"`, `"(a|b|)c"`, `"/(etc|tmp)/.*[ps]"`, `"(ab){2,3}"`,
	`"\\x{FFFD}"`, `"(?i:ſt)range"`, `"(?s).\\x{FFFD}?n.me"`, `"\u00e9$"`, `"(?i)xmrig|kinsing"`, `"[^a]+d$"`, `"\\bid\\b"`, `"-(c|-help)"`}

// Every guard of generated conditions holds wherever they are not false.
func TestGuardsGenerated(t *testing.T) {
	rounds := 2_000
	if *long {
		rounds = 300_000
	} else {
		t.Logf("short run: %d guarded expressions; -long runs 300000", rounds)
	}
	v := testEnv(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := randChooser{rand.New(rand.NewPCG(seed, 5))}
	var with, without, left int
	for range rounds {
		g := generator{c: r, depth: 2 + r.n(6)}
		text := g.indexable()
		c, _ := compileText(v, text)
		if c == nil {
			continue
		}
		if len(c.Guards()) > 0 {
			with++
		} else {
			without++
		}
		for range 10 {
			left += guarded(t, text, c, genEvent(r))
		}
	}
	t.Logf("%d conditions with guards, %d without, %d events left out", with, without, left)
	if with < rounds/3 || left < rounds {
		t.Error("too few guards to speak of")
	}
}

func FuzzGuards(f *testing.F) {
	for i := range 20 {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		b := make([]byte, 150)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
	v := testEnv(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &byteChooser{data}
		g := generator{c: c, depth: 6}
		text := g.indexable()
		cond, _ := compileText(v, text)
		if cond == nil {
			return
		}
		for range 4 {
			guarded(t, text, cond, genEvent(c))
		}
	})
}

func TestGuardsExamples(t *testing.T) {
	dirs, _ := filepath.Glob("../../examples/policies/*")
	r := randChooser{rand.New(rand.NewPCG(1, 6))}
	for _, dir := range dirs {
		b, diags := Load(dir)
		if b == nil {
			t.Fatal(diags)
		}
		for _, p := range b.Policies {
			for range 1_000 {
				if p.Condition != nil {
					guarded(t, p.Name, p.Condition, genEvent(r))
				}
			}
		}
	}
}

// What a condition is filed under, in words.
func TestGuardWords(t *testing.T) {
	v := testEnv(t)
	for _, tc := range []struct{ text, want string }{
		{`file.path == "/etc/passwd"`, `file.path == "/etc/passwd"`},
		{`file.path != "/etc/passwd"`, ``},
		{`!(file.path == "/x")`, ``},
		{`file.size > 3`, ``},
		{`file.path == "/a" && process.pid > 3`, `file.path == "/a"`},
		{`file.path == "/a" || process.pid > 3`, ``},
		{`file.path == "/a" || process.name == "vim"`, `process.name == "vim" or file.path == "/a"`},
		{`under_any(file.path, ["/etc", "/usr/../boot"])`, `under(file.path, "/etc") or under(file.path, "/boot")`},
		{`in_cidr(destination.ip, "10.0.0.0/8")`, `in_cidr(destination.ip, "10.0.0.0/8")`},
		{`contains(list.paths, process.executable)`, `process.executable == "/etc" or process.executable == "/usr/bin/bash" or process.executable == "/bin/sh"`},
		{`strcontains_i(process.command_line, "XmRig")`, `strcontains(lower(process.command_line), "xmrig")`},
		{`matches(process.command_line, "base64 -d.*key12")`, `strcontains(process.command_line, "base64 -d")`},
		{`matches(process.command_line, "(curl|wget) .*[|] *sh")`, `strcontains(process.command_line, "curl ") or strcontains(process.command_line, "wget ")`},
		{`matches_i(process.command_line, "mask")`, `strcontains(lower(process.command_line), "ma")`},
		{`glob(file.path, "/home/*/.ssh/authorized_keys")`, `strcontains(file.path, "/.ssh/authorized_keys")`},
		{`anytrue([for a in process.ancestors : a.name == "nginx" && a.pid > 1])`, `process.ancestors[*].name == "nginx"`},
		{`intersects(process.ancestors[*].executable, list.paths)`, `process.ancestors[*].executable == "/etc" or process.ancestors[*].executable == "/usr/bin/bash" or process.ancestors[*].executable == "/bin/sh"`},
		{`alltrue([for a in process.ancestors : a.name == "nginx"])`, ``},
		{`has_arg("-c")`, `process.args == "-c"`},
		{`destination.port == 22`, `destination.port == 22`},
		{`file.mode_executable`, `file.mode_executable`},
		{`contains([], file.path)`, `never true`},
		{`basename(file.path) == "id_rsa"`, `strcontains(file.path, "id_rsa")`},
		{`lower(file.path) == "/A"`, `lower(file.path) == "/A"`},
		{`process.pid > 1 ? file.path == "/a" : file.path == "/b"`, ``},
	} {
		c, diags := compileText(v, tc.text)
		if c == nil {
			t.Fatal(tc.text, diags)
		}
		got := ""
		if g := c.Guards(); len(g) > 0 {
			got = g[0].String()
		}
		if got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.text, got, tc.want)
		}
	}
}

// A closure that says something else than HCL is told, without values.
func TestDisagreement(t *testing.T) {
	v := testEnv(t)
	e := genEvent(randChooser{rand.New(rand.NewPCG(3, 3))})
	e.SetString(event.FilePath, "/secret")
	for _, tc := range []struct {
		text string
		fn   boolFn
		want string
	}{
		{`file.path == "/secret"`, nil, ""},
		{`file.path == "/secret"`, func(*event.Event) Tri { return False }, "compiled it is false, by HCL true"},
		{`file.path == "/x"`, func(*event.Event) Tri { return True }, "compiled it is true, by HCL false"},
		{`file.path == "/x"`, func(*event.Event) Tri { return Failed }, ""},
		{`lost.count > 3`, func(*event.Event) Tri { return False }, "compiled it is false, by HCL an error: "},
	} {
		c, diags := compileText(v, tc.text)
		if c == nil {
			t.Fatal(diags)
		}
		if tc.fn != nil {
			c.fn = tc.fn
		}
		e.Clear(event.LostCount)
		if got := c.Disagreement(e); !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", tc.text, got, tc.want)
		}
	}
}
