package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

const vmUUID = "11111111-2222-4333-8444-555555555555"

// host is a store on disk with one VM log, which can be closed and opened as by
// a restart of the daemon.
type host struct {
	t     *testing.T
	cfg   chain.Config
	store *chain.Store
	log   *chain.Log
	stop  func()
	id    domain.UUID
	opts  Config // what enforcers are made with
	e     *Enforcer
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, cfg: chain.Config{Dir: filepath.Join(dir, "db"), Anchor: filepath.Join(dir, "anchor"), HostID: "test.host", Keys: k}}
	s, err := chain.Create(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.run(s)
	if h.id, err = domain.ParseUUID(vmUUID); err != nil {
		t.Fatal(err)
	}
	if h.log, err = s.CreateLog(t.Context(), proof.VMOrigin("test.host", vmUUID, 1), &record.Genesis{Cause: "define"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop() })
	return h
}

// newEnforcer makes an enforcer of a host whose only domain has the log h.log.
func (h *host) newEnforcer(a *actor, alert func(context.Context, Alert) error) *Enforcer {
	h.t.Helper()
	log := h.log
	cfg := h.opts
	cfg.Store, cfg.Actor, cfg.Log = h.store, a, slog.New(slog.DiscardHandler)
	cfg.Alert = func(ctx context.Context, a Alert) (Handed, error) { return Handed{}, alert(ctx, a) }
	cfg.Current = func(l *chain.Log) bool { return l == log }
	cfg.Running = func() []domain.UUID { return []domain.UUID{h.id} }
	cfg.Seal = func(ctx context.Context, _ domain.UUID, rows []chain.MetaWrite, draft func() (chain.Entry, error)) error {
		e, err := draft()
		if err == nil {
			_, err = cfg.Store.Append(ctx, chain.Batch{Log: log, Entries: []chain.Entry{e}, Meta: rows})
		}
		return err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *host) run(s *chain.Store) {
	h.store = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *host) restart() {
	h.t.Helper()
	h.stop()
	s, err := chain.Open(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.run(s)
	h.log, _ = s.LogByOrigin(proof.VMOrigin("test.host", vmUUID, 1))
}

func (h *host) verdict(kinds ...string) uint64 {
	h.t.Helper()
	v := &record.Verdict{Policy: "p", Mode: "enforce", CauseClass: "process.exec"}
	for _, k := range kinds {
		name, args, _ := strings.Cut(k, " ")
		act := &record.Action{Kind: name}
		for _, arg := range strings.Fields(args) {
			name, value, _ := strings.Cut(arg, "=")
			if act.Parameters == nil {
				act.Parameters = map[string]string{}
			}
			act.Parameters[name] = value
		}
		v.Actions = append(v.Actions, act)
	}
	return h.seal(record.ClassPolicyVerdict, v)
}

func (h *host) seal(c record.Class, v *record.Verdict) uint64 {
	h.t.Helper()
	e, err := h.store.Draft(record.OriginPolicy, c, v)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := h.store.Append(h.t.Context(), chain.Batch{Log: h.log, Entries: []chain.Entry{e}})
	if err != nil {
		h.t.Fatal(err)
	}
	return s.First
}

// outcomes returns every outcome sealed, once there are n.
func (h *host) outcomes(n int) []*record.Outcome {
	return sealed[*record.Outcome](h, record.ClassPolicyOutcome, n)
}

// sealed returns every entry of a class, once there are n.
func sealed[M record.Message](h *host, c record.Class, n int) []M {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	f := h.store.Tail(chain.Position{})
	defer f.Close()
	var all []M
	for {
		i, ok, err := f.TryNext()
		if !ok && err == nil {
			if len(all) >= n {
				return all
			}
			i, err = f.Next(ctx)
		}
		if err != nil {
			h.t.Fatalf("%d entries %s are sealed, want %d: %v", len(all), c, n, err)
		}
		if i.Leaf.Header.Class == c {
			m, err := i.Decode()
			if err != nil {
				h.t.Fatal(err)
			}
			all = append(all, m.(M))
		}
	}
}

// enforce runs an enforcer until the returned function is called.
func (h *host) enforce(a *actor, alert func(context.Context, Alert) error) func() {
	h.t.Helper()
	if alert == nil {
		alert = func(context.Context, Alert) error { return nil }
	}
	h.e = h.newEnforcer(a, alert)
	e := h.e
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func TestActsOnceAndSealsTheOutcome(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running}
	stop := h.enforce(a, nil)
	index := h.verdict("pause", "alert")
	got := h.outcomes(2)
	stop()
	if got[0].Kind != "pause" || got[0].Result != resultDone || got[0].StateBefore != "running (user)" || got[0].StateAfter != "paused (user)" ||
		got[0].VerdictIndex != index || got[1].Kind != "alert" || got[1].ActionIndex != 1 {
		t.Errorf("outcomes %v", got)
	}
	h.restart()
	stop = h.enforce(a, nil)
	h.verdict("pause")
	got = h.outcomes(3)
	stop()
	if a.pauses != 2 || got[2].Result != resultAlready {
		t.Errorf("%d pauses for 2 verdicts over a restart, the last outcome is %v", a.pauses, got[2])
	}
}

// TestRepair ends the enforcer between verdict and outcome, and between two
// actions: what is missing is done on the next start, and only that (I2).
func TestRepair(t *testing.T) {
	h := newHost(t)
	first := h.verdict("pause") // no enforcer runs: the crash came before the action
	h.restart()
	a := &actor{state: domain.Running}
	alerted := make(chan struct{}, 8)
	block := make(chan struct{})
	stop := h.enforce(a, func(ctx context.Context, _ Alert) error {
		alerted <- struct{}{}
		select {
		case <-block:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	h.outcomes(1) // or the second is merged into the first
	second := h.verdict("pause", "alert")
	<-alerted // its pause is sealed, its alert is under way
	stop()
	if got := h.outcomes(2); !got[0].Repaired || got[0].VerdictIndex != first || got[1].VerdictIndex != second {
		t.Fatalf("outcomes %v", got)
	}
	h.restart()
	close(block)
	stop = h.enforce(a, func(context.Context, Alert) error { return nil })
	got := h.outcomes(3)
	stop()
	last := got[2]
	if last.Kind != "alert" || !last.Repaired || last.VerdictIndex != second || a.pauses != 2 {
		t.Errorf("after the repair: %v, %d pauses", last, a.pauses)
	}
	h.restart()
	stop = h.enforce(a, nil)
	h.verdict("alert")
	got = h.outcomes(4)
	stop()
	if len(got) != 4 || a.pauses != 2 {
		t.Errorf("%d outcomes and %d pauses after another restart, want 4 and 2", len(got), a.pauses)
	}
}

func TestFailures(t *testing.T) {
	h := newHost(t)
	gone := errors.New("no such domain")
	a := &actor{state: domain.Running, errs: []error{fmt.Errorf("libvirtd is away: %w", record.ErrRetry), nil}}
	a.errs = a.errs[:1]
	stop := h.enforce(a, nil)
	h.verdict("pause")
	if got := h.outcomes(1); got[0].Result != resultDone || got[0].Attempt != 2 || got[0].Error != "" {
		t.Errorf("after a transient failure: %v", got[0])
	}
	a.mu.Lock()
	a.errs = []error{gone}
	a.mu.Unlock()
	h.verdict("pause", "explode", "alert")
	got := h.outcomes(4)
	stop()
	if got[1].Result != resultFailed || got[1].Attempt != 1 || got[2].Result != resultFailed || got[3].Result != resultDone {
		t.Errorf("a failed action, an unknown one and a good one: %v", got[1:])
	}
}

// TestAuditActsOnNothing holds that what a policy would have done is not done.
func TestAuditActsOnNothing(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running}
	v := &record.Verdict{Policy: "p", Mode: "audit", WouldHave: true, Actions: []*record.Action{{Kind: "pause"}}}
	h.seal(record.ClassPolicyVerdict, v)
	stop := h.enforce(a, nil)
	h.verdict("alert") // behind it: once it is done, the first was passed over
	h.outcomes(1)
	stop()
	if a.pauses != 0 {
		t.Errorf("%d pauses for a verdict of mode audit", a.pauses)
	}
}

// TestFindingsAlert holds that somebody hears of a policy that cannot be
// decided, or is decided wrongly.
func TestFindingsAlert(t *testing.T) {
	h := newHost(t)
	var alerts []string
	stop := h.enforce(&actor{state: domain.Running}, func(_ context.Context, a Alert) error {
		alerts = append(alerts, a.Message)
		return nil
	})
	for _, c := range []record.Class{record.ClassPolicyError, record.ClassPolicyMismatch} {
		h.seal(c, &record.Verdict{Policy: "p", Mode: "enforce", Error: "x", Actions: []*record.Action{{Kind: "alert", Message: c.String()}}})
	}
	h.outcomes(2)
	stop()
	if strings.Join(alerts, " ") != "policy.error policy.engine_mismatch" {
		t.Errorf("alerts %q", alerts)
	}
}

// TestKillsTheCulprit holds that the process is named by the entry that the
// verdict is about, whole, and that the agent's answer becomes the outcome.
func TestKillsTheCulprit(t *testing.T) {
	h := newHost(t)
	var asked []wire.Target
	answers := []Killed{{Done: true}, {Gone: true}, {Detail: "refused: not here"}}
	h.opts.Kill = func(_ context.Context, id domain.UUID, target wire.Target, requester, reason string) (Killed, error) {
		if id.String() != vmUUID || requester != "policy p" || !strings.HasPrefix(reason, "verdict ") {
			t.Errorf("asked of %s by %q: %q", id, requester, reason)
		}
		asked = append(asked, target)
		if len(answers) == 0 {
			return Killed{}, fmt.Errorf("the agent is not connected: %w", record.ErrRetry)
		}
		k := answers[0]
		answers = answers[1:]
		return k, nil
	}
	e := h.newEnforcer(&actor{state: domain.Running}, func(context.Context, Alert) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	verdict := func(cause uint64) {
		h.seal(record.ClassPolicyVerdict, &record.Verdict{Policy: "p", Mode: "enforce", CauseIndex: cause, Actions: []*record.Action{{Kind: "kill_process"}}})
	}
	cause := h.guest(&record.Event{Process: &record.Process{Pid: 4711, Start: 99}}, 7)
	for range 4 {
		verdict(cause)
	}
	verdict(0)                                                                        // no event of a guest
	verdict(h.guest(&record.Event{Process: &record.Process{Pid: 1, Start: 99}}, 7))   // init
	verdict(h.guest(&record.Event{Process: &record.Process{Pid: 4711, Start: 0}}, 7)) // whose start is not known
	got := h.outcomes(7)
	for i, want := range []string{resultDone, resultAlready, resultFailed, resultFailed, resultFailed, resultFailed, resultFailed} {
		if got[i].Result != want || want == resultFailed == (got[i].Error == "") {
			t.Errorf("outcome %d is %v, want %s", i, got[i], want)
		}
	}
	if len(asked) != 4 || asked[0] != (wire.Target{Session: 7, Pid: 4711, Start: 99}) || got[3].Attempt != 1 {
		t.Errorf("asked %v, the last outcome of these %v", asked, got[3])
	}
}

// TestKillsBeforeThePause: a paused guest cannot answer, so a kill keeps its place
// among the actions that change the domain, whatever else is only told.
func TestKillsBeforeThePause(t *testing.T) {
	h := newHost(t)
	a := &actor{state: domain.Running}
	var paused []bool
	h.opts.Kill = func(ctx context.Context, id domain.UUID, _ wire.Target, _, _ string) (Killed, error) {
		s, err := a.State(ctx, id)
		paused = append(paused, s.State == domain.Paused)
		return Killed{Done: true}, err
	}
	e := h.newEnforcer(a, func(context.Context, Alert) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	cause := h.guest(&record.Event{Process: &record.Process{Pid: 4711, Start: 99}}, 7)
	h.seal(record.ClassPolicyVerdict, &record.Verdict{Policy: "p", Mode: "enforce", CauseIndex: cause,
		Actions: []*record.Action{{Kind: "alert"}, {Kind: "kill_process"}, {Kind: "pause"}}})
	for _, o := range h.outcomes(3) {
		if o.Result != resultDone {
			t.Errorf("outcome %v", o)
		}
	}
	if len(paused) != 1 || paused[0] {
		t.Errorf("kills asked of a paused guest: %v", paused)
	}
}

// guest seals an event of a guest's session.
func (h *host) guest(ev *record.Event, session uint64) uint64 {
	h.t.Helper()
	payload, err := record.Encode(ev)
	if err != nil {
		h.t.Fatal(err)
	}
	e := chain.Entry{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassProcessExec, Session: session, Sequence: 1}, Payload: payload}
	e.Salt[0] = 1
	e.Commitment = record.Commit(&e.Salt, payload)
	s, err := h.store.Append(h.t.Context(), chain.Batch{Log: h.log, Entries: []chain.Entry{e}})
	if err != nil {
		h.t.Fatal(err)
	}
	return s.First
}
