package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

const replayed = `bundle {
  name     = "b"
  version  = "7"
  language = 1
}
policy "stopped" {
  on   = ["vm.stop"]
  mode = "enforce"
  action "alert" {
    message = "${vm.name}"
  }
}
`

// TestVerifyReplay evaluates policies again over evidence of a real ledger: an honest
// one, one whose verdict was weakened before it was sealed, and without the bundle.
func TestVerifyReplay(t *testing.T) {
	dir := t.TempDir()
	bundles := filepath.Join(dir, "bundles")
	one := filepath.Join(bundles, "one")
	if err := os.MkdirAll(one, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, "a.policy.hcl"), []byte(replayed), 0o600); err != nil {
		t.Fatal(err)
	}
	b, diags := policy.Load(one)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	engine, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, l, _ := logsOf(t, 1)
	add := func(o record.Origin, c record.Class, m record.Message) {
		t.Helper()
		e, err := s.Draft(o, c, m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	add(record.OriginHost, record.ClassPolicyLoaded, engine.ActivationFor(""))
	// judge seals what the policies say of the newest entry.
	judge := func(change func(*record.Verdict)) {
		t.Helper()
		add(record.OriginHost, record.ClassVMStop, &record.Event{Vm: &record.VM{Name: "web"}})
		item, err := l.Item(l.Size() - 1)
		if err != nil {
			t.Fatal(err)
		}
		m, err := item.Decode()
		if err != nil {
			t.Fatal(err)
		}
		verdicts, err := engine.Eval(&rules.State{}, item.Leaf, item.LeafHash, m)
		if err != nil || len(verdicts) != 1 {
			t.Fatalf("%v, %v", verdicts, err)
		}
		change(verdicts[0])
		add(record.OriginPolicy, rules.ClassOf(verdicts[0]), verdicts[0])
	}
	var texts map[record.Hash]map[string][]byte
	export := func(from uint64) string {
		t.Helper()
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "evidence.zip")
		var out bytes.Buffer
		sel := chain.Selection{Range: &proof.Range{First: from, Last: l.Size() - 1}}
		if texts != nil {
			sel.Policies = func(_ context.Context, d record.Hash) (map[string][]byte, string, error) {
				if texts[d] == nil {
					return nil, proof.LacksKept, nil
				}
				return texts[d], "", nil
			}
		}
		if err := chain.Export(t.Context(), s, l, sel, &out); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	verify := func(code int, words, file string, args ...string) string {
		t.Helper()
		got, out, errs := call(t, append([]string{"verify", "--key", s.HostLog().VerifierKey(), file}, args...)...)
		if got != code || !strings.Contains(out+errs, words) {
			t.Errorf("verify %v: exit %d, want %d with %q\n%s%s", args, got, code, words, out, errs)
		}
		return out
	}
	judge(func(*record.Verdict) {})
	good := export(0)
	verify(exitOK, "every verdict is sealed that the policies in force give", good, "--replay", "--bundle", one)
	verify(exitOK, "policy stopped: 1 records judged, 1 verdicts", good, "--replay", "--bundle", bundles)
	verify(exitOK, "0 entries, 0 judged", good, "--replay", "--bundle", one, "--since", "2126-01-01")
	verify(exitInvalid, "digest "+b.Digest.String()+" was in force and is not given", good, "--replay")
	// With the text in the evidence nothing else is needed.
	texts = map[record.Hash]map[string][]byte{b.Digest: b.Files}
	verify(exitOK, "policy stopped: 1 records judged, 1 verdicts", export(0), "--replay")
	texts = map[record.Hash]map[string][]byte{}
	lacking := export(0)
	verify(exitOK, "is not in the evidence: the host had it no more", lacking)
	verify(exitInvalid, "not re-evaluable, no text: of bundle "+b.Digest.String()+" the host had it no more", lacking, "--replay")
	verify(exitOK, "policy stopped: 1 records judged, 1 verdicts", lacking, "--replay", "--bundle", one)
	texts = nil
	verify(exitUsage, "--bundle is for --replay", good, "--bundle", one)
	verify(exitUsage, "holds no policy bundle", good, "--replay", "--bundle", dir)
	var report struct {
		Valid    bool
		Policies struct {
			Valid bool
			Logs  []struct{ Verdicts int }
		}
	}
	if err := json.Unmarshal([]byte(verify(exitOK, "", good, "--replay", "--bundle", one, "--output", "json")), &report); err != nil || !report.Valid || !report.Policies.Valid || report.Policies.Logs[0].Verdicts != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	judge(func(v *record.Verdict) { v.Mode, v.WouldHave = "audit", true })
	verify(exitInvalid, "differs: verdict of stopped on entry 5 in entry 6: it says mode audit, want enforce", export(0), "--replay", "--bundle", one)
	verify(exitOK, "VALID", good) // whose signatures are as good as ever
}

const countedStops = `bundle {
  name     = "b"
  version  = "8"
  language = 1
}
policy "stops" {
  on = ["vm.stop"]
  threshold {
    count  = 3
    window = "1h"
  }
  action "alert" {
    message = "${vm.name}"
  }
}
`

// TestVerifyReplayBefore counts over two shards of a real ledger: with the evidence of
// both the verdict in the second one is compared, and with that one alone it is not.
func TestVerifyReplayBefore(t *testing.T) {
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "a.policy.hcl"), []byte(countedStops), 0o600); err != nil {
		t.Fatal(err)
	}
	b, diags := policy.Load(bundle)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	counting, err := rules.New(b, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	none, err := rules.New(&policy.Bundle{Name: "none"}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, l, _ := logsOf(t, 1)
	engine, st := none, &rules.State{}
	judge := func(want int) {
		t.Helper()
		n := 0
		for i := st.Next(); i < l.Size(); i++ {
			it, err := l.Item(i)
			if err != nil {
				t.Fatal(err)
			}
			m, err := it.Decode()
			if err != nil {
				t.Fatal(err)
			}
			verdicts, err := engine.Eval(st, it.Leaf, it.LeafHash, m)
			if err != nil {
				t.Fatal(err)
			}
			if it.Leaf.Header.Class == record.ClassPolicyLoaded {
				engine = counting
			}
			for _, v := range verdicts {
				add(t, s, l, record.OriginPolicy, rules.ClassOf(v), v)
				n++
			}
		}
		if n != want {
			t.Fatalf("%d verdicts, want %d", n, want)
		}
	}
	stop := func() {
		t.Helper()
		add(t, s, l, record.OriginHost, record.ClassVMStop, &record.Event{Vm: &record.VM{Name: "web"}})
	}
	export := func() string {
		t.Helper()
		if err := s.CheckpointNow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := chain.Export(t.Context(), s, l, chain.Selection{Range: &proof.Range{Last: l.Size() - 1}}, &out); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, strings.ReplaceAll(l.Origin(), "/", "-")+".zip")
		if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	add(t, s, l, record.OriginHost, record.ClassPolicyLoaded, counting.ActivationFor(""))
	stop()
	stop()
	next := l.Name()
	next.Shard++
	if err := s.CloseLog(t.Context(), l, "a test", next.String()); err != nil {
		t.Fatal(err)
	}
	judge(0)
	first, old := export(), l
	closed, _ := old.Closed()
	end, err := old.Item(closed)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = s.CreateLog(t.Context(), next.String(), &record.Genesis{Cause: "shard", PreviousOrigin: old.Origin()}); err != nil {
		t.Fatal(err)
	}
	engine, st = none, st.Continue(1)
	saved, err := st.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(saved)
	add(t, s, l, record.OriginPolicy, record.ClassPolicyCarried, &record.PolicyCarried{Origin: old.Origin(), Size: old.Size(), ClosedIndex: closed, ClosedHash: end.LeafHash[:], Version: rules.StateVersion, Sha256: sum[:]})
	add(t, s, l, record.OriginHost, record.ClassPolicyLoaded, counting.ActivationFor(""))
	stop()
	judge(1)
	second := export()
	verify := func(code int, words string, args ...string) string {
		t.Helper()
		got, out, errs := call(t, append([]string{"verify", "--key", s.HostLog().VerifierKey()}, args...)...)
		if got != code || !strings.Contains(out+errs, words) {
			t.Errorf("verify %v: exit %d, want %d with %q\n%s%s", args, got, code, words, out, errs)
		}
		return out
	}
	replay := []string{"--replay", "--bundle", bundle}
	verify(exitOK, "it is what that gives, by entry 1", append(replay, "--before", first, second)...)
	verify(exitOK, "policy stops: 1 records judged, 1 verdicts\n", append(replay, "--before", first, second)...)
	verify(exitOK, "not evaluated again: it remembers", append(replay, second)...)
	if out := verify(exitOK, `"compared": true`, append(replay, "--output", "json", "--before", first, second)...); !strings.Contains(out, `"before": [`) {
		t.Errorf("%s", out)
	}
	verify(exitUsage, "--before is for --replay", "--before", first, second)
	verify(exitUsage, "--before is for a file", append(replay, "--before", first, dir)...)
	broken, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	broken[len(broken)/3] ^= 1
	if err := os.WriteFile(first, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := call(t, append([]string{"verify", "--key", s.HostLog().VerifierKey()}, append(replay, "--before", first, second)...)...); code == exitOK {
		t.Errorf("evidence of the shard before that was changed: exit %d\n%s%s", code, out, errs)
	}
}

// add seals an entry.
func add(t *testing.T, s *chain.Store, l *chain.Log, o record.Origin, c record.Class, m record.Message) {
	t.Helper()
	e, err := s.Draft(o, c, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), chain.Batch{Log: l, Entries: []chain.Entry{e}}); err != nil {
		t.Fatal(err)
	}
}
