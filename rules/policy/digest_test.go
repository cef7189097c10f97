package policy

import (
	"strings"
	"testing"
	"testing/fstest"
)

// What a sequence keeps of earlier steps is numbered with what messages read of them: a
// message that reads something else has the windows begin anew, and one whose words
// change does not.
func TestSequenceDigestCoversMessages(t *testing.T) {
	const text = `bundle {
  name     = "t"
  version  = "1"
  language = 1
}
policy "p" {
  sequence {
    within = "10m"
    step "a" {
      on = ["file.modify"]
    }
    step "b" {
      on        = ["process.exec"]
      condition = process.executable == step.a.file.path
    }
  }
  action "alert" {
    message = "${step.a.process.name} WORDS"
  }
}
`
	of := func(old, new string) *Policy {
		t.Helper()
		b, diags := LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(strings.Replace(text, old, new, 1))}})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return b.Policies[0]
	}
	p := of("", "")
	if p.Deciding != 1 || len(p.Captures) != 2 {
		t.Fatalf("%d of %d values decide", p.Deciding, len(p.Captures))
	}
	if of("WORDS", "other words").Sequence.StateDigest != p.Sequence.StateDigest {
		t.Error("words of a message change the digest")
	}
	if of("${step.a.process.name}", "${step.a.process.pid}").Sequence.StateDigest == p.Sequence.StateDigest {
		t.Error("what a message reads of a step does not change the digest")
	}
}
