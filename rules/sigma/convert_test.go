package sigma

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func sources(t testing.TB, names ...string) []Source {
	t.Helper()
	var all []Source
	for _, n := range names {
		s, err := Read(filepath.Join("testdata", n+".yml"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s...)
	}
	return all
}

func convert(t testing.TB, opts Options, all ...Source) *Result {
	t.Helper()
	res, err := Convert(all, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

var converted = []string{"proc_shell_from_web", "proc_modifiers", "file_cron", "net_tunnel", "audit_execve", "audit_path", "audit_syscall"}

// The text of converted rules, to be read in reviews (-rewrite renews it).
func TestGolden(t *testing.T) {
	res := convert(t, Options{}, sources(t, converted...)...)
	var b strings.Builder
	for _, f := range res.Files {
		b.WriteString("# ---- " + f.Name + "\n")
		b.Write(f.Data)
	}
	for _, o := range res.Rules {
		if o.Reason != "" {
			t.Errorf("%s: %s", o.Source, o.Reason)
		}
		b.WriteString("# " + o.Source + ": " + strings.Join(o.Policies, ", ") + "; " + strings.Join(o.Notes, "; ") + "\n")
	}
	golden(t, "converted.golden", b.String())
}

// What cannot be converted is said with its reason, and does not stop others.
func TestUnconverted(t *testing.T) {
	res := convert(t, Options{}, sources(t, "unconverted", "file_cron")...)
	var b strings.Builder
	for _, o := range res.Rules {
		if o.Source == "unconverted.yml" {
			b.WriteString(o.Title + ": " + o.Reason + "\n")
			if o.Reason == "" || len(o.Policies) > 0 {
				t.Errorf("%q was converted to %v", o.Title, o.Policies)
			}
		}
	}
	golden(t, "unconverted.golden", b.String())
	if len(res.Files) != 2 || res.Converted() != 1 {
		t.Errorf("%d files, %d converted, want the bundle and one file of one rule", len(res.Files), res.Converted())
	}
	if res := convert(t, Options{}, sources(t, "unconverted")...); len(res.Files) != 0 || res.Converted() != 0 {
		t.Errorf("a bundle was made of no rule: %v", res.Files)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-rewrite renews it):\n%s", name, got)
	}
}

func engineOf(t testing.TB, res *Result) *rules.Engine {
	t.Helper()
	files := make(fstest.MapFS)
	for _, f := range res.Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	b, diags := policy.LoadFS(files)
	if b == nil {
		t.Fatal(diags)
	}
	engine, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// judge returns the policies of a bundle that match one event.
func judge(t testing.TB, res *Result, class record.Class, e *record.Event) []string {
	t.Helper()
	engine := engineOf(t, res)
	st := &rules.State{}
	genesis := &record.Genesis{DomainUuid: "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11", DomainName: "web-1", Cause: "define"}
	var names []string
	for i, p := range []struct {
		class record.Class
		msg   record.Message
	}{{record.ClassGenesis, genesis}, {class, e}} {
		leaf := record.Leaf{Origin: record.OriginGuest, Index: uint64(i), Mono: int64(i) * int64(time.Second), Header: record.Header{Class: p.class}}
		verdicts, err := engine.Eval(st, leaf, record.LeafHash(leaf.AppendBinary(nil)), p.msg)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts {
			if v.Error != "" {
				t.Errorf("policy %s: %s", v.Policy, v.Error)
			}
			if !v.WouldHave {
				t.Errorf("policy %s is not in audit mode", v.Policy)
			}
			names = append(names, v.Policy)
		}
	}
	slices.Sort(names)
	return names
}

func exec(exe string, args ...string) *record.Event {
	p := &record.Process{Pid: 42, Start: 7, Executable: []byte(exe), WorkingDirectory: []byte("/"), Credentials: &record.Credentials{Uid: 1000, Euid: 1000}}
	for _, a := range args {
		p.Args = append(p.Args, []byte(a))
	}
	return &record.Event{Process: p, Parent: &record.Process{Pid: 1, Executable: []byte("/usr/sbin/nginx")}}
}

func with1(e *record.Event, change func(*record.Event)) *record.Event { change(e); return e }

func onFile(path, target, exe string) *record.Event {
	e := &record.Event{Process: &record.Process{Pid: 42, Executable: []byte(exe)}, File: &record.File{Path: []byte(path)}}
	if target != "" {
		e.Target = &record.File{Path: []byte(target)}
	}
	return e
}

func toPort(ip [4]byte, port uint32, name, direction string) *record.Event {
	return &record.Event{Process: &record.Process{Pid: 42, Executable: []byte("/usr/bin/x")},
		Network: &record.Network{Family: 4, Protocol: "tcp", DestinationIp: ip[:], DestinationPort: port, Name: []byte(name), Direction: direction}}
}

// Converted rules match what the rule means, and nothing beside it.
func TestMeaning(t *testing.T) {
	web := func(args ...string) *record.Event { return exec("/usr/bin/BASH", args...) }
	cmd := func(line string) *record.Event { return exec("/usr/bin/x", strings.Split(line, " ")...) }
	module := func(change func(*record.Event)) *record.Event {
		return with1(&record.Event{ResultKnown: true, Process: &record.Process{Pid: 1, Credentials: &record.Credentials{}}}, change)
	}
	const mod = "proc_modifiers"
	for _, c := range []struct {
		rule, what string
		class      record.Class
		event      *record.Event
		want       string
	}{
		{"proc_shell_from_web", "any case", record.ClassProcessExec, web("bash", "-c", "id"), "proc_shell_from_web"},
		{"proc_shell_from_web", "filter", record.ClassProcessExec, web("bash", "LogRotate", "--state"), ""},
		{"proc_shell_from_web", "half of the filter", record.ClassProcessExec, web("bash", "logrotate"), "proc_shell_from_web"},
		{"proc_shell_from_web", "other program", record.ClassProcessExec, exec("/usr/bin/id", "id"), ""},
		{"proc_shell_from_web", "no parent", record.ClassProcessExec, with1(web("bash"), func(e *record.Event) { e.Parent = nil }), ""},

		{mod, "re", record.ClassProcessExec, cmd("x AA123"), mod},
		{mod, "re is cased", record.ClassProcessExec, cmd("x aa123"), ""},
		{mod, "re with i", record.ClassProcessExec, cmd("x BB123"), mod},
		{mod, "cased", record.ClassProcessExec, cmd("x CaSeD"), mod},
		{mod, "cased differs", record.ClassProcessExec, cmd("x cased"), ""},
		{mod, "exists", record.ClassProcessExec, cmd("x nowhere"), ""},
		{mod, "exists not", record.ClassProcessExec, with1(cmd("x nowhere"), func(e *record.Event) { e.Process.WorkingDirectory = nil }), mod},
		{mod, "windash", record.ClassProcessExec, cmd("x /quit now"), mod},
		{mod, "windash as written", record.ClassProcessExec, cmd("x -quit now"), mod},
		{mod, "windash with a long dash", record.ClassProcessExec, cmd("x \u2013quit now"), mod},
		// printf 'cat /etc/shadow' | base64, and shifted by one and two
		{mod, "base64 at 1", record.ClassProcessExec, cmd("echo Y2F0IC9ldGMvc2hhZG93"), mod},
		{mod, "base64 at 2", record.ClassProcessExec, cmd("echo eGNhdCAvZXRjL3NoYWRvdw=="), mod},
		{mod, "base64 at 0", record.ClassProcessExec, cmd("echo eHhjYXQgL2V0Yy9zaGFkb3c="), mod},
		{mod, "base64 of another", record.ClassProcessExec, cmd("echo L2V0Yy9wYXNzd2Q="), ""},
		{mod, "wide base64", record.ClassProcessExec, cmd("x cABhAHkAbABvAGEAZAA="), mod},
		{mod, "fieldref", record.ClassProcessExec, exec("/usr/sbin/nginx", "nginx", "twice"), mod},
		{mod, "fieldref differs", record.ClassProcessExec, cmd("x twice"), ""},
		{mod, "gte", record.ClassProcessExec, with1(cmd("x"), func(e *record.Event) { e.Process.Pid = 4000000 }), mod},
		{mod, "gte less", record.ClassProcessExec, with1(cmd("x"), func(e *record.Event) { e.Process.Pid = 3999999 }), ""},
		{mod, "one of numbers", record.ClassProcessExec, with1(cmd("x"), func(e *record.Event) { e.Process.Pid = 78 }), mod},
		{mod, "template", record.ClassProcessExec, cmd("x ${JNDI:ldap://a}"), mod},
		{mod, "directive", record.ClassProcessExec, cmd(`x %{if "x"}`), mod},
		{mod, "tab and backslash", record.ClassProcessExec, cmd("x tab\tand\\back"), mod},
		{mod, "wildcards", record.ClassProcessExec, cmd("start of middle or mid-le to end"), mod},
		{mod, "wildcard of one", record.ClassProcessExec, cmd("start midle end"), ""},
		{mod, "escaped wildcards", record.ClassProcessExec, cmd(`x what?*\ y`), mod},
		{mod, "escaped wildcards are no wildcards", record.ClassProcessExec, cmd(`x whatever\ y`), ""},
		{mod, "user", record.ClassProcessExec, with1(exec("/usr/bin/special", "x"), func(e *record.Event) { e.Process.Credentials.Uid = 0 }), mod},
		{mod, "other user", record.ClassProcessExec, exec("/usr/bin/special", "x"), ""},
		{mod, "null", record.ClassProcessExec, with1(cmd("orphan x"), func(e *record.Event) { e.Parent = nil }), mod},
		{mod, "not null", record.ClassProcessExec, cmd("orphan x"), ""},

		{"file_cron", "created", record.ClassFileCreate, onFile("/etc/cron.d/x", "", "/bin/x"), "file_cron"},
		{"file_cron", "written", record.ClassFileModify, onFile("/etc/crontab", "", "/bin/x"), "file_cron"},
		{"file_cron", "by a package", record.ClassFileModify, onFile("/etc/crontab", "", "/usr/bin/dpkg"), ""},
		{"file_cron", "renamed to", record.ClassFileRename, onFile("/tmp/x", "/etc/cron.d/x", "/bin/mv"), "file_cron_renamed"},
		{"file_cron", "renamed away", record.ClassFileRename, onFile("/etc/cron.d/x", "/tmp/x", "/bin/mv"), ""},
		{"file_cron", "deleted", record.ClassFileDelete, onFile("/etc/crontab", "", "/bin/rm"), ""},

		{"net_tunnel", "port", record.ClassNetworkConnect, toPort([4]byte{198, 51, 100, 1}, 5555, "", "egress"), "net_tunnel"},
		{"net_tunnel", "datagram", record.ClassNetworkSend, toPort([4]byte{198, 51, 100, 1}, 4444, "", "egress"), "net_tunnel"},
		{"net_tunnel", "not initiated", record.ClassNetworkAccept, toPort([4]byte{198, 51, 100, 1}, 5555, "", "ingress"), ""},
		{"net_tunnel", "local", record.ClassNetworkConnect, toPort([4]byte{10, 9, 9, 9}, 5555, "", "egress"), ""},
		{"net_tunnel", "name", record.ClassNetworkConnect, toPort([4]byte{198, 51, 100, 1}, 80, "a.TUNNEL.example", "egress"), "net_tunnel"},
		{"net_tunnel", "address", record.ClassNetworkConnect, toPort([4]byte{192, 0, 2, 7}, 80, "", "egress"), "net_tunnel"},
		{"net_tunnel", "address of who accepts", record.ClassNetworkAccept, toPort([4]byte{192, 0, 2, 7}, 80, "", "ingress"), "net_tunnel_accepted"},

		{"audit_execve", "keyword", record.ClassProcessExec, exec("/tmp/a", "/tmp/XMRig", "-o"), "audit_execve"},
		{"audit_execve", "arguments", record.ClassProcessExec, exec("/usr/bin/curl", "curl", "--upload-file"), "audit_execve"},
		{"audit_execve", "argument elsewhere", record.ClassProcessExec, exec("/usr/bin/curl", "curl", "x", "--upload-file"), ""},
		{"audit_absent", "a field of other records", record.ClassProcessExec, with1(exec("/x", "y"), func(e *record.Event) { e.Process.Name = []byte("x") }), "audit_absent"},
		{"audit_path", "created", record.ClassFileCreate, onFile("/etc/systemd/system/a.service", "", "/bin/x"), "audit_path"},
		{"audit_path", "renamed to", record.ClassFileRename, onFile("/tmp/a", "/etc/systemd/system/a.service", "/bin/mv"), "audit_path_renamed"},
		{"audit_path", "written", record.ClassFileModify, onFile("/etc/systemd/system/a.service", "", "/bin/x"), ""},
		{"audit_syscall", "module", record.ClassKernelModuleLoad, module(func(*record.Event) {}), "audit_syscall_module_load"},
		{"audit_syscall", "failed", record.ClassKernelModuleLoad, module(func(e *record.Event) { e.Result = 1 }), ""},
		{"audit_syscall", "other user", record.ClassKernelModuleLoad, module(func(e *record.Event) { e.Process.Credentials.Euid = 5 }), ""},
		{"audit_syscall", "device node without login", record.ClassFileCreate, module(func(e *record.Event) {
			e.Process.LoginUid, e.File = 4294967295, &record.File{Path: []byte("/tmp/d"), Inode: 9, Rdev: 5}
		}), "audit_syscall_create"},
		{"audit_syscall", "plain file", record.ClassFileCreate, module(func(e *record.Event) {
			e.Process.LoginUid, e.File = 4294967295, &record.File{Path: []byte("/tmp/d"), Inode: 9}
		}), ""},
	} {
		t.Run(c.rule+"/"+c.what, func(t *testing.T) {
			res := convert(t, Options{}, sources(t, c.rule)...)
			if got := strings.Join(judge(t, res, c.class, c.event), " "); got != c.want {
				t.Errorf("matches %q, want %q", got, c.want)
			}
		})
	}
}

// With Cased, names of files and programs are compared exactly, and command
// lines as before.
func TestCased(t *testing.T) {
	res := convert(t, Options{Cased: true}, sources(t, "proc_shell_from_web", "audit_execve")...)
	for exe, want := range map[string]string{"/usr/bin/bash": "proc_shell_from_web", "/usr/bin/Bash": ""} {
		if got := strings.Join(judge(t, res, record.ClassProcessExec, exec(exe, "x")), " "); got != want {
			t.Errorf("%s matches %q, want %q", exe, got, want)
		}
	}
	if got := judge(t, res, record.ClassProcessExec, exec("/bin/x", "XMRIG")); len(got) != 1 {
		t.Errorf("a command line is compared with regard to case: %v", got)
	}
}

// Rules of one name get policies of different names, and the licence's
// attribution stays with each.
func TestNamesAndAttribution(t *testing.T) {
	s := sources(t, "file_cron")[0]
	res := convert(t, Options{Bundle: "b", Version: "7", Origin: "https://example.org/rules"}, s, Source{Name: "below/file_cron.yaml", Data: s.Data}, Source{Name: "9 Ü.yml", Data: s.Data})
	var names []string
	for _, o := range res.Rules {
		names = append(names, o.Policies...)
	}
	if got := strings.Join(names, " "); got != "file_cron file_cron_renamed file_cron_2 file_cron_renamed_2 sigma_9__ sigma_9___renamed" {
		t.Errorf("policies %s", got)
	}
	for _, f := range res.Files[1:] {
		for _, want := range []string{"# Author: C. Author", "Detection Rule License (DRL) 1.1", "https://example.org/rules", "(Sigma rule by C. Author)", "33333333-3333-4333-8333-333333333333"} {
			if !strings.Contains(string(f.Data), want) {
				t.Errorf("%s has no %q", f.Name, want)
			}
		}
	}
}

// Whatever a rule holds, it ends as text of a policy that says the same.
func FuzzConvert(f *testing.F) {
	for _, n := range append(converted, "unconverted") {
		for _, s := range sources(f, n) {
			f.Add(s.Data)
		}
	}
	f.Add([]byte("title: a\nlogsource: {category: process_creation}\ndetection: {s: {CommandLine: '$${x} $$${y} %%{z} \\\\* \x00'}, condition: s}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := Convert([]Source{{Name: "x.yml", Data: data}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range res.Rules {
			if (len(o.Policies) == 0) == (o.Reason == "") {
				t.Errorf("policies %v and reason %q", o.Policies, o.Reason)
			}
		}
	})
}

// A text with everything that means something to HCL stays itself.
func TestQuote(t *testing.T) {
	for _, s := range []string{"${a}", "$${a}", "$$${a}", "%{a}", "%%{a}", "$", "$ {", "a\"b\\c\nd\te\rf", "\x00\x1b\u00a0\U000e0001", "é"} {
		text := "title: t\nlogsource: {category: process_creation}\ndetection:\n  s:\n    CommandLine|contains: " + yamlQuote(s) + "\n  condition: s\n"
		res := convert(t, Options{}, Source{Name: "q.yml", Data: []byte(text)})
		if res.Converted() != 1 {
			t.Fatalf("%q: %+v", s, res.Rules)
		}
		if got := judge(t, res, record.ClassProcessExec, exec("/x", "before "+s+" behind")); len(got) != 1 {
			t.Errorf("%q does not match itself", s)
		}
		if got := judge(t, res, record.ClassProcessExec, exec("/x", "before behind")); len(got) != 0 {
			t.Errorf("%q matches another text", s)
		}
	}
}

func yamlQuote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\\\`) // YAML's, and Sigma's
		case r == '"':
			b.WriteString(`\"`)
		case r < ' ':
			b.WriteString(`\x` + string("0123456789abcdef"[r/16]) + string("0123456789abcdef"[r%16]))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// What the converter is given is bounded, and what it wrote stays.
func TestReadWrite(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); !errors.Is(err, record.ErrReject) {
		t.Errorf("an empty directory: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := sources(t, "file_cron")[0]
	for name, data := range map[string][]byte{"a/one.yml": s.Data, "two.yaml": s.Data, "readme.md": s.Data} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("two.yaml", filepath.Join(dir, "link.yml")); err != nil {
		t.Fatal(err)
	}
	all, err := Read(dir)
	if err != nil || len(all) != 2 || all[0].Name != "a/one.yml" || all[1].Name != "two.yaml" {
		t.Fatalf("read %v, %v", all, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large.yml"), make([]byte, MaxFileSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); !errors.Is(err, record.ErrReject) {
		t.Errorf("a large file: %v", err)
	}

	res := convert(t, Options{}, all...)
	out := filepath.Join(dir, "out")
	if err := res.Write(out); err != nil {
		t.Fatal(err)
	}
	if b, diags := policy.Load(out); b == nil || len(b.Policies) != 4 {
		t.Errorf("the written bundle does not load: %v", diags)
	}
	if err := res.Write(out); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{{"a*", "abc", true}, {"*c", "abc", true}, {"a*c", "abc", true}, {"a*b*c", "axbxc", true}, {"a*b*c", "acb", false}, {"ab", "abc", false}, {"*", "", true}, {"aa*a", "aa", false}} {
		if fits(c.pattern, c.name) != c.want {
			t.Errorf("fits(%q, %q) is %v", c.pattern, c.name, !c.want)
		}
	}
}
