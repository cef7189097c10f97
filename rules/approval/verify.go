package approval

import (
	"bytes"
	"cmp"
	"encoding/pem"

	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/provostd/provost/chain/record"
)

// Bounds of signatures.
const (
	MaxSignatures = 16
	maxSignature  = 8 << 10 // one, in binary form
	maxArmored    = 256 << 10
)

// maxSkew is how far the clock of whoever made a statement may be ahead.
const maxSkew = 5 * time.Minute

// Verified is what signatures say of an approval.
type Verified struct {
	Statement *Statement
	Require   int      // of the group
	Signers   []string // principals that count, in order; at least Require
}

// ParseSignatures returns the binary forms of the armoured signatures in a file, in
// order. Files of ssh-keygen have one; several may stand behind each other.
func ParseSignatures(file []byte) ([][]byte, error) {
	if len(file) > maxArmored {
		return nil, fmt.Errorf("read signatures: %d bytes, the limit is %d: %w", len(file), maxArmored, record.ErrReject)
	}
	var all [][]byte
	for rest := bytes.TrimSpace(file); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN "+sshsig.PEMType+"-----")) {
			return nil, fmt.Errorf("read signatures: signature %d does not begin with -----BEGIN SSH SIGNATURE-----; ssh-keygen -Y sign -n %s makes one: %w", len(all)+1, Namespace, record.ErrReject)
		}
		block, after := pem.Decode(rest)
		if block == nil || block.Type != sshsig.PEMType || len(block.Headers) > 0 || len(block.Bytes) > maxSignature {
			return nil, fmt.Errorf("read signatures: signature %d is not whole: %w", len(all)+1, record.ErrReject)
		}
		if len(all) == MaxSignatures {
			return nil, fmt.Errorf("read signatures: more than %d: %w", MaxSignatures, record.ErrReject)
		}
		all, rest = append(all, block.Bytes), after
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read signatures: there is none: %w", record.ErrReject)
	}
	return all, nil
}

// Armor returns a signature in the form that ssh-keygen -Y verify reads.
func Armor(signature []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: sshsig.PEMType, Bytes: signature})
}

// Verify checks an approval and its signatures against the trust roots, at the
// moment when it is to take effect. An error wraps record.ErrReject and says what
// to mend.
func (r *Roots) Verify(statement []byte, signatures [][]byte, at time.Time) (*Verified, error) {
	s, err := Parse(statement)
	if err != nil {
		return nil, err
	}
	if _, err := s.Matcher(); err != nil {
		return nil, fmt.Errorf("approval %s: %w", s.ID, err)
	}
	v, err := r.verify(s, statement, signatures, at)
	if err != nil {
		return nil, fmt.Errorf("approval %s: %w: %w", s.ID, err, record.ErrReject)
	}
	return v, nil
}

func (r *Roots) verify(s *Statement, statement []byte, signatures [][]byte, at time.Time) (*Verified, error) {
	g := r.Group(s.Group)
	switch {
	case g == nil:
		return nil, fmt.Errorf("this host has no approver_group %q in its configuration", s.Group)
	case s.Ended(at.UnixNano()):
		return nil, fmt.Errorf("it ended at %s; make a new one", s.NotAfter)
	case s.Issued.After(at.Add(maxSkew)):
		return nil, fmt.Errorf("it was issued at %s, which is in the future; set the clock of whoever made it, and make a new one", s.Issued)
	case s.NotAfter.Sub(s.NotBefore.Time) > g.MaxDuration:
		return nil, fmt.Errorf("it is valid for %s, group %q allows %s at most; make one that ends earlier", s.NotAfter.Sub(s.NotBefore.Time), g.Name, g.MaxDuration)
	}
	signers, err := g.signers(statement, signatures, s.Issued.Time, at)
	if err != nil {
		return nil, err
	}
	signers = slices.DeleteFunc(signers, func(who string) bool { return strings.EqualFold(who, s.RequestedBy) })
	if len(signers) < g.Require {
		return nil, fmt.Errorf("%d of the %d signers that group %q wants have signed (%s; %q, who requested it, does not count); have others sign the same bytes and give all signatures",
			len(signers), g.Require, g.Name, cmp.Or(strings.Join(signers, ", "), "nobody"), s.RequestedBy)
	}
	return &Verified{Statement: s, Require: g.Require, Signers: signers}, nil
}

// VerifyRevocation checks a revocation against the trust roots. One signature of
// the group is enough: to revoke makes nothing weaker.
func (r *Roots) VerifyRevocation(statement []byte, signatures [][]byte, at time.Time) (*Revocation, []string, error) {
	v, err := ParseRevocation(statement)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*Revocation, []string, error) {
		return nil, nil, fmt.Errorf("revocation of %s: %w: %w", v.ID, err, record.ErrReject)
	}
	g := r.Group(v.Group)
	if g == nil {
		return fail(fmt.Errorf("this host has no approver_group %q in its configuration", v.Group))
	}
	if v.Issued.After(at.Add(maxSkew)) {
		return fail(fmt.Errorf("it was issued at %s, which is in the future", v.Issued))
	}
	signers, err := g.signers(statement, signatures, v.Issued.Time, at)
	if err != nil {
		return fail(err)
	}
	return v, signers, nil
}

// signers returns who has signed, each once. Every signature must hold: one that
// does not was meant for something else, and whoever gave it should know.
func (g *Group) signers(statement []byte, signatures [][]byte, issued, at time.Time) ([]string, error) {
	if len(signatures) == 0 || len(signatures) > MaxSignatures {
		return nil, fmt.Errorf("%d signatures, want 1 to %d", len(signatures), MaxSignatures)
	}
	var who []string
	for i, raw := range signatures {
		k, err := g.signer(statement, raw)
		if err == nil {
			err = k.valid(issued, at)
		}
		if err != nil {
			return nil, fmt.Errorf("signature %d: %w", i+1, err)
		}
		if !slices.Contains(who, k.Principal) {
			who = append(who, k.Principal)
		}
	}
	slices.Sort(who)
	return who, nil
}

// signer returns the key that made a signature over the statement.
func (g *Group) signer(statement, raw []byte) (*Key, error) {
	if len(raw) > maxSignature {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(raw), maxSignature)
	}
	sig, err := sshsig.ParseSignature(raw)
	if err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if sig.Namespace != Namespace {
		return nil, fmt.Errorf("it is for %.60q and not for approvals; sign with ssh-keygen -Y sign -n %s", sig.Namespace, Namespace)
	}
	wire := sig.PublicKey.Marshal()
	i := slices.IndexFunc(g.Keys, func(k Key) bool { return bytes.Equal(k.pub.Marshal(), wire) })
	if i < 0 {
		return nil, fmt.Errorf("it is by the key %s, which approver_group %q does not have", ssh.FingerprintSHA256(sig.PublicKey), g.Name)
	}
	k := &g.Keys[i]
	// Of a hardware key this also wants the flag that somebody touched it.
	if err := sshsig.Verify(bytes.NewReader(statement), sig, k.pub, sig.HashAlgorithm, Namespace); err != nil {
		return nil, fmt.Errorf("it is by the key of %q and does not hold for this statement (%w); was the statement changed after it was signed?", k.Principal, err)
	}
	return k, nil
}

// valid wants a key to hold both when the statement says that it was made, which
// whoever has a stolen key can choose, and when it is handed in.
func (k *Key) valid(issued, at time.Time) error {
	for _, t := range []time.Time{issued, at} {
		if !k.NotBefore.IsZero() && t.Before(k.NotBefore) || !k.NotAfter.IsZero() && t.After(k.NotAfter) {
			return fmt.Errorf("the key of %q was not valid at %s", k.Principal, At(t))
		}
	}
	return nil
}
