package index

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

// parts compiles conditions that judge events of class on.
func parts(t testing.TB, on record.Class, conditions ...string) []Part {
	t.Helper()
	var b strings.Builder
	b.WriteString("bundle {\n name = \"t\"\n version = \"1\"\n language = 1\n}\n")
	for i, c := range conditions {
		fmt.Fprintf(&b, "policy \"p%06d\" {\n on = [\"%s\"]\n condition = %s\n action \"alert\" {\n message = \"x\"\n }\n}\n", i, on, c)
	}
	bundle, diags := policy.LoadFS(fstest.MapFS{"t.policy.hcl": {Data: []byte(b.String())}})
	if bundle == nil {
		t.Fatal(diags)
	}
	var all []Part
	for _, p := range bundle.Policies {
		all = append(all, Part{p.On, p.Condition})
	}
	return all
}

// found returns what the index names of the event.
func found(x *Index, c record.Class, e *event.Event, s *Scratch) []int {
	x.Find(c, e, s)
	all := []int{}
	for i, ok := s.Next(); ok; i, ok = s.Next() {
		all = append(all, i)
	}
	return all
}

func TestFind(t *testing.T) {
	x := New(parts(t, record.ClassProcessExec,
		/* 0 */ `process.executable == "/usr/bin/curl"`,
		/* 1 */ `startswith(process.executable, "/usr/")`,
		/* 2 */ `startswith(process.executable, "/usr/bin/")`,
		/* 3 */ `endswith(process.executable, "curl")`,
		/* 4 */ `endswith(process.executable, "/curl")`,
		/* 5 */ `strcontains(process.command_line, "abcd")`,
		/* 6 */ `strcontains(process.command_line, "bc")`,
		/* 7 */ `strcontains(process.command_line, "cde")`,
		/* 8 */ `under(process.executable, "/usr/../etc")`,
		/* 9 */ `equals_i(process.name, "İstanbul")`,
		/* 10 */ `matches(process.name, "\\x{FFFD}x")`,
		/* 11 */ `matches_i(process.name, "curl")`,
		/* 12 */ `process.pid == 7`,
		/* 13 */ `process.pid > 7`,
		/* 14 */ `has_arg("--help")`,
		/* 15 */ `anytrue([for a in process.ancestors : a.name == "sshd"])`,
		/* 16 */ `contains([], process.name)`,
		/* 17 */ `process.args_truncated && process.name != "x"`,
	))
	always := []int{13}
	var s Scratch
	for _, tc := range []struct {
		name string
		set  func(e *event.Event)
		want []int
	}{
		{"nothing", func(*event.Event) {}, nil},
		{"equal, prefixes and suffixes", func(e *event.Event) { e.SetString(event.ProcessExecutable, "/usr/bin/curl") }, []int{0, 1, 2, 3, 4}},
		{"one prefix", func(e *event.Event) { e.SetString(event.ProcessExecutable, "/usr/sbin/x") }, []int{1}},
		{"one suffix", func(e *event.Event) { e.SetString(event.ProcessExecutable, "/x/xcurl") }, []int{3}},
		{"shorter than all", func(e *event.Event) { e.SetString(event.ProcessExecutable, "l") }, nil},
		{"words that overlap", func(e *event.Event) { e.SetString(event.ProcessCommandLine, "xabcde") }, []int{5, 6, 7}},
		{"a word in a word", func(e *event.Event) { e.SetString(event.ProcessCommandLine, "ababcx") }, []int{6}},
		{"not canonical", func(e *event.Event) { e.SetString(event.ProcessExecutable, "/tmp//../etc/x") }, []int{8}},
		{"letters beyond ASCII", func(e *event.Event) { e.SetString(event.ProcessName, "İSTANBUL") }, []int{9}},
		{"no UTF-8", func(e *event.Event) { e.SetString(event.ProcessName, "\xffx") }, []int{10}},
		{"other letters", func(e *event.Event) { e.SetString(event.ProcessName, "Curl") }, []int{11}},
		{"other letters beyond ASCII", func(e *event.Event) { e.SetString(event.ProcessName, "éCuRL") }, []int{11}},
		{"a number", func(e *event.Event) { e.SetNumber(event.ProcessPID, 7) }, []int{12}},
		{"an element", func(e *event.Event) { e.SetStrings(event.ProcessArgs, []string{"a", "--help"}) }, []int{14}},
		{"an ancestor", func(e *event.Event) { e.SetAncestors([]event.Process{{Name: "bash"}, {Name: "sshd"}}) }, []int{15}},
		{"true", func(e *event.Event) { e.SetBool(event.ProcessArgsTruncated, true) }, []int{17}},
	} {
		e := new(event.Event)
		tc.set(e)
		want := append(slices.Clone(always), tc.want...)
		slices.Sort(want)
		if got := found(x, record.ClassProcessExec, e, &s); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tc.name, got, want)
		}
		if got := found(x, record.ClassFileModify, e, &s); len(got) > 0 {
			t.Errorf("%s: %v judge another class", tc.name, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	x := New(parts(t, record.ClassNetworkConnect,
		`in_cidr(destination.ip, "10.0.0.0/8")`, `in_cidr(destination.ip, "10.1.0.0/16")`, `destination.ip == "10.1.2.3"`,
		`in_cidr(destination.ip, ["2001:db8::/32", "10.1.2.3"])`, `in_cidr(destination.ip, "0.0.0.0/0")`))
	var s Scratch
	for text, want := range map[string][]int{
		"10.1.2.3": {0, 1, 2, 3, 4}, "10.1.9.9": {0, 1, 4}, "10.9.9.9": {0, 4}, "192.0.2.1": {4}, "2001:db8::1": {3}, "2001:db9::1": {}, "::ffff:10.9.9.9": {0, 4},
	} {
		e := new(event.Event)
		e.SetAddr(event.DestinationIP, netip.MustParseAddr(text))
		if got := found(x, record.ClassNetworkConnect, e, &s); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// One Scratch serves one index after the other, and what was not taken out is
// forgotten.
func TestScratch(t *testing.T) {
	small := New(parts(t, record.ClassFileModify, `file.path == "/a"`, `file.path == "/b"`))
	var list []string
	for i := range 5000 {
		list = append(list, fmt.Sprintf(`file.path == "/f%d" || file.path == "/all"`, i))
	}
	large := New(parts(t, record.ClassFileModify, list...))
	var s Scratch
	at := func(path string) *event.Event {
		e := new(event.Event)
		e.SetString(event.FilePath, path)
		return e
	}
	for range 3 {
		if got := found(small, record.ClassFileModify, at("/b"), &s); !slices.Equal(got, []int{1}) {
			t.Fatal(got)
		}
		if got := found(large, record.ClassFileModify, at("/f4999"), &s); !slices.Equal(got, []int{4999}) {
			t.Fatal(got)
		}
		large.Find(record.ClassFileModify, at("/all"), &s)
		if i, ok := s.Next(); !ok || i != 0 {
			t.Fatal(i, ok)
		}
		if got := found(large, record.ClassFileModify, at("/f1"), &s); !slices.Equal(got, []int{1}) {
			t.Fatal(got)
		}
		if got := found(large, record.ClassFileModify, at("/all"), &s); len(got) != 5000 || !slices.IsSorted(got) {
			t.Fatal(len(got))
		}
		small.All(record.ClassFileModify, &s)
		if i, ok := s.Next(); !ok || i != 0 {
			t.Fatal(i, ok)
		}
	}
}

// Words are found as strings.Contains finds them, also where they were cut.
func TestAutomaton(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		b := make([]byte, 1+r.IntN(n))
		for i := range b {
			b[i] = "abcx"[r.IntN(4)]
		}
		return string(b)
	}
	for _, cut := range []int{64, 3} {
		for range 200 {
			var list []word
			seen := make(map[string]bool)
			for range 1 + r.IntN(20) {
				if w := text(6); !seen[w] {
					seen[w] = true
					list = append(list, word{w, int32(len(list))})
				}
			}
			x := &Index{parts: len(list)}
			for i := range list {
				x.postings = append(x.postings, []int32{int32(i)})
			}
			a := buildAutomaton(list, cut, 1<<20)
			var s Scratch
			for range 20 {
				in := text(30)
				s.begin(x)
				a.find(in, &s)
				var got, want []int
				for i, ok := s.Next(); ok; i, ok = s.Next() {
					got = append(got, i)
				}
				for i, w := range list {
					if strings.Contains(in, w.text[:min(cut, len(w.text))]) {
						want = append(want, i)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%q in %q: %v, want %v", list, in, got, want)
				}
			}
		}
	}
	if buildAutomaton([]word{{"abcdef", 0}}, 64, 10) != nil {
		t.Error("an automaton is larger than its limit")
	}
}

// Finding needs no memory.
func TestNoAllocations(t *testing.T) {
	x := New(parts(t, record.ClassProcessExec, `strcontains_i(process.command_line, "CURL")`, `under(process.executable, "/tmp")`, `process.name == "x"`, `contains_i(["sh"], process.name)`))
	e, s := new(event.Event), new(Scratch)
	e.SetString(event.ProcessCommandLine, "Curl -s")
	e.SetString(event.ProcessExecutable, "/tmp/x")
	e.SetString(event.ProcessName, "SH")
	if n := testing.AllocsPerRun(100, func() { x.Find(record.ClassProcessExec, e, s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBaseNameOfNothing: the base name of an empty text is ".", which is not a part of
// it.
func TestBaseNameOfNothing(t *testing.T) {
	p := parts(t, record.ClassProcessExec, `basename(argv(1)) == "."`)
	e := new(event.Event)
	e.SetStrings(event.ProcessArgs, []string{"a", ""})
	if ok, err := p[0].Condition.Eval(e); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := found(New(p), record.ClassProcessExec, e, new(Scratch)); !slices.Equal(got, []int{0}) {
		t.Errorf("%v, want it named", got)
	}
}
