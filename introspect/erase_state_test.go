package introspect

import (
	"bytes"
	"testing"
	"testing/fstest"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const keepingBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "twice" {
  title = "A file was changed behind another"
  on    = ["file.modify"]
  threshold {
    count  = 2
    window = "1h"
  }
  action "alert" {
    message = "again"
  }
}
policy "pair" {
  title = "A file was changed, and then one with its name"
  sequence {
    within = "10m"
    step "first" {
      on        = ["file.modify"]
      condition = under(file.path, "/home")
    }
    step "second" {
      on        = ["file.modify"]
      condition = file.path == step.first.file.path
    }
  }
  action "alert" {
    message = "twice"
  }
}
`

// TestErasedWordsLeaveTheSavedState erases a record whose words a sequence keeps, in a
// guest that is silent then: what is saved of policies must not keep them until enough
// of others is judged.
func TestErasedWordsLeaveTheSavedState(t *testing.T) {
	const secret = "/home/zqxj-4f81/will.txt"
	p := newPipeWith(t, keepingBundle)
	p.see("vm.start", "start", "booted", 100, domain.Running)
	l, _ := p.store.LogByOrigin("test.host/vm/" + vm.String() + "/1/1")
	cause := p.modified(l, secret)
	p.verdictOn(l, p.modified(l, "/srv/other")) // saves the state
	holds := func() bool {
		b, ok, err := p.store.Meta(StateKey(l.ID()))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return bytes.Contains(b, []byte(secret))
	}
	if !holds() {
		t.Fatal("the state does not hold the words: the test proves nothing")
	}
	if _, err := p.store.Erase(t.Context(), chain.EraseSelection{Log: l, Range: &proof.Range{First: cause, Last: cause}}, "r", "a"); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(10 * time.Second); holds(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("the saved state keeps erased words")
		}
	}
}

const tellingPolicy = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "pair" {
  title = "A file was changed, and then another"
  sequence {
    within = "10m"
    step "first" {
      on        = ["file.modify"]
      condition = under(file.path, "/home")
    }
    step "second" {
      on        = ["file.modify"]
      condition = file.path == "/srv/other"
    }
  }
  action "alert" {
    message = "behind ${step.first.file.path}"
  }
}
`

// TestErasedStepsAreNotQuoted erases the first step of a sequence while the judge is
// behind: the verdict on the second, which is judged ahead of the entry that erases,
// must not be sealed behind it with words that are gone.
func TestErasedStepsAreNotQuoted(t *testing.T) {
	const secret = "/home/zqxj-4f81/will.txt"
	b, diags := policy.LoadFS(fstest.MapFS{"a.policy.hcl": {Data: []byte(tellingPolicy)}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	engine, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, erase := range []bool{false, true} {
		p := newStepper(t, engine, 1)
		l := p.logs[0]
		first := p.modify(l, secret)
		p.drain()
		p.modify(l, "/srv/other")
		want := "behind " + secret
		if erase {
			want = erasedMessage
			if _, err := p.store.Erase(t.Context(), chain.EraseSelection{Log: l, Range: &proof.Range{First: first, Last: first}}, "r", "a"); err != nil {
				t.Fatal(err)
			}
		}
		p.drain()
		n := 0
		for i := uint64(1); i < l.Size(); i++ {
			it, err := l.Item(i)
			if err != nil {
				t.Fatal(err)
			}
			if it.Leaf.Header.Class != record.ClassPolicyVerdict {
				continue
			}
			m, err := it.Decode()
			if err != nil {
				t.Fatal(err)
			}
			n++
			if a := m.(*record.Verdict).Actions; len(a) != 1 || a[0].Message != want {
				t.Errorf("erased %v: entry %d does %v, want the message %q", erase, i, a, want)
			}
		}
		if n != 1 {
			t.Errorf("erased %v: %d verdicts", erase, n)
		}
	}
}
