package rules

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// Judging returns the policies that are asked about entries of a class on the VM that
// st is of, as the engine found at the last entry; nil where it has not judged any.
func (e *Engine) Judging(st *State, c record.Class) []*policy.Policy {
	if st.engine != e {
		return nil
	}
	var all []*policy.Policy
	for i, p := range e.bundle.Policies {
		if st.modes[i] != policy.ModeOff && slices.Contains(p.Classes(), c) {
			all = append(all, p)
		}
	}
	return all
}

// For returns the engine of an activation: the same policies, each in the mode that
// stands there. What is judged behind an activation so follows from the log alone
// (I5), and not from what the host is configured to by then. It refuses an
// activation of other policies than the engine's.
func (e *Engine) For(a *record.BundleActivation) (*Engine, error) {
	if !bytes.Equal(a.Digest, e.bundle.Digest[:]) {
		return nil, fmt.Errorf("judge by bundle %q: its digest is %s, the activation names %x: %w", e.bundle.Name, e.bundle.Digest, a.Digest, record.ErrReject)
	}
	modes := make(map[string]policy.Mode, len(a.Policies))
	digests := make(map[string][]byte, len(a.Policies))
	for _, p := range a.Policies {
		m, err := policy.ParseMode(p.Mode)
		if err != nil {
			return nil, fmt.Errorf("judge by bundle %q: policy %q of the activation: %w: %w", e.bundle.Name, p.Name, err, record.ErrReject)
		}
		modes[p.Name], digests[p.Name] = m, p.Digest
	}
	for _, p := range e.bundle.Policies {
		if !bytes.Equal(digests[p.Name], p.Digest[:]) || modes[p.Name] > p.Mode {
			return nil, fmt.Errorf("judge by bundle %q: policy %q is not that of the activation: %w", e.bundle.Name, p.Name, record.ErrReject)
		}
	}
	if len(modes) != len(e.bundle.Policies) {
		return nil, fmt.Errorf("judge by bundle %q: the activation has %d policies, the bundle %d: %w", e.bundle.Name, len(modes), len(e.bundle.Policies), record.ErrReject)
	}
	same := *e
	same.modes = modes
	return &same, nil
}
