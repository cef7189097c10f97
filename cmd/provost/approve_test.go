package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules/approval"
)

// approverHost answers as a daemon, and keeps what was handed in.
type approverHost struct {
	socket string
	got    []client.Submission
	paths  []string
}

func newApproverHost(t *testing.T, dir string) *approverHost {
	t.Helper()
	h := &approverHost{socket: filepath.Join(dir, "s")}
	taken := client.Approval{ID: "CHG-1", Group: "security-team", State: "valid", NotAfter: "2026-11-23T22:00:00Z", Policies: []string{"etc"}, Signers: []string{"alice"}, MaxUses: 5,
		Reason: "why\x1b[2J", VMs: []client.ApprovalVM{{UUID: "11111111-2222-4333-8444-555555555555", Name: "web"}},
		Submission: &client.Submission{Statement: "the statement\n", Signatures: []string{"first\n", "second\n"}}}
	ended := taken
	ended.ID, ended.State = "CHG-0", "ended"
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.Method + " " + r.URL.Path {
		case "GET /v1/status":
			answer = client.Status{Host: "test.host"}
		case "GET /v1/domains/web":
			answer = client.Domain{UUID: "11111111-2222-4333-8444-555555555555", Name: "web"}
		case "GET /v1/approvals":
			answer = []client.Approval{taken, ended}
		case "GET /v1/approvals/CHG-1":
			answer = taken
		case "POST /v1/approvals", "POST /v1/revocations":
			var s client.Submission
			if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
				t.Error(err)
			}
			h.got, h.paths = append(h.got, s), append(h.paths, r.URL.Path)
			answer = taken
		default:
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return h
}

// TestApprove makes statements, has ssh-keygen sign them, here and elsewhere, and hands
// them in; what was handed in verifies.
func TestApprove(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("ssh-keygen is missing: make setup installs it (Debian package openssh-client)")
	}
	dir := t.TempDir()
	h := newApproverHost(t, dir)
	var keys []approval.Key
	for _, who := range []string{"alice", "bob"} {
		if out, err := exec.Command(keygen, "-q", "-N", "", "-t", "ed25519", "-f", filepath.Join(dir, who)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		pub, err := os.ReadFile(filepath.Join(dir, who+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, approval.Key{Principal: who, PublicKey: string(pub)})
	}
	roots, err := approval.NewRoots([]approval.Group{{Name: "security-team", Require: 2, Keys: keys}})
	if err != nil {
		t.Fatal(err)
	}
	verified := func(what string) *approval.Verified {
		t.Helper()
		if len(h.got) == 0 {
			t.Fatalf("%s: nothing was handed in", what)
		}
		s := h.got[len(h.got)-1]
		sigs, err := approval.ParseSignatures([]byte(strings.Join(s.Signatures, "\n")))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		v, err := roots.Verify([]byte(s.Statement), sigs, time.Now())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
	flags := []string{"approve", "--socket", h.socket, "--group", "security-team", "--policy", "etc,boot", "--vm", "web", "--on", "file.modify", "--condition", `under(file.path, "/etc/nginx")`,
		"--sha256", strings.Repeat("9f", 32), "--for", "2h", "--max-uses", "7", "--requested-by", "carol", "--reason", "CHG-4711", "--id", "CHG-1"}
	with := func(more ...string) []string { return append(slices.Clone(flags), more...) }
	alice, bob := filepath.Join(dir, "alice"), filepath.Join(dir, "bob")
	code, out, told := call(t, with("--key", alice, "--key", bob)...)
	if code != exitOK || !strings.Contains(out, "approval CHG-1 of security-team: valid") || strings.Contains(out, "\x1b") {
		t.Fatalf("exit %d\n%s%s", code, out, told)
	}
	s := verified("keys").Statement
	if s.Host != "test.host" || !slices.Equal(s.Policies, []string{"etc", "boot"}) || s.VMs[0] != "11111111-2222-4333-8444-555555555555" || s.MaxUses != 7 ||
		s.NotAfter.Sub(s.NotBefore.Time) != 2*time.Hour || s.Scope.Content == nil || s.RequestedBy != "carol" {
		t.Errorf("%+v", s)
	}

	// Signed elsewhere.
	code, text, told := call(t, with("--print")...)
	if _, err := approval.Parse([]byte(text)); code != exitOK || err != nil || len(h.got) != 1 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, text, told)
	}
	file := filepath.Join(dir, "statement")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"approve", "--socket", h.socket, "--statement", file}
	for _, key := range []string{alice, bob} {
		if out, err := exec.Command(keygen, "-q", "-Y", "sign", "-f", key, "-n", approval.Namespace, file).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := os.Rename(file+".sig", key+".sig"); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--sig", key+".sig")
	}
	if code, out, told = call(t, args...); code != exitOK {
		t.Fatalf("exit %d\n%s%s", code, out, told)
	}
	verified("signed elsewhere")

	if code, out, told = call(t, "approvals", "revoke", "CHG-1", "--socket", h.socket, "--reason", "over", "--revoked-by", "bob", "--key", bob); code != exitOK || h.paths[len(h.paths)-1] != "/v1/revocations" {
		t.Fatalf("exit %d, %v\n%s%s", code, h.paths, out, told)
	}
	last := h.got[len(h.got)-1]
	sigs, err := approval.ParseSignatures([]byte(last.Signatures[0]))
	if err != nil {
		t.Fatal(err)
	}
	if r, _, err := roots.VerifyRevocation([]byte(last.Statement), sigs, time.Now()); err != nil || r.ID != "CHG-1" || r.Host != "test.host" || r.Group != "security-team" {
		t.Errorf("%v %v", r, err)
	}
	before := len(h.got)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nobody signs":      {flags, exitUsage, "nobody has signed"},
		"no reason":         {[]string{"approve", "--socket", h.socket, "--group", "g", "--policy", "p", "--vm", "web"}, exitUsage, "--reason is missing"},
		"no such VM":        {with("--vm", "db", "--print"), exitFailed, `find the VM "db"`},
		"no such event":     {with("--on", "file.modfiy", "--print"), exitFailed, "event type"},
		"a wrong condition": {with("--condition", "file.pth == 1", "--print"), exitFailed, "file.path"},
		"no such key":       {with("--key", filepath.Join(dir, "none")), exitFailed, "ssh-keygen"},
		"no statement":      {[]string{"approve", "--socket", h.socket, "--statement", alice}, exitFailed, "read approval"},
		"another id":        {[]string{"approvals", "revoke", "CHG-2", "--socket", h.socket, "--statement", file}, exitFailed, "read revocation"},
		"revoked silently":  {[]string{"approvals", "revoke", "CHG-1", "--socket", h.socket}, exitUsage, "--reason is missing"},
	} {
		if code, out, told := call(t, c.args...); code != c.code || !strings.Contains(out+told, c.want) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", name, code, c.code, c.want, out, told)
		}
	}
	if len(h.got) != before {
		t.Error("something that was refused was handed in")
	}
}

// TestApprovals lists approvals and writes one for ssh-keygen.
func TestApprovals(t *testing.T) {
	dir := t.TempDir()
	h := newApproverHost(t, dir)
	if code, out, _ := call(t, "approvals", "list", "--socket", h.socket); code != exitOK || !strings.Contains(out, "CHG-1") || strings.Contains(out, "CHG-0") || strings.Contains(out, "\x1b") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out, _ := call(t, "approvals", "list", "--all", "--socket", h.socket); code != exitOK || !strings.Contains(out, "CHG-0") {
		t.Errorf("exit %d\n%s", code, out)
	}
	file := filepath.Join(dir, "out")
	code, out, told := call(t, "approvals", "show", "CHG-1", "--out", file, "--socket", h.socket)
	if code != exitOK || !strings.Contains(out, "the statement") || !strings.Contains(out, "not known any more") {
		t.Errorf("exit %d\n%s%s", code, out, told)
	}
	for name, want := range map[string]string{file: "the statement\n", file + ".sig-1": "first\n", file + ".sig-2": "second\n"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	if code, _, told := call(t, "approvals", "show", "CHG-1", "--out", file, "--socket", h.socket); code != exitFailed || !strings.Contains(told, "exists") {
		t.Errorf("exit %d: %s", code, told)
	}
}
