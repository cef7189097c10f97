package approval

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// TestParseStrict refuses everything but the one form.
func TestParseStrict(t *testing.T) {
	good := encoded(t, statement())
	s, err := Parse(good)
	if err != nil || s.ID != "CHG-4711" {
		t.Fatalf("%v %v", s, err)
	}
	replace := func(old, now string) []byte {
		t.Helper()
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the statement has no %q", old)
		}
		return bytes.Replace(good, []byte(old), []byte(now), 1)
	}
	compact := &bytes.Buffer{}
	if err := json.Compact(compact, good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		text  []byte
		words string
	}{
		{"nothing", nil, "read approval"},
		{"an unknown field", replace(`"nonce"`, `"extra": 1, "nonce"`), "unknown field"},
		{"a field twice", replace(`"max_uses": 50`, `"max_uses": 50, "max_uses": 50`), "one form"},
		{"a field in capitals", replace(`"group"`, `"Group"`), "one form"},
		{"an escape", replace(`"kvm1`, `"\u006bvm1`), "line 4"},
		{"no newline", good[:len(good)-1], "one form"},
		{"compact", compact.Bytes(), "one form"},
		{"two of them", slices.Concat(good, good), "something follows"},
		{"too long", bytes.Repeat([]byte(" "), MaxStatement+1), "limit"},
		{"another type", replace(Type, "provost-approval/v2"), "type is"},
		{"a name for a VM", replace(vm, "web-1"), "UUID"},
		{"capitals in a UUID", replace(vm, strings.ToUpper(vm)), "UUID"},
		{"no such event", replace("file.modify", "file.modfiy"), "event type"},
		{"no uses", replace(`"max_uses": 50`, `"max_uses": 0`), "max_uses"},
		{"backwards", replace("2026-11-23T22:00:00Z", "2026-11-23T19:00:00Z"), "not after"},
		{"a time with a zone", replace("2026-11-23T22:00:00Z", "2026-11-23T22:00:00+01:00"), "no time"},
		{"a hidden sign", replace("new virtual host", "new \u202evirtual host"), "reason"},
		{"a short nonce", replace(strings.Repeat("a1", 16), "a1"), "nonce"},
		{"an array", []byte("[]\n"), "read approval"},
		{"null", []byte("null\n"), "one form"},
	} {
		got, err := Parse(c.text)
		refused(t, c.name, err, c.words)
		if got != nil {
			t.Errorf("%s: a statement came with the error", c.name)
		}
	}
}

// TestMatcher covers what the scope names, and nothing where that is not known.
func TestMatcher(t *testing.T) {
	s := statement()
	sum := strings.Repeat("9f", 32)
	load := func(c record.Class, path string, digest []byte) *event.Event {
		t.Helper()
		e := &event.Event{}
		leaf := record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: c}}
		if err := e.Load(&leaf, &record.Event{File: &record.File{Path: []byte(path), Sha256: digest}}, &event.VM{UUID: vm}); err != nil {
			t.Fatal(err)
		}
		return e
	}
	check := func(name string, c record.Class, e *event.Event, want bool) {
		t.Helper()
		m, err := s.Matcher()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Covers(c, e); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", name, got, err, want)
		}
	}
	check("a path below", record.ClassFileModify, load(record.ClassFileModify, "/etc/nginx/nginx.conf", nil), true)
	check("a path beside", record.ClassFileModify, load(record.ClassFileModify, "/etc/nginx2", nil), false)
	check("another type", record.ClassFileDelete, load(record.ClassFileDelete, "/etc/nginx/nginx.conf", nil), false)
	s.Scope.Content = &Content{SHA256: []string{sum}}
	check("no content", record.ClassFileModify, load(record.ClassFileModify, "/etc/nginx/nginx.conf", nil), false)
	check("other content", record.ClassFileModify, load(record.ClassFileModify, "/etc/nginx/nginx.conf", make([]byte, 32)), false)
	check("the content", record.ClassFileModify, load(record.ClassFileModify, "/etc/nginx/nginx.conf", bytes.Repeat([]byte{0x9f}, 32)), true)
	s.Scope = Scope{}
	check("no scope", record.ClassFileDelete, load(record.ClassFileDelete, "/x", nil), true)
	for _, bad := range []string{`file.pth == "x"`, `contains(list.x, file.path)`, `file.path`, `(`, `process.pid == "1"`} {
		s.Scope.Condition = bad
		if _, err := s.Matcher(); err == nil || !strings.Contains(err.Error(), "scope.condition") {
			t.Errorf("the condition %q: %v", bad, err)
		}
	}
	s.Scope = Scope{On: []string{"process.exec"}, Condition: `file.path == "/etc/passwd"`}
	if _, err := s.Matcher(); err == nil {
		t.Error("a field that the event never has was taken")
	}
}

func TestValid(t *testing.T) {
	s := statement()
	for _, c := range []struct {
		at          time.Time
		valid, over bool
	}{
		{now.Add(-1), false, false}, {now, true, false}, {s.NotAfter.Time, true, false},
		{s.NotAfter.Add(time.Second - 1), true, false}, {s.NotAfter.Add(time.Second), false, true},
	} {
		if v, o := s.Valid(c.at.UnixNano()), s.Ended(c.at.UnixNano()); v != c.valid || o != c.over {
			t.Errorf("%s: valid %v, ended %v", c.at, v, o)
		}
	}
}

func TestRoots(t *testing.T) {
	line, other := mustLine(t), mustLine(t)
	r := roots(t, 1, Key{Principal: "zoe", PublicKey: line, NotAfter: now}, Key{Principal: "alice", PublicKey: "  " + strings.TrimSpace(other) + " alice@laptop\n"})
	again, err := ParseRoots(r.Text())
	if err != nil || again.Digest() != r.Digest() || !bytes.Equal(again.Text(), r.Text()) || strings.Contains(string(r.Text()), "laptop") {
		t.Fatalf("%s: %v", r.Text(), err)
	}
	if _, err := ParseRoots(append(slices.Clone(r.Text()), ' ')); err == nil {
		t.Error("another form was taken")
	}
	small, err := os.ReadFile(filepath.Join("testdata", "rsa1024.pub"))
	if err != nil {
		t.Fatal(err)
	}
	dsa, err := os.ReadFile(filepath.Join("testdata", "certificate.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key := func(p, k string) Key { return Key{Principal: p, PublicKey: k} }
	for _, c := range []struct {
		name  string
		g     Group
		words string
	}{
		{"no keys", Group{Name: "g"}, "0 keys"},
		{"too few people", Group{Name: "g", Require: 2, Keys: []Key{key("a", line), key("a", other)}}, "only 1"},
		{"one key of two", Group{Name: "g", Keys: []Key{key("a", line), key("b", strings.TrimSpace(line)+" comment")}}, "same key"},
		{"a name with a blank", Group{Name: "a b", Keys: []Key{key("a", line)}}, "its name"},
		{"too long", Group{Name: "g", MaxDuration: 400 * 24 * time.Hour, Keys: []Key{key("a", line)}}, "max_duration"},
		{"no key", Group{Name: "g", Keys: []Key{key("a", "AAAA")}}, "public_key"},
		{"options", Group{Name: "g", Keys: []Key{key("a", `command="x" `+line)}}, "options"},
		{"two lines", Group{Name: "g", Keys: []Key{key("a", line+other)}}, "several lines"},
		{"a weak key", Group{Name: "g", Keys: []Key{key("a", string(small))}}, "2048"},
		{"a certificate", Group{Name: "g", Keys: []Key{key("a", string(dsa))}}, "not taken"},
		{"a key that ends before it begins", Group{Name: "g", Keys: []Key{{Principal: "a", PublicKey: line, NotBefore: now, NotAfter: now}}}, "not_after"},
	} {
		_, err := NewRoots([]Group{c.g})
		refused(t, c.name, err, c.words)
	}
	_, err = NewRoots([]Group{{Name: "g", Keys: []Key{key("a", line)}}, {Name: "g", Keys: []Key{key("a", line)}}})
	refused(t, "a group twice", err, "twice")
}

var rewrite = flag.Bool("rewrite", false, "make the test vectors again")

// TestVectors holds a statement, a revocation, trust roots and signatures of
// ssh-keygen to the bytes that are committed.
func TestVectors(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(name string, b []byte, err error) {
		t.Helper()
		if err == nil && *rewrite {
			err = os.WriteFile(filepath.Join("testdata", "vectors", name), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := statement()
	v := &Revocation{Type: RevocationType, ID: s.ID, Host: s.Host, Group: s.Group, RevokedBy: "alice", Reason: "the change was put off", Issued: At(now), Nonce: strings.Repeat("0b", 16)}
	b, err := s.Encode()
	write("approval.json", b, err)
	b, err = v.Encode()
	write("revocation.json", b, err)
	keys := read("keys.pub")
	var all []Key
	for line := range strings.Lines(string(keys)) {
		who, k, _ := strings.Cut(line, " ")
		all = append(all, Key{Principal: who, PublicKey: k})
	}
	r := roots(t, 2, all...)
	write("roots.json", r.Text(), nil)
	if sealed, err := ParseRoots(read("roots.json")); err != nil || sealed.Digest() != r.Digest() {
		t.Fatalf("trust roots: %v", err)
	}
	sigs, err := ParseSignatures(read("approval.sigs"))
	if err != nil || len(sigs) != 2 {
		t.Fatalf("%d signatures: %v", len(sigs), err)
	}
	got, err := r.Verify(read("approval.json"), sigs, now)
	if err != nil || !slices.Equal(got.Signers, []string{"alice", "carol"}) {
		t.Fatalf("%v %v", got, err)
	}
	if sigs, err = ParseSignatures(read("revocation.sig")); err != nil {
		t.Fatal(err)
	}
	if _, who, err := r.VerifyRevocation(read("revocation.json"), sigs, now); err != nil || !slices.Equal(who, []string{"alice"}) {
		t.Fatalf("%v %v", who, err)
	}
}

// FuzzParse: an error comes with nil; what is read encodes to the same bytes, and
// its scope compiles or is refused.
func FuzzParse(f *testing.F) {
	good, err := statement().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			if s != nil {
				t.Fatal("a statement came with the error")
			}
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q was read from %q: %v", again, b, err)
		}
		if m, err := s.Matcher(); (m == nil) != (err != nil) {
			t.Fatalf("%v %v", m, err)
		}
	})
}

// FuzzSignatures: what is no signature by a key of the group over the statement is
// refused.
func FuzzSignatures(f *testing.F) {
	armoured, err := os.ReadFile(filepath.Join("testdata", "vectors", "approval.sigs"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(armoured)
	sigs, err := ParseSignatures(armoured)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range sigs {
		f.Add(Armor(s))
	}
	text, err := os.ReadFile(filepath.Join("testdata", "vectors", "roots.json"))
	if err != nil {
		f.Fatal(err)
	}
	r, err := ParseRoots(text)
	if err != nil {
		f.Fatal(err)
	}
	s := statement()
	s.Reason = "nobody has signed this"
	b, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		sigs, err := ParseSignatures(file)
		if err != nil {
			sigs = [][]byte{file}
		}
		if _, err := r.Verify(b, sigs, now); err == nil {
			t.Fatal("it was verified")
		}
	})
}

// TestCoversNoWindingPaths: a process can pass any spelling of a path. One that climbs is
// not below what the signers have read.
func TestCoversNoWindingPaths(t *testing.T) {
	s := &Statement{Scope: Scope{Condition: `startswith(file.path, "/etc/nginx/") || startswith(process.executable, "/opt/")`}}
	m, err := s.Matcher()
	if err != nil {
		t.Fatal(err)
	}
	all := &Statement{}
	whatever, err := all.Matcher()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/etc/nginx/a": true, "/etc/nginx/a..b/..c": true, "/etc/nginx/dir/": true, "/etc/nginx/./a": true,
		"/etc/nginx/../shadow": false, "/etc/nginx/a/..": false, "/etc/shadow": false,
	} {
		e := new(event.Event)
		e.SetString(event.FilePath, path)
		if got, err := m.Covers(record.ClassFileModify, e); got != want || err != nil {
			t.Errorf("%s: %v, %v", path, got, err)
		}
		if got, err := whatever.Covers(record.ClassFileModify, e); !got || err != nil {
			t.Errorf("%s without a condition: %v, %v", path, got, err)
		}
	}
	e := new(event.Event)
	e.SetString(event.FilePath, "/etc/nginx/a")
	e.SetString(event.FileTargetPath, "/etc/nginx/../shadow")
	if got, _ := m.Covers(record.ClassFileRename, e); got {
		t.Error("a rename to a winding path is covered")
	}
	e = new(event.Event)
	e.SetString(event.ProcessExecutable, "/opt/../tmp/x")
	if got, _ := m.Covers(record.ClassProcessExec, e); got {
		t.Error("a winding executable is covered")
	}
}
