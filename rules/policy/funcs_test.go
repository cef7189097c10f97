package policy

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

const emptySHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// sample is the event that TestFunctions judges: a rename by a shell, with a
// connection, so that every kind of field is there.
func sample(t testing.TB) *event.Event {
	sha, err := hex.DecodeString(emptySHA)
	if err != nil {
		t.Fatal(err)
	}
	p := &record.Event{
		Process: &record.Process{Pid: 42, Start: 9, Name: []byte("Bash"), Executable: []byte("/usr/bin/bash"), Filename: []byte("./x\xff"),
			Args: [][]byte{[]byte("bash"), []byte("-c"), []byte("id")}, Sha256: sha, Credentials: &record.Credentials{Uid: 0, Euid: 33}, WorkingDirectory: []byte(" /tmp/ ")},
		Parent:    &record.Process{Pid: 41, Name: []byte("php-fpm"), Executable: []byte("/usr/sbin/php-fpm")},
		Ancestors: []*record.Process{{Pid: 1, Name: []byte("systemd")}},
		File:      &record.File{Path: []byte("/etc/caf\xc3\xa9.tar.GZ"), Inode: 1 << 63, Mode: 0o100755, Size: 10},
		Target:    &record.File{Path: []byte("/etc/x/../passwd")},
		Network:   &record.Network{Family: 6, Protocol: "tcp", DestinationIp: []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7}, DestinationPort: 443, SourceIp: []byte{10, 0, 0, 1}, Direction: "egress"},
	}
	e := new(event.Event)
	leaf := &record.Leaf{Origin: record.OriginGuest, Index: 5, Wall: 1_700_000_000_000_000_000, Header: record.Header{Class: record.ClassFileRename}}
	if err := e.Load(leaf, p, &event.VM{UUID: "u", Name: "web-1", State: "running", Tags: []string{"prod"}, Metadata: map[string]string{"zone": "dmz"}}); err != nil {
		t.Fatal(err)
	}
	return e
}

// Each function against its result, and the closure against the cty twin. M
// stands for a field that the event lacks.
func TestFunctions(t *testing.T) {
	v, e := testEnv(t), sample(t)
	tested := make(map[string]bool)
	for text, want := range map[string]bool{
		`startswith(file.path, "/etc/")`: true, `startswith(file.path, "/ETC")`: false, `startswith(M, "")`: false,
		`startswith_i(file.path, "/ETC/CAFÉ")`: true, `startswith_i(M, "")`: false, `startswith(file.path, file.directory)`: true, `startswith(file.path, M)`: false,
		`endswith(file.path, ".GZ")`: true, `endswith(file.path, ".gz")`: false, `endswith_i(file.path, ".gz")`: true, `endswith(M, "")`: false,
		`strcontains(file.path, "caf")`: true, `strcontains(file.path, "cafe")`: false, `strcontains_i(file.path, "CAF")`: true, `strcontains(M, "")`: false,
		`equals(process.name, "Bash")`: true, `equals(M, M)`: false, `equals_i(process.name, "bASH")`: true, `equals(process.name, "bash")`: false, `equals_i(M, M)`: false,
		`lower(process.name) == "bash"`: true, `lower(M) == null`: true, `upper(process.name) == "BASH"`: true, `upper(M) == "M"`: false,
		`lower("ÀÉ") == "àé"`:                             true,
		`trimspace(process.working_directory) == "/tmp/"`: true, `trimspace(M) == "x"`: false,
		`length(process.name) == 4`: true, `length(file.path) == 16`: true, `length(process.args) == 3`: true, `length(M) == 0`: true, `length(process.ancestors) == 2`: true, `length(process.filename) == 4`: true, `length([1, 2]) == 2`: true,
		`matches(process.command_line, "^bash -c")`: true, `matches(process.command_line, "BASH")`: false, `matches_i(process.command_line, "BASH|zsh")`: true, `matches(M, "")`: false, `matches_i(M, "")`: false, `matches(process.filename, "^..x.$")`: true,
		`glob(file.path, "/etc/*")`: true, `glob(file.path, "/etc")`: false, `glob(file.path, "/???/[a-c]*")`: true, `glob(file.path, "/???/[!a-c]*")`: false, `glob_i(file.path, "*.gz")`: true, `glob(file.path, "*.gz")`: false, `glob(M, "*")`: false, `glob_i(M, "*")`: false,
		`glob("a*b", "a\\*b")`: true, `glob("]", "[]]")`: true, `glob("a\nb", "a*b")`: true, `!glob("axb", "a\\*b")`: true,
		`contains(list.paths, process.executable)`: true, `contains(list.paths, M)`: false, `contains([80, 443], destination.port)`: true, `contains([443.5], destination.port)`: false, `contains([], process.name)`: false,
		`contains(process.args, "-c")`: true, `contains(process.args, "-C")`: false, `contains(vm.tags, "prod")`: true, `contains(process.args, M)`: false, `contains(process.ancestors[*].name, "systemd")`: true, `contains([1], process.exit_code)`: false,
		`contains_i(process.args, "-C")`: true, `contains_i(["BASH"], process.name)`: true, `contains_i(["x"], M)`: false, `contains_i(list.strings, "CAFÉ")`: true,
		`intersects(process.args, ["id", "x"])`: true, `intersects(["x"], process.args)`: false, `intersects(process.ancestors[*].executable, ["/usr/sbin/php-fpm"])`: true, `intersects(process.args, vm.tags)`: false, `intersects(process.args, process.args)`: true, `intersects(lost.reasons, ["x"])`: false, `intersects(["a"], ["a"])`: true,
		`anytrue([for a in process.ancestors : a.name == "systemd"])`: true, `anytrue([for a in process.ancestors : a.pid == 7])`: false, `anytrue([false, has(file.path)])`: true,
		`anytrue([for d in list.paths : under(file.path, d)])`: true, `anytrue([for s in process.args : startswith(s, "-") if s != "-c"])`: false,
		`alltrue([for a in process.ancestors : has(a.executable)])`: false, `alltrue([])`: true, `alltrue([for a in process.ancestors : a.pid > 0 ])`: true, `alltrue([true, has(M)])`: false,
		`under(file.path, "/etc")`: true, `under(file.path, "/etc/")`: true, `under(file.path, "/et")`: false, `under(file.path, "/")`: true, `under(file.target_path, "/etc/x")`: false, `under(file.target_path, "/etc")`: true, `under(M, "/")`: false, `under("/etc", "/etc")`: true,
		`under_any(file.path, ["/x", "/etc"])`: true, `under_any(M, ["/"])`: false, `under_any(file.path, ["/x"])`: false,
		`basename(file.path) == "café.tar.GZ"`: true, `basename(M) == "."`: false, `dirname(file.path) == "/etc"`: true, `dirname(M) == "."`: false, `extension(file.path) == "GZ"`: true, `extension("/a.b/.x") == ""`: true, `extension(M) == ""`: false,
		`in_cidr(destination.ip, "192.0.2.0/24")`: true, `in_cidr(destination.ip, ["192.0.2.7"])`: true, `in_cidr(destination.ip, list.nets)`: true, `in_cidr(destination.ip, ["2001:db8::/32"])`: false, `in_cidr(source.ip, "10.0.0.0/32")`: false,
		`is_private(source.ip)`: true, `is_private(destination.ip)`: false, `is_external(destination.ip)`: true, `is_external(source.ip)`: false,
		`port_in(destination.port, [22, "400-500"])`: true, `port_in(destination.port, "443")`: true, `port_in(destination.port, 443)`: true, `port_in(destination.port, [])`: false, `port_in(process.exit_code, [0])`: false,
		`has(file.path)`: true, `has(M)`: false, `has(process.args)`: true, `has(lost.reasons)`: false, `has(vm.metadata.zone)`: true, `has(vm.metadata.nosuch)`: false, `has(destination.ip)`: true,
		`argv(1) == "-c"`: true, `argv(3) == null`: true, `argv(0) != "bash"`: false, `has_arg("id")`: true, `has_arg("i")`: false, `has_arg(M)`: false,
		`hour(event.time, "UTC") == 22`: true, `hour(event.time, "Europe/Zurich") == 23`: true, `hour(M, "UTC") == 0`: false, `weekday(event.time, "UTC") == "Tuesday"`: true, `weekday(M, "UTC") == "Tuesday"`: false,
		`between(event.time, "22:13", "22:14", "UTC")`: true, `between(event.time, "22:14", "22:13", "UTC")`: false, `between(M, "00:00", "23:59", "UTC")`: false,
		`base64_contains("echo L2Jpbi9iYXNo | sh", "/bin")`: true, `base64_contains("echo YS9iaW4vYmFzaA== | sh", "/bin")`: true, `base64_contains(process.command_line, "/bin")`: false, `base64_contains(M, "/bin")`: false,
		`entropy(process.name) == 2`: true, `entropy(M) == 0`: true, `entropy(file.path) > 3.1`: true, `entropy(file.path) > 9`: false, `entropy(file.path) <= 3.0e0`: false,
		`file.inode == 9223372036854775808`: true, `file.inode > 9223372036854775807`: true, `file.size >= 9.5`: true, `file.size < 10`: false, `10 <= file.size`: true, `file.size <= -1`: false, `file.size < 1e40`: true, `process.pid == 42.5`: false, `destination.ip == "192.0.2.7"`: true,
		`file.mode_executable`: true, `!file.replaced`: true, `process.hash.sha256 == "` + emptySHA + `"`: true, `user.name == "root"`: true, `user.effective.id == 33`: true,
		`file.path == "/etc/cafe` + "\u0301" + `.tar.GZ"`: true, `"${process.name}!" == "Bash!"`: true, `process.parent.pid + 1 == process.pid`: true, `M == null`: true, `M != "x"`: true, `null == M`: true, `M == user.name`: false,
		`(has(M) ? false : true)`: true, `(file.size > 5 ? process.name : M) == "Bash"`: true, `true || M > "x" == true`: true,
		`vm.metadata.zone == "dmz" && contains(vm.tags, "prod") && vm.metadata["nosuch"] != "x"`: true, `event.time == "2023-11-14T22:13:20Z"`: true, `process.entity_id == "u:42:9"`: true, `file.extension == "GZ" && file.name == "café.tar.GZ" && file.directory == "/etc"`: true,
	} {
		expr := strings.ReplaceAll(text, "M", "process.cgroup")
		if strings.Contains(text, `M > "x"`) {
			expr = "true || process.exit_code > 3" // the error is hidden by what decides
		}
		c, diags := compileText(v, expr)
		if c == nil {
			t.Errorf("%s is refused: %v", expr, diags)
			continue
		}
		if got := agree(t, expr, c, e); got != tri(want) {
			t.Errorf("%s = %v, want %v", expr, got, want)
		}
		for name := range functions {
			if strings.Contains(text, name+"(") {
				tested[name] = true
			}
		}
	}
	for name := range functions {
		if !tested[name] {
			t.Errorf("no case for %s()", name)
		}
	}
}

// A missing number has no order: the answer is an error, whichever side decides
// nothing.
func TestMissingNumbers(t *testing.T) {
	v, e := testEnv(t), sample(t)
	for text, want := range map[string]Tri{
		"process.exit_code > 3": Failed, "!(process.exit_code > 3)": Failed, "process.exit_code > 3 && has(file.path)": Failed,
		"process.exit_code > 3 && has(user.login.id) && process.core_dumped": False, "process.exit_code > 3 || has(file.path)": True, "process.exit_code == 3": False, "process.exit_code != 3": True,
		"anytrue([for a in process.ancestors : process.exit_code > a.pid || a.name == \"systemd\"])": Failed,
	} {
		c, diags := compileText(v, text)
		if c == nil {
			t.Errorf("%s is refused: %v", text, diags)
			continue
		}
		if got := agree(t, text, c, e); got != want {
			t.Errorf("%s = %v, want %v", text, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	b, diags := loadText(head + `policy "p" {
  on = ["file.rename"]
  action "alert" {
    message = "${vm.name}: ${file.path} -> ${file.target_path} by ${process.filename} ${process.pid} ${process.args} ${process.cgroup} ${file.mode_executable} ${upper(process.name)} ${file.size + 1} ${list.l} ${process.ancestors[*].name} $${x} %%{y}"
  }
}
list "l" {
  type   = "string"
  values = ["a", "b"]
}
`)
	if b == nil {
		t.Fatal(diags)
	}
	got := b.Policies[0].Actions[0].Message.Render(sample(t))
	const want = `web-1: /etc/café.tar.GZ -> /etc/x/../passwd by ./x\xff 42 bash, -c, id (unknown) true BASH 11 a, b php-fpm, systemd ${x} %{y}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// A guest's values cannot break out, and cannot grow without bound.
	e := sample(t)
	e.SetString(event.FilePath, "a\nb\x1b[31m\u202e\\"+strings.Repeat("x", 1<<16))
	got = b.Policies[0].Actions[0].Message.Render(e)
	if len(got) > MaxMessage || strings.ContainsAny(got, "\n\x1b\u202e") || !strings.Contains(got, `a\nb\x1b[31m\u202e\\`) || !strings.Contains(got, "BASH") {
		t.Errorf("message %.200q of %d bytes", got, len(got))
	}
}

func TestSuggest(t *testing.T) {
	for word, want := range map[string]string{
		"Image": "process.executable", "proc.name": "process.name", "cmd_line": "process.command_line", "exe": "process.executable",
		"process.exe": "process.executable", "process.execut": "process.executable", "file.pth": "file.path", "destination.prot": "destination.port",
		"process.parent.executabel": "process.parent.executable", "usr.id": "user.id", "qqqqqqqq": "", "": "", strings.Repeat("x", 500): "",
	} {
		if got := suggest(word, event.Names()); got != want {
			t.Errorf("suggest(%.40q) = %q, want %q", word, got, want)
		}
	}
	for alias, name := range aliases {
		if _, ok := event.Lookup(name); !ok && name != "process.ancestors" {
			t.Errorf("alias %q names no field: %q", alias, name)
		}
	}
	for _, tc := range []struct {
		a, b string
		d    int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if d := distance(tc.a, tc.b, 9); d != tc.d {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, d, tc.d)
		}
	}
}
