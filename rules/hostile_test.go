package rules

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/approval"
)

// TestRevokedBeforeLoaded seals a revocation ahead of the approval that it is of: what
// was revoked must not come to life again.
func TestRevokedBeforeLoaded(t *testing.T) {
	s := newStory(t)
	a := approve(t, s.f, "CHG-1", nil)
	r := &approval.Revocation{Type: approval.RevocationType, ID: "CHG-1", Host: "h", Group: "security-team", RevokedBy: "alice", Reason: "r",
		Issued: approval.At(feedWall), Nonce: strings.Repeat("0", 32)}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.f.add(t, 0, record.OriginOperator, record.ClassApprovalRevoked, &record.Revocation{Statement: b})
	s.step()
	s.f.add(t, 0, record.OriginHost, record.ClassApprovalLoaded, a)
	s.f.modify(t, "/etc/a")
	s.want("revoked before it was loaded here", "error: approval CHG-1 has no effect: it was revoked before", "etc verdict")
	for i := range maxRevoked + 1 {
		r.ID = fmt.Sprintf("CHG-%d", i+10)
		if b, err = r.Encode(); err != nil {
			t.Fatal(err)
		}
		s.f.add(t, 0, record.OriginOperator, record.ClassApprovalRevoked, &record.Revocation{Statement: b})
	}
	s.want("nothing to tell")
	if n := len(s.st.approvals.revoked); n != maxRevoked {
		t.Errorf("%d revocations are held, want %d", n, 256)
	}
}

// TestSequenceExcused has a guest end a sequence with what an exception or an approval
// covers: that is no match, and must not spare it the match that follows.
func TestSequenceExcused(t *testing.T) {
	const pol = `policy "etc" {
  sequence {
    by     = [process.pid]
    within = "10m"
    step "get" {
      on = ["file.create"]
    }
    step "use" {
      on        = ["file.modify"]
      condition = under(file.path, "/etc")
      count     = 2
    }
  }
  exception "resolver" {
    reason    = "r"
    condition = file.path == "/etc/resolv.conf"
  }
  approval {
    group = "security-team"
  }
}
`
	s := storyOf(t, pol)
	s.f.guest(t, record.ClassFileCreate, &record.Event{Process: vim(), File: file("/tmp/x")})
	s.f.modify(t, "/etc/a")
	s.want("half of it")
	s.f.modify(t, "/etc/resolv.conf")
	s.want("excepted")
	s.load(approve(t, s.f, "CHG-1", func(a *approval.Statement) {
		a.Policies, a.MaxUses = []string{"etc"}, 1
		a.Scope.Condition = `file.path == "/etc/b"`
	}))
	s.f.modify(t, "/etc/b")
	s.want("approved", "etc CHG-1 used 1/1")
	s.f.modify(t, "/etc/c")
	s.want("neither", "etc verdict")
	s.f.modify(t, "/etc/c")
	s.f.modify(t, "/etc/c")
	s.want("used up")
}

// TestOverflowRestored floods windows beyond what they may hold: what they give up must
// not depend on when the state was saved and restored, or a replay of the log gives
// other verdicts than those that were sealed.
func TestOverflowRestored(t *testing.T) {
	const pol = `policy "often" {
  on = ["file.modify"]
  threshold {
    count    = 48
    by       = [file.path]
    window   = "10s"
    max_keys = 16
  }
}
policy "steps" {
  sequence {
    by       = [file.path]
    within   = "10s"
    max_keys = 4
    step "a" {
      on = ["file.modify"]
    }
    step "b" {
      on        = ["file.delete"]
      condition = file.size != step.a.file.size && process.name != step.a.process.name && step.a.file.path != process.name
    }
    step "c" {
      on = ["process.exec"]
      by = [process.executable]
    }
  }
}
`
	s := tell(t)
	long := strings.Repeat("x", 600)
	for round := range 6 {
		for i := range 12 {
			for range 40 * (i % 2) {
				s.modify(ms, fmt.Sprintf("/%d", i), "x", 1)
			}
			s.modify(time.Second, fmt.Sprintf("/%d/%d", round, i), long, 1)
			s.delete(0, fmt.Sprintf("/%d/%d", round, max(i-11, 0)))
		}
		s.delete(time.Duration(round)*4*time.Second, "/0")
	}
	e := engine(t, load(t, pol), Options{})
	want := encodeAll(t, run(t, e, &State{}, s.feed))
	st := &State{}
	var got []*record.Verdict
	for i := range s.leaves {
		v, err := e.Eval(st, s.leaves[i], s.hashes[i], s.payloads[i])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v...)
		b, err := st.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		st = &State{}
		if err := st.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) == 0 || len(got) == 0 {
		t.Fatal("nothing was given up")
	}
	if !bytes.Equal(encodeAll(t, got), want) {
		t.Errorf("%d verdicts differ from those of a state that was never restored", len(got))
		for _, v := range got {
			t.Log("restored ", v.CauseIndex, v.Policy, v.Error)
		}
		for _, v := range run(t, e, &State{}, s.feed) {
			t.Log("whole    ", v.CauseIndex, v.Policy, v.Error)
		}
	}
}

// TestWindowRoom floods one window after the other: what each once held must not stay
// behind when its keys are gone.
func TestWindowRoom(t *testing.T) {
	pol := ""
	const policies = 12
	for i := range policies {
		pol += fmt.Sprintf("policy \"t%d\" {\n on = [\"file.modify\"]\n condition = process.name == \"p%d\"\n threshold {\n count = 100\n by = [file.path]\n window = \"1s\"\n max_keys = 4000\n }\n}\n", i, i)
	}
	e, st := engine(t, load(t, pol), Options{}), &State{}
	s := tell(t)
	for i := range policies {
		for k := range 500 {
			for range 40 {
				s.modify(0, fmt.Sprint("/", k), fmt.Sprint("p", i), 1)
			}
		}
		for range 300 { // two are given up with each that comes behind the window
			s.modify(2*time.Second, "/z", fmt.Sprint("p", i), 1)
		}
	}
	run(t, e, st, s.feed)
	held := 0
	for _, x := range st.tables {
		held += cap(x.slots) * slotBytes
		for _, y := range x.slots[:cap(x.slots)] {
			held += len(y.ring.buf) * 32
		}
	}
	if st.windowBytes > policies*1024 {
		t.Fatalf("windows account for %d bytes", st.windowBytes)
	}
	if most := policies * (64<<10 + 8<<10); held > most {
		t.Errorf("windows hold %d bytes and account for %d, want at most %d", held, st.windowBytes, most)
	}
}

// TestOverflowIsCheap has a guest overflow one window of many: until that is told again,
// entries must not cost a look at all of them.
func TestOverflowIsCheap(t *testing.T) {
	pol := ""
	for i := range 300 {
		pol += fmt.Sprintf("policy \"t%d\" {\n on = [\"file.modify\"]\n condition = process.name == \"p%d\"\n threshold {\n count = 9\n by = [file.path]\n window = \"1h\"\n max_keys = 2\n }\n}\n", i, i)
	}
	e, st := engine(t, load(t, pol), Options{}), &State{}
	s := tell(t)
	for i := range 5 {
		s.modify(ms, fmt.Sprint("/", i), "p7", 1)
	}
	if v := run(t, e, st, s.feed); len(v) != 1 || v[0].Error == "" {
		t.Fatalf("verdicts %v", v)
	}
	n := len(s.leaves)
	s.exec(ms, "/bin/x", "x")
	leaf := s.leaves[n]
	if allocs := testing.AllocsPerRun(50, func() {
		if _, err := e.Eval(st, leaf, s.hashes[n], s.payloads[n]); err != nil {
			t.Fatal(err)
		}
		leaf.Index++
	}); allocs > 2 {
		t.Errorf("%v allocations for an entry that nobody judges", allocs)
	}
	leaf.Mono += lostPeriod
	if v, err := e.Eval(st, leaf, s.hashes[n], s.payloads[n]); err != nil || len(v) != 1 || !strings.Contains(v[0].Error, "2 key(s) of policy t7") {
		t.Errorf("a minute later: %v, %v", v, err)
	}
	leaf.Index, leaf.Mono = leaf.Index+1, leaf.Mono+lostPeriod
	if v, err := e.Eval(st, leaf, s.hashes[n], s.payloads[n]); err != nil || len(v) != 0 {
		t.Errorf("nothing more was lost: %v, %v", v, err)
	}
}
