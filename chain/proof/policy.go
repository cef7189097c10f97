package proof

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

// Bounds of a policy file.
const (
	MaxPolicy        = 64 << 10 // bytes
	maxPolicyMembers = 256      // witnesses and groups, and members of a group
)

// Policy is a parsed c2sp.org/tlog-policy file: which logs are trusted, which
// witnesses there are, and which of them must have cosigned. Lines are
//
//	log     VKEY [URL]
//	witness NAME VKEY [URL]
//	group   NAME N|any|all NAME...
//	quorum  NAME|none
//
// Empty lines and lines that begin with # are passed over. A name must stand
// above its use. There is one quorum line.
type Policy struct {
	Logs      []PolicyLog
	Witnesses []PolicyWitness

	parts  []part // in the order of the file: members stand before groups
	quorum int    // of parts; -1: none
}

// PolicyLog is a log that the policy trusts.
type PolicyLog struct {
	Origin string
	Key    string // verifier key
	URL    string
}

// PolicyWitness is a witness of a policy.
type PolicyWitness struct {
	WitnessKey
	URL string
}

// part is a witness or a group.
type part struct {
	name    string
	witness int // of Witnesses; -1: a group
	need    int
	members []int // of parts
}

// ParsePolicy reads a policy file. It is strict, since what it lets through
// decides what is believed: an error names the line and wraps record.ErrReject.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("read witness policy: %d bytes, limit %d: %w", len(text), MaxPolicy, record.ErrReject)
	}
	p := &Policy{quorum: -2}
	for i, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := p.line(fields); err != nil {
			return nil, fmt.Errorf("read witness policy: line %d: %w: %w", i+1, err, record.ErrReject)
		}
	}
	if p.quorum == -2 {
		return nil, fmt.Errorf("read witness policy: there is no quorum line; end it with \"quorum NAME\", or \"quorum none\" where no witness is needed: %w", record.ErrReject)
	}
	return p, nil
}

func (p *Policy) line(f []string) error {
	want := func(ok bool, form string) error {
		if !ok {
			return fmt.Errorf("want %q", form)
		}
		return nil
	}
	switch f[0] {
	case "log":
		if err := want(len(f) == 2 || len(f) == 3, "log VKEY [URL]"); err != nil {
			return err
		}
		return p.addLog(f[1], strings.Join(f[2:], ""))
	case "witness":
		if err := want(len(f) == 3 || len(f) == 4, "witness NAME VKEY [URL]"); err != nil {
			return err
		}
		return p.addWitness(f[1], f[2], strings.Join(f[3:], ""))
	case "group":
		if err := want(len(f) >= 4, "group NAME N|any|all NAME..."); err != nil {
			return err
		}
		return p.addGroup(f[1], f[2], f[3:])
	case "quorum":
		if err := want(len(f) == 2, "quorum NAME|none"); err != nil {
			return err
		}
		return p.setQuorum(f[1])
	}
	return fmt.Errorf("%q is none of log, witness, group, quorum", f[0])
}

func (p *Policy) addLog(vkey, url string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("%q is no verifier key of a log: %w", vkey, err)
	}
	for _, l := range p.Logs {
		if l.Key == vkey {
			return fmt.Errorf("log %s stands there twice", v.Name())
		}
	}
	p.Logs = append(p.Logs, PolicyLog{Origin: v.Name(), Key: vkey, URL: url})
	return nil
}

func (p *Policy) addWitness(name, vkey, url string) error {
	k, err := NewWitnessKey(name, vkey)
	if err != nil {
		return err
	}
	// One key under two names would count twice.
	for _, w := range p.Witnesses {
		if w.ID() == k.ID() || publicKey(w.String()) == publicKey(k.String()) {
			return fmt.Errorf("witnesses %q and %q have the same key", w.Name, name)
		}
	}
	if err := p.add(part{name: name, witness: len(p.Witnesses)}); err != nil {
		return err
	}
	p.Witnesses = append(p.Witnesses, PolicyWitness{WitnessKey: k, URL: url})
	return nil
}

// publicKey is the last part of a verifier key: a witness may have it under several
// names.
func publicKey(vkey string) string {
	_, rest, _ := strings.Cut(vkey, "+")
	_, key, _ := strings.Cut(rest, "+")
	return key
}

func (p *Policy) addGroup(name, count string, members []string) error {
	g := part{name: name, witness: -1}
	if len(members) > maxPolicyMembers {
		return fmt.Errorf("group %q has %d members, limit %d", name, len(members), maxPolicyMembers)
	}
	for _, m := range members {
		i := p.find(m)
		if i < 0 {
			return fmt.Errorf("group %q names %q, which does not stand above it", name, m)
		}
		if slices.Contains(g.members, i) {
			return fmt.Errorf("group %q names %q twice", name, m)
		}
		g.members = append(g.members, i)
	}
	switch count {
	case "any":
		g.need = 1
	case "all":
		g.need = len(members)
	default:
		n, err := strconv.ParseUint(count, 10, 16)
		if err != nil || n < 1 || int(n) > len(members) {
			return fmt.Errorf("group %q needs %q of %d members; want any, all or a number from 1 to %d", name, count, len(members), len(members))
		}
		g.need = int(n)
	}
	return p.add(g)
}

func (p *Policy) add(n part) error {
	if n.name == "none" || p.find(n.name) >= 0 {
		return fmt.Errorf("the name %q is taken", n.name)
	}
	if len(p.parts) >= maxPolicyMembers {
		return fmt.Errorf("more than %d witnesses and groups", maxPolicyMembers)
	}
	p.parts = append(p.parts, n)
	return nil
}

func (p *Policy) setQuorum(name string) error {
	if p.quorum != -2 {
		return fmt.Errorf("there is a second quorum line")
	}
	if name == "none" {
		p.quorum = -1
		return nil
	}
	if p.quorum = p.find(name); p.quorum < 0 {
		return fmt.Errorf("the quorum %q does not stand above it", name)
	}
	return nil
}

func (p *Policy) find(name string) int {
	return slices.IndexFunc(p.parts, func(n part) bool { return n.name == name })
}

// AllOf is the policy that every one of the given witnesses must have cosigned.
func AllOf(keys []WitnessKey) (*Policy, error) {
	p := &Policy{quorum: -2}
	var names []string
	for _, k := range keys {
		if err := p.addWitness(k.Name, k.String(), ""); err != nil {
			return nil, fmt.Errorf("make witness policy: %w: %w", err, record.ErrReject)
		}
		names = append(names, k.Name)
	}
	quorum := "none"
	if len(names) > 0 {
		quorum = "all witnesses" // cannot be the name of a witness in a file
		if err := p.addGroup(quorum, "all", names); err != nil {
			return nil, fmt.Errorf("make witness policy: %w: %w", err, record.ErrReject)
		}
	}
	return p, p.setQuorum(quorum)
}

// LogKey returns the verifier key that the policy trusts for a log. A policy
// that names two keys for one origin names none.
func (p *Policy) LogKey(origin string) (key string, ok bool) {
	for _, l := range p.Logs {
		if l.Origin != origin {
			continue
		}
		if ok {
			return "", false
		}
		key, ok = l.Key, true
	}
	return key, ok
}

// Keys returns the keys of all witnesses of the policy.
func (p *Policy) Keys() []WitnessKey {
	keys := make([]WitnessKey, len(p.Witnesses))
	for i, w := range p.Witnesses {
		keys[i] = w.WitnessKey
	}
	return keys
}

// None reports whether the policy needs no witness at all.
func (p *Policy) None() bool { return p.quorum == -1 }

// QuorumError says which cosignatures a policy misses.
type QuorumError struct {
	Quorum  string   // name of the group or witness that is not satisfied
	Missing []string // witnesses that have not cosigned and could help, by the policy's names
}

// Error names the witnesses that are missing.
func (e *QuorumError) Error() string {
	return fmt.Sprintf("the quorum %q is not reached: no cosignature of %s", e.Quorum, strings.Join(e.Missing, ", "))
}

// Is makes a QuorumError a rejection.
func (e *QuorumError) Is(target error) bool { return target == record.ErrReject }

// Reached returns nil if the witnesses with the given key ids satisfy the
// quorum, or a *QuorumError.
func (p *Policy) Reached(ids []string) error {
	if p.quorum < 0 {
		return nil
	}
	ok := make([]bool, len(p.parts))
	for i, n := range p.parts { // members stand before their group
		if n.witness >= 0 {
			ok[i] = slices.Contains(ids, p.Witnesses[n.witness].ID())
			continue
		}
		have := 0
		for _, m := range n.members {
			if ok[m] {
				have++
			}
		}
		ok[i] = have >= n.need
	}
	if ok[p.quorum] {
		return nil
	}
	e := &QuorumError{Quorum: p.parts[p.quorum].name}
	// What lacks lies below the quorum, behind parts that are not satisfied.
	wanted := make([]bool, len(p.parts))
	wanted[p.quorum] = true
	for i := p.quorum; i >= 0; i-- {
		n := p.parts[i]
		switch {
		case !wanted[i] || ok[i]:
		case n.witness >= 0:
			w := p.Witnesses[n.witness]
			e.Missing = append(e.Missing, fmt.Sprintf("%s (%s)", w.Name, w.ID()))
		default:
			for _, m := range n.members {
				wanted[m] = true
			}
		}
	}
	slices.Reverse(e.Missing)
	return e
}

// Check verifies the cosignatures on the checkpoint in msg and returns them. The
// error is a *QuorumError where they are not enough; it wraps record.ErrReject
// in every case. The log's own signature is not looked at.
func (p *Policy) Check(msg []byte) ([]Cosignature, error) {
	found, err := Cosignatures(msg, p.Keys())
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(found))
	for i, c := range found {
		ids[i] = c.ID
	}
	return found, p.Reached(ids)
}
