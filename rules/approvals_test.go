package rules

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/approval"
)

const approvalPolicies = `
policy "etc" {
  on        = ["file.modify", "file.delete"]
  condition = under(file.path, "/etc")
  mode      = "enforce"
  approval {
    group = "security-team"
    grace = "10m"
  }
  action "alert" {
    message = "${file.path} changed"
  }
}
policy "boot" {
  on        = ["file.modify"]
  condition = under(file.path, "/boot")
  approval {
    group   = "security-team"
    require = 2
  }
  action "alert" {
    message = "${file.path} changed"
  }
}
`

// feedWall is the wall time of a feed's beginning.
var feedWall = time.Unix(1_700_000_000, 0).UTC()

// approve returns what the daemon seals of an approval, from now for an hour.
func approve(t testing.TB, f *feed, id string, change func(*approval.Statement)) *record.Approval {
	t.Helper()
	now := feedWall.Add(time.Duration(f.mono))
	s := &approval.Statement{Type: approval.Type, ID: id, Host: "h", Group: "security-team", Policies: []string{"etc", "boot"}, VMs: []string{testUUID},
		NotBefore: approval.At(now), NotAfter: approval.At(now.Add(time.Hour)), MaxUses: 3, RequestedBy: "bob", Reason: "r",
		Issued: approval.At(now), Nonce: fmt.Sprintf("%032x", []byte(id))[:32]}
	if change != nil {
		change(s)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &record.Approval{Statement: b, Signers: []string{"alice"}, Require: 1}
}

func (f *feed) recall(_ uint32, i uint64) (record.Leaf, record.Message, error) {
	return f.leaves[i], f.payloads[i], nil
}

func (f *feed) modify(t testing.TB, path string) int {
	return f.guest(t, record.ClassFileModify, &record.Event{Process: vim(), File: file(path)})
}

// story runs a feed entry by entry, seals verdicts as the daemon does, and says
// what was decided: policy and state of an approval.
type story struct {
	t    testing.TB
	e    *Engine
	st   *State
	f    *feed
	seen []string
	// whole says that the state is not saved and restored between all entries, which
	// changes nothing.
	whole bool
}

func newStory(t testing.TB) *story { return storyOf(t, approvalPolicies) }

func storyOf(t testing.TB, policies string) *story {
	s := &story{t: t, e: engine(t, load(t, policies), Options{}), f: &feed{}}
	s.st = &State{Recall: s.f.recall}
	s.f.genesis(t, "")
	s.step()
	return s
}

// step judges what is new; verdicts are sealed and judged too.
func (s *story) step() {
	s.t.Helper()
	for i := s.st.Next(); i < uint64(len(s.f.leaves)); i++ {
		vs, err := s.e.Eval(s.st, s.f.leaves[i], s.f.hashes[i], s.f.payloads[i])
		if err != nil {
			s.t.Fatalf("entry %d: %v", i, err)
		}
		for _, v := range vs {
			at := s.f.add(s.t, 0, record.OriginPolicy, ClassOf(v), v)
			word := v.Policy + " verdict"
			if v.Error != "" {
				word = "error: " + v.Error
			} else if a := v.Approval; a != nil {
				word = strings.TrimSpace(fmt.Sprintf("%s %s %s %d/%d", v.Policy, a.Id, a.State, a.Uses, a.MaxUses))
			}
			if got := ClassOf(v); v.Approval.GetState() == ApprovalLate {
				word += fmt.Sprintf(" closes %d", v.Approval.VerdictIndex)
				if got != record.ClassApprovalUsedLate || !bytes.Equal(v.Approval.VerdictHash, s.f.hashes[v.Approval.VerdictIndex][:]) || !bytes.Equal(v.CauseHash, s.f.hashes[v.CauseIndex][:]) {
					s.t.Errorf("late use %v of entry %d", v, at)
				}
			}
			s.seen = append(s.seen, word)
		}
		if !s.whole {
			s.restore()
		}
	}
}

// restore saves and restores the state.
func (s *story) restore() {
	s.t.Helper()
	b, err := s.st.MarshalBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	again := &State{Recall: s.f.recall}
	if err := again.UnmarshalBinary(b); err != nil {
		s.t.Fatal(err)
	}
	s.st = again
}

// want compares what was decided since it was called last.
func (s *story) want(what string, words ...string) {
	s.t.Helper()
	s.step()
	if got, want := strings.Join(s.seen, "; "), strings.Join(words, "; "); got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
	s.seen = nil
}

func (s *story) load(a *record.Approval) {
	s.f.add(s.t, time.Millisecond, record.OriginOperator, record.ClassApprovalLoaded, a)
}

func TestApproved(t *testing.T) {
	s := newStory(t)
	s.load(approve(t, s.f, "CHG-1", func(a *approval.Statement) {
		a.Scope = approval.Scope{On: []string{"file.modify"}, Condition: `under(file.path, "/etc/nginx")`}
	}))
	s.f.modify(t, "/etc/nginx/a")
	s.want("covered", "etc CHG-1 used 1/3")
	s.f.modify(t, "/etc/passwd")
	s.f.guest(t, record.ClassFileDelete, &record.Event{Process: vim(), File: file("/etc/nginx/a")})
	s.want("outside the scope", "etc verdict", "etc verdict")
	s.f.modify(t, "/boot/x")
	s.want("the policy wants two signers", "boot verdict")
	s.f.modify(t, "/etc/nginx/b")
	s.f.modify(t, "/etc/nginx/c")
	s.f.modify(t, "/etc/nginx/d")
	s.want("used up", "etc CHG-1 used 2/3", "etc CHG-1 used 3/3", "etc CHG-1 exceeded 3/3")
	s.load(approve(t, s.f, "CHG-2", nil))
	s.f.modify(t, "/etc/nginx/e")
	// CHG-2 came within the grace of the three verdicts before: it closes them first.
	if s.step(); len(s.seen) != 4 || s.seen[3] != "etc CHG-2 exceeded 3/3" {
		t.Errorf("a second approval: %q", s.seen)
	}
	s.seen = nil
	s.f.mono += int64(time.Hour + 2*time.Second)
	s.f.modify(t, "/etc/nginx/f")
	s.want("ended", "CHG-1 expired 3/3", "CHG-2 expired 3/3", "etc verdict")
	if n := len(s.st.Approvals()); n != 0 {
		t.Errorf("%d approvals are left", n)
	}
}

// Time for validity is the newest wall time sealed: a clock that is set back
// brings no approval back, and none begins early.
func TestApprovalClock(t *testing.T) {
	s := newStory(t)
	s.load(approve(t, s.f, "CHG-1", func(a *approval.Statement) { a.NotBefore = approval.At(a.NotBefore.Add(time.Minute)) }))
	s.f.modify(t, "/etc/a")
	s.want("not begun", "etc verdict")
	s.f.mono += int64(time.Minute)
	s.f.modify(t, "/etc/a")
	s.want("begun", "etc CHG-1 used 1/3")
	tick := s.f.add(t, 0, record.OriginHost, record.ClassTick, &record.Event{})
	s.f.leaves[tick].Wall += int64(2 * time.Hour)
	s.f.modify(t, "/etc/a")
	s.want("the clock jumped ahead and back", "CHG-1 expired 1/3", "etc verdict")
}

func TestApprovalLate(t *testing.T) {
	s := newStory(t)
	at := s.f.modify(t, "/etc/nginx/a")
	s.f.modify(t, "/etc/passwd")
	s.want("nobody has approved", "etc verdict", "etc verdict")
	s.load(approve(t, s.f, "CHG-1", func(a *approval.Statement) { a.Scope.Condition = `under(file.path, "/etc/nginx")` }))
	s.want("late", fmt.Sprintf("etc CHG-1 late 1/3 closes %d", at+2))
	s.load(approve(t, s.f, "CHG-2", func(a *approval.Statement) { a.Policies = []string{"boot"} }))
	s.load(approve(t, s.f, "CHG-3", func(a *approval.Statement) { a.Group = "others" }))
	s.want("for another policy, of another group")
	s.f.mono += int64(10*time.Minute + time.Second)
	s.load(approve(t, s.f, "CHG-4", nil))
	s.want("too late")
}

// The verdict may be sealed behind the approval that closes it.
func TestApprovalLateRace(t *testing.T) {
	s := newStory(t)
	cause := s.f.modify(t, "/etc/a")
	s.load(approve(t, s.f, "CHG-1", nil))
	s.want("verdict behind the approval", "etc verdict", fmt.Sprintf("etc CHG-1 late 1/3 closes %d", cause+2))
}

func TestApprovalLateErased(t *testing.T) {
	s := newStory(t)
	s.f.modify(t, "/etc/a")
	s.want("nobody has approved", "etc verdict")
	s.restore() // nothing is in memory any more
	s.st.Recall = func(_ uint32, i uint64) (record.Leaf, record.Message, error) { return s.f.leaves[i], nil, nil }
	s.load(approve(t, s.f, "CHG-1", nil))
	i := len(s.f.leaves) - 1
	if v, err := s.e.Eval(s.st, s.f.leaves[i], s.f.hashes[i], s.f.payloads[i]); !errors.Is(err, ErrNoPayload) || len(v) != 0 {
		t.Errorf("%v %v", v, err)
	}
}

func TestApprovalRevoked(t *testing.T) {
	s := newStory(t)
	s.load(approve(t, s.f, "CHG-1", nil))
	r := &approval.Revocation{Type: approval.RevocationType, ID: "CHG-1", Host: "h", Group: "security-team", RevokedBy: "alice", Reason: "r",
		Issued: approval.At(feedWall), Nonce: strings.Repeat("0", 32)}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, origin := range []record.Origin{record.OriginGuest, record.OriginPolicy} {
		s.f.add(t, 0, origin, record.ClassApprovalRevoked, &record.Revocation{Statement: b})
	}
	s.f.modify(t, "/etc/a")
	s.want("nobody with authority has revoked it", "etc CHG-1 used 1/3")
	s.f.add(t, 0, record.OriginOperator, record.ClassApprovalRevoked, &record.Revocation{Statement: b})
	s.f.modify(t, "/etc/a")
	s.want("revoked", "etc verdict")
}

// TestApprovalNoEffect loads what must have none.
func TestApprovalNoEffect(t *testing.T) {
	s := newStory(t)
	a := approve(t, s.f, "CHG-1", nil)
	for _, origin := range []record.Origin{record.OriginGuest, record.OriginPolicy} {
		s.f.add(t, 0, origin, record.ClassApprovalLoaded, a)
	}
	s.f.modify(t, "/etc/a")
	s.want("without authority", "etc verdict")
	s.load(approve(t, s.f, "CHG-2", func(a *approval.Statement) { a.VMs = []string{strings.Replace(testUUID, "6", "7", 1)} }))
	s.load(&record.Approval{Statement: []byte("{}")})
	s.f.modify(t, "/etc/a")
	if s.step(); len(s.seen) != 3 || !strings.Contains(s.seen[0], "not for the VM") || !strings.Contains(s.seen[1], "read approval") || s.seen[2] != "etc verdict" {
		t.Errorf("%q", s.seen)
	}
	s = newStory(t)
	for i := range MaxApprovals {
		s.load(approve(t, s.f, fmt.Sprintf("CHG-%d", i), func(a *approval.Statement) { a.Nonce = fmt.Sprintf("%032x", i) }))
	}
	s.want("as many as may be")
	s.load(approve(t, s.f, "CHG-more", nil))
	s.load(approve(t, s.f, "CHG-0", nil))
	if s.step(); len(s.seen) != 2 || !strings.Contains(s.seen[0], "only 64") || !strings.Contains(s.seen[1], "loaded before") {
		t.Errorf("%q", s.seen)
	}
}

func TestApproversRefused(t *testing.T) {
	b := load(t, approvalPolicies)
	for want, groups := range map[string]map[string]int{"no approver_group": {}, "which has 1": {"security-team": 1}} {
		if _, err := New(b, Options{Approvers: groups}); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", groups, err)
		}
	}
	if _, err := New(b, Options{Approvers: map[string]int{"security-team": 2}}); err != nil {
		t.Error(err)
	}
}

// TestApprovalLateFromMemory needs nobody to read the log again, until what it is
// on was erased.
func TestApprovalLateFromMemory(t *testing.T) {
	s := newStory(t)
	s.whole, s.st.Recall = true, nil
	a, b := s.f.modify(t, "/etc/a"), s.f.modify(t, "/etc/b")
	s.want("nobody has approved", "etc verdict", "etc verdict")
	s.f.add(t, 0, record.OriginHost, record.ClassErased, &record.Erased{Ranges: []*record.EntryRange{{First: uint64(a), Last: uint64(a)}}, Records: 1})
	s.load(approve(t, s.f, "CHG-1", nil))
	s.want("one was erased", fmt.Sprintf("etc CHG-1 late 1/3 closes %d", b+2))
	s.f.modify(t, "/etc/c")
	s.f.modify(t, "/etc/d")
	s.f.modify(t, "/etc/e")
	s.want("used up", "etc CHG-1 used 2/3", "etc CHG-1 used 3/3", "etc CHG-1 exceeded 3/3")
	s.restore()
	s.st.Recall = nil
	s.load(approve(t, s.f, "CHG-2", nil))
	i := len(s.f.leaves) - 2 // the verdict is judged first
	for ; i < len(s.f.leaves); i++ {
		v, err := s.e.Eval(s.st, s.f.leaves[i], s.f.hashes[i], s.f.payloads[i])
		if last := i == len(s.f.leaves)-1; len(v) != 0 || errors.Is(err, ErrNoPayload) != last {
			t.Errorf("entry %d, which is not at hand: %v %v", i, v, err)
		}
	}
	// What waits is bounded, and so are the bytes of it.
	s = newStory(t)
	s.whole = true
	for range maxUnapproved + 3 {
		s.f.modify(t, "/etc/"+strings.Repeat("x", 8<<10))
	}
	s.step()
	if as := &s.st.approvals; len(as.late) != maxUnapproved || as.bytes > maxCauses+(16<<10) || as.bytes < maxCauses {
		t.Errorf("%d verdicts wait with %d bytes", len(as.late), as.bytes)
	}
	s.f.mono += int64(time.Hour)
	s.f.add(t, 0, record.OriginHost, record.ClassTick, &record.Event{})
	if s.step(); len(s.st.approvals.late) != 0 || s.st.approvals.bytes != 0 {
		t.Errorf("%d verdicts still wait with %d bytes", len(s.st.approvals.late), s.st.approvals.bytes)
	}
}

// TestApprovalBeforeMemory: what is approved takes no part in thresholds, sequences
// and cooldowns.
func TestApprovalBeforeMemory(t *testing.T) {
	s := storyOf(t, `
policy "etc" {
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  approval {
    group = "security-team"
  }
  threshold {
    count  = 2
    window = "1h"
  }
  cooldown {
    period = "1h"
  }
}
policy "boot" {
  sequence {
    within = "1h"
    step "first" {
      on        = ["file.modify"]
      condition = file.path == "/boot/a"
    }
    step "second" {
      on        = ["file.modify"]
      condition = file.path == "/boot/b"
    }
  }
  approval {
    group = "security-team"
  }
}
`)
	s.load(approve(t, s.f, "CHG-1", func(a *approval.Statement) {
		a.Scope.Condition = `file.path == "/etc/a" || file.path == "/boot/b"`
	}))
	s.f.modify(t, "/etc/a")
	s.f.modify(t, "/etc/a")
	s.f.modify(t, "/etc/b")
	s.want("what is approved does not count", "etc CHG-1 used 1/3", "etc CHG-1 used 2/3")
	s.f.modify(t, "/etc/c")
	s.want("two that nobody has approved", "etc verdict")
	s.f.modify(t, "/boot/a")
	s.f.modify(t, "/boot/b")
	s.want("the end of a sequence", "boot CHG-1 used 3/3")
	s.f.modify(t, "/boot/a")
	s.f.modify(t, "/boot/b")
	s.want("used up", "boot CHG-1 exceeded 3/3")
}
