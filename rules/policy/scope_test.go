package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/provostd/provost/rules/event"
)

// Closures equal cty on values of earlier steps, missing ones included.
func TestScopeAgrees(t *testing.T) {
	conditions := []string{
		`file.path == step.a.file.path`,
		`step.a.file.path != file.path && has(step.a.file.path)`,
		`step.a.process.pid > 5 || step.a.process.pid == process.pid`,
		`step.a.count >= 2 && !(step.a.event.refused)`,
		`has(step.a.process.name) ? startswith(process.name, step.a.process.name) : step.a.event.refused`,
		`contains(["sh", "bash"], lower(step.a.process.name)) && step.a.vm.metadata.zone == vm.metadata.zone`,
		`in_cidr(step.a.destination.ip, ["10.0.0.0/8"]) || is_external(step.a.destination.ip)`,
		`step.a.destination.ip == destination.ip && port_in(step.a.destination.port, ["1-1024"])`,
		`(under(file.path, "/etc") || has(destination.ip)) && length(step.a.file.path) < 8`,
		`anytrue([for p in process.ancestors : p.name == step.a.process.name])`,
	}
	text := head
	for i, c := range conditions {
		text += fmt.Sprintf("policy \"p%d\" {\n sequence {\n within = \"1m\"\n step \"a\" {\n on = [\"file.modify\", \"network.connect\"]\n }\n step \"b\" {\n on = [\"file.modify\", \"network.connect\"]\n condition = %s\n }\n }\n action \"pause\" {}\n}\n", i, c)
	}
	b, diags := loadText(text)
	if b == nil {
		t.Fatal(diags)
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 9))
	for _, p := range b.Policies {
		var answers [3]int
		for range 2_000 {
			e := genEvent(randChooser{r})
			e.Bound = make([]event.Bound, len(p.Captures))
			for i, c := range p.Captures {
				e.Bound[i] = genBound(r, c)
			}
			answers[agree(t, p.Name, p.Sequence.Steps[1].Condition, e)]++
		}
		if answers[True] == 0 || answers[False] == 0 {
			t.Errorf("%s: answers %v", p.Name, answers)
		}
	}
}

// genBound draws what an earlier event may have had.
func genBound(r *rand.Rand, c *Capture) event.Bound {
	name := c.Name()
	switch {
	case c.info.Kind == event.KindBool || c.info.Kind == event.KindNumber:
		n := poolNums[r.IntN(len(poolNums))]
		if c.info.Kind == event.KindBool {
			n = uint64(r.IntN(2))
		}
		return event.Bound{Present: c.Kind == CaptureTaken || r.IntN(3) > 0, Num: n}
	case r.IntN(3) == 0:
		return event.Bound{}
	case strings.HasSuffix(name, ".ip"):
		return event.Bound{Present: true, Str: []string{"10.0.0.1", "192.0.2.7", "2001:db8::1"}[r.IntN(3)]}
	case strings.HasSuffix(name, ".path"):
		return event.Bound{Present: true, Str: event.Normalize(poolPaths[r.IntN(len(poolPaths))])}
	case strings.HasSuffix(name, ".zone"):
		return event.Bound{Present: true, Str: "restricted"}
	}
	return event.Bound{Present: true, Str: event.Normalize(poolNames[r.IntN(len(poolNames))])}
}

// What an earlier step says is not the event's own: no index may look for it.
func TestScopeGuards(t *testing.T) {
	b, diags := loadText(head + "policy \"p\" {\n sequence {\n within = \"1m\"\n step \"a\" {\n on = [\"process.exec\"]\n }\n step \"b\" {\n on = [\"process.exec\"]\n condition = step.a.process.name == \"curl\" && step.a.process.pid == 7 && step.a.event.refused\n }\n }\n action \"pause\" {}\n}\n")
	if b == nil {
		t.Fatal(diags)
	}
	if g := b.Policies[0].Sequence.Steps[1].Condition.Guards(); len(g) > 0 {
		t.Errorf("guards %v", g)
	}
}
