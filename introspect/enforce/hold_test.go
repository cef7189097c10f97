package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// holdsOf names what holds the domain of a host.
func holdsOf(h *host) string {
	var all []string
	for _, n := range h.e.Holds(h.id) {
		all = append(all, n.Action)
	}
	return strings.Join(all, " ")
}

// TestPauseForAWhile resumes what Provost paused when its time is over, once the last
// verdict lets go, and also where the daemon was away at that moment.
func TestPauseForAWhile(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	h.verdict("pause resume_after=1")
	h.verdict("pause resume_after=2")
	h.outcomes(2)
	first := sealed[*record.Held](h, record.ClassPolicyReleased, 1)[0]
	if s, _, _ := a.state3(); s != domain.Paused || !strings.Contains(first.Detail, "another verdict") || first.Cause != "its time is over" {
		t.Errorf("behind the first: %s, %v", s, first)
	}
	stop()
	h.restart()
	stop = h.enforce(a, nil)
	defer stop()
	if all := sealed[*record.Held](h, record.ClassPolicyReleased, 2); all[1].StateAfter != "running (user)" {
		t.Errorf("behind the second: %v", all[1])
	}
	if s, _, _ := a.state3(); s != domain.Running || a.resumes != 1 || holdsOf(h) != "" {
		t.Errorf("%s, %d resumes, held by %q", s, a.resumes, holdsOf(h))
	}
}

// TestOwnersPause is never ended by us: neither one that was there before, nor one that
// came behind the end of ours.
func TestOwnersPause(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Paused}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("pause resume_after=1")
	if o := h.outcomes(1)[0]; o.Result != resultAlready || !strings.Contains(o.Detail, "before Provost came") {
		t.Errorf("outcome %v", o)
	}
	if r := sealed[*record.Held](h, record.ClassPolicyReleased, 1)[0]; !strings.Contains(r.Detail, "may resume it") {
		t.Errorf("release %v", r)
	}
	_, _, _ = a.Resume(t.Context(), h.id) // the owner
	h.verdict("pause resume_after=3600")
	h.outcomes(2)
	_, _, _ = a.Resume(t.Context(), h.id)
	_, _, _ = a.Pause(t.Context(), h.id)
	h.event(record.ClassVMResume, &record.Event{Vm: &record.VM{Arrived: time.Now().UnixNano()}})
	if r := sealed[*record.Held](h, record.ClassPolicyReleased, 2)[1]; !strings.Contains(r.Cause, "paused it again") {
		t.Errorf("release %v", r)
	}
	if s, _, _ := a.state3(); s != domain.Paused || a.resumes != 2 {
		t.Errorf("%s after %d resumes, of which 2 are the owner's", s, a.resumes)
	}
}

// event seals an entry of the host.
func (h *host) event(c record.Class, m record.Message) {
	h.t.Helper()
	e, err := h.store.Draft(record.OriginHost, c, m)
	if err == nil {
		_, err = h.store.Append(h.t.Context(), chain.Batch{Log: h.log, Entries: []chain.Entry{e}})
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestMerge does an action once for the verdicts that waited for it.
func TestMerge(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running, gate: make(chan struct{})}
	first := h.verdict("pause resume_after=3600")
	h.verdict("pause resume_after=3600")
	h.verdict("pause resume_after=3600")
	other := h.verdict("pause")
	close(a.gate)
	stop := h.enforce(a, nil)
	defer stop()
	all := h.outcomes(4)
	// The first begins when the others may not have been read yet; those which are
	// were sealed before, so whatever of them began last covers what it found waiting.
	for i, o := range all {
		switch {
		case o.VerdictIndex == first && o.Result != resultDone, o.Result == resultMerged && (o.OtherIndex < first || o.OtherIndex >= o.VerdictIndex), o.VerdictIndex == other && o.Result != resultAlready:
			t.Errorf("outcome %d: %v", i, o)
		}
	}
	h.waitFor("held by each", func() bool { return len(h.e.Holds(h.id)) >= 4 }) // behind its outcome
	if len(h.e.Holds(h.id)) != 4 {
		t.Errorf("%d holds, want one for each verdict", len(h.e.Holds(h.id)))
	}
	// Deterministically: what was read before an equal action began.
	e := h.e
	d := e.dom(h.id)
	if err := d.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.leave()
	j := &job{log: h.log, index: 99, id: h.id, verdict: &record.Verdict{Policy: "q"}, seq: 3}
	x := &attempt{e: e, d: d, j: j, o: &record.Outcome{}, held: d.held.clone()}
	d.last["k"] = lately{seq: 2, log: h.log, verdict: first, outcome: all[0]}
	if x.merge("k") {
		t.Error("a verdict that was sealed behind the beginning of an action is merged into it")
	}
	d.last["k"] = lately{seq: 3, log: h.log, verdict: first, outcome: all[0]}
	if !x.merge("k") || x.o.Result != resultMerged || x.o.OtherIndex != first || len(x.held.Holds) != 5 || x.held.Holds[4].Policy != "q" {
		t.Errorf("merged: %v, %+v", x.o, x.held)
	}
}

// TestNetwork cuts interfaces off and gives each back what it had, behind the end of the
// last verdict that wants it cut.
func TestNetwork(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running, links: twoLinks()}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("detach_network interfaces=vnet0")
	h.verdict("quarantine")
	h.verdict("detach_network interfaces=eth7")
	all := h.outcomes(3)
	if o := all[0]; o.Result != resultDone || o.StateBefore != "1 of 1 interfaces reach the network" || o.StateAfter != "0 of 1 interfaces reach the network" {
		t.Errorf("outcome %v", o)
	}
	if o := all[1]; o.Result != resultDone || len(o.Links) != 2 || !strings.Contains(o.Detail, "no packet filter") {
		t.Errorf("outcome %v", o)
	}
	if o := all[2]; o.Result != resultFailed || !strings.Contains(o.Error, `no interface "eth7"`) {
		t.Errorf("outcome %v", o)
	}
	if _, links, mark := a.state3(); linkStates(links) != "1down 2down" || !strings.Contains(mark, `policy="p"`) {
		t.Errorf("links %s, mark %q", linkStates(links), mark)
	}
	acting := sealed[*record.Held](h, record.ClassPolicyActing, 2)
	if l := acting[0].Links; len(l) != 1 || l[0].Live != virt.LinkUp || string(l[0].LiveXml) != "<interface/>" {
		t.Errorf("what was is sealed as %v", acting[0])
	}
	if l := acting[1].Links; len(l) != 1 || l[0].Key != "52:54:00:00:00:02" {
		t.Errorf("of what is saved already another saving is sealed: %v", acting[1])
	}
	if _, err := h.e.Release(t.Context(), h.id, Release{Action: HoldQuarantine}); !errors.Is(err, record.ErrReject) {
		t.Errorf("a release without a reason: %v", err)
	}
	r, err := h.e.Release(t.Context(), h.id, Release{Action: HoldQuarantine, Requester: "me", Reason: "seen to"})
	if err != nil || len(r.Holds) != 1 {
		t.Fatalf("release %+v %v", r, err)
	}
	if _, links, mark := a.state3(); linkStates(links) != "1down 2down" || mark != "" {
		t.Errorf("behind the quarantine: links %s, mark %q; one is cut off still, the other was down before", linkStates(links), mark)
	}
	if _, err := h.e.Release(t.Context(), h.id, Release{Requester: "me", Reason: "seen to"}); err != nil {
		t.Fatal(err)
	}
	if _, links, _ := a.state3(); linkStates(links) != "1up 2down" || holdsOf(h) != "" {
		t.Errorf("in the end: links %s, held by %q", linkStates(links), holdsOf(h))
	}
	if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "x"}); err == nil || !strings.Contains(err.Error(), "nothing of Provost holds it") {
		t.Errorf("a release of nothing: %v", err)
	}
	if all := sealed[*record.Held](h, record.ClassPolicyReleased, 2); all[0].Requester != "me" || all[0].Reason != "seen to" || all[0].Cause != "operator" {
		t.Errorf("sealed as %v", all[0])
	}
}

// TestKilledAtEachStep ends the enforcer right behind each change that a quarantine makes:
// the next run does what is missing, and a release brings back what was there at first.
func TestKilledAtEachStep(t *testing.T) {
	for _, call := range []string{"down", "mark", "pause"} {
		t.Run(call, func(t *testing.T) {
			h := newHost(t)
			a := &actor{state: domain.Running, links: twoLinks()}
			reached := make(chan struct{})
			a.after = func(c string) {
				if c == call {
					a.mu.Lock()
					a.after, a.fail = nil, map[string]error{call: context.Canceled} // and what it answers is lost
					a.mu.Unlock()
					close(reached)
				}
			}
			h.verdict("quarantine pause=true")
			stop := h.enforce(a, nil)
			<-reached
			a.mu.Lock()
			a.after = nil
			a.mu.Unlock()
			stop()
			a.mu.Lock()
			a.fail = nil
			a.mu.Unlock()
			h.restart()
			stop = h.enforce(a, nil)
			defer stop()
			o := h.outcomes(1)[0]
			if o.Result != resultDone && o.Result != resultFailed {
				t.Errorf("outcome %v", o)
			}
			h.waitFor("quarantined", func() bool {
				s, links, mark := a.state3()
				return s == domain.Paused && linkStates(links) == "1down 2down" && mark != ""
			})
			if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "seen to"}); err != nil {
				t.Fatal(err)
			}
			if _, links, mark := a.state3(); linkStates(links) != "1up 2down" || mark != "" {
				t.Errorf("behind the release: links %s, mark %q", linkStates(links), mark)
			}
		})
	}
}

// waitFor looks again and again, with the entries as its clock.
func (h *host) waitFor(what string, ok func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("it is never %s", what)
		}
	}
}

// TestAgain undoes a quarantine in each way: it is done again, and sealed each time, also
// for an interface that is plugged in, and by another host that the domain migrates to.
func TestAgain(t *testing.T) {
	h := newHost(t)
	h.opts.Sweep = 20 * time.Millisecond
	a := &actor{state: domain.Running, links: twoLinks()}
	stop := h.enforce(a, nil)
	h.verdict("quarantine pause=true")
	h.outcomes(1)
	undo := map[string]func(){
		"links were up":     func() { a.links[0].LiveLink = virt.LinkUp },
		"its mark was gone": func() { a.mark = "" },
		"it ran":            func() { a.state = domain.Running },
		"new": func() {
			a.links = append(a.links, virt.Interface{Key: "52:54:00:00:00:03", LiveLink: virt.LinkUp, Live: "<interface/>"})
		},
	}
	n := 0
	for _, what := range []string{"links were up", "its mark was gone", "it ran", "new"} {
		a.mu.Lock()
		undo[what]()
		a.mu.Unlock()
		n++
		got := sealed[*record.Held](h, record.ClassPolicyReapplied, n)[n-1]
		if what != "new" && !strings.Contains(got.Cause, what) || got.Error != "" {
			t.Errorf("%s: sealed as %v", what, got)
		}
	}
	if s, links, mark := a.state3(); s != domain.Paused || linkStates(links) != "1down 2down 3down" || mark == "" {
		t.Errorf("%s, links %s, mark %q", s, linkStates(links), mark)
	}
	stop()

	// The domain arrives on a host that knows nothing of it but its mark.
	other := newHost(t)
	other.opts.Sweep = 20 * time.Millisecond
	stop = other.enforce(a, nil)
	defer stop()
	got := sealed[*record.Held](other, record.ClassPolicyReapplied, 1)[0]
	if !strings.Contains(got.Cause, "came with the mark") || len(got.Holds) != 1 || got.Holds[0].Policy != "p" {
		t.Errorf("sealed as %v", got)
	}
	if _, err := other.e.Release(t.Context(), other.id, Release{Reason: "seen to there"}); err != nil {
		t.Fatal(err)
	}
	if s, links, mark := a.state3(); s != domain.Running || !strings.Contains(linkStates(links), "1") || mark != "" {
		t.Errorf("released there: %s, links %s, mark %q", s, linkStates(links), mark)
	}
}

// TestSecondPerson is asked where the policy wants one.
func TestSecondPerson(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running, links: twoLinks()}
	h.opts.Second = func(_ domain.UUID, holds []Hold, statement []byte, _ [][]byte) (*Agreed, error) {
		if string(statement) != "agreed" || len(holds) != 1 {
			return nil, errors.New("nobody has signed")
		}
		return &Agreed{Statement: statement, Signers: []string{"bob"}}, nil
	}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("quarantine release=two-person")
	h.outcomes(1)
	if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "x"}); err == nil || !strings.Contains(err.Error(), "nobody has signed") {
		t.Errorf("alone: %v", err)
	}
	if r, err := h.e.Release(t.Context(), h.id, Release{DryRun: true}); err != nil || len(r.Holds) != 1 || holdsOf(h) != "quarantine" {
		t.Errorf("dry run: %+v %v", r, err)
	}
	if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "x", Statement: []byte("agreed")}); err != nil {
		t.Error(err)
	}
	if r := sealed[*record.Held](h, record.ClassPolicyReleased, 1)[0]; string(r.Statement) != "agreed" || r.Signers[0] != "bob" {
		t.Errorf("sealed as %v", r)
	}
}

// TestHostLimit counts the verdicts of a policy over domains and restarts.
func TestHostLimit(t *testing.T) {
	h := newHost(t)
	now := time.Now()
	h.opts.Now = func() time.Time { return now }
	h.opts.Limit = func(*record.Verdict) (*Limit, error) { return &Limit{Max: 2, Per: time.Hour}, nil }
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	h.verdict("pause")
	h.verdict("pause resume_after=9")
	h.outcomes(2)
	stop()
	h.restart()
	stop = h.enforce(a, nil)
	h.verdict("pause", "alert")
	var skipped, alerted bool
	for _, o := range h.outcomes(4)[2:] {
		skipped = skipped || o.Kind == "pause" && o.Result == resultSkipped && strings.Contains(o.Detail, "2 times on this host within 1h0m0s")
		alerted = alerted || o.Kind == "alert" && o.Result == resultDone
	}
	if !skipped || !alerted || a.pauses != 2 {
		t.Errorf("skipped %v, alerted %v, %d pauses", skipped, alerted, a.pauses)
	}
	stop()
	now = now.Add(time.Hour + time.Second)
	stop = h.enforce(a, nil)
	defer stop()
	h.verdict("pause")
	if o := h.outcomes(5)[4]; o.Result == resultSkipped {
		t.Errorf("an hour later: %v", o)
	}
}

// TestCeilings bound what all policies do together.
func TestCeilings(t *testing.T) {
	h := newHost(t)
	h.opts.ActionsPerMinute = 2
	a := &actor{state: domain.Running, links: twoLinks()}
	stop := h.enforce(a, nil)
	h.verdict("pause", "snapshot")
	h.verdict("quarantine")
	var o *record.Outcome
	for _, one := range h.outcomes(3) {
		if one.Kind == "quarantine" {
			o = one
		}
	}
	if o.Result != resultSkipped || !strings.Contains(o.Detail, "actions_per_minute is 2") {
		t.Errorf("outcome %v", o)
	}
	stop()
	l := h.e.limits
	l.cfg.ActionsPerMinute, l.cfg.MaxHeld = 0, 50
	l.cfg.Running = func() []domain.UUID { return make([]domain.UUID, 4) }
	var refused []bool
	for i := range 4 {
		j := &job{id: domain.UUID{byte(i + 1)}, log: h.log, index: uint64(1000 + i), verdict: &record.Verdict{Policy: "q"}}
		refused = append(refused, l.take(j, 1, true, nil) != nil)
	}
	// One is held already: the first of these is the second of four.
	if fmt.Sprint(refused) != "[false true true true]" {
		t.Errorf("refused %v", refused)
	}
}

// guard is a packet filter that remembers what it was told.
type guard struct{ cut, uncut chan string }

func (g *guard) Cut(_ context.Context, _ domain.UUID, taps []string, _ []netip.Prefix) error {
	select {
	case g.cut <- strings.Join(taps, ","):
	default:
	}
	return nil
}

func (g *guard) Uncut(context.Context, domain.UUID) error { g.uncut <- ""; return nil }

// TestGuard has the packet filter cut first, and let go with the release.
func TestGuard(t *testing.T) {
	h := newHost(t)
	g := &guard{make(chan string, 1), make(chan string, 1)}
	h.opts.Guard = g
	a := &actor{state: domain.Running, links: twoLinks()}
	a.after = func(string) {
		if len(g.cut) == 0 {
			t.Error("the domain is changed before its taps are cut")
		}
	}
	stop := h.enforce(a, nil)
	defer stop()
	h.verdict("quarantine")
	if o := h.outcomes(1)[0]; o.Result != resultDone || o.Detail != "packet filter on 2 taps, links down" {
		t.Errorf("outcome %v", o)
	}
	if taps := <-g.cut; taps != "vnet0,vnet1" {
		t.Errorf("cut %q", taps)
	}
	a.mu.Lock()
	a.after = nil
	a.mu.Unlock()
	if _, err := h.e.Release(t.Context(), h.id, Release{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	<-g.uncut
}

// TestSnapshotDigests seals the digests of what a snapshot froze, also behind a restart.
func TestSnapshotDigests(t *testing.T) {
	h := newHost(t)
	h.opts.Snapshots = t.TempDir()
	dir := h.opts.Snapshots + "/" + vmUUID
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/vda", []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	defer stop()
	index := h.verdict("snapshot label=../x")
	o := h.outcomes(1)[0]
	if o.Result != resultDone || len(o.Files) != 1 || !strings.HasPrefix(o.Detail, fmt.Sprintf("1-0-%d-0-p-_x: ", index)) && !strings.HasPrefix(o.Detail, fmt.Sprintf("1-1-%d-0-p-_x: ", index)) {
		t.Errorf("outcome %v", o)
	}
	m := sealed[*record.Snapshotted](h, record.ClassPolicySnapshot, 1)[0]
	if m.VerdictIndex != index || fmt.Sprintf("%x", m.Files[0].Sha256) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" || m.Files[0].Size != 3 {
		t.Errorf("digests %v", m)
	}
}

// TestArguments that this version does not know are refused, and nothing is done.
func TestArguments(t *testing.T) {
	for _, a := range []*record.Action{
		{Kind: "pause", Parameters: map[string]string{"resume_after": "soon"}},
		{Kind: "pause", Parameters: map[string]string{"resume_after": "-1"}},
		{Kind: "pause", Parameters: map[string]string{"until": "1"}},
		{Kind: "quarantine", Parameters: map[string]string{"release": "never"}},
		{Kind: "quarantine", Parameters: map[string]string{"pause": "maybe"}},
		{Kind: "detach_network", Parameters: map[string]string{"mode": "scissors"}},
		{Kind: "snapshot", Parameters: map[string]string{"keep": "0"}},
	} {
		if _, _, err := parse(a); !errors.Is(err, record.ErrReject) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("an enforcer of nothing: %v", err)
	}
}
