package policy_test

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/index"
	"github.com/provostd/provost/rules/policy"
)

func isLong() bool { return flag.Lookup("long").Value.String() == "true" }

// bucketed has what an index names of one class compared with what is true.
type bucketed struct {
	x       *index.Index
	scratch index.Scratch
	conds   []*policy.Condition
	texts   []string
	left    int
}

const anyClass = record.ClassProcessExec // conditions of tests judge any event

func newBucketed(conds []*policy.Condition, texts []string) *bucketed {
	parts := make([]index.Part, len(conds))
	for i, c := range conds {
		parts[i] = index.Part{On: []record.Class{anyClass}, Condition: c}
	}
	return &bucketed{x: index.New(parts), conds: conds, texts: texts}
}

// covers demands that all conditions which are true or an error are named, in
// order and once.
func (b *bucketed) covers(t testing.TB, e *event.Event) {
	b.x.Find(anyClass, e, &b.scratch)
	named := make([]bool, len(b.conds))
	last := -1
	for i, ok := b.scratch.Next(); ok; i, ok = b.scratch.Next() {
		if i <= last {
			t.Fatalf("part %d is named after %d", i, last)
		}
		named[i], last = true, i
	}
	for i, c := range b.conds {
		if named[i] {
			continue
		}
		b.left++
		if got := c.Closure(e); got != policy.False {
			g, _ := b.x.Guard(i, anyClass)
			t.Fatalf("%s\nis %v, and the index leaves it out; it is filed under %s\n%s", b.texts[i], got, g, policy.Describe(e))
		}
	}
}

// draw makes up to n conditions and their index.
func draw(x *policy.Expressions, n, depth int) *bucketed {
	var conds []*policy.Condition
	var texts []string
	for range n {
		if c, text := x.Condition(depth); c != nil {
			conds, texts = append(conds, c), append(texts, text)
		}
	}
	return newBucketed(conds, texts)
}

// The index names every condition that is true or an error.
func TestIndexGenerated(t *testing.T) {
	rounds := 60
	if isLong() {
		rounds = 8_000
	} else {
		t.Logf("short run: %d indexes; -long makes 8000", rounds)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	x := policy.RandomExpressions(t, rand.New(rand.NewPCG(seed, 7)))
	all, left := 0, 0
	for range rounds {
		b := draw(x, 1+x.Draw(80), 2+x.Draw(5))
		for range 40 {
			b.covers(t, x.Event())
		}
		all += 40 * len(b.conds)
		left += b.left
	}
	t.Logf("%d evaluations, %d left out", all, left)
	if left < all/3 {
		t.Error("the index leaves out too little to speak of")
	}
}

func FuzzIndex(f *testing.F) {
	for i := range 20 {
		r := rand.New(rand.NewPCG(uint64(i), 8))
		b := make([]byte, 400)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
	shared := policy.RandomExpressions(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		x := shared.Of(data)
		b := draw(x, 6, 4)
		for range 6 {
			b.covers(t, x.Event())
		}
	})
}

// The index of all example policies names those that are true.
func TestIndexExamples(t *testing.T) {
	var conds []*policy.Condition
	var texts []string
	dirs, _ := filepath.Glob("../../examples/policies/*")
	for _, dir := range dirs {
		b, diags := policy.Load(dir)
		if b == nil {
			t.Fatal(diags)
		}
		for _, p := range b.Policies {
			if p.Condition != nil {
				conds, texts = append(conds, p.Condition), append(texts, p.Name)
			}
		}
	}
	b := newBucketed(conds, texts)
	x := policy.RandomExpressions(t, rand.New(rand.NewPCG(1, 1)))
	for range 2_000 {
		b.covers(t, x.Event())
	}
	if b.left == 0 {
		t.Error("the index leaves out nothing")
	}
}
