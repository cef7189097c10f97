package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// TestExplainBehindABorder explains an entry whose policy remembers further back than
// its shard begins: that is said, and nowhere else.
func TestExplainBehindABorder(t *testing.T) {
	dir := t.TempDir()
	text := `bundle {
  name     = "b"
  version  = "1"
  language = 1
}
policy "cooled" {
  on = ["file.modify"]
  cooldown {
    period = "1h"
  }
  action "alert" {
    message = "x"
  }
}
policy "plain" {
  on = ["file.modify"]
  action "alert" {
    message = "x"
  }
}
`
	if err := os.WriteFile(filepath.Join(dir, "a.policy.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for cause, says := range map[string]bool{"shard": true, "define": false} {
		var lines bytes.Buffer
		for i, e := range []struct {
			origin record.Origin
			class  record.Class
			m      record.Message
		}{
			{record.OriginHost, record.ClassGenesis, &record.Genesis{DomainName: "web", Cause: cause}},
			{record.OriginGuest, record.ClassFileModify, &record.Event{File: &record.File{Path: []byte("/etc/a")}}},
		} {
			leaf := record.Leaf{Index: uint64(i), Origin: e.origin, Mono: int64(i + 1), Wall: 1_700_000_000_000_000_000 + int64(i), Header: record.Header{Class: e.class}}
			payload, err := record.Encode(e.m)
			if err != nil {
				t.Fatal(err)
			}
			line := map[string]any{"log": "kvm1.example/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/2", "leaf": leaf.AppendBinary(nil), "payload": payload}
			if err := json.NewEncoder(&lines).Encode(line); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "entries.jsonl")
		if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, policy := range []string{"cooled", "plain"} {
			code, out, errs := call(t, "policy", "explain", "--bundle", dir, "--entries", file, policy, "1")
			if told := strings.Contains(errs, "goes on from an earlier shard"); code != exitOK || told != (says && policy == "cooled") {
				t.Errorf("%s, cause %s: exit %d\n%s%s", policy, cause, code, out, errs)
			}
		}
	}
}
