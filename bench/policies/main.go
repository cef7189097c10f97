// Command policies evaluates the conditions of make bench-rules with the
// engines that one could take instead: HCL as its library evaluates it, cel-go,
// OPA and expr. It prints one line for each: nanoseconds and allocations for
// each event, and how many conditions were true of all events together. What a
// program would do before, turn a record into the engine's own values, is done
// before the clock starts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

func main() {
	engine := flag.String("engine", "", "hcl, cel, opa or expr")
	rules := flag.Int("rules", 1, "how many conditions; 0 for one that is true, of five parts")
	testing.Init()
	flag.Parse()
	if err := run(*engine, *rules); err != nil {
		fmt.Fprintln(os.Stderr, "policies:", err)
		os.Exit(1)
	}
}

// evaluator returns how many of its conditions are true of an event.
type evaluator func(e *sample) (int, error)

var engines = map[string]func(rules []rule) (evaluator, error){"hcl": newHCL, "cel": newCEL, "opa": newOPA, "expr": newExpr}

func run(engine string, n int) error {
	start := engines[engine]
	if start == nil {
		return fmt.Errorf("there is no engine %q", engine)
	}
	rules, events, more := mixed(n), samples()[:3], samples()[4:]
	if n == 0 {
		rules, events, more = []rule{five}, samples()[3:4], nil
	}
	eval, err := start(rules)
	if err != nil {
		return fmt.Errorf("compile for %s: %w", engine, err)
	}
	matched := 0
	for _, e := range append(events[:len(events):len(events)], more...) {
		m, err := eval(&e)
		if err != nil {
			return fmt.Errorf("evaluate with %s: %w", engine, err)
		}
		matched += m
	}
	var failed error
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, err := eval(&events[i]); err != nil {
				failed = errors.Join(failed, err)
				return
			}
			if i++; i == len(events) {
				i = 0
			}
		}
	})
	if failed != nil {
		return failed
	}
	fmt.Printf("%.1f %d %d\n", float64(r.T.Nanoseconds())/float64(r.N), r.AllocsPerOp(), matched)
	return nil
}

// rule is one condition in the words of each engine.
type rule struct {
	on                  string
	hcl, cel, opa, expr string
}

var five = rule{
	on:   "file.modify",
	hcl:  `startswith(file.path, "/etc/") && !contains(["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"], process.executable) && process.parent.name != "cloud-init" && process.pid > 1`,
	cel:  `file.path.startsWith("/etc/") && !(process.executable in ["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"]) && process.parent.name != "cloud-init" && process.pid > 1`,
	opa:  `startswith(input.file.path, "/etc/"); not input.process.executable in {"/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"}; input.process.parent.name != "cloud-init"; input.process.pid > 1`,
	expr: `file.path startsWith "/etc/" && !(process.executable in ["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"]) && process.parent.name != "cloud-init" && process.pid > 1`,
}

// mixed is the mix of rules/bench_test.go. Where an engine has no notion of a
// prefix of addresses or of a path below a directory it compares text, which is
// less work.
func mixed(n int) []rule {
	all := make([]rule, n)
	for i := range all {
		r := &all[i]
		r.on = "process.exec"
		switch k := i % 100; {
		case k < 35:
			path := fmt.Sprintf(`"/usr/lib/tool%d/run"`, i)
			r.hcl = "process.executable == " + path + " && user.id != 4711"
			r.cel, r.expr = r.hcl, r.hcl
			r.opa = "input.process.executable == " + path + "; input.user.id != 4711"
		case k < 60:
			word := fmt.Sprintf(`"word%d"`, i)
			r.hcl = `endswith(process.executable, "/curl") && strcontains(process.command_line, ` + word + `)`
			r.cel = `process.executable.endsWith("/curl") && process.command_line.contains(` + word + `)`
			r.expr = `process.executable endsWith "/curl" && process.command_line contains ` + word
			r.opa = `endswith(input.process.executable, "/curl"); contains(input.process.command_line, ` + word + `)`
		case k < 82:
			r.on = "file.modify"
			dir := fmt.Sprintf(`"/srv/app%d/conf/"`, i)
			r.hcl = "startswith(file.path, " + dir + `) && process.name != "deploy"`
			r.cel = "file.path.startsWith(" + dir + `) && process.name != "deploy"`
			r.expr = "file.path startsWith " + dir + ` && process.name != "deploy"`
			r.opa = "startswith(input.file.path, " + dir + `); input.process.name != "deploy"`
		case k < 95:
			r.on = "network.connect"
			net := fmt.Sprintf(`"100.%d.%d."`, i/250%250, i%250)
			r.hcl = "startswith(destination.ip, " + net + ") && destination.port != 53"
			r.cel = "destination.ip.startsWith(" + net + ") && destination.port != 53"
			r.expr = "destination.ip startsWith " + net + " && destination.port != 53"
			r.opa = "startswith(input.destination.ip, " + net + "); input.destination.port != 53"
		default:
			pattern := fmt.Sprintf(`"base64 -d.*key%d"`, i)
			r.hcl = "matches(process.command_line, " + pattern + ")"
			r.cel = "process.command_line.matches(" + pattern + ")"
			r.expr = "process.command_line matches " + pattern
			r.opa = "regex.match(" + pattern + ", input.process.command_line)"
		}
	}
	return all
}

// sample is one event, in the values of each engine.
type sample struct {
	fields map[string]any
	record values
	cache  any
}

// values is a sample as a Go program would hold it.
type values struct {
	Event       eventValues   `expr:"event"`
	Process     processValues `expr:"process"`
	User        userValues    `expr:"user"`
	File        fileValues    `expr:"file"`
	Destination endValues     `expr:"destination"`
}

type eventValues struct {
	Type string `expr:"type"`
}

type processValues struct {
	Executable  string       `expr:"executable"`
	Name        string       `expr:"name"`
	CommandLine string       `expr:"command_line"`
	PID         int64        `expr:"pid"`
	Parent      parentValues `expr:"parent"`
}

type parentValues struct {
	Name       string `expr:"name"`
	Executable string `expr:"executable"`
}

type userValues struct {
	ID int64 `expr:"id"`
}

type fileValues struct {
	Path string `expr:"path"`
}

type endValues struct {
	IP   string `expr:"ip"`
	Port int64  `expr:"port"`
}

// samples are the events of rules/bench_test.go, one of which five is true, and
// one for each kind of rule in mixed.
func samples() []sample {
	parent := parentValues{"bash", "/usr/bin/bash"}
	vim := processValues{Executable: "/usr/bin/vim", Name: "vim", CommandLine: "vim", PID: 42, Parent: parent}
	curl := processValues{Executable: "/usr/bin/curl", Name: "curl", CommandLine: "curl -s https://example.test/index.html", PID: 9, Parent: parent}
	var all []sample
	for _, v := range []values{
		{Event: eventValues{"process.exec"}, Process: curl},
		{Event: eventValues{"file.modify"}, Process: vim, File: fileValues{"/home/user/notes.txt"}},
		{Event: eventValues{"network.connect"}, Process: vim, Destination: endValues{"192.0.2.7", 443}},
		{Event: eventValues{"file.modify"}, Process: vim, File: fileValues{"/etc/passwd"}},
		{Event: eventValues{"process.exec"}, Process: processValues{Executable: "/usr/lib/tool0/run", CommandLine: "run"}},
		{Event: eventValues{"process.exec"}, Process: processValues{Executable: "/usr/bin/curl", CommandLine: "curl word35"}},
		{Event: eventValues{"process.exec"}, Process: processValues{Executable: "/bin/sh", CommandLine: "sh -c base64 -d x key95"}},
		{Event: eventValues{"file.modify"}, Process: vim, File: fileValues{"/srv/app60/conf/x"}},
		{Event: eventValues{"network.connect"}, Process: vim, Destination: endValues{"100.0.82.9", 443}},
	} {
		p := v.Process
		fields := map[string]any{
			"event": map[string]any{"type": v.Event.Type},
			"process": map[string]any{"executable": p.Executable, "name": p.Name, "command_line": p.CommandLine, "pid": p.PID,
				"parent": map[string]any{"name": p.Parent.Name, "executable": p.Parent.Executable}},
			"user":        map[string]any{"id": v.User.ID},
			"file":        map[string]any{"path": v.File.Path},
			"destination": map[string]any{"ip": v.Destination.IP, "port": v.Destination.Port},
		}
		all = append(all, sample{fields: fields, record: v})
	}
	return all
}

// typed puts the type of event before a condition.
func (r *rule) typed(text string) string {
	return fmt.Sprintf("event.type == %q && %s", r.on, strings.TrimSpace(text))
}
