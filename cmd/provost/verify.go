package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/guestagent/attest"
)

func verifyCommand(a *app) func(context.Context, []string) error {
	key := a.flags.String("key", "", "verifier key of the host log, or a `FILE` that holds it")
	return func(_ context.Context, args []string) error {
		if *key == "" {
			return &usageError{"name the verifier key of the host with --key; provostd init printed it, provost status shows it"}
		}
		vkey, err := readKey(*key)
		if err != nil {
			return err
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
		r, err := proof.Verify(b, vkey, proof.Options{Frame: attest.Frame})
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
