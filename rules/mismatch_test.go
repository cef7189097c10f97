package rules

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

// What the index leaves out and a condition would have said otherwise is a
// finding of its own, which alerts once in a while.
func TestMismatch(t *testing.T) {
	e := engine(t, load(t, `policy "etc" {
  mode      = "audit"
  on        = ["file.modify"]
  condition = under(file.path, "/etc")
  action "pause" {}
}
policy "tmp" {
  on        = ["file.modify"]
  condition = under(file.path, "/tmp")
  action "pause" {}
}`), Options{})
	e.sample = 1
	modify := func(f *feed, after time.Duration) {
		f.add(t, after, record.OriginGuest, record.ClassFileModify, &record.Event{File: file("/etc/passwd")})
	}
	f, st := &feed{}, &State{}
	modify(f, 0)
	if got := names(run(t, e, st, f)); got != "etc?" {
		t.Fatalf("verdicts %q of an engine in order", got)
	}

	// An index that files each policy under what the other asks for.
	swapped := []part{e.parts[0], e.parts[1]}
	swapped[0].condition, swapped[1].condition = swapped[1].condition, swapped[0].condition
	e.index = newIndex(swapped)
	modify(f, time.Second)
	got := run(t, e, st, f)
	if len(got) != 1 || got[0].Policy != "etc" || ClassOf(got[0]) != record.ClassPolicyMismatch {
		t.Fatalf("verdicts %v", got)
	}
	v := got[0]
	if v.Severity != "critical" || v.WouldHave || len(v.Actions) != 1 || v.Actions[0].Kind != "alert" {
		t.Errorf("finding %v", v)
	}
	if !strings.Contains(v.Error, "the index left it out, and it is true") || strings.Contains(v.Error, "/etc/passwd") {
		t.Errorf("error %q must say what differs and no value", v.Error)
	}
	for range 10 {
		modify(f, time.Second)
	}
	if got := run(t, e, st, f); len(got) != 0 {
		t.Errorf("findings repeat: %q", names(got))
	}
	modify(f, time.Hour)
	if got := run(t, e, st, f); len(got) == 0 || !got[0].Mismatch || got[0].Suppressed != 10 {
		t.Errorf("after an hour %v", got)
	}
}

// Which entries are judged twice depends on the hash of the leaf alone.
func TestSample(t *testing.T) {
	e := engine(t, load(t, mixed(100)), Options{})
	leaf := &record.Leaf{Header: record.Header{Class: record.ClassFileModify}}
	every := uint64(sampleBase + samplePart*len(e.index.Judges(record.ClassFileModify)))
	for _, tc := range []struct {
		head uint64
		want bool
	}{{0, true}, {1, false}, {every, true}, {every + 1, false}, {every * 1_000_003, true}} {
		j := judgement{engine: e, leaf: leaf}
		binary.BigEndian.PutUint64(j.hash[:8], tc.head)
		if j.twice() != tc.want {
			t.Errorf("hash %x: twice is %v", tc.head, !tc.want)
		}
	}
}
