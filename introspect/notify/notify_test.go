package notify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// TestDelivers holds that an alert reaches each of its channels, and that what
// became of it is sealed beside its verdict.
func TestDelivers(t *testing.T) {
	h := newHost(t)
	ops, pager := &receiver{}, &receiver{}
	n := h.open(h.config(Channel{Name: "ops", Type: "x", Sender: ops}, Channel{Name: "pager", Type: "y", Sender: pager}))
	stop := h.start(n)
	defer stop()
	first := h.alert(n, h.web, "one")
	h.alert(n, h.web, "two", "pager", "log", "pager")
	got := h.results(3)
	stop()
	if !slices.Equal(ops.messages(), []string{"one"}) || !slices.Equal(pager.messages(), []string{"one", "two"}) {
		t.Errorf("ops has %q, pager %q", ops.messages(), pager.messages())
	}
	for _, r := range got {
		if r.class != record.ClassPolicyAlertDelivered || r.log != h.web.Origin() || r.Origin != "" || r.Detail != "taken" || r.Error != "" || r.ActionIndex != 1 || len(r.VerdictHash) != 32 || r.Attempts != 1 {
			t.Errorf("sealed in %s: %v", r.log, r.AlertResult)
		}
	}
	a := ops.got[0]
	if a.ID != fmt.Sprintf("%s/%d/1", h.web.Origin(), first) || a.Policy != "p" || a.DomainUUID != webUUID || a.DomainName != "vm-1" || a.Verdict != first || a.Time.IsZero() {
		t.Errorf("the alert is %+v", a)
	}
	if h.rows() != 0 {
		t.Errorf("%d rows are left", h.rows())
	}
	if s := n.Status(); s[0].Delivered != 1 || s[1].Delivered != 2 || s[0].Waiting != 0 || s[0].Problem != "" || s[0].Last.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// TestSurvivesTheDaemon ends a daemon between the outcome and the delivery, and
// another one between the delivery and what is sealed about it.
func TestSurvivesTheDaemon(t *testing.T) {
	h := newHost(t)
	n := h.open(h.config(Channel{Name: "ops", Sender: &receiver{}}))
	h.alert(n, h.web, "one") // nobody runs: the daemon is killed here
	h.alert(n, h.db, "two")
	h.restart()
	slow := &receiver{gate: make(chan struct{})}
	n = h.open(h.config(Channel{Name: "ops", Sender: slow, Concurrency: 2}))
	if s := n.Status(); s[0].Waiting != 2 || s[0].Oldest.IsZero() {
		t.Fatalf("after the restart %+v", s)
	}
	stop := h.start(n)
	slow.await(t, 2) // it has both, and has not answered
	stop()
	if got := h.results(0); len(got) != 0 || h.rows() != 2 {
		t.Fatalf("sealed %v, %d rows", got, h.rows())
	}
	h.restart()
	last := &receiver{}
	n = h.open(h.config(Channel{Name: "ops", Sender: last}))
	defer h.start(n)()
	h.alert(n, h.web, "three")
	h.results(3)
	want := []string{"one", "three", "two"}
	if got := slices.Sorted(slices.Values(last.messages())); !slices.Equal(got, want) {
		t.Errorf("delivered after the restart: %q, want %q", got, want)
	}
	same := map[string]bool{slow.got[0].ID: true, slow.got[1].ID: true}
	for _, a := range last.got {
		if a.Message != "three" && !same[a.ID] {
			t.Errorf("%q comes again with another id, %s", a.Message, a.ID)
		}
	}
}

// TestTriesAgain holds that failures that may pass are tried again in order,
// that what no other try would help is given up at once, and that both are told
// truthfully.
func TestTriesAgain(t *testing.T) {
	h := newHost(t)
	r := &receiver{answers: []error{errors.New("down"), &Failure{What: "busy", After: time.Millisecond}, nil, &Failure{What: "no such alert", Said: "secret words", Final: true}}}
	n := h.open(h.config(Channel{Name: "ops", Sender: r}))
	defer h.start(n)()
	h.alert(n, h.web, "one")
	h.alert(n, h.web, "two")
	h.alert(n, h.web, "three")
	got := h.results(3)
	if want := []string{"one", "one", "one", "two", "three"}; !slices.Equal(r.messages(), want) {
		t.Errorf("sent %q, want %q", r.messages(), want)
	}
	if got[0].class != record.ClassPolicyAlertDelivered || got[0].Attempts != 3 {
		t.Errorf("the first: %v", got[0])
	}
	if got[1].class != record.ClassPolicyAlertFailed || got[1].Error != "no such alert" || got[1].Attempts != 1 || strings.Contains(got[1].String(), "secret") {
		t.Errorf("the second: %v", got[1])
	}
	if got[2].class != record.ClassPolicyAlertDelivered {
		t.Errorf("the third: %v", got[2])
	}
}

// TestGivesUp holds that an alert is tried at least once and not for ever.
func TestGivesUp(t *testing.T) {
	h := newHost(t)
	r := &receiver{answers: []error{errors.New("down"), errors.New("still down")}}
	n := h.open(h.config(Channel{Name: "ops", Sender: r, GiveUp: time.Hour}))
	h.alert(n, h.web, "one")
	h.alert(n, h.web, "two")
	h.restart()
	h.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	n = h.open(h.config(Channel{Name: "ops", Sender: r, GiveUp: time.Hour}))
	defer h.start(n)()
	got := h.results(2)
	if got[0].class != record.ClassPolicyAlertFailed || got[0].Error != "down" || got[1].Error != "still down" || n.Status()[0].GivenUp != 2 {
		t.Errorf("sealed %v, status %+v", got, n.Status())
	}
	h.alert(n, h.web, "three")
	if got = h.results(3); got[2].class != record.ClassPolicyAlertDelivered {
		t.Errorf("the one after: %v", got[2])
	}
}

// TestOneDelaysNoOther: a channel that hangs delays no other, and a domain whose
// alert is not taken delays no other domain.
func TestOneDelaysNoOther(t *testing.T) {
	h := newHost(t)
	hang, fine := &receiver{gate: make(chan struct{})}, &receiver{answers: []error{errors.New("not this one")}}
	cfg := h.config(Channel{Name: "hang", Sender: hang, Timeout: time.Hour}, Channel{Name: "fine", Sender: fine})
	cfg.first, cfg.most = time.Hour, time.Hour
	n := h.open(cfg)
	defer h.start(n)()
	h.alert(n, h.web, "poison")
	fine.await(t, 1) // it is tried again in an hour
	for i := range 20 {
		h.alert(n, h.db, fmt.Sprint(i))
	}
	got := h.results(20)
	for i, r := range got {
		if r.Channel != "fine" || r.log != h.db.Origin() || fine.messages()[i+1] != fmt.Sprint(i) {
			t.Errorf("result %d: %v in %s; sent %q", i, r.AlertResult, r.log, fine.messages())
		}
	}
	if s := n.Status(); s[0].Waiting != 21 || s[1].Waiting != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestBounds holds that one domain gets its share of a queue and no more, that
// the queue itself is bounded, and that who hands an alert on is told.
func TestBounds(t *testing.T) {
	h := newHost(t)
	cfg := h.config(Channel{Name: "ops", Sender: &receiver{}}, Channel{Name: "pager", Sender: &receiver{}})
	cfg.perChannel, cfg.each = 3, 2
	n := h.open(cfg)
	for range 2 {
		h.alert(n, h.web, "x", "ops")
	}
	if _, err := h.tryAlert(n, h.web, "x", "ops", "pager"); err == nil || !strings.Contains(err.Error(), `channel "ops": 2 alerts of the domain`) || strings.Contains(err.Error(), "pager") {
		t.Errorf("a third of one domain: %v", err)
	}
	h.alert(n, h.db, "x", "ops")
	if _, err := h.tryAlert(n, h.db, "x", "ops"); err == nil || !strings.Contains(err.Error(), "3 alerts wait there") {
		t.Errorf("a fourth of all: %v", err)
	}
	if _, err := h.tryAlert(n, h.db, "x", "nobody"); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("a channel that is not there: %v", err)
	}
	// What is on its way to the disk counts too.
	a, err := n.Hand(h.db, 1, 0, []string{"pager"})
	b, err2 := n.Hand(h.db, 1, 0, []string{"pager"})
	if _, err3 := n.Hand(h.db, 1, 0, []string{"pager"}); err != nil || err2 != nil || err3 == nil {
		t.Errorf("two and a third that are not durable yet: %v, %v, %v", err, err2, err3)
	}
	a.Durable()
	b.Durable()
	if s := n.Status(); s[0].Waiting != 3 || s[0].Refused != 2 || s[1].Waiting != 3 || s[1].Refused != 1 || h.rows() != 4 {
		t.Errorf("status %+v, %d rows", s, h.rows())
	}
}

// TestWhatCannotBeTold: a channel that is gone and a verdict that was erased end
// in a sealed failure, and a log that is closed still takes the result.
func TestWhatCannotBeTold(t *testing.T) {
	h := newHost(t)
	n := h.open(h.config(Channel{Name: "ops", Sender: &receiver{}}, Channel{Name: "old", Sender: &receiver{}}))
	h.alert(n, h.web, "for a channel that goes", "old")
	h.alert(n, h.web, "in a log that is closed", "ops")
	e, err := h.store.Draft(record.OriginHost, record.ClassVMStart, &record.Event{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.store.Append(t.Context(), chain.Batch{Log: h.db, Entries: []chain.Entry{e}})
	if err != nil {
		t.Fatal(err)
	}
	handed, err := n.Hand(h.db, s.First, 0, []string{"ops"}) // it is no verdict: what has become unreadable looks the same
	if err != nil {
		t.Fatal(err)
	}
	h.seal(h.db, record.ClassPolicyOutcome, &record.Outcome{}, handed.Rows)
	if err := h.store.CloseLog(t.Context(), h.web, "undefined", ""); err != nil {
		t.Fatal(err)
	}
	h.restart()
	r := &receiver{}
	defer h.start(h.open(h.config(Channel{Name: "ops", Sender: r})))()
	byChannel := map[string]result{}
	for _, r := range h.results(3) {
		byChannel[r.Channel+" "+r.log] = r
	}
	if got := byChannel["old "+h.web.Origin()]; got.class != record.ClassPolicyAlertFailed || !strings.Contains(got.Error, "no such channel") {
		t.Errorf("of a channel that is gone: %v", got)
	}
	if got := byChannel["ops "+h.web.Origin()]; got.class != record.ClassPolicyAlertDelivered {
		t.Errorf("in a closed log: %v", got)
	}
	if got := byChannel["ops "+h.db.Origin()]; got.class != record.ClassPolicyAlertFailed || !strings.Contains(got.Error, "cannot be told") {
		t.Errorf("without a verdict: %v", got)
	}
	if !slices.Equal(r.messages(), []string{"in a log that is closed"}) || h.rows() != 0 {
		t.Errorf("sent %q, %d rows are left", r.messages(), h.rows())
	}
}

// TestWords holds that nothing a guest writes ends a line, drives a terminal or
// grows without bound.
func TestWords(t *testing.T) {
	h := newHost(t)
	r := &receiver{}
	n := h.open(h.config(Channel{Name: "ops", Sender: r}))
	defer h.start(n)()
	h.alert(n, h.web, "a\nb\x1b[2J\u202e\xff\x00\"]\\"+strings.Repeat("ü", 10000))
	h.results(1)
	got := r.messages()[0]
	if !strings.HasPrefix(got, `a\nb\x1b[2J\u202e\xff\x00"]\ü`) || !strings.HasSuffix(got, "ü...") || len(got) > maxMessage+100 {
		t.Errorf("%d bytes: %.60q ... %q", len(got), got, got[len(got)-8:])
	}
}

// TestRows holds the format of the rows.
func TestRows(t *testing.T) {
	q := queued{seq: 0x0102, log: 7, index: 0x0304, action: 5, at: time.Unix(1, 2)}
	key, row := rowKey("ops", q.seq), q.row()
	if key != "alert/ops/\x00\x00\x00\x00\x00\x00\x01\x02" || fmt.Sprintf("%x", row) != "01"+"00000007"+"0000000000000304"+"00000005"+"000000003b9aca02" {
		t.Errorf("row %q: %x", key, row)
	}
	name, got, err := parseRow(key, row)
	if err != nil || name != "ops" || got != q {
		t.Errorf("parsed as %s %+v: %v", name, got, err)
	}
	for _, bad := range []struct {
		key string
		row []byte
	}{{key, nil}, {key, row[:24]}, {key, append([]byte{2}, row[1:]...)}, {"alert/ops", row}, {key[:len(key)-1], row}} {
		if _, _, err := parseRow(bad.key, bad.row); !errors.Is(err, record.ErrReject) {
			t.Errorf("row %q %x is taken: %v", bad.key, bad.row, err)
		}
	}
}

// TestTurns holds the order of deliveries: that of the alerts in a domain, and
// turns between domains.
func TestTurns(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	s := lanes{byDomain: map[string]*lane{}}
	for i := range 3 {
		s.push("a", queued{seq: uint64(i), at: at(i)})
	}
	s.push("b", queued{seq: 10, at: at(1)})
	var order []uint64
	take := func(now int) *lane {
		l, _ := s.take(at(now))
		if l == nil {
			t.Fatalf("nothing to take, behind %v", order)
		}
		order = append(order, l.waiting[0].seq)
		return l
	}
	a := take(0)
	b := take(0) // a is busy
	if l, soonest := s.take(at(0)); l != nil || !soonest.IsZero() {
		t.Errorf("a third lane is taken: %v", l)
	}
	a.again(at(5))
	if l, soonest := s.take(at(1)); l != nil || soonest != at(5) {
		t.Errorf("a lane is taken before its time, or it is said to be %v", soonest)
	}
	s.done(b)
	s.done(take(5))
	s.not = at(9)
	if l, soonest := s.take(at(6)); l != nil || soonest != at(9) {
		t.Errorf("a lane is taken although the receiver wants to be left alone: %v", soonest)
	}
	s.done(take(9))
	s.done(take(9))
	if want := []uint64{0, 10, 0, 1, 2}; !slices.Equal(order, want) || s.size != 0 || len(s.turns) != 0 {
		t.Errorf("order %v, want %v; %d are left", order, want, s.size)
	}
}

// TestBackoff holds that pauses grow, to a bound, and are never none.
func TestBackoff(t *testing.T) {
	n := &Notifier{cfg: Config{first: time.Second, most: time.Minute}}
	for _, c := range []struct {
		tries  int
		lo, hi time.Duration
	}{{1, time.Second / 2, time.Second}, {3, 2 * time.Second, 4 * time.Second}, {12, 30 * time.Second, time.Minute}, {1 << 20, 30 * time.Second, time.Minute}} {
		for range 100 {
			if d := n.backoff(c.tries); d < c.lo || d > c.hi {
				t.Fatalf("pause %s behind %d tries, want %s to %s", d, c.tries, c.lo, c.hi)
			}
		}
	}
}
