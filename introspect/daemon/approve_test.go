package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules/approval"
)

const approvalBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "etc" {
  severity  = "high"
  mode      = "enforce"
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  approval {
    group = "security-team"
    grace = "1h"
  }
  action "alert" {
    message = "${file.path} changed"
  }
}
`

// approving is a daemon without libvirt that judges, with approvers whose keys
// ssh-keygen made.
type approving struct {
	*Daemon
	t      *testing.T
	dir    string
	client *client.Client
	log    *chain.Log
	vm     string
	stop   func()
	seq    uint64
}

func (v *approving) keygen(args ...string) {
	v.t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		v.t.Fatal("ssh-keygen is missing: make setup installs it (Debian package openssh-client)")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
}

func (v *approving) file(name, text string) string {
	v.t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
	return path
}

// configure writes the configuration with a group of which these people are.
func (v *approving) configure(require int, people ...string) string {
	v.t.Helper()
	text := fmt.Sprintf("host_id = \"test.host\"\nstate_dir = %q\nanchor = %q\npolicies = %q\napi {\n  socket = %q\n  listen = \"off\"\n}\n",
		filepath.Join(v.dir, "state"), filepath.Join(v.dir, "anchor", "anchor"), filepath.Join(v.dir, "policies"), filepath.Join(v.dir, "s"))
	text += fmt.Sprintf("approver_group \"security-team\" {\n  require = %d\n  max_duration = \"2h\"\n", require)
	for _, who := range people {
		key := filepath.Join(v.dir, who)
		if _, err := os.Stat(key); err != nil {
			v.keygen("-q", "-N", "", "-t", "ed25519", "-f", key, "-C", who+"@laptop")
		}
		pub, err := os.ReadFile(key + ".pub")
		if err != nil {
			v.t.Fatal(err)
		}
		text += fmt.Sprintf("  key %q {\n    public_key = %q\n  }\n", who, strings.TrimSpace(string(pub)))
	}
	return v.file("provostd.hcl", text+"}\n")
}

func newApproving(t *testing.T) *approving {
	t.Helper()
	v := &approving{t: t, dir: t.TempDir(), vm: "11111111-2222-4333-8444-555555555555"}
	if err := os.Mkdir(filepath.Join(v.dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	v.file("policies/a.policy.hcl", approvalBundle)
	cfg, _, diags := ReadConfig(v.configure(1, "alice", "bob"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	v.start(cfg)
	t.Cleanup(func() { v.stop() })
	id, err := domain.ParseUUID(v.vm)
	if err != nil {
		t.Fatal(err)
	}
	dom := domain.Domain{UUID: id, Name: "web", State: domain.Running, ID: 7}
	err = v.registry.Observe(t.Context(), virt.Observation{Kind: virt.KindLifecycle, Type: "vm.start", Word: "start", Reason: "booted", Event: 1, Detail: 1, Domain: dom, Time: time.Now(),
		Snapshot: &virt.Snapshot{Domain: dom, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: 7, Start: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := v.registry.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	v.log = m.Log
	return v
}

// start runs what takes and judges approvals.
func (v *approving) start(cfg *Config) {
	v.t.Helper()
	var err error
	if v.Daemon, err = New(cfg, "test", quiet); err != nil {
		v.t.Fatal(err)
	}
	s, err := v.listen()
	if err != nil {
		v.t.Fatal(errors.Join(err, v.Close()))
	}
	// The ledger ends last.
	ctx, cancel := context.WithCancel(context.Background())
	ledger, end := context.WithCancel(context.Background())
	done, ended := make(chan error, 3), make(chan error, 1)
	go func() { ended <- v.store.Run(ledger) }()
	for _, run := range []func(context.Context) error{v.index.Run, v.judge.Run, s.run} {
		go func() { done <- run(ctx) }()
	}
	if err := v.approvals.SealRoots(v.t.Context()); err != nil {
		v.t.Error(err)
	}
	v.client = client.New(cfg.API.Socket)
	v.stop = func() {
		v.client.Close()
		cancel()
		err := errors.Join(<-done, <-done, <-done)
		end()
		if err = errors.Join(err, <-ended, v.Close()); err != nil && !errors.Is(err, context.Canceled) {
			v.t.Error(err)
		}
	}
}

// changes has the guest tell that a file was changed.
func (v *approving) changes(path string) {
	v.t.Helper()
	p, err := record.Encode(&record.Event{File: &record.File{Path: []byte(path)}})
	if err != nil {
		v.t.Fatal(err)
	}
	v.seq++
	seed := record.Seed{byte(v.seq)}
	salt := seed.Salt(v.seq)
	e := chain.Entry{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1, Sequence: v.seq, LaneSequence: v.seq},
		Payload: p, Seed: seed, Commitment: record.Commit(&salt, p)}
	if _, err := v.store.Append(v.t.Context(), chain.Batch{Log: v.log, Entries: []chain.Entry{e}}); err != nil {
		v.t.Fatal(err)
	}
}

// waits until n entries of a class stand in the domain's log, and returns the last.
func (v *approving) waits(class record.Class, n int) record.Message {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 30*time.Second)
	defer cancel()
	f := v.store.Tail(chain.Position{})
	defer f.Close()
	for {
		it, err := f.Next(ctx)
		if err != nil {
			v.t.Fatalf("%d more of %s: %v", n, class, err)
		}
		if it.Log.ID() != v.log.ID() || it.Leaf.Header.Class != class {
			continue
		}
		if n--; n == 0 {
			m, err := it.Decode()
			if err != nil {
				v.t.Fatal(err)
			}
			return m
		}
	}
}

func (v *approving) statement(id string, change func(*approval.Statement)) []byte {
	v.t.Helper()
	now := time.Now()
	s := &approval.Statement{Type: approval.Type, ID: id, Host: "test.host", Group: "security-team", Policies: []string{"etc"}, VMs: []string{v.vm},
		Scope:     approval.Scope{Condition: `under(file.path, "/etc/nginx")`},
		NotBefore: approval.At(now), NotAfter: approval.At(now.Add(time.Hour)), MaxUses: 3, RequestedBy: "carol", Reason: "new virtual host",
		Issued: approval.At(now), Nonce: fmt.Sprintf("%032x", id)[:32]}
	if change != nil {
		change(s)
	}
	b, err := s.Encode()
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

// signed has ssh-keygen sign a statement for each of the people.
func (v *approving) signed(statement []byte, people ...string) client.Submission {
	v.t.Helper()
	sub := client.Submission{Statement: string(statement)}
	for _, who := range people {
		file := v.file("statement", string(statement))
		v.keygen("-q", "-Y", "sign", "-f", filepath.Join(v.dir, who), "-n", approval.Namespace, file)
		sig, err := os.ReadFile(file + ".sig")
		if err != nil {
			v.t.Fatal(err)
		}
		if err := os.Remove(file + ".sig"); err != nil {
			v.t.Fatal(err)
		}
		sub.Signatures = append(sub.Signatures, string(sig))
	}
	return sub
}

// refused wants a submission to be refused with these words.
func (v *approving) refused(what string, s client.Submission, words string) {
	v.t.Helper()
	var p *client.Problem
	if got, err := v.client.Approve(v.t.Context(), s); !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Detail, words) {
		v.t.Errorf("%s: %v %v, want a refusal with %q", what, got, err, words)
	}
}

// TestApprovals takes approvals that ssh-keygen signed over the socket: they cover what
// a policy matches, late ones close its alert, none is taken twice, not by a daemon that
// was started anew either, and a revocation ends one.
func TestApprovals(t *testing.T) {
	v := newApproving(t)
	v.changes("/etc/nginx/before")
	v.waits(record.ClassPolicyVerdict, 1)
	good := v.signed(v.statement("CHG-1", nil), "alice")
	a, err := v.client.Approve(t.Context(), good)
	if err != nil || a.State != "valid" || !slices.Equal(a.Signers, []string{"alice"}) || len(a.VMs) != 1 || a.VMs[0].Name != "web" || !strings.Contains(a.Submitter, "uid") {
		t.Fatalf("%+v %v", a, err)
	}
	late := v.waits(record.ClassApprovalUsedLate, 1).(*record.Verdict)
	if item, err := v.log.Item(late.Approval.VerdictIndex); err != nil || item.Leaf.Header.Class != record.ClassPolicyVerdict || late.Approval.Id != "CHG-1" {
		t.Errorf("late use %v: %v", late, err)
	}
	v.changes("/etc/nginx/now")
	if use := v.waits(record.ClassApprovalUsed, 1).(*record.Verdict); use.Policy != "etc" || use.Approval.Uses != 2 || len(use.Actions) != 0 {
		t.Errorf("use %v", use)
	}
	v.changes("/etc/passwd")
	v.waits(record.ClassPolicyVerdict, 2)

	sealed := v.waits(record.ClassApprovalLoaded, 1).(*record.Approval)
	roots := v.sealedRoots(1)
	if string(sealed.Statement) != good.Statement || string(sealed.ApproversSha256) != string(roots.Sha256) {
		t.Errorf("sealed: %v", sealed)
	}
	if r, err := approval.ParseRoots(roots.Text); err != nil {
		t.Error(err)
	} else if _, err := r.Verify(sealed.Statement, sealed.Signatures, time.Now()); err != nil {
		t.Errorf("what is sealed does not verify: %v", err)
	}

	v.refused("a replay", good, "taken before")
	v.refused("an old nonce", v.signed(v.statement("CHG-2", func(s *approval.Statement) { s.Nonce = fmt.Sprintf("%032x", "CHG-1")[:32] }), "alice"), "nonce was used")
	v.refused("another host", v.signed(v.statement("CHG-2", func(s *approval.Statement) { s.Host = "other.host" }), "alice"), "is for the host")
	v.refused("another VM", v.signed(v.statement("CHG-2", func(s *approval.Statement) { s.VMs = []string{strings.Replace(v.vm, "1", "2", 1)} }), "alice"), "is not on this host")
	v.refused("another policy", v.signed(v.statement("CHG-2", func(s *approval.Statement) { s.Policies = []string{"other"} }), "alice"), "no policy")
	v.refused("the requester", v.signed(v.statement("CHG-2", func(s *approval.Statement) { s.RequestedBy = "alice" }), "alice"), "does not count")
	v.refused("a changed text", client.Submission{Statement: string(v.statement("CHG-2", nil)), Signatures: good.Signatures}, "does not hold")

	v.restart()
	v.refused("a replay behind a restart", good, "taken before")
	v.changes("/etc/nginx/restarted")
	if use := v.waits(record.ClassApprovalUsed, 2).(*record.Verdict); use.Approval.Uses != 3 {
		t.Errorf("uses behind a restart: %v", use)
	}
	all, err := v.client.Approvals(t.Context())
	if err != nil || len(all) != 1 || all[0].VMs[0].Uses == nil || *all[0].VMs[0].Uses != 3 || all[0].Submission != nil {
		t.Errorf("%+v %v", all, err)
	}

	r := &approval.Revocation{Type: approval.RevocationType, ID: "CHG-1", Host: "test.host", Group: "security-team", RevokedBy: "bob", Reason: "over", Issued: approval.At(time.Now()), Nonce: strings.Repeat("f", 32)}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = v.client.Revoke(t.Context(), v.signed(b, "bob")); err != nil || a.State != "revoked" || !slices.Equal(a.Revoked.Signers, []string{"bob"}) {
		t.Fatalf("%+v %v", a, err)
	}
	v.waits(record.ClassApprovalRevoked, 1)
	v.changes("/etc/nginx/revoked")
	v.waits(record.ClassPolicyVerdict, 3)
	if _, err = v.client.Revoke(t.Context(), v.signed(b, "bob")); err == nil {
		t.Error("an approval was revoked twice")
	}
	if a, err = v.client.Approval(t.Context(), "CHG-1"); err != nil || a.Submission == nil || a.Submission.Statement != good.Statement {
		t.Errorf("%+v %v", a, err)
	}
	if _, err = v.client.Approval(t.Context(), "CHG-9"); err == nil {
		t.Error("an approval that is not there is shown")
	}
}

// restart ends the daemon and builds it anew from what is on disk.
func (v *approving) restart() {
	v.t.Helper()
	cfg, origin := v.cfg, v.log.Origin()
	v.stop()
	v.start(cfg)
	var ok bool
	if v.log, ok = v.store.LogByOrigin(origin); !ok {
		v.t.Fatal("the log is gone")
	}
}

// sealedRoots returns the newest trust roots in the host log, of which there are n.
func (v *approving) sealedRoots(n int) *record.Approvers {
	v.t.Helper()
	var all []*record.Approvers
	for it, err := range v.store.HostLog().Read(v.t.Context(), 0, v.store.HostLog().Size()) {
		if err != nil {
			v.t.Fatal(err)
		}
		if it.Leaf.Header.Class != record.ClassApprovalApprovers {
			continue
		}
		m, err := it.Decode()
		if err != nil {
			v.t.Fatal(err)
		}
		all = append(all, m.(*record.Approvers))
	}
	if len(all) != n {
		v.t.Fatalf("trust roots were sealed %d times, want %d", len(all), n)
	}
	return all[n-1]
}

// TestApproversReload has other approvers take over, sealed before they count, and
// refuses some with whom no policy could be approved.
func TestApproversReload(t *testing.T) {
	v := newApproving(t)
	v.configure(2, "alice", "bob")
	if err := v.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.sealedRoots(2)
	v.refused("one of two", v.signed(v.statement("CHG-1", nil), "alice"), "1 of the 2")
	if _, err := v.client.Approve(t.Context(), v.signed(v.statement("CHG-1", nil), "bob", "alice")); err != nil {
		t.Error(err)
	}
	v.configure(1, "eve")
	v.file("provostd.hcl", strings.Replace(string(v.read("provostd.hcl")), "security-team", "others", 1))
	if err := v.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no approver_group") {
		t.Errorf("a group that a policy needs was taken away: %v", err)
	}
	v.file("provostd.hcl", "host_id = ")
	if err := v.Reload(t.Context()); err == nil {
		t.Error("a broken configuration was taken")
	}
	v.sealedRoots(2)
	if _, err := v.client.Approve(t.Context(), v.signed(v.statement("CHG-2", nil), "bob", "alice")); err != nil {
		t.Errorf("the approvers of before do not hold any more: %v", err)
	}
}

func (v *approving) read(name string) []byte {
	v.t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

// TestApproversAreChecked: a policy whose approvals nobody could sign stops the start,
// and groups that cannot be used are told.
func TestApproversAreChecked(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte(approvalBundle), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, fmt.Sprintf("policies = %q\n", dir))
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, "test", quiet); err == nil || !strings.Contains(err.Error(), `no approver_group "security-team"`) {
		t.Errorf("the daemon starts: %v", err)
	}
	for text, want := range map[string]string{
		"approver_group \"g\" {}": "0 keys",
		"approver_group \"g\" {\n key \"a\" {\n public_key = \"x\"\n}\n}":                            "public_key",
		"approver_group \"g\" {\n max_duration = \"1s\"\n}":                                          "max_duration",
		"approver_group \"g\" {\n key \"a\" {\n public_key = \"x\"\n not_after = \"tomorrow\"\n}\n}": "tomorrow",
		"approver_group \"g\" {\n require = 2\n key \"a\" {\n public_key = \"x\"\n}\n}":              "approver",
	} {
		if _, _, diags := parseConfig([]byte("host_id = \"h\"\n"+text+"\n"), "test.hcl"); !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%s: %v, want %q", text, diags, want)
		}
	}
}
