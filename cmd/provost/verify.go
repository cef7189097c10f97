package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
)

func verifyCommand(a *app) func(context.Context, []string) error {
	key := a.flags.String("key", "", "verifier key of the host log, or a `FILE` that holds it")
	policyFile := a.flags.String("policy", "", "tlog-policy `FILE`: which witnesses must have cosigned, and keys of logs")
	return func(_ context.Context, args []string) error {
		if *key == "" && *policyFile == "" {
			return &usageError{"name the verifier key of the host with --key; provostd init printed it, provost status shows it"}
		}
		policy, err := readPolicy(*policyFile)
		if err != nil {
			return err
		}
		vkey := ""
		if *key != "" {
			if vkey, err = readKey(*key); err != nil {
				return err
			}
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		b, err := proof.ReadBundle(f, st.Size(), proof.Limits{})
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if vkey == "" {
			// Which log the bundle says it is from decides only which of the
			// trusted keys it must hold against.
			var ok bool
			if vkey, ok = policy.LogKey(b.HostOrigin); !ok {
				return &usageError{fmt.Sprintf("the policy %s names no key, or several, of log %s; add it, or name the key with --key", *policyFile, record.Printable([]byte(b.HostOrigin)))}
			}
		}
		r, err := proof.Verify(b, vkey, proof.Options{Frame: attest.Frame, Policy: policy})
		var invalid *proof.InvalidError
		if err != nil && !errors.As(err, &invalid) {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		var werr error
		if serr := a.show(r, func(w io.Writer) { werr = r.WriteText(w) }); serr != nil || werr != nil {
			return errors.Join(serr, werr)
		}
		if invalid != nil {
			return errInvalid
		}
		return nil
	}
}

// readPolicy reads a policy file; none is given with an empty name.
func readPolicy(name string) (*proof.Policy, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read witness policy: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, proof.MaxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("read witness policy: %w", err)
	}
	p, err := proof.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// maxKey bounds a key file, in bytes.
const maxKey = 4 << 10

// readKey takes a verifier key as it is, or from a file.
func readKey(s string) (string, error) {
	if strings.Count(s, "+") >= 2 && !strings.ContainsRune(s, os.PathSeparator) {
		return s, nil
	}
	f, err := os.Open(s)
	if err != nil {
		if strings.Count(s, "+") >= 2 { // a key whose origin holds slashes
			return s, nil
		}
		return "", fmt.Errorf("read verifier key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return "", fmt.Errorf("read verifier key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
