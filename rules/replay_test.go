package rules

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

const replayPolicies = `
policy "by_path" {
  on        = ["file.modify", "file.rename"]
  condition = under(file.path, "/etc") || under(file.target_path, "/etc")
  cooldown {
    period = "5s"
    by     = [file.path]
  }
  action "alert" {
    message = "${file.path} on ${vm.name}, ${vm.state}"
  }
}
policy "by_nothing" {
  on = ["process.exec"]
  target {
    condition = vm.state == "running"
  }
  cooldown {
    period = "20s"
  }
}
policy "fails" {
  on        = ["file.modify"]
  condition = file.size > 10
}
policy "often" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  exception "c" {
    condition = file.size == 7
    expires   = "2023-11-14T22:17:00Z"
    reason    = "x"
  }
  threshold {
    count    = 3
    distinct = file.path
    by       = [process.name]
    window   = "30s"
  }
  limit {
    max   = 1
    per   = "1m"
    scope = "vm"
  }
  mode = "enforce"
  action "pause" {
    resume_after = "5m"
  }
  action "alert" {
    message = "${threshold.count} in ${threshold.window}"
  }
  escalate "more" {
    threshold {
      count  = 2
      window = "2m"
    }
    action "snapshot" {}
  }
}
policy "steps" {
  sequence {
    by     = [process.name]
    within = "20s"
    step "write" {
      on        = ["file.modify"]
      condition = startswith(file.path, "/etc/")
      count     = 2
    }
    step "move" {
      on        = ["file.rename"]
      condition = file.target_path == step.write.file.path
      by        = [file.path]
    }
    step "run" {
      on    = ["process.exec"]
      count = 2
    }
    reset {
      on        = ["file.rename"]
      condition = file.target_path == "/tmp/c" && step.write.count > 2
    }
  }
  action "alert" {
    message = "${step.write.file.path} ${step.write.count} ${step.run.count}"
  }
}
policy "two" {
  sequence {
    within = "20s"
    step "write" {
      on        = ["file.modify"]
      condition = has(file.size)
    }
    step "run" {
      on        = ["process.exec"]
      condition = step.write.file.size < 100
    }
  }
}
policy "new" {
  on = ["file.modify"]
  first_seen {
    by      = [file.path]
    history = "1m"
    learn   = "10s"
  }
}
policy "crowded" {
  on       = ["file.modify"]
  on_error = "treat_as_match"
  condition = file.size > 5
  threshold {
    count    = 2
    by       = [file.path]
    window   = "20s"
    max_keys = 2
  }
}
policy "every" {
  on        = ["process.exec"]
  condition = contains_i(["xmrig"], process.name)
  mode      = "enforce"
  action "pause" {}
}
`

func randomFeed(t testing.TB, r *rand.Rand, n int) *feed {
	f := &feed{}
	f.genesis(t, tagged)
	paths := []string{"/etc/a", "/etc/b", "/tmp/c", "/etc/\xff"}
	for range n {
		after := time.Duration(r.IntN(4000)) * time.Millisecond
		path := paths[r.IntN(len(paths))]
		switch r.IntN(6) {
		case 0, 1:
			fl := file(path)
			if r.IntN(2) == 0 {
				fl.Inode, fl.Size = 5, uint64(r.IntN(20))
			}
			f.add(t, after, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: fl})
		case 2:
			f.add(t, after, record.OriginGuest, record.ClassFileRename, &record.Event{Process: vim(), File: file([]string{"/x", "vim"}[r.IntN(2)]), Target: file(path)})
		case 3:
			p := vim()
			if r.IntN(4) == 0 {
				p.Name = []byte("XMRig")
			}
			f.add(t, after, record.OriginGuest, record.ClassProcessExec, &record.Event{Process: p})
		case 4:
			state := []string{"running", "paused"}[r.IntN(2)]
			f.add(t, after, record.OriginHost, record.ClassVMResume, &record.Event{Vm: &record.VM{State: state}})
		case 5:
			f.add(t, after, record.OriginHost, record.ClassTick, &record.Event{})
		}
	}
	return f
}

func encodeAll(t testing.TB, vs []*record.Verdict) []byte {
	var b []byte
	for _, v := range vs {
		m, err := v.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		b = append(append(b, m...), '\n')
	}
	return b
}

// I5: the same entries give the same verdicts, whenever the state was saved
// and restored and by whichever engine of the same bundle.
func TestReplay(t *testing.T) {
	rounds := 40
	if *long {
		rounds = 2_000
	} else {
		t.Logf("short run: %d logs; -long judges 2000", rounds)
	}
	b := load(t, replayPolicies)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	fired, by := 0, map[string]int{}
	for range rounds {
		f := randomFeed(t, r, 150)
		st := &State{}
		first := run(t, engine(t, b, Options{}), st, f)
		fired += len(first)
		for _, v := range first {
			name := v.Policy
			if v.Escalation != "" {
				name += "+"
			}
			if v.Error != "" {
				name += "!"
			}
			by[name]++
		}
		want := encodeAll(t, first)
		end, err := st.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}

		// Again, saving and restoring at random entries.
		cuts := r.IntN(20) + 1
		e, st := engine(t, b, Options{}), &State{}
		var got []*record.Verdict
		for i := range f.leaves {
			v, err := e.Eval(st, f.leaves[i], f.hashes[i], f.payloads[i])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v...)
			if r.IntN(cuts) == 0 {
				saved, err := st.MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				st = &State{}
				if err := st.UnmarshalBinary(saved); err != nil {
					t.Fatal(err)
				}
				again, _ := st.MarshalBinary()
				if !bytes.Equal(again, saved) {
					t.Fatal("a restored state saves differently")
				}
				e = engine(t, b, Options{})
			}
		}
		if !bytes.Equal(encodeAll(t, got), want) {
			t.Fatal("verdicts differ after saving and restoring the state")
		}
		if final, _ := st.MarshalBinary(); !bytes.Equal(final, end) {
			t.Fatal("states differ at the end")
		}
	}
	if fired == 0 {
		t.Error("no verdict was compared")
	}
	for _, name := range []string{"by_path", "by_nothing", "fails!", "often", "often+", "steps", "two", "new", "crowded", "every"} {
		if by[name] == 0 {
			t.Errorf("no verdict of %s was compared", name)
		}
	}
}

// Decoding a state never panics, an error leaves the state as it was, and
// what decodes encodes to the same bytes.
func FuzzState(f *testing.F) {
	st := &State{}
	empty, _ := st.MarshalBinary()
	f.Add(empty)
	run(f, engine(f, load(f, replayPolicies), Options{}), st, randomFeed(f, rand.New(rand.NewPCG(1, 1)), 60))
	full, _ := st.MarshalBinary()
	f.Add(full)
	f.Add(full[:len(full)-1])
	f.Add([]byte("PVRS\x7f"))
	f.Add(version1(f, 9))
	if old, err := os.ReadFile("testdata/state-v2.bin"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(old)
	}
	_, _ = engine(f, load(f, replayPolicies), Options{}).Eval(st, record.Leaf{Index: st.next, Origin: record.OriginHost, Header: record.Header{Class: record.ClassClosed}}, record.Hash{}, &record.Closed{NextOrigin: "n"})
	over, _ := st.MarshalBinary()
	f.Add(over)
	heir, _ := st.Continue(1).MarshalBinary()
	f.Add(heir)
	f.Fuzz(func(t *testing.T, data []byte) {
		st := &State{next: 7}
		if err := st.UnmarshalBinary(data); err != nil {
			if st.next != 7 || st.Cooldowns() != 0 {
				t.Fatal("an error changed the state")
			}
			return
		}
		out, err := st.MarshalBinary()
		if err != nil || !bytes.Equal(out, data) && bytes.HasPrefix(data, []byte(stateMagic)) {
			t.Fatalf("decoded state encodes differently: %v", err)
		}
	})
}

// version1 returns a state as the version before has written it: with a cooldown
// and no windows.
func version1(t testing.TB, entries int) []byte {
	policies, _, _ := strings.Cut(replayPolicies, `policy "by_nothing"`)
	st := &State{}
	f := &feed{}
	f.genesis(t, tagged)
	for range entries {
		f.add(t, time.Millisecond, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/etc/a")})
	}
	run(t, engine(t, load(t, policies), Options{}), st, f)
	b, err := st.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	const begin, wall, lists = len(stateMagic) + 2, len(stateMagic) + 2 + 16, 24 // no exceptions, windows, approvals, verdicts that wait, revocations and heir
	if !bytes.Equal(b[len(b)-lists:], make([]byte, lists)) {
		t.Fatalf("the state ends in % x", b[len(b)-lists:])
	}
	return slices.Concat([]byte(stateMagic1), b[begin:wall], b[wall+8:len(b)-lists])
}

// TestStateOfVersion3 takes over a state that knows nothing of shards.
func TestStateOfVersion3(t *testing.T) {
	b := version1(t, 3)
	const begin, wall, lists = len(stateMagic1), len(stateMagic1) + 16, 16
	b = slices.Concat([]byte(stateMagic3), b[begin:wall], make([]byte, 8), b[wall:], make([]byte, lists))
	st := &State{}
	if err := st.UnmarshalBinary(b); err != nil || st.Next() != 5 || st.Cooldowns() != 1 {
		t.Fatalf("%v %+v", err, st)
	}
}

// A state of the first version is taken over: its cooldowns go on, with what they
// have swallowed.
func TestStateOfTheVersionBefore(t *testing.T) {
	st := &State{}
	if err := st.UnmarshalBinary(version1(t, 3)); err != nil {
		t.Fatal(err)
	}
	if st.Next() != 5 || st.Cooldowns() != 1 || st.VM().Name != "web-1" || st.VM().Metadata["zone"] == "" {
		t.Fatalf("the state is %+v", st)
	}
	f := &feed{}
	f.genesis(t, tagged)
	for range 4 {
		f.add(t, time.Millisecond, record.OriginGuest, record.ClassFileModify, &record.Event{Process: vim(), File: file("/etc/a")})
	}
	f.add(t, 6*time.Second, record.OriginHost, record.ClassTick, &record.Event{})
	if v := run(t, engine(t, load(t, replayPolicies), Options{}), st, f); len(v) == 0 || v[len(v)-1].Policy != "by_path" || v[len(v)-1].Suppressed != 3 {
		t.Errorf("verdicts %v", v)
	}
}
