package rules

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

var long = flag.Bool("long", false, "run long loops")

const testUUID = "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11"

// feed is a VM log of which only leaves and payloads exist.
type feed struct {
	leaves   []record.Leaf
	hashes   []record.Hash
	payloads []record.Message
	mono     int64
}

func (f *feed) add(t testing.TB, after time.Duration, origin record.Origin, class record.Class, payload record.Message) int {
	t.Helper()
	f.mono += int64(after)
	leaf := record.Leaf{Origin: origin, Index: uint64(len(f.leaves)), Mono: f.mono, Wall: 1_700_000_000_000_000_000 + f.mono, Header: record.Header{Class: class}}
	// Through bytes, as the ledger does.
	b, err := record.Encode(payload)
	if err != nil {
		t.Fatal(err)
	}
	if payload, err = record.Decode(class, b); err != nil {
		t.Fatal(err)
	}
	f.leaves = append(f.leaves, leaf)
	f.hashes = append(f.hashes, record.LeafHash(leaf.AppendBinary(nil)))
	f.payloads = append(f.payloads, payload)
	return len(f.leaves) - 1
}

func (f *feed) genesis(t testing.TB, xml string) {
	f.add(t, 0, record.OriginHost, record.ClassGenesis, &record.Genesis{DomainUuid: testUUID, DomainName: "web-1", DomainXml: []byte(xml), Cause: "define"})
	f.add(t, time.Second, record.OriginHost, record.ClassVMStart, &record.Event{Vm: &record.VM{Uuid: testUUID, Name: "web-1", State: "running"}})
}

func (f *feed) guest(t testing.TB, class record.Class, e *record.Event) int {
	return f.add(t, time.Millisecond, record.OriginGuest, class, e)
}

func vim() *record.Process {
	return &record.Process{Pid: 42, Start: 7, Name: []byte("vim"), Executable: []byte("/usr/bin/vim"), Args: [][]byte{[]byte("vim"), []byte("x")}, Credentials: &record.Credentials{Uid: 1000}}
}

func file(path string) *record.File { return &record.File{Path: []byte(path)} }

// run judges all entries from the state's position on.
func run(t testing.TB, e *Engine, st *State, f *feed) []*record.Verdict {
	t.Helper()
	var all []*record.Verdict
	for i := st.Next(); i < uint64(len(f.leaves)); i++ {
		v, err := e.Eval(st, f.leaves[i], f.hashes[i], f.payloads[i])
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		all = append(all, v...)
	}
	return all
}

func load(t testing.TB, text string) *policy.Bundle {
	t.Helper()
	b, diags := policy.LoadFS(fstest.MapFS{"t.policy.hcl": {Data: []byte("bundle {\n name = \"test\"\n version = \"1\"\n language = 1\n}\n" + text)}})
	if b == nil {
		for _, d := range diags {
			t.Log(d)
		}
		t.FailNow()
	}
	return b
}

func engine(t testing.TB, b *policy.Bundle, opts Options) *Engine {
	t.Helper()
	e, err := New(b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func baseline(t testing.TB) *policy.Bundle {
	t.Helper()
	b, diags := policy.Load("../examples/policies/baseline")
	if b == nil {
		t.Fatal(diags)
	}
	return b
}

func names(vs []*record.Verdict) string {
	var out []string
	for _, v := range vs {
		s := v.Policy
		if v.Error != "" {
			s += "!"
		}
		if v.WouldHave {
			s += "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestBaseline(t *testing.T) {
	b := baseline(t)
	e := engine(t, b, Options{})
	sha := "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
	digest, _ := record.ParseHash(sha)
	exec := func(p *record.Process) *record.Event { return &record.Event{Process: p} }
	connect := func(ip []byte, port uint32) *record.Event {
		return &record.Event{Process: &record.Process{Pid: 9, Executable: []byte("/usr/bin/bash")}, Network: &record.Network{Family: 4, Protocol: "tcp", DestinationIp: ip, DestinationPort: port, Direction: "egress"}}
	}
	dpkg := vim()
	dpkg.Executable = []byte("/usr/bin/dpkg")
	host, guest := record.OriginHost, record.OriginGuest
	for _, tc := range []struct {
		name    string
		origin  record.Origin
		class   record.Class
		payload record.Message
		want    string
	}{
		{"create", guest, record.ClassFileCreate, &record.Event{Process: vim(), File: file("/etc/cron.d/x")}, "etc_changed"},
		{"modify", guest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/etc/passwd")}, "etc_changed"},
		{"delete", guest, record.ClassFileDelete, &record.Event{Process: vim(), File: file("/etc/passwd")}, "etc_changed"},
		{"rename into", guest, record.ClassFileRename, &record.Event{Process: vim(), File: file("/tmp/x"), Target: file("/etc/passwd")}, "etc_changed"},
		{"rename out of", guest, record.ClassFileRename, &record.Event{Process: vim(), File: file("/etc/passwd"), Target: file("/tmp/x")}, "etc_changed"},
		{"sibling", guest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/etcetera/x")}, ""},
		{"dot dot", guest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/tmp/../etc/x")}, "etc_changed"},
		{"package manager", guest, record.ClassFileModify, &record.Event{Process: dpkg, File: file("/etc/passwd")}, ""},
		{"below package manager", guest, record.ClassFileModify, &record.Event{Process: vim(), Parent: dpkg, File: file("/etc/passwd")}, ""},
		{"no process", guest, record.ClassFileModify, &record.Event{File: file("/etc/passwd")}, "etc_changed"},
		{"malware by name", guest, record.ClassProcessExec, exec(&record.Process{Name: []byte("xmrig"), Executable: []byte("/usr/bin/xmrig")}), "known_malicious_process"},
		{"by name, in tmp", guest, record.ClassProcessExec, exec(&record.Process{Name: []byte("x"), Executable: []byte("/tmp/XMRig")}), "executed_from_temporary_directory? known_malicious_process"},
		{"by file asked for", guest, record.ClassProcessExec, exec(&record.Process{Name: []byte("x"), Executable: []byte("/usr/bin/busybox"), Filename: []byte("./xmrig")}), "known_malicious_process"},
		{"by digest", guest, record.ClassProcessExec, exec(&record.Process{Name: []byte("x"), Sha256: digest[:]}), "known_malicious_process"},
		{"by path", guest, record.ClassProcessExec, exec(&record.Process{Executable: []byte("/var/tmp/.system/kthreadd")}), "executed_from_temporary_directory? known_malicious_process"},
		{"harmless", guest, record.ClassProcessExec, exec(vim()), ""},
		{"reverse shell", guest, record.ClassNetworkConnect, connect([]byte{192, 0, 2, 7}, 4444), "reverse_shell?"},
		{"internal", guest, record.ClassNetworkConnect, connect([]byte{10, 0, 0, 7}, 4444), ""},
		{"dns", guest, record.ClassNetworkConnect, connect([]byte{192, 0, 2, 7}, 53), ""},
		{"silence", host, record.ClassAgentHeartbeatLost, &record.AgentState{Reason: "no heartbeat", Silent: 30e9}, "agent_silenced"},
		{"gap", host, record.ClassAgentSequenceGap, &record.AgentState{Count: 3}, "agent_silenced"},
		{"bad signature", host, record.ClassAgentSignatureInvalid, &record.AgentState{}, "agent_silenced"},
		{"dropped", guest, record.ClassAgentDropped, &record.Lost{Author: "guest", Counts: []*record.LostCount{{Count: 3, Reason: 1}}}, "observations_lost"},
		{"define", host, record.ClassVMDefine, &record.Event{Vm: &record.VM{Name: "web-1", Detail: "updated"}}, "definition_changed?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &feed{}
			f.genesis(t, "")
			i := f.add(t, time.Second, tc.origin, tc.class, tc.payload)
			got := run(t, e, &State{}, f)
			if names(got) != tc.want {
				t.Fatalf("verdicts %q, want %q", names(got), tc.want)
			}
			for _, v := range got {
				if v.CauseIndex != uint64(i) || string(v.CauseHash) != string(f.hashes[i][:]) || v.CauseClass != tc.class.String() || string(v.BundleDigest) != string(b.Digest[:]) {
					t.Errorf("verdict does not name its cause: %v", v)
				}
				if ClassOf(v) != record.ClassPolicyVerdict {
					t.Errorf("class %s", ClassOf(v))
				}
				for _, a := range v.Actions {
					if a.Kind == "alert" && !strings.Contains(a.Message, "web-1") {
						t.Errorf("message %q does not name the VM", a.Message)
					}
				}
			}
		})
	}
}

func TestMaliciousPausesFirst(t *testing.T) {
	f := &feed{}
	f.genesis(t, "")
	f.guest(t, record.ClassProcessExec, &record.Event{Process: &record.Process{Pid: 5, Name: []byte("xmrig"), Executable: []byte("/usr/bin/xm\nrig\x1b[2J\xff"), Args: [][]byte{[]byte("xmrig"), []byte("-o")}}})
	got := run(t, engine(t, baseline(t), Options{}), &State{}, f)
	if len(got) != 1 || len(got[0].Actions) != 2 || got[0].Actions[0].Kind != "pause" || got[0].Mode != "enforce" || got[0].WouldHave {
		t.Fatalf("verdicts %v", got)
	}
	const want = `web-1 paused: /usr/bin/xm\nrig\x1b[2J\xff (xmrig -o) was started by (unknown), uid (unknown)`
	if m := got[0].Actions[1].Message; m != want {
		t.Errorf("message %q, want %q", m, want)
	}
	if _, err := got[0].MarshalVT(); err != nil {
		t.Error(err)
	}
}

const modesPolicy = `policy "p" {
  on   = ["file.modify"]
  mode = "enforce"
  action "pause" {}
}`

// The effective mode is the weakest of policy, bundle, VM and host.
func TestModes(t *testing.T) {
	for _, tc := range []struct {
		policy, bundle string
		vm, host       policy.Mode
		want           string
	}{
		{"enforce", "", 0, 0, "p"},
		{"audit", "", 0, 0, "p?"},
		{"off", "", 0, 0, ""},
		{"enforce", "audit", 0, 0, "p?"},
		{"enforce", "off", 0, 0, ""},
		{"enforce", "enforce", policy.ModeAudit, 0, "p?"},
		{"enforce", "", policy.ModeOff, 0, ""},
		{"enforce", "", policy.ModeEnforce, policy.ModeAudit, "p?"},
		{"audit", "enforce", policy.ModeEnforce, policy.ModeEnforce, "p?"},
		{"enforce", "", 0, policy.ModeOff, ""},
	} {
		text := strings.Replace(modesPolicy, `"enforce"`, `"`+tc.policy+`"`, 1)
		b := load(t, text)
		if tc.bundle != "" {
			b.Mode, _ = policy.ParseMode(tc.bundle)
		}
		f := &feed{}
		f.genesis(t, "")
		f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
		e := engine(t, b, Options{HostMode: tc.host, VMModes: map[string]policy.Mode{testUUID: tc.vm}})
		if got := names(run(t, e, &State{}, f)); got != tc.want {
			t.Errorf("%+v: verdicts %q, want %q", tc, got, tc.want)
		}
		a := e.ActivationFor(testUUID)
		wantMode := map[string]string{"p": "enforce", "p?": "audit", "": "off"}[tc.want]
		if len(a.Policies) != 1 || a.Policies[0].Mode != wantMode || string(a.Digest) != string(b.Digest[:]) {
			t.Errorf("%+v: activation %v, want mode %s", tc, a, wantMode)
		}
	}
}

// What the host cannot honour is refused (I10).
func TestNewRefuses(t *testing.T) {
	b := load(t, `policy "p" {
  on = ["file.modify"]
  action "alert" {
    message  = "x"
    channels = ["pager"]
  }
  action "pause" {}
}`)
	if _, err := New(b, Options{}); err == nil || !strings.Contains(err.Error(), `"pager"`) || !errors.Is(err, record.ErrReject) {
		t.Errorf("unknown channel: %v", err)
	}
	if _, err := New(b, Options{Channels: []string{"pager"}, Actions: []string{"alert"}}); err == nil || !strings.Contains(err.Error(), `"pause"`) {
		t.Errorf("missing action: %v", err)
	}
	e := engine(t, b, Options{Channels: []string{"pager"}})
	f := &feed{}
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
	v := run(t, e, &State{}, f)
	if len(v) != 1 || v[0].Actions[0].Parameters["channels"] != "pager" {
		t.Errorf("verdicts %v", v)
	}
}

func TestCooldown(t *testing.T) {
	b := load(t, `policy "p" {
  on   = ["file.modify"]
  mode = "enforce"
  cooldown {
    period = "10s"
    by     = [file.path]
  }
  action "alert" {
    message = "x"
  }
}`)
	e := engine(t, b, Options{})
	f, st := &feed{}, &State{}
	modify := func(after time.Duration, path string) []*record.Verdict {
		f.add(t, after, record.OriginGuest, record.ClassFileModify, &record.Event{File: file(path)})
		return run(t, e, st, f)
	}
	check := func(what string, got []*record.Verdict, want string, suppressed ...uint64) {
		t.Helper()
		if names(got) != want || len(got) != len(suppressed) {
			t.Fatalf("%s: verdicts %q, want %q", what, names(got), want)
		}
		for i, n := range suppressed {
			if got[i].Suppressed != n {
				t.Fatalf("%s: suppressed %d, want %d", what, got[i].Suppressed, n)
			}
		}
	}
	check("first", modify(0, "/a"), "p", 0)
	check("repeat", modify(time.Second, "/a"), "")
	check("another key", modify(time.Second, "/b"), "p", 0)
	check("repeat", modify(time.Second, "/a"), "")
	check("fires again and reports", modify(8*time.Second, "/a"), "p", 2)
	check("repeat", modify(time.Second, "/a"), "")
	// The period ends without another match: any entry brings the report.
	f.add(t, 10*time.Second, record.OriginHost, record.ClassTick, &record.Event{})
	got := run(t, e, st, f)
	check("report", got, "p", 1)
	if len(got[0].Actions) != 0 || got[0].CauseIndex != 5 || string(got[0].CauseHash) != string(f.hashes[5][:]) {
		t.Errorf("report %v", got[0])
	}
	check("nothing is left", modify(time.Hour, "/c"), "p", 0)
}

// A condition that cannot be decided is an error entry, never silence, and
// not one for each event.
func TestErrorsAreReported(t *testing.T) {
	b := load(t, `policy "p" {
  on        = ["file.modify"]
  condition = file.size > 100
  action "pause" {}
  mode = "enforce"
}`)
	e := engine(t, b, Options{})
	f, st := &feed{}, &State{}
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")}) // no inode: not examined
	got := run(t, e, st, f)
	if names(got) != "p!" || ClassOf(got[0]) != record.ClassPolicyError {
		t.Fatalf("verdicts %q", names(got))
	}
	if len(got[0].Actions) != 1 || got[0].Actions[0].Kind != "alert" {
		t.Errorf("an error must alert and nothing else: %v", got[0].Actions)
	}
	if !strings.Contains(got[0].Error, "t.policy.hcl:") || strings.Contains(got[0].Error, "/x") {
		t.Errorf("error %q must name the place and no value", got[0].Error)
	}
	for range 100 {
		f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
	}
	if got := run(t, e, st, f); len(got) != 0 {
		t.Errorf("errors repeat: %q", names(got))
	}
	f.add(t, time.Hour, record.OriginGuest, record.ClassFileModify, &record.Event{File: file("/x")})
	if got := run(t, e, st, f); names(got) != "p!" || got[0].Suppressed != 100 {
		t.Errorf("verdicts %q after the cooldown: %v", names(got), got)
	}
}

// Policies that watch policies cannot feed themselves or each other.
func TestNoFeedback(t *testing.T) {
	b := load(t, `policy "a" {
  on = ["policy.outcome", "policy.verdict", "policy.released"]
}
policy "b" {
  on = ["policy.outcome", "policy.verdict", "policy.error", "policy.released", "policy.reapplied"]
}
policy "c" {
  on = ["file.modify"]
}`)
	e := engine(t, b, Options{})
	f, st := &feed{}, &State{}
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
	queue := run(t, e, st, f)
	total := 0
	for len(queue) > 0 && total < 100 {
		v := queue[0]
		queue = queue[1:]
		total++
		f.add(t, 0, record.OriginPolicy, ClassOf(v), v)
		f.add(t, 0, record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{Policy: v.Policy, Kind: "alert", Result: "done"})
		f.add(t, 0, record.OriginPolicy, record.ClassPolicyReleased, &record.Held{Holds: []*record.Hold{{Action: "pause", Policy: v.Policy}}, Cause: "its time is over"})
		queue = append(queue, run(t, e, st, f)...)
	}
	if total != 7 { // c, then a and b for its verdict, its outcome and the end of what it holds
		t.Errorf("%d verdicts, want 7", total)
	}
}

const tagged = `<domain type="kvm"><name>web-1</name><metadata>
<provost:vm xmlns:provost="urn:provost:vm:1"><provost:tag>prod</provost:tag><provost:value key="zone">restricted</provost:value></provost:vm>
</metadata></domain>`

func TestTarget(t *testing.T) {
	for _, tc := range []struct {
		target, xml string
		want        bool
	}{
		{`names = ["web-*"]`, "", true},
		{`names = ["db", "web-?"]`, "", true},
		{`names = ["WEB-*"]`, "", false},
		{`uuids = ["` + testUUID + `"]`, "", true},
		{`tags = ["prod"]`, tagged, true},
		{`tags = ["prod"]`, "", false},
		{`metadata = { zone = "restricted" }`, tagged, true},
		{`metadata = { zone = "open" }`, tagged, false},
		{"names = [\"web-*\"]\n tags = [\"test\"]", tagged, false},
		{`condition = vm.metadata.zone == "restricted" && vm.state == "running"`, tagged, true},
		{`condition = vm.metadata.zone == "restricted"`, "", false},
		{`condition = vm.state == "paused"`, "", false},
	} {
		b := load(t, "policy \"p\" {\n on = [\"file.modify\"]\n target {\n "+tc.target+"\n }\n}")
		f := &feed{}
		f.genesis(t, tc.xml)
		f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
		if got := names(run(t, engine(t, b, Options{}), &State{}, f)); (got == "p?") != tc.want {
			t.Errorf("%s: verdicts %q, want match %v", tc.target, got, tc.want)
		}
	}
}

// Only the host says what the domain is (I3), and a changed fact selects anew.
func TestFacts(t *testing.T) {
	b := load(t, `policy "p" {
  on = ["file.modify"]
  target {
    condition = vm.state == "running"
  }
}`)
	e := engine(t, b, Options{})
	f, st := &feed{}, &State{}
	f.genesis(t, "")
	f.add(t, 0, record.OriginGuest, record.ClassVMPause, &record.Event{Vm: &record.VM{Name: "evil", State: "paused"}})
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x"), Vm: &record.VM{Name: "evil", State: "paused"}})
	if got := names(run(t, e, st, f)); got != "p?" || st.VM().Name != "web-1" {
		t.Errorf("a guest was believed: %q, %v", got, st.VM())
	}
	f.add(t, 0, record.OriginHost, record.ClassVMPause, &record.Event{Vm: &record.VM{}})
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
	if got := names(run(t, e, st, f)); got != "" || st.VM().State != "paused" {
		t.Errorf("verdicts %q in state %q", got, st.VM().State)
	}
	// Metadata that cannot be read is reported.
	g := &feed{}
	g.genesis(t, `<domain><metadata><p:vm xmlns:p="urn:provost:vm:1"><p:value>x</p:value></p:vm></metadata></domain>`)
	if got := run(t, e, &State{}, g); len(got) != 1 || !strings.Contains(got[0].Error, "key") {
		t.Errorf("verdicts %v", got)
	}
}

func TestEvalRefuses(t *testing.T) {
	e := engine(t, load(t, modesPolicy), Options{})
	f, st := &feed{}, &State{}
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/x")})
	f.guest(t, record.ClassFileModify, &record.Event{File: file("/y")})
	run(t, e, st, f)
	if _, err := e.Eval(st, f.leaves[0], f.hashes[0], f.payloads[0]); !errors.Is(err, record.ErrReject) {
		t.Errorf("judged twice: %v", err)
	}
	f.guest(t, record.ClassFileModify, &record.Event{})
	if _, err := e.Eval(st, f.leaves[2], f.hashes[2], nil); !errors.Is(err, ErrNoPayload) || !errors.Is(err, record.ErrReject) {
		t.Errorf("erased payload: %v", err)
	}
	if st.Next() != 3 {
		t.Errorf("next %d, want 3", st.Next())
	}
	f.guest(t, record.ClassFileModify, &record.Event{})
	if _, err := e.Eval(st, f.leaves[3], f.hashes[3], &record.Genesis{}); !errors.Is(err, record.ErrReject) {
		t.Errorf("wrong payload: %v", err)
	}
}

// A state holds a bounded number of keys, and says when it had to forget.
func TestStateOverflow(t *testing.T) {
	b := load(t, `policy "p" {
  on = ["file.modify"]
  cooldown {
    period = "1h"
    by     = [file.path]
  }
}`)
	e := engine(t, b, Options{})
	f, st := &feed{}, &State{}
	for i := range MaxKeys + 500 {
		f.guest(t, record.ClassFileModify, &record.Event{File: file(fmt.Sprintf("/%d", i))})
	}
	got := run(t, e, st, f)
	if st.Cooldowns() != MaxKeys {
		t.Errorf("%d keys, limit %d", st.Cooldowns(), MaxKeys)
	}
	var reports int
	for _, v := range got {
		if strings.Contains(v.Error, "state overflow") {
			reports++
		}
	}
	if reports != 1 {
		t.Errorf("%d reports of the overflow, want 1", reports)
	}
	// The rest is reported a minute later.
	f.add(t, 2*time.Minute, record.OriginHost, record.ClassTick, &record.Event{})
	if got := run(t, e, st, f); len(got) != 1 || !strings.Contains(got[0].Error, "499") {
		t.Errorf("second report %v", got)
	}
}

// What this version or this host cannot do is refused and never ignored (I10).
func TestRefused(t *testing.T) {
	pol := func(block string) *policy.Bundle {
		return load(t, "policy \"p\" {\n on = [\"process.exec\"]\n action \"pause\" {}\n"+block+"}\n")
	}
	daemon := []string{"alert", "pause"}
	for block, want := range map[string]string{
		"action \"snapshot\" {}\n":                                       `cannot do the action "snapshot"`,
		"prevent \"egress\" {\n allow = [\"192.0.2.0/24\"]\n}\n":         "cannot prevent egress",
		"limit {\n max = 1\n per = \"1h\"\n scope = \"host\"\n}\n":       `limit of the scope "host"`,
		"action \"alert\" {\n message = \"x\"\n channels = [\"y\"]\n}\n": `no alert channel "y"`,
	} {
		if _, err := New(pol(block), Options{Actions: daemon}); err == nil || !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q", block, err, want)
		}
	}
	if _, err := New(pol(""), Options{Actions: daemon}); err != nil {
		t.Error(err)
	}
}
