package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const witnessKey = "witness.example.net/w1+aeaf2fc2+BIF27VPtpqRVC0ao2eJ7UqBV4+3YdjkTI37J2c9UdC9A"

func TestWitnessConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "policy")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	block := fmt.Sprintf("witness \"w1\" {\n  url = \"https://witness.example.net/w1\"\n  key = %q\n}\n", witnessKey)
	for name, c := range map[string]struct{ config, policy, words string }{
		"none":           {"", "", ""},
		"block":          {block, "", ""},
		"block, policy":  {block, "witness a " + witnessKey + "\nquorum a\n", ""},
		"policy only":    {"", "witness a " + witnessKey + " https://witness.example.net/w1\nquorum a\n", ""},
		"none needed":    {block, "quorum none\n", ""},
		"no address":     {"", "witness a " + witnessKey + "\nquorum a\n", "none has an address"},
		"out of reach":   {block, "witness a witness.example.net/w2+e2c73e62+BIF27VPtpqRVC0ao2eJ7UqBV4+3YdjkTI37J2c9UdC9A\nquorum a\n", "invalid verifier hash"},
		"unknown quorum": {block, "quorum a\n", "does not stand above"},
		"two blocks":     {block + block, "", "has two blocks"},
		"log key":        {strings.Replace(block, witnessKey, "kvm1.example/log/1+514fe11e+AeOGMpV49ePbO0MtXLTsGhhvlGY8QStiPYSK8tQuC8IJ", 1), "", "key cannot be used"},
		"no http":        {strings.Replace(block, "https", "gopher", 1), "", "address cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "host_id = \"kvm1.example\"\n" + c.config
			if c.policy != "" {
				text += fmt.Sprintf("witnessing {\n  policy = %q\n}\n", write(c.policy))
			}
			cfg, _, diags := parseConfig([]byte(text), "provostd.hcl")
			var err error
			if diags.HasErrors() {
				err = diags
			} else {
				err = CheckWitnesses(cfg)
			}
			if c.words == "" && err != nil || c.words != "" && !strings.Contains(fmt.Sprint(err), c.words) {
				t.Errorf("%v, want %q", err, c.words)
			}
		})
	}
	cfg, _, diags := parseConfig([]byte("host_id = \"kvm1.example\"\n"+block+fmt.Sprintf("witnessing {\n  policy = %q\n}\n", write("witness a "+witnessKey+" https://elsewhere.example/\nquorum a\n"))), "provostd.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	all, policy, err := cfg.witnesses()
	if err != nil || len(all) != 1 || policy == nil || policy.Reached([]string{all[0].Key().ID()}) != nil {
		t.Errorf("a witness with a block and a line is one: %d, %v", len(all), err)
	}
	if _, err := proof.NewWitnessKey("w1", all[0].Key().String()); err != nil {
		t.Error(err)
	}
}

// TestRotateKeys replaces the key while no daemon runs; one that runs is asked.
func TestRotateKeys(t *testing.T) {
	cfg := testConfig(t, "keys {\n  rotate = \"24h\"\n}\n")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(cfg.keysDir(), "vm-log.key"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		e, err := RotateKeys(t.Context(), cfg, quiet)
		if err != nil || e.Number != uint64(i+1) {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(cfg.keysDir(), "vm-log.key"))
	if err != nil || string(after) == string(before) {
		t.Errorf("the key is the same: %v", err)
	}
	if r, err := Fsck(t.Context(), cfg, quiet); err != nil || !r.OK() {
		t.Errorf("fsck: %v %v", r, err)
	}
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if since, err := d.store.VMKeySince(); err != nil || since.IsZero() {
		t.Errorf("the key is in force since %s: %v", since, err)
	}
	// Two at once: the ledger is open, and nobody answers on the socket.
	if e, err := RotateKeys(t.Context(), cfg, quiet); err == nil {
		t.Errorf("rotated beside a daemon: %+v", e)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"1s", "daily", "-24h"} {
		if _, _, diags := parseConfig(fmt.Appendf(nil, "host_id = \"a\"\nkeys {\n  rotate = %q\n}\n", bad), "test.hcl"); !diags.HasErrors() {
			t.Errorf("rotate = %q is taken", bad)
		}
	}
}

// TestRotateByDaemon has the one that runs replace the key: the command asks it
// over the control socket.
func TestRotateByDaemon(t *testing.T) {
	cfg := testConfig(t, "")
	if err := Init(cfg, quiet); err != nil {
		t.Fatal(err)
	}
	d, err := New(cfg, "test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- d.store.Run(ctx) }()
	go func() { done <- s.run(ctx) }()
	e, err := RotateKeys(t.Context(), cfg, quiet)
	if err != nil || e.Number != 1 || e.Key != fmt.Sprintf("%x", d.keys.VMPublic()) {
		t.Errorf("%+v, %v", e, err)
	}
	item, err := d.store.HostLog().Item(e.Index)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := item.Decode(); err != nil || !strings.HasPrefix(m.(*record.KeyCertificate).Cause, "operator: uid ") {
		t.Errorf("the certificate says %+v, %v", m, err)
	}
	cancel()
	if err := errors.Join(<-done, <-done, d.Close()); err != nil {
		t.Error(err)
	}
}
