package approval

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/provostd/provost/chain/record"
)

var now = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

const vm = "6b0c1a52-6b44-4f0e-8f0e-2d9a4f8f1c11"

func statement() *Statement {
	return &Statement{Type: Type, ID: "CHG-4711", Host: "kvm1.example.net", Group: "security-team", Policies: []string{"etc_changed"}, VMs: []string{vm},
		Scope:     Scope{On: []string{"file.modify"}, Condition: `under(file.path, "/etc/nginx")`},
		NotBefore: At(now), NotAfter: At(now.Add(2 * time.Hour)), MaxUses: 50, RequestedBy: "bob", Reason: "CHG-4711: new virtual host",
		Issued: At(now.Add(-time.Minute)), Nonce: strings.Repeat("a1", 16)}
}

func encoded(t *testing.T, s *Statement) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signer makes a key pair in software and the line of authorized_keys for it.
func signer(t *testing.T, key crypto.Signer) (ssh.Signer, string) {
	t.Helper()
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, string(ssh.MarshalAuthorizedKey(s.PublicKey()))
}

func edSigner(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, k)
}

func sign(t *testing.T, s ssh.Signer, b []byte) []byte {
	t.Helper()
	sig, err := sshsig.Sign(bytes.NewReader(b), s, sshsig.HashSHA512, Namespace)
	if err != nil {
		t.Fatal(err)
	}
	return sig.Marshal()
}

func roots(t *testing.T, require int, keys ...Key) *Roots {
	t.Helper()
	r, err := NewRoots([]Group{{Name: "security-team", Require: require, MaxDuration: 4 * time.Hour, Keys: keys}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused wants an error of the class reject that has the words.
func refused(t *testing.T, name string, err error, words string) {
	t.Helper()
	if !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v, want a refusal with %q", name, err, words)
	}
}

// TestVerifyKinds signs with a key of every kind that is taken.
func TestVerifyKinds(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]crypto.Signer{"rsa": rsaKey}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if kinds["ecdsa "+c.Params().Name], err = ecdsa.GenerateKey(c, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	b := encoded(t, statement())
	for name, k := range kinds {
		s, line := signer(t, k)
		v, err := roots(t, 1, Key{Principal: "alice", PublicKey: line}).Verify(b, [][]byte{sign(t, s, b)}, now)
		if err != nil || !slices.Equal(v.Signers, []string{"alice"}) {
			t.Errorf("%s: %v %v", name, v, err)
		}
	}
	// SHA-1 was never allowed in this format.
	s, line := signer(t, rsaKey)
	sig, err := sshsig.Sign(bytes.NewReader(b), sha1Signer{s}, sshsig.HashSHA512, Namespace)
	if err != nil {
		t.Fatal(err)
	}
	_, err = roots(t, 1, Key{Principal: "alice", PublicKey: line}).Verify(b, [][]byte{sig.Marshal()}, now)
	refused(t, "ssh-rsa with SHA-1", err, "no SSH signature")
}

// sha1Signer signs as "ssh-rsa", whatever it is asked for.
type sha1Signer struct{ ssh.Signer }

func (s sha1Signer) SignWithAlgorithm(r io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return s.Signer.(ssh.AlgorithmSigner).SignWithAlgorithm(r, data, ssh.KeyAlgoRSA)
}

// userPresent is the flag of a hardware key that says that somebody touched it.
const userPresent = 1

// skSigner signs as a hardware key does, in software.
type skSigner struct {
	pub   ssh.PublicKey
	key   crypto.Signer
	flags byte
}

func (s *skSigner) PublicKey() ssh.PublicKey { return s.pub }

func (s *skSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := binary.BigEndian.AppendUint32([]byte{s.flags}, 7)
	msg := slices.Concat(app[:], tail, sum[:])
	if k, ok := s.key.(ed25519.PrivateKey); ok {
		return &ssh.Signature{Format: s.pub.Type(), Blob: ed25519.Sign(k, msg), Rest: tail}, nil
	}
	h := sha256.Sum256(msg)
	x, y, err := ecdsa.Sign(rand.Reader, s.key.(*ecdsa.PrivateKey), h[:])
	if err != nil {
		return nil, err
	}
	return &ssh.Signature{Format: s.pub.Type(), Blob: ssh.Marshal(struct{ R, S *big.Int }{x, y}), Rest: tail}, nil
}

func hardware(t *testing.T) []*skSigner {
	t.Helper()
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var all []*skSigner
	for _, k := range []struct {
		wire []byte
		key  crypto.Signer
	}{
		{ssh.Marshal(struct {
			Name        string
			Key         []byte
			Application string
		}{ssh.KeyAlgoSKED25519, pub, "ssh:"}), ed},
		{ssh.Marshal(struct {
			Name, Curve string
			Key         []byte
			Application string
		}{ssh.KeyAlgoSKECDSA256, "nistp256", point, "ssh:"}), ec},
	} {
		p, err := ssh.ParsePublicKey(k.wire)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &skSigner{pub: p, key: k.key, flags: userPresent})
	}
	return all
}

// TestVerifyHardware takes signatures of hardware keys that were touched, and no
// others.
func TestVerifyHardware(t *testing.T) {
	b := encoded(t, statement())
	for _, s := range hardware(t) {
		r := roots(t, 1, Key{Principal: "alice", PublicKey: string(ssh.MarshalAuthorizedKey(s.pub))})
		if _, err := r.Verify(b, [][]byte{sign(t, s, b)}, now); err != nil {
			t.Errorf("%s: %v", s.pub.Type(), err)
		}
		s.flags = 0
		_, err := r.Verify(b, [][]byte{sign(t, s, b)}, now)
		refused(t, s.pub.Type()+" untouched", err, "user presence")
		s.flags = userPresent
		sig, err := sshsig.ParseSignature(sign(t, s, b))
		if err != nil {
			t.Fatal(err)
		}
		sig.Signature.Rest[4]++ // the counter is signed
		_, err = r.Verify(b, [][]byte{sig.Marshal()}, now)
		refused(t, s.pub.Type()+" with another counter", err, "does not hold")
	}
}

// TestVerifyRules holds each rule on who may approve what for how long.
func TestVerifyRules(t *testing.T) {
	alice, aliceLine := edSigner(t)
	second, secondLine := edSigner(t)
	bob, bobLine := edSigner(t)
	eve, _ := edSigner(t)
	keys := []Key{{Principal: "alice", PublicKey: aliceLine}, {Principal: "alice", PublicKey: secondLine}, {Principal: "bob", PublicKey: bobLine},
		{Principal: "carol", PublicKey: mustLine(t), NotAfter: now.Add(-time.Hour)}}
	one, two := roots(t, 1, keys...), roots(t, 2, keys...)
	s := statement()
	b := encoded(t, s)
	byAlice, bySecond, byBob := sign(t, alice, b), sign(t, second, b), sign(t, bob, b)
	if v, err := one.Verify(b, [][]byte{byAlice}, now); err != nil || v.Require != 1 {
		t.Fatalf("%v %v", v, err)
	}
	for _, c := range []struct {
		name  string
		roots *Roots
		sigs  [][]byte
		at    time.Time
		words string
	}{
		{"nobody", one, nil, now, "0 signatures"},
		{"the requester", one, [][]byte{byBob}, now, "does not count"},
		{"one and the requester", two, [][]byte{byAlice, byBob}, now, "1 of the 2"},
		{"one person with two keys", two, [][]byte{byAlice, bySecond}, now, "1 of the 2"},
		{"a stranger", one, [][]byte{sign(t, eve, b)}, now, "does not have"},
		{"a stranger besides", one, [][]byte{byAlice, sign(t, eve, b)}, now, "signature 2"},
		{"another text", one, [][]byte{sign(t, alice, append(slices.Clone(b), ' '))}, now, "does not hold"},
		{"too late", one, [][]byte{byAlice}, now.Add(3 * time.Hour), "it ended"},
		{"from the future", one, [][]byte{byAlice}, now.Add(-time.Hour), "in the future"},
		{"no group", roots(t, 1, keys...).without(t), [][]byte{byAlice}, now, "no approver_group"},
		{"no signature", one, [][]byte{[]byte("SSHSIG")}, now, "no SSH signature"},
	} {
		_, err := c.roots.Verify(b, c.sigs, c.at)
		refused(t, c.name, err, c.words)
	}
	s.RequestedBy = "dave"
	d := encoded(t, s)
	if v, err := two.Verify(d, [][]byte{sign(t, bob, d), sign(t, alice, d)}, now); err != nil || !slices.Equal(v.Signers, []string{"alice", "bob"}) {
		t.Errorf("two people: %v %v", v, err)
	}
	s.NotAfter = At(now.Add(5 * time.Hour))
	d = encoded(t, s)
	_, err := one.Verify(d, [][]byte{sign(t, alice, d)}, now)
	refused(t, "too long", err, "allows 4h0m0s at most")
	other, err := sshsig.Sign(bytes.NewReader(b), alice, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	_, err = one.Verify(b, [][]byte{other.Marshal()}, now)
	refused(t, "another namespace", err, "not for approvals")
	old := roots(t, 1, Key{Principal: "alice", PublicKey: aliceLine, NotAfter: now.Add(-30 * time.Second)})
	_, err = old.Verify(b, [][]byte{byAlice}, now)
	refused(t, "a key that has ended since, on a statement dated back", err, "was not valid")
	late := roots(t, 1, Key{Principal: "alice", PublicKey: aliceLine, NotBefore: now})
	_, err = late.Verify(b, [][]byte{byAlice}, now)
	refused(t, "a key that begins behind the statement", err, "was not valid")
}

func mustLine(t *testing.T) string { _, line := edSigner(t); return line }

// without returns trust roots of another group.
func (r *Roots) without(t *testing.T) *Roots {
	t.Helper()
	g := r.groups[0]
	g.Name = "others"
	out, err := NewRoots([]Group{g})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestVerifyRevocation(t *testing.T) {
	alice, line := edSigner(t)
	_, other := edSigner(t)
	r := roots(t, 2, Key{Principal: "alice", PublicKey: line}, Key{Principal: "bob", PublicKey: other})
	v := &Revocation{Type: RevocationType, ID: "CHG-4711", Host: "kvm1.example.net", Group: "security-team", RevokedBy: "alice", Reason: "not needed", Issued: At(now), Nonce: strings.Repeat("0b", 16)}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, who, err := r.VerifyRevocation(b, [][]byte{sign(t, alice, b)}, now)
	if err != nil || *got != *v || !slices.Equal(who, []string{"alice"}) {
		t.Errorf("%v %v %v", got, who, err)
	}
	if _, err := r.Verify(b, [][]byte{sign(t, alice, b)}, now); err == nil {
		t.Error("a revocation was taken for an approval")
	}
	eve, _ := edSigner(t)
	_, _, err = r.VerifyRevocation(b, [][]byte{sign(t, eve, b)}, now)
	refused(t, "a stranger", err, "does not have")
}

// TestSSHKeygen has OpenSSH sign, and verify what is kept.
func TestSSHKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("ssh-keygen is missing: make setup installs it (Debian package openssh-client)")
	}
	dir := t.TempDir()
	run := func(in []byte, args ...string) {
		t.Helper()
		cmd := exec.Command(keygen, args...)
		cmd.Stdin = bytes.NewReader(in)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := encoded(t, statement())
	file := filepath.Join(dir, "statement")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa", "-b", "384"}, {"rsa", "-b", "2048"}} {
		key := filepath.Join(dir, kind[0])
		run(nil, append([]string{"-q", "-N", "", "-f", key, "-t"}, kind...)...)
		run(nil, "-q", "-Y", "sign", "-f", key, "-n", Namespace, file)
		sigs, err := ParseSignatures(read("statement.sig"))
		if err != nil {
			t.Fatal(err)
		}
		line := string(read(kind[0] + ".pub"))
		if _, err := roots(t, 1, Key{Principal: "alice", PublicKey: line}).Verify(b, sigs, now); err != nil {
			t.Errorf("%s: %v", kind[0], err)
		}
		again, allowed := filepath.Join(dir, "again.sig"), filepath.Join(dir, "allowed")
		if err := errors.Join(os.WriteFile(again, Armor(sigs[0]), 0o600), os.WriteFile(allowed, []byte("alice "+line), 0o600)); err != nil {
			t.Fatal(err)
		}
		run(b, "-q", "-Y", "verify", "-f", allowed, "-I", "alice", "-n", Namespace, "-s", again)
		if err := errors.Join(os.Remove(file+".sig"), os.Remove(again)); err != nil {
			t.Fatal(err)
		}
	}
}
