package replay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
)

// TestTrial holds new and lost matches, actions by the hour, what is counted from when,
// and that both sides remember what came ahead.
func TestTrial(t *testing.T) {
	active := bundle(t, head+etc+cooled)
	candidate := bundle(t, head+strings.Replace(etc, "\"/etc\"", "\"/tmp\"", 1)+cooled+strings.Replace(etc, "\"etc\"", "\"fresh\"", 1))
	p := newTape(t, active)
	p.modify("/etc/ahead") // of both; its cooldown reaches behind the beginning
	begin := uint64(len(p.leaves))
	p.modify("/etc/a")
	p.modify("/tmp/b")
	p.ticks(100)
	p.modify("/etc/c")
	p.leaves[3].Header.Class = record.ClassFileModify // the verdict on the first: its payload is lost
	p.payload[3] = nil
	tr := NewTrial(p.of(candidate), p.of(active), time.Unix(0, int64(begin)*int64(time.Second)), nil)
	if w := tr.Window(); w != 5*time.Minute {
		t.Errorf("the window is %s", w)
	}
	tr.Begin(origin, "uuid", "web")
	for i := range p.leaves {
		var m record.Message
		if p.payload[i] != nil {
			var err error
			if m, err = record.Decode(p.leaves[i].Header.Class, p.payload[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := tr.Entry(p.leaves[i], p.hashes[i], m); err != nil {
			t.Fatal(err)
		}
	}
	r := tr.Report()
	got := ""
	for _, c := range r.Policies {
		got += fmt.Sprintf("%s %v %v %d %d %d %d; ", c.Name, c.Candidate, c.Active, c.Matches, c.Was, c.New, c.Lost)
	}
	if want := "cooled true true 1 1 0 0; etc true true 1 2 1 2; fresh true false 2 0 2 0; "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r.Wanted != 4 || len(r.Actions) != 1 || r.Actions[0].Peak != 4 || r.Ahead != begin || r.Entries+r.Ahead != uint64(len(p.leaves)) {
		t.Errorf("%+v", r)
	}
	if len(r.Noisy) == 0 || r.Noisy[0].Name != "web" || !strings.HasPrefix(r.Noisy[0].Subject, "/") {
		t.Errorf("%+v", r.Noisy)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "+ fresh") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// TestFrequent holds the bound, and that what is frequent survives it.
func TestFrequent(t *testing.T) {
	f := newFrequent(8)
	for i := range 10_000 {
		f.add(fmt.Sprint("rare", i))
		if i%3 == 0 {
			f.add("often")
		}
	}
	top := f.top(1)
	if len(f.keys) != 8 || top[0].key != "often" || top[0].count-top[0].error > 3334 || top[0].count < 3334 {
		t.Errorf("%d keys, %+v", len(f.keys), top[0])
	}
}
