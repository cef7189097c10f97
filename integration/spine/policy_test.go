package spine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/lab"
)

const gift = `bundle {
  name     = "gifts"
  version  = "1"
  language = 1
}

policy "gift" {
  title    = "A gift has come"
  mode     = "enforce"

  on        = ["file.create"]
  condition = under(file.path, "/srv/gift")

  action "alert" {
    message = "${file.path}"
  }
}
`

const giftTest = `vm "v" {
  name = "v"
}

test "a gift" {
  policy = "gift"
  vm     = "v"
  event "file.create" {
    file = { path = "/srv/gift/a" }
  }
  expect {
    matched = true
    actions = ["alert"]
  }
}
`

// TestPoliciesOnALiveHost takes a policy from a file into force on a running daemon and
// a live guest: tested, replayed, applied, kept over a crash, rolled back. Whoever has the
// evidence and the bundles finds every verdict that must be there, and no other.
func TestPoliciesOnALiveHost(t *testing.T) {
	ctx := testContext(t)
	l := newLab(t, ctx)
	guestRun(t, ctx, l, "mkdir -p /srv/gift; "+lab.Activity)
	wait(t, ctx, l, "verdict of the first bundle", lab.Verdict("etc_changed"))

	dir := t.TempDir()
	for name, text := range map[string]string{"gift.policy.hcl": gift, "gift.policytest.hcl": giftTest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	provost := func(want string, args ...string) {
		t.Helper()
		if len(args) > 1 && args[0] == "policy" && args[1] != "test" {
			args = append(args, "--socket", l.Socket())
		}
		out, err := l.Provost(ctx, args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("provost %v: %v, want %q\n%s", args, err, want, out)
		}
	}
	provost("1 passed", "policy", "test", dir)
	// The directory itself was made before.
	provost("\n1 actions that it would want", "policy", "replay", dir, "--since", "1h")
	if out, err := l.Provost(ctx, "policy", "apply", dir, "--max-actions", "0", "--since", "1h", "--socket", l.Socket()); err == nil || !strings.Contains(out+err.Error(), "1 actions, more than the 0 allowed") {
		t.Errorf("a bundle beyond its budget: %v\n%s", err, out)
	}
	provost("in force: bundle gifts 1", "policy", "apply", dir, "--max-actions", "1", "--since", "1h")
	guestRun(t, ctx, l, "echo 1 >/srv/gift/one")
	first := wait(t, ctx, l, "verdict of the second bundle", lab.Verdict("gift"))
	wait(t, ctx, l, "outcome of its alert", lab.Outcome("gift", "alert"))
	loaded := 0
	for _, e := range entries(t, ctx, l) {
		if a, ok := e.Msg.(*record.BundleActivation); ok && e.Leaf.Index < first.Leaf.Index {
			if loaded++; loaded == 2 && a.Name != "gifts" {
				t.Errorf("the log says %v", a)
			}
		}
	}
	if loaded != 2 {
		t.Errorf("%d activations ahead of the verdict, want 2", loaded)
	}

	if err := l.KillDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	provost("bundle gifts 1", "policy", "active")
	guestRun(t, ctx, l, "echo 2 >/srv/gift/two")
	wait(t, ctx, l, "a verdict behind the crash", nth(2, lab.Verdict("gift")))
	provost("in force: bundle baseline", "policy", "rollback")
	guestRun(t, ctx, l, "echo 3 >/srv/gift/three; "+lab.Activity)
	wait(t, ctx, l, "a verdict behind the rollback", nth(3, lab.Verdict("etc_changed")))
	if n := count(t, ctx, l, lab.Verdict("gift")); n != 2 {
		t.Errorf("%d verdicts of a policy that was rolled back, want 2", n)
	}

	bundle := t.TempDir() + "/b.zip"
	provost("", "export", "--socket", l.Socket(), "-o", bundle, l.Domain)
	// The evidence brings the text of both bundles: nothing else is needed.
	provost("every verdict is sealed that the policies in force give, and no other", "verify", "--key", l.Dir+"/state/keys/host.vkey", "--replay", bundle)
	// What judged an entry explains it, though another bundle is in force.
	cause := first.Msg.(*record.Verdict).CauseIndex
	provost("verdict: it matches", "policy", "explain", "gift", fmt.Sprintf("%s:%d", l.Domain, cause))
}
