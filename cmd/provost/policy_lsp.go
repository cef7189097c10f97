package main

import (
	"context"
	"io"
	"os"

	"github.com/provostd/provost/rules/lsp"
)

func policyLSPCommand(a *app) func(context.Context, []string) error {
	return func(ctx context.Context, _ []string) error {
		return lsp.Run(ctx, os.Stdin, stdoutOf(a.stdout), version)
	}
}

// stdoutOf gives standard output a Close: the language server closes what it
// writes to.
func stdoutOf(w io.Writer) io.WriteCloser {
	if c, ok := w.(io.WriteCloser); ok {
		return c
	}
	return nopCloser{w}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
