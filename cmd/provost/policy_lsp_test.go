package main

import (
	"bytes"
	"context"
	"testing"
)

// The server ends with its input, here the empty one of a test, and says
// nothing by itself.
func TestPolicyLSP(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"policy", "lsp"}, &stdout, &stderr); code != exitOK || stdout.Len() > 0 || stderr.Len() > 0 {
		t.Errorf("code %d, %q, %q", code, stdout.String(), stderr.String())
	}
}
