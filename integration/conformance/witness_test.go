package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/witness"
)

// litewitness is torchwood's witness with its own key, agent and database.
type litewitness struct {
	t       *testing.T
	program string
	dir     string
	name    string
	agent   string // socket of ssh-agent
	key     string // fingerprint
	address string
	vkey    string
	cmd     *exec.Cmd
}

// need returns the path of a program of the system.
func need(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: make setup installs it (Debian package %s)", name, pkg)
	}
	return path
}

func newLitewitness(t *testing.T, name string) *litewitness {
	t.Helper()
	// Not t.TempDir: the path of a unix socket has little room.
	dir, err := os.MkdirTemp("", "lw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &litewitness{t: t, program: tool(t, "litewitness", "filippo.io/torchwood/cmd/litewitness"), dir: dir, name: name, agent: filepath.Join(dir, "agent")}
	need(t, "sqlite3", "sqlite3")
	keyFile := filepath.Join(dir, "key")
	w.output(exec.Command(need(t, "ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", keyFile))
	agent := exec.Command(need(t, "ssh-agent", "openssh-client"), "-D", "-a", w.agent)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	waitFor(t, "ssh-agent", func() bool { c, err := net.Dial("unix", w.agent); return err == nil && c.Close() == nil })
	add := exec.Command("ssh-add", "-q", keyFile)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+w.agent)
	w.output(add)
	w.key = strings.Fields(w.output(exec.Command("ssh-keygen", "-l", "-f", keyFile+".pub")))[1]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *litewitness) output(cmd *exec.Cmd) string {
	w.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

var vkeyLine = regexp.MustCompile(`vkey=(\S+)`)

// start runs the witness on the database of before and waits until it listens.
func (w *litewitness) start() {
	w.t.Helper()
	w.cmd = exec.Command(w.program, "-db", filepath.Join(w.dir, "db"), "-name", w.name, "-key", w.key, "-ssh-agent", w.agent, "-listen", w.address)
	out, err := w.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for w.vkey = ""; w.vkey == "" && lines.Scan(); {
		if m := vkeyLine.FindStringSubmatch(lines.Text()); m != nil {
			w.vkey = m[1]
		}
	}
	if w.vkey == "" {
		w.t.Fatalf("litewitness says no verifier key: %v", lines.Err())
	}
	go func() { // until it ends; it must not fill the pipe
		for lines.Scan() {
		}
	}()
	waitFor(w.t, "litewitness", func() bool { c, err := net.Dial("tcp", w.address); return err == nil && c.Close() == nil })
}

func (w *litewitness) stop() {
	if w.cmd == nil {
		return
	}
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	w.cmd = nil
}

func (w *litewitness) sql(format string, args ...any) {
	w.t.Helper()
	w.output(exec.Command("sqlite3", "-cmd", ".timeout 10000", filepath.Join(w.dir, "db"), fmt.Sprintf(format, args...)))
}

// know has the witness know a log, as its operator would.
func (w *litewitness) know(origin, vkey string) {
	w.t.Helper()
	w.sql("INSERT INTO log VALUES('%s',0,'47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='); INSERT INTO key VALUES('%s','%s');", origin, origin, vkey)
}

func (w *litewitness) client() *witness.Client {
	w.t.Helper()
	key, err := proof.NewWitnessKey(w.name, w.vkey)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := witness.New(witness.Config{URL: "http://" + w.address, Key: key, HTTP: &http.Client{}, Timeout: 30 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// witnessed is a store whose host log the witnesses cosign.
type witnessed struct {
	*chain.Store
	t *testing.T
}

func newWitnessed(t *testing.T, cfg chain.Config) *witnessed {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir, cfg.Anchor, cfg.HostID, cfg.Keys = filepath.Join(dir, "store"), filepath.Join(dir, "anchor"), "kvm1.example", k
	cfg.WitnessEvery = time.Hour // the tests say when
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return &witnessed{s, t}
}

// round makes the host log grow and has it cosigned.
func (s *witnessed) round() {
	s.t.Helper()
	e, err := s.Draft(record.OriginHost, record.ClassHostConfiguration, &record.Daemon{What: "configuration"})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Append(s.t.Context(), chain.Batch{Log: s.HostLog(), Entries: []chain.Entry{e}}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.CheckpointNow(s.t.Context(), s.HostLog()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.CosignNow(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *witnessed) sealed(c record.Class) (n int) {
	s.t.Helper()
	for i := range s.HostLog().Size() {
		item, err := s.HostLog().Item(i)
		if err != nil {
			s.t.Fatal(err)
		}
		if item.Leaf.Header.Class == c {
			n++
		}
	}
	return n
}

// whole wants the newest published checkpoint to have reached the quorum.
func (s *witnessed) whole() chain.Published {
	s.t.Helper()
	all, missing, _ := s.Witnesses()
	p, ok := s.Cosigned()
	if !ok || missing != "" {
		s.t.Fatalf("the quorum lacks %q: %+v", missing, all)
	}
	return p
}

// TestLitewitness has two real witnesses cosign a host log which quotes a VM log of the
// real pipeline, through all that happens to witnesses, and stock code verify the
// outcome by a policy file.
func TestLitewitness(t *testing.T) {
	w1, w2 := newLitewitness(t, "witness.example/w1"), newLitewitness(t, "witness.example/w2")
	s := newWitnessed(t, chain.Config{Witnesses: []chain.Witness{w1.client(), w2.client()}})
	fill(t, s.Store)
	origin, vkey := s.HostLog().Origin(), s.HostLog().VerifierKey()

	// Nobody has told the witnesses of the log.
	s.round()
	if all, missing, _ := s.Witnesses(); missing == "" || !strings.Contains(all[0].Problem, "404") || !strings.Contains(all[0].Problem, "have its operator add the log") {
		t.Errorf("an unknown log: %+v", all)
	}
	// One has been told another key.
	w1.know(origin, vkey)
	w2.know(origin, w2.stranger(origin))
	s.round()
	if all, missing, _ := s.Witnesses(); missing == "" || all[0].Problem != "" || !strings.Contains(all[1].Problem, "403") {
		t.Errorf("an unknown key: %+v", all)
	}
	w2.sql("DELETE FROM key; INSERT INTO key VALUES('%s','%s')", origin, vkey)
	s.round()
	p := s.whole()
	if n, m := s.sealed(record.ClassWitnessShortfall), s.sealed(record.ClassWitnessRestored); n != 1 || m != 1 {
		t.Errorf("shortfall sealed %d times, restored %d times", n, m)
	}
	stock(t, p.Note, fmt.Sprintf("log %s\nwitness w1 %s\nwitness w2 %s\ngroup both all w1 w2\nquorum both\n", vkey, w1.vkey, w2.vkey))

	// A witness restarts.
	w2.stop()
	w2.start()
	s.round()
	s.whole()

	// A witness is down, and the log goes on.
	w1.stop()
	s.round()
	s.round()
	if all, missing, _ := s.Witnesses(); !strings.Contains(missing, "witness.example/w1") || strings.Contains(missing, "witness.example/w2") || all[1].Size != s.published() {
		t.Errorf("one witness is down: missing %q, %+v", missing, all)
	}
	if n := s.sealed(record.ClassWitnessShortfall); n != 2 {
		t.Errorf("the second shortfall: %d are sealed", n)
	}
	w1.start()
	s.round()
	s.whole()

	// A witness lost its newest state, or we ours: a conflict, and it recovers.
	root, err := s.HostLog().RootAt(3)
	if err != nil {
		t.Fatal(err)
	}
	w1.sql("UPDATE log SET tree_size = 3, tree_hash = '%s'", base64.StdEncoding.EncodeToString(root[:]))
	w2.sql("UPDATE log SET tree_size = 0, tree_hash = '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='")
	s.round()
	p = s.whole()
	if sig, err := w1.client().Cosign(t.Context(), p.Checkpoint, p.Note, 1, func(from uint64) ([]record.Hash, error) {
		path, err := s.HostLog().ProveConsistency(from, p.Size)
		out := make([]record.Hash, len(path))
		for i := range path {
			out[i] = record.Hash(path[i])
		}
		return out, err
	}); err != nil || sig.Time == 0 {
		t.Errorf("a client without memory: %v", err)
	}

	// A witness is ahead of us, or knows another root: its word is sealed once.
	w1.sql("UPDATE log SET tree_size = 1000000")
	s.round()
	s.round()
	w1.sql("UPDATE log SET tree_size = 3, tree_hash = '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='")
	s.round()
	if n := s.sealed(record.ClassWitnessDisputed); n != 1 {
		t.Errorf("the dispute is sealed %d times", n)
	}
	if all, _, _ := s.Witnesses(); !all[0].Disputed || !strings.Contains(all[0].Problem, "not consistent") {
		t.Errorf("a witness with another root: %+v", all[0])
	}
}

// TestLitewitnessQuorum asks for one of two witnesses by a policy file.
func TestLitewitnessQuorum(t *testing.T) {
	w1, w2 := newLitewitness(t, "witness.example/w1"), newLitewitness(t, "witness.example/w2")
	policy := fmt.Sprintf("witness w1 %s\nwitness w2 %s\ngroup one any w1 w2\nquorum one\n", w1.vkey, w2.vkey)
	quorum, err := proof.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	s := newWitnessed(t, chain.Config{Witnesses: []chain.Witness{w1.client(), w2.client()}, Quorum: quorum})
	w1.know(s.HostLog().Origin(), s.HostLog().VerifierKey())
	w2.stop()
	s.round()
	stock(t, s.whole().Note, "log "+s.HostLog().VerifierKey()+"\n"+policy)
	s.bundle(t, policy)
	if n := s.sealed(record.ClassWitnessShortfall); n != 0 {
		t.Errorf("one witness is enough, and %d shortfalls are sealed", n)
	}
}

func (s *witnessed) published() uint64 {
	p, _ := s.HostLog().Checkpoint()
	return p.Size
}

// stranger is the verifier key of somebody else who calls a log the same.
func (w *litewitness) stranger(origin string) string {
	w.t.Helper()
	k, err := keys.Create(filepath.Join(w.dir, "stranger"))
	if err != nil {
		w.t.Fatal(err)
	}
	vkey, err := keys.VerifierKey(origin, k.HostPublic())
	if err != nil {
		w.t.Fatal(err)
	}
	return vkey
}

// stock verifies a checkpoint with torchwood, by a policy, and by one that asks
// for a witness it does not have.
func stock(t *testing.T, msg []byte, policy string) {
	t.Helper()
	p, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := torchwood.VerifyCheckpoint(msg, p); err != nil {
		t.Errorf("torchwood refuses the cosigned checkpoint: %v\n%s", err, msg)
	}
	if p, err = torchwood.ParsePolicy([]byte(strings.Replace(policy, "quorum", "witness w3 witness.example.net/w1+aeaf2fc2+BIF27VPtpqRVC0ao2eJ7UqBV4+3YdjkTI37J2c9UdC9A\nquorum w3 #", 1))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := torchwood.VerifyCheckpoint(msg, p); err == nil {
		t.Error("torchwood accepts a checkpoint without the witness that the policy asks for")
	}
}

// bundle exports evidence under a cosigned checkpoint, after the key of the VM
// logs was replaced. spicy verifies it as ever, we by the policy.
func (s *witnessed) bundle(t *testing.T, policy string) {
	t.Helper()
	if _, err := s.RotateVMKey(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	l, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", domainUUID, 1), &record.Genesis{Cause: "define", DomainName: "web"})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := chain.Export(t.Context(), s.Store, l, chain.Selection{Indexes: []uint64{0}}, &archive); err != nil {
		t.Fatal(err)
	}
	p, err := proof.ParsePolicy([]byte("log " + s.HostLog().VerifierKey() + "\n" + policy))
	if err != nil {
		t.Fatal(err)
	}
	b, err := proof.ReadBundle(bytes.NewReader(archive.Bytes()), int64(archive.Len()), proof.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := proof.Verify(b, s.HostLog().VerifierKey(), proof.Options{Policy: p}); err != nil || len(r.Cosigned) != 1 || len(b.Certificates) != 1 {
		t.Errorf("the bundle with %d earlier keys: %v, %+v", len(b.Certificates), err, r)
	}
	spicy := exec.CommandContext(t.Context(), tool(t, "spicy", "filippo.io/torchwood/cmd/spicy"), "-verify", s.HostLog().VerifierKey(), "vm-checkpoint.leaf", "vm-key.leaf", "vm-keys/00000000.leaf")
	spicy.Dir = unzip(t, archive.Bytes())
	if out, err := spicy.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("verified")) {
		t.Errorf("spicy on cosigned proofs: %v\n%s", err, out)
	}
}
