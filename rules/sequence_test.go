package rules

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A decoy hides nothing: of one key several attempts are held, and each goes its own way.
func TestSequenceDecoys(t *testing.T) {
	s := tell(t)
	s.modify(0, "/tmp/x", "curl", 1)
	for i := range MaxAttempts - 1 {
		s.modify(0, fmt.Sprint("/tmp/decoy", i), "curl", 1)
	}
	x := s.exec(0, "/tmp/x", "sh")
	decoy := s.exec(0, "/tmp/decoy3", "sh")
	s.exec(0, "/tmp/x", "sh") // used up
	s.want(download, fmt.Sprintf("%d:curl(1)/tmp/x %d:curl(1)/tmp/decoy3", x, decoy))

	// One more than there is room for: the first is given up, and that is told.
	s = tell(t)
	s.modify(0, "/tmp/x", "curl", 1)
	last := uint64(0)
	for i := range MaxAttempts {
		last = s.modify(0, fmt.Sprint("/tmp/decoy", i), "curl", 1)
	}
	s.exec(0, "/tmp/x", "sh")
	decoy = s.exec(0, "/tmp/decoy0", "sh")
	if got := s.causes(download); !strings.HasPrefix(got, fmt.Sprintf("%d!state overflow: 1 key(s) or attempt(s) of policy p", last)) ||
		!strings.HasSuffix(got, fmt.Sprintf(" %d:curl(1)/tmp/decoy0", decoy)) || strings.Contains(got, "/tmp/x") {
		t.Errorf("verdicts %q", got)
	}

	// What only a message reads makes no attempt of its own: nothing is given up.
	plain := strings.Replace(download, "condition = process.executable == step.download.file.path", "", 1)
	plain = plain[:strings.Index(plain, "reset {")] + plain[strings.Index(plain, "action"):]
	plain = strings.Replace(plain, "  action", "  }\n  action", 1)
	s = tell(t)
	for i := range 3 * MaxAttempts {
		s.modify(0, fmt.Sprint("/tmp/", i), "curl", 1)
	}
	at := s.exec(0, "/tmp/any", "sh")
	s.exec(0, "/tmp/any", "sh")
	s.want(plain, fmt.Sprintf("%d:curl(1)/tmp/any", at))
}

// A first step that comes again does not take away what the attempts before have
// counted.
func TestSequenceCountsOfAttempts(t *testing.T) {
	const pol = `policy "p" {
  sequence {
    within = "10m"
    step "begin" {
      on = ["file.modify"]
    }
    step "tries" {
      on    = ["process.exec"]
      count = 3
    }
  }
}
`
	s := tell(t)
	s.modify(0, "/a", "x", 1)
	s.exec(0, "/bin/x", "x")
	s.modify(0, "/a", "x", 1) // would have begun anew
	s.exec(0, "/bin/x", "x")
	third := s.exec(0, "/bin/x", "x")
	fourth := s.exec(0, "/bin/x", "x") // the third of the second attempt
	s.exec(0, "/bin/x", "x")
	s.want(pol, fmt.Sprint(third, fourth))
}

// What an exception covers of one attempt is a match of another.
func TestSequenceExceptionOfOneAttempt(t *testing.T) {
	pol := strings.Replace(strings.Replace(download, "condition = process.executable == step.download.file.path", "", 1), "  action", `  exception "wget" {
    condition = step.download.process.name == "wget"
    reason    = "x"
  }
  action`, 1)
	s := tell(t)
	s.modify(0, "/tmp/x", "curl", 1)
	s.modify(0, "/tmp/x", "wget", 1) // the newest
	at := s.exec(0, "/tmp/y", "sh")
	s.exec(0, "/tmp/y", "sh") // excused, and curl's is used up
	s.want(pol, fmt.Sprintf("%d:curl(1)/tmp/y", at))
}

// A sequence does what its definition says: compared with holding every attempt there
// ever was, without bounds and without leaving any out.
func TestSequenceModel(t *testing.T) {
	type attempt struct {
		start int64
		path  string
		taken int
		steps int // done
	}
	const pol = `policy "p" {
  sequence {
    by     = [process.name]
    within = "%ds"
    step "one" {
      on = ["file.modify"]
    }
    step "two" {
      on        = ["process.exec"]
      condition = process.executable == step.one.file.path
      count     = %d
    }
    step "three" {
      on        = ["file.delete"]
      condition = %s
      by        = [process.name]
    }
    reset {
      on        = ["file.rename"]
      condition = file.path == step.one.file.path
    }
  }
}
`
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	fired := 0
	for range 500 {
		within, count := int64(1+r.IntN(20)), 1+r.IntN(3)
		own := r.IntN(2) == 0
		third := "true"
		if own {
			third = "file.path == step.one.file.path"
		}
		s := tell(t)
		var want []string
		held := map[string][]attempt{}
		for range 60 {
			after := []time.Duration{0, 0, time.Millisecond, time.Second, 3 * time.Second}[r.IntN(5)]
			path, key := fmt.Sprint("/", r.IntN(3)), []string{"vim", "x"}[r.IntN(2)]
			kind := r.IntN(8)
			if kind == 7 && r.IntN(3) > 0 {
				kind = 1
			}
			var at uint64
			switch {
			case kind <= 2:
				at = s.modify(after, path, key, 1)
			case kind <= 4:
				at = s.exec(after, path, key)
			case kind <= 6:
				key = "vim"
				at = s.delete(after, path)
			default:
				key = "vim"
				at = s.rename(after, path)
			}
			now := s.mono
			live := slices.DeleteFunc(held[key], func(a attempt) bool { return a.start <= now-within*int64(time.Second) })
			switch {
			case kind <= 2:
				live = append(live, attempt{start: now, path: path, steps: 1})
			case kind <= 4:
				for i := range live {
					if a := &live[i]; a.steps == 1 && a.path == path {
						if a.taken++; a.taken == count {
							a.taken = 0
							live = append(live, attempt{start: a.start, path: a.path, steps: 2})
						}
					}
				}
			case kind <= 6:
				n := len(live)
				live = slices.DeleteFunc(live, func(a attempt) bool { return a.steps == 2 && (!own || a.path == path) })
				if len(live) < n {
					want = append(want, fmt.Sprint(at))
				}
			default:
				live = slices.DeleteFunc(live, func(a attempt) bool { return a.path == path })
			}
			held[key] = live
		}
		got := s.causes(fmt.Sprintf(pol, within, count, third))
		if strings.Contains(got, "overflow") {
			continue // more than the bound: see TestSequenceDecoys
		}
		fired += len(want)
		if got != strings.Join(want, " ") {
			t.Fatalf("seed %d: within %d s, count %d, third %s:\n got %s\nwant %v", seed, within, count, third, got, want)
		}
	}
	if fired < 150 {
		t.Errorf("%d verdicts were compared", fired)
	}
}

// A state that version 2 has written has one attempt for each step: it goes on.
func TestStateOfVersion2(t *testing.T) {
	data, err := os.ReadFile("testdata/state-v2.bin") // two downloads, of which it held the newest
	if err != nil {
		t.Fatal(err)
	}
	st := &State{}
	if err := st.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	if st.Keys() != 1 || st.Next() != 4 {
		t.Fatalf("%d keys, next entry %d", st.Keys(), st.Next())
	}
	again, err := st.MarshalBinary()
	if err != nil || !strings.HasPrefix(string(again), stateMagic) {
		t.Fatalf("saved as % x, %v", again[:5], err)
	}
	for _, tb := range st.tables {
		tb.each(func(s *slot) {
			if len(s.steps) != 1 || len(s.steps[0]) != 1 || len(s.steps[0][0].done) != 1 || s.steps[0][0].done[0].place != 3 || len(s.steps[0][0].values) != 2 {
				t.Errorf("attempts %+v", s.steps)
			}
		})
	}
}
