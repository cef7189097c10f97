package sigma

import (
	"flag"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

var rulesDir = flag.String("sigma", "", "directory of Sigma rules to convert and count")

// TestMeasure converts the rules that -sigma names and says what became of
// them. What it wants is what holds for every set of rules: that each is
// accounted for and that the bundle loads.
func TestMeasure(t *testing.T) {
	if *rulesDir == "" {
		t.Skip("needs -sigma DIR")
	}
	sources, err := Read(*rulesDir)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Convert(sources, Options{})
	if err != nil {
		t.Fatal(err)
	}
	total, done := make(map[string]int), make(map[string]int)
	for _, o := range res.Rules {
		dir, _, _ := strings.Cut(o.Source, "/")
		total[dir]++
		if o.Reason == "" {
			done[dir]++
			if len(o.Notes) > 0 {
				t.Logf("%s: note: %s", o.Source, strings.Join(o.Notes, "; "))
			}
		} else {
			t.Logf("%s: %s", o.Source, o.Reason)
		}
		if (len(o.Policies) == 0) == (o.Reason == "") {
			t.Errorf("%s: policies %v and reason %q", o.Source, o.Policies, o.Reason)
		}
	}
	files := make(fstest.MapFS)
	for _, f := range res.Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	b, diags := policy.LoadFS(files)
	if b == nil {
		t.Fatal(diags)
	}
	slow, unguarded := 0, 0
	for _, p := range b.Policies {
		if p.Condition == nil || len(p.Condition.Guards()) == 0 {
			unguarded++
		}
		if p.Condition != nil && len(p.Condition.Slow()) > 0 {
			slow++
		}
	}
	codes := make(map[policy.Code]int)
	for _, d := range diags {
		codes[policy.DetailOf(d).Code]++
	}
	for _, dir := range sortedKeys(keysOf(total)) {
		t.Logf("%s: %d of %d", dir, done[dir], total[dir])
	}
	t.Logf("all: %d of %d rules, %d policies, %d with parts without a closure, %d that no index narrows, warnings %v", res.Converted(), len(res.Rules), len(b.Policies), slow, unguarded, codes)
}

// BenchmarkMeasure judges executions with all rules that -sigma names.
func BenchmarkMeasure(b *testing.B) {
	if *rulesDir == "" {
		b.Skip("needs -sigma DIR")
	}
	sources, err := Read(*rulesDir)
	if err != nil {
		b.Fatal(err)
	}
	engine := engineOf(b, convert(b, Options{}, sources...))
	events := []*record.Event{
		exec("/usr/bin/ls", "ls", "-l", "/home/a"), exec("/usr/bin/git", "git", "commit", "-m", "text"),
		exec("/usr/lib/systemd/systemd", "systemd", "--user"), exec("/usr/bin/cc1", "cc1", "-quiet", "-I", "include", "a.c", "-o", "a.o"),
	}
	st := &rules.State{}
	leaf := record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassProcessExec}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		leaf.Index, leaf.Mono = uint64(i), int64(i)
		v, err := engine.Eval(st, leaf, record.Hash{}, events[i%len(events)])
		if err != nil || len(v) > 0 {
			b.Fatalf("%v, %v", v, err)
		}
	}
}

func keysOf(m map[string]int) map[string]bool {
	out := make(map[string]bool)
	for k := range m {
		out[k] = true
	}
	return out
}
