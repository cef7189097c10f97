package probe

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

var rewrite = flag.Bool("rewrite", false, "rewrite docs/coverage.md")

const coverageHead = `# What the probe sees

Made from the probe's own tables by ` + "`go test ./guestagent/probe -run TestCoveragePage -rewrite`" + `. What holds for
one guest stands in the first record of each session, ` + "`agent.hooks`" + `, signed by its agent: the
hooks that this kernel took and that a canary has proven, and the reason for each that it refused.

Mode ` + "`lsm`" + ` sees the kernel's own objects at its own decision points. Mode ` + "`tracepoint`" + ` is for
kernels that do not run BPF LSM programs: it sees the ends of system calls. Hooks in brackets are used
where the kernel has them; of those with "or" between them the first that loads is used.
`

// The page says what the tables say.
func TestCoveragePage(t *testing.T) {
	const path = "../../docs/coverage.md"
	page := coveragePage()
	if *rewrite {
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, page) {
		t.Errorf("docs/coverage.md is not what the tables say: run go test ./guestagent/probe -run TestCoveragePage -rewrite")
	}
}

// Every class that guests may report is told about in both modes.
func TestEveryClassIsTold(t *testing.T) {
	for _, mode := range []Mode{ModeLSM, ModeTracepoint} {
		told := toldIn(mode)
		for _, c := range record.Classes() {
			if c >= 0x0100 && c < 0x1000 && told[c] == "" {
				t.Errorf("mode %s says nothing about %s", mode, c)
			}
		}
	}
}

func toldIn(mode Mode) map[record.Class]string {
	told := map[record.Class]string{}
	for _, c := range slices.Concat(backbone(mode), coversOf(mode)) {
		if c.class == 0 {
			continue
		}
		told[c.class] = describe(c)
	}
	for _, h := range digestHooks(Config{DigestBytes: 1, Options: Options{Digests: true}}, mode) {
		told[record.Class(h.Class)] = "if switched on: by the agent itself, " + h.Error + "."
		if h.Name == "" {
			told[record.Class(h.Class)] = "not seen: " + h.Error + "."
		}
	}
	for _, u := range uncovered {
		told[u.class] = "not seen: " + u.why + "."
	}
	return told
}

func coveragePage() []byte {
	var b bytes.Buffer
	b.WriteString(coverageHead)
	lsm, tracepoint := toldIn(ModeLSM), toldIn(ModeTracepoint)
	classes := record.Classes()
	slices.Sort(classes)
	group := ""
	for _, c := range classes {
		l, tp := lsm[c], tracepoint[c]
		if l == "" && tp == "" {
			continue
		}
		if g, _, _ := strings.Cut(c.String(), "."); g != group {
			group = g
			fmt.Fprintf(&b, "\n## %s\n", g)
		}
		if l == tp {
			fmt.Fprintf(&b, "\n**`%s`** %s\n", c, l)
			continue
		}
		fmt.Fprintf(&b, "\n**`%s`**\n\n- lsm: %s\n- tracepoint: %s\n", c, l, tp)
	}
	return b.Bytes()
}

func describe(c cover) string {
	var parts []string
	for _, p := range c.needs {
		parts = append(parts, "`"+p.hook+"`")
	}
	for _, group := range c.anyOf {
		var names []string
		for _, p := range group {
			names = append(names, "`"+p.hook+"`")
		}
		parts = append(parts, strings.Join(names, " or "))
	}
	for _, p := range c.extra {
		parts = append(parts, "(`"+p.hook+"`)")
	}
	s := strings.Join(parts, ", ")
	if c.option != nil || c.wanted != nil {
		s = "if switched on: " + s
	}
	if s == "" {
		s = "not seen"
	}
	var limits []string
	if c.limit != "" {
		limits = append(limits, c.limit)
	}
	for _, p := range slices.Concat(c.needs, slices.Concat(c.anyOf...), c.extra) {
		if p.lacks != "" && !slices.Contains(limits, p.hook+": "+p.lacks) {
			limits = append(limits, p.hook+": "+p.lacks)
		}
	}
	if len(limits) > 0 {
		s += ". Not seen or not exact: " + strings.Join(limits, "; ")
	}
	return s + "."
}
