package rules

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
	"github.com/provostd/provost/rules/policy"
)

const fiveConditions = `policy "five" {
  on        = ["file.modify"]
  condition = event.type == "file.modify" && startswith(file.path, "/etc/") && !contains(["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm"], process.executable) && process.parent.name != "cloud-init" && process.pid > 1
  action "alert" {
    message = "x"
  }
}
`

// mixed writes n policies in the proportions of common rule sets: executables,
// tools with a word on the command line, paths, addresses, regular expressions.
func mixed(n int) string { return mixedFrom(0, n) }

func mixedFrom(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		on, cond := "process.exec", ""
		switch r := i % 100; {
		case r < 35:
			cond = fmt.Sprintf(`process.executable == "/usr/lib/tool%d/run" && user.id != 4711`, i)
		case r < 60:
			cond = fmt.Sprintf(`endswith(process.executable, "/curl") && strcontains(process.command_line, "word%d")`, i)
		case r < 82:
			on, cond = "file.modify", fmt.Sprintf(`under(file.path, "/srv/app%d/conf") && process.name != "deploy"`, i)
		case r < 95:
			on, cond = "network.connect", fmt.Sprintf(`in_cidr(destination.ip, "100.%d.%d.0/24") && destination.port != 53`, i/250%250, i%250)
		default:
			cond = fmt.Sprintf(`matches(process.command_line, "base64 -d.*key%d")`, i)
		}
		fmt.Fprintf(&b, "policy \"p%d\" {\n on = [\"%s\"]\n condition = %s\n action \"alert\" {\n message = \"x\"\n }\n}\n", i, on, cond)
	}
	return b.String()
}

// loadMixed loads the bundle of n policies; a file has at most 2,000.
func loadMixed(t testing.TB, n int) *policy.Bundle {
	t.Helper()
	files := fstest.MapFS{"a.policy.hcl": {Data: []byte("bundle {\n name = \"t\"\n version = \"1\"\n language = 1\n}\n")}}
	for from := 0; from < n; from += 2000 {
		files[fmt.Sprintf("p%d.policy.hcl", from)] = &fstest.MapFile{Data: []byte(mixedFrom(from, min(n, from+2000)))}
	}
	b, diags := policy.LoadFS(files)
	if b == nil {
		t.Fatal(diags)
	}
	return b
}

func benchFeed(t testing.TB) *feed {
	f := &feed{}
	f.genesis(t, "")
	parent := &record.Process{Pid: 7, Name: []byte("bash"), Executable: []byte("/usr/bin/bash")}
	for range 50 {
		f.guest(t, record.ClassProcessExec, &record.Event{Process: &record.Process{Pid: 9, Name: []byte("curl"), Executable: []byte("/usr/bin/curl"), Args: [][]byte{[]byte("curl"), []byte("-s"), []byte("https://example.test/index.html")}, Credentials: &record.Credentials{}}, Parent: parent})
		f.guest(t, record.ClassFileModify, &record.Event{Process: vim(), Parent: parent, File: file("/home/user/notes.txt")})
		f.guest(t, record.ClassNetworkConnect, &record.Event{Process: vim(), Parent: parent, Network: &record.Network{Family: 4, Protocol: "tcp", DestinationIp: []byte{192, 0, 2, 7}, DestinationPort: 443, Direction: "egress"}})
	}
	return f
}

func matching(t testing.TB) *event.Event {
	ev := new(event.Event)
	p := &record.Event{Process: vim(), Parent: &record.Process{Pid: 3, Name: []byte("bash")}, File: file("/etc/passwd")}
	if err := ev.Load(&record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify}}, p, &VM{UUID: testUUID, Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	return ev
}

// BenchmarkCondition is one policy of five conditions that holds: the closures,
// and cty as HCL evaluates the same expression.
func BenchmarkCondition(b *testing.B) {
	c, ev := load(b, fiveConditions).Policies[0].Condition, matching(b)
	b.Run("closure", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := c.Eval(ev); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("cty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := c.Oracle(ev); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

// BenchmarkEval judges whole entries, decoding of the payload excluded.
func BenchmarkEval(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchEval(b, engine(b, loadMixed(b, n), Options{}), benchFeed(b))
		})
	}
}

// hashOf gives each entry a hash of its own: it says which are judged twice.
func hashOf(n uint64) (h record.Hash) {
	binary.BigEndian.PutUint64(h[:8], n*0x9e3779b97f4a7c15)
	return h
}

func benchEval(b *testing.B, e *Engine, f *feed) {
	st := &State{}
	run(b, e, st, f)
	b.ReportAllocs()
	i, next := 2, st.Next()
	for b.Loop() {
		leaf := f.leaves[i]
		leaf.Index = next
		next++
		if _, err := e.Eval(st, leaf, hashOf(next), f.payloads[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(f.leaves) {
			i = 2
		}
	}
}

// windowRound is how many keys the window of BenchmarkWindow holds. Each comes
// once in a round, far from the one before it.
const windowRound, windowStride = 100_000, 61_803

// BenchmarkWindow counts a match in a window of 100,000 keys: the window alone.
func BenchmarkWindow(b *testing.B) {
	p := load(b, "policy \"p\" {\n on = [\"file.modify\"]\n threshold {\n count = 10\n by = [file.inode]\n window = \"2s\"\n max_keys = 100000\n }\n}\n").Policies[0]
	e, st, f := engine(b, load(b, fiveConditions), Options{}), &State{}, &feed{}
	f.genesis(b, "")
	run(b, e, st, f)
	t := newTable(p.Threshold.StateDigest, p.Name)
	t.limit, t.span = p.Threshold.MaxKeys, int64(p.Threshold.Window)
	st.tables = map[policy.Digest]*table{t.id: t}
	j := judgement{engine: e, state: st, leaf: &record.Leaf{}}
	ev := matching(b)
	n := 0
	one := func() {
		ev.SetNumber(event.FileInode, uint64(n*windowStride%windowRound))
		st.mono += int64(8 * time.Microsecond) // 2.5 rounds in a window
		j.leaf.Index++
		if _, reached := j.count(t, p.Threshold, ev); reached {
			b.Fatal("the threshold was reached")
		}
		n++
	}
	for range 3 * windowRound {
		one()
	}
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
	if st.Keys() != windowRound || st.lost {
		b.Fatalf("the window holds %d keys", st.Keys())
	}
}
