package approval

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/provostd/provost/chain/record"
)

// Bounds of trust roots.
const (
	MaxGroups      = 64
	maxKeys        = 64
	minDuration    = time.Minute
	maxDuration    = 366 * 24 * time.Hour
	maxRoots       = 1 << 20
	minRSA, maxRSA = 2048, 8192
)

// DefaultDuration is the max_duration of a group that sets none.
const DefaultDuration = 24 * time.Hour

// Key is one key of one person.
type Key struct {
	Principal string // who it is; two keys of one principal are one signer
	PublicKey string // as in authorized_keys, without options
	// NotBefore and NotAfter bound when it may sign; zero: open.
	NotBefore, NotAfter time.Time

	pub ssh.PublicKey
}

// Group is a set of approvers.
type Group struct {
	Name        string
	Require     int           // how many must sign, 1 to 16
	MaxDuration time.Duration // of an approval, from not_before to not_after
	Keys        []Key
}

// Signers returns how many different people have a key.
func (g *Group) Signers() int {
	who := map[string]bool{}
	for i := range g.Keys {
		who[g.Keys[i].Principal] = true
	}
	return len(who)
}

// Roots are the trust roots of a host. They are immutable.
type Roots struct {
	groups []Group
	text   []byte
	digest record.Hash
}

// NewRoots checks groups and makes them trust roots. An error names all that is
// wrong and wraps record.ErrReject.
func NewRoots(groups []Group) (*Roots, error) {
	r := &Roots{groups: make([]Group, 0, len(groups))}
	var p problems
	p.add(len(groups) <= MaxGroups, "there are %d approver groups, the limit is %d", len(groups), MaxGroups)
	for _, g := range groups {
		g.Keys = slices.Clone(g.Keys)
		if g.MaxDuration == 0 {
			g.MaxDuration = DefaultDuration
		}
		if g.Require == 0 {
			g.Require = 1
		}
		p.group(&g, r.Group(g.Name) != nil)
		r.groups = append(r.groups, g)
	}
	if len(p) > 0 {
		return nil, fmt.Errorf("%w: %w", errors.Join(p...), record.ErrReject)
	}
	slices.SortFunc(r.groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	var err error
	if r.text, err = r.encode(); err != nil {
		return nil, err
	}
	r.digest = sha256.Sum256(r.text)
	return r, nil
}

func (p *problems) group(g *Group, twice bool) {
	p.add(nameForm.MatchString(g.Name), "approver group %.80q: its name may hold letters, digits and . _ -", g.Name)
	p.add(!twice, "approver group %q is described twice; keep one", g.Name)
	p.add(g.Require >= 1 && g.Require <= 16, "approver group %q: require is %d, want 1 to 16", g.Name, g.Require)
	p.add(g.MaxDuration >= minDuration && g.MaxDuration <= maxDuration && g.MaxDuration%time.Second == 0,
		"approver group %q: max_duration is %s, want whole seconds from %s to %s", g.Name, g.MaxDuration, minDuration, maxDuration)
	p.add(len(g.Keys) > 0 && len(g.Keys) <= maxKeys, "approver group %q has %d keys, want 1 to %d", g.Name, len(g.Keys), maxKeys)
	whose := map[string]string{}
	for i := range g.Keys {
		k := &g.Keys[i]
		p.add(k.Principal != "" && len(k.Principal) <= 128 && printable(k.Principal), "approver group %q: key %.80q needs the name of who has it", g.Name, k.Principal)
		p.add(k.NotBefore.IsZero() || k.NotAfter.IsZero() || k.NotBefore.Before(k.NotAfter), "approver group %q, key %q: not_after is not after not_before", g.Name, k.Principal)
		if err := k.parse(); err != nil {
			p.add(false, "approver group %q, key %q: %w", g.Name, k.Principal, err)
			continue
		}
		other, dup := whose[k.PublicKey]
		p.add(!dup, "approver group %q: %q and %q have the same key, which would make one signature two", g.Name, other, k.Principal)
		whose[k.PublicKey] = k.Principal
	}
	slices.SortFunc(g.Keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.PublicKey, b.PublicKey))
	})
	p.add(g.Signers() >= g.Require, "approver group %q wants %d signers, and only %d have a key in it", g.Name, g.Require, g.Signers())
}

// parse reads the public key and brings it into its shortest form.
func (k *Key) parse() error {
	if len(k.PublicKey) > 16<<10 {
		return errors.New("the public key is too long")
	}
	pub, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
	switch {
	case err != nil:
		return fmt.Errorf("public_key is no line such as \"ssh-ed25519 AAAA...\": %w", err)
	case len(options) > 0:
		return fmt.Errorf("public_key has the options %s; write the type and the key only", strings.Join(options, ","))
	case len(bytes.TrimSpace(rest)) > 0:
		return errors.New("public_key has several lines; give each key a block")
	}
	if err := usable(pub); err != nil {
		return err
	}
	k.pub, k.PublicKey = pub, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	return nil
}

// usable refuses keys that are too weak, and certificates, whose trust root would
// be another one.
func usable(pub ssh.PublicKey) error {
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		c, ok := pub.(ssh.CryptoPublicKey)
		if !ok {
			return errors.New("this RSA key cannot be read")
		}
		k, ok := c.CryptoPublicKey().(*rsa.PublicKey)
		if !ok || k.N.BitLen() < minRSA || k.N.BitLen() > maxRSA {
			return fmt.Errorf("RSA keys must have %d to %d bits; ssh-keygen -t ed25519 makes a good key", minRSA, maxRSA)
		}
		return nil
	}
	return fmt.Errorf("keys of type %s are not taken; ssh-keygen -t ed25519 makes a good key", pub.Type())
}

// Group returns a group by its name, or nil.
func (r *Roots) Group(name string) *Group {
	if r == nil {
		return nil
	}
	for i := range r.groups {
		if r.groups[i].Name == name {
			return &r.groups[i]
		}
	}
	return nil
}

// Groups returns how many people can sign for each group.
func (r *Roots) Groups() map[string]int {
	all := map[string]int{}
	for i := range r.groups {
		all[r.groups[i].Name] = r.groups[i].Signers()
	}
	return all
}

// Text returns the canonical text, see the package comment. The caller must not
// change it.
func (r *Roots) Text() []byte { return r.text }

// Digest returns the SHA-256 of Text.
func (r *Roots) Digest() record.Hash { return r.digest }

type rootsText struct {
	Groups []groupText `json:"groups"`
}

type groupText struct {
	Name        string    `json:"name"`
	Require     int       `json:"require"`
	MaxDuration int64     `json:"max_duration"`
	Keys        []keyText `json:"keys"`
}

type keyText struct {
	Principal string `json:"principal"`
	PublicKey string `json:"public_key"`
	NotBefore *Time  `json:"not_before,omitempty"`
	NotAfter  *Time  `json:"not_after,omitempty"`
}

func (r *Roots) encode() ([]byte, error) {
	t := rootsText{Groups: []groupText{}}
	for _, g := range r.groups {
		gt := groupText{Name: g.Name, Require: g.Require, MaxDuration: int64(g.MaxDuration / time.Second)}
		for _, k := range g.Keys {
			kt := keyText{Principal: k.Principal, PublicKey: k.PublicKey}
			for _, b := range []struct {
				at   time.Time
				into **Time
			}{{k.NotBefore, &kt.NotBefore}, {k.NotAfter, &kt.NotAfter}} {
				if !b.at.IsZero() {
					at := At(b.at)
					*b.into = &at
				}
			}
			gt.Keys = append(gt.Keys, kt)
		}
		t.Groups = append(t.Groups, gt)
	}
	return canonical(t)
}

// ParseRoots reads the text of trust roots, as it was sealed. An error wraps
// record.ErrReject and comes with nil.
func ParseRoots(text []byte) (*Roots, error) {
	if len(text) > maxRoots {
		return nil, fmt.Errorf("read trust roots: they have %d bytes, the limit is %d: %w", len(text), maxRoots, record.ErrReject)
	}
	var t rootsText
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read trust roots: %w: %w", err, record.ErrReject)
	}
	var groups []Group
	for _, gt := range t.Groups {
		if gt.MaxDuration > int64(maxDuration/time.Second) {
			return nil, fmt.Errorf("read trust roots: max_duration of %q is out of range: %w", gt.Name, record.ErrReject)
		}
		g := Group{Name: gt.Name, Require: gt.Require, MaxDuration: time.Duration(gt.MaxDuration) * time.Second}
		for _, kt := range gt.Keys {
			k := Key{Principal: kt.Principal, PublicKey: kt.PublicKey}
			if kt.NotBefore != nil {
				k.NotBefore = kt.NotBefore.Time
			}
			if kt.NotAfter != nil {
				k.NotAfter = kt.NotAfter.Time
			}
			g.Keys = append(g.Keys, k)
		}
		groups = append(groups, g)
	}
	r, err := NewRoots(groups)
	if err != nil {
		return nil, fmt.Errorf("read trust roots: %w", err)
	}
	if !bytes.Equal(r.text, text) {
		return nil, fmt.Errorf("read trust roots: they are not in their one form: %w", record.ErrReject)
	}
	return r, nil
}
