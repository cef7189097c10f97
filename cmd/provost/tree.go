package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
)

// together is what verify and tree say of several bundles.
type together struct {
	Valid   bool            `json:"valid"`
	Bundles []*proof.Report `json:"bundles,omitempty"`
	Tree    *proof.Tree     `json:"tree,omitempty"` // of valid bundles only
}

func treeCommand(a *app) func(context.Context, []string) error {
	var keys keyList
	a.flags.Var(&keys, "key", "verifier key of the host log that a bundle is of, or a `FILE` that holds it; once for each host")
	policyFile := a.flags.String("policy", "", "tlog-policy `FILE`: which witnesses must have cosigned, and keys of logs")
	return func(_ context.Context, args []string) error {
		policy, err := readPolicy(*policyFile)
		if err != nil {
			return err
		}
		if keys, err = keys.read(); err != nil {
			return err
		}
		t, err := verifyTogether(args, keys, policy)
		if err != nil {
			return err
		}
		return a.verdict(t, func(w io.Writer) error {
			if t.Tree == nil {
				return t.writeText(w)
			}
			return t.Tree.WriteText(w)
		}, !t.Valid)
	}
}

// keyList is a flag that may be given several times.
type keyList []string

func (k *keyList) String() string { return "" }

// Set adds a key, or the name of a file with one.
func (k *keyList) Set(s string) error { *k = append(*k, s); return nil }

// read returns the keys themselves.
func (k keyList) read() (keyList, error) {
	keys := make(keyList, 0, len(k))
	for _, s := range k {
		key, err := readKey(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// of returns the key of a log: the one that bears its name, else what the policy names.
func (k keyList) of(origin string, policy *proof.Policy) (string, bool) {
	for _, key := range k {
		if v, err := proof.ParseVerifierKey(key); err == nil && v.Name() == origin {
			return key, true
		}
	}
	if policy != nil {
		return policy.LogKey(origin)
	}
	return "", false
}

// verifyTogether verifies bundles one by one, and then what they say of each other.
func verifyTogether(files []string, keys keyList, policy *proof.Policy) (*together, error) {
	t := &together{Valid: true}
	var all []*proof.Bundle
	for _, name := range files {
		b, err := openBundle(name)
		if err != nil {
			return nil, err
		}
		vkey, ok := keys.of(b.HostOrigin, policy)
		if !ok {
			return nil, &usageError{fmt.Sprintf("%s is of log %s, and none of the keys given is that log's; name it with --key", name, record.Printable([]byte(b.HostOrigin)))}
		}
		r, err := proof.Verify(b, vkey, proof.Options{Frame: attest.Frame, Policy: policy})
		var invalid *proof.InvalidError
		if err != nil && !errors.As(err, &invalid) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t.Valid = t.Valid && invalid == nil
		t.Bundles, all = append(t.Bundles, r), append(all, b)
	}
	if t.Valid {
		t.Tree = proof.NewTree(all, proof.Options{Frame: attest.Frame})
		t.Valid = len(t.Tree.Failures) == 0
	}
	return t, nil
}

func openBundle(name string) (*proof.Bundle, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || mirror.IsArchive(file) {
		return nil, &usageError{name + " is no evidence bundle; several places are verified together only where each is one"}
	}
	b, err := proof.ReadBundle(file, st.Size(), proof.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

func (t *together) writeText(w io.Writer) error {
	for _, r := range t.Bundles {
		if err := r.WriteText(w); err != nil {
			return err
		}
	}
	if t.Tree == nil {
		return nil
	}
	if len(t.Tree.Failures) > 0 {
		fmt.Fprintln(w, "INVALID: what the bundles say of each other does not hold")
	} else {
		fmt.Fprintln(w, "VALID together: what the bundles say of each other holds")
	}
	return t.Tree.WriteText(w)
}
