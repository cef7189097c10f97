package guestagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// maxCommands bounds the ids remembered of a conversation: of commands that have
// not expired yet, by the host's clock.
const maxCommands = 256

// forget gives up the ids of commands that have expired. Should the host's clock
// go back, none of them is good again: forgotten remembers how long the longest
// was good for.
func (c *conversation) forget(now uint64) {
	if len(c.commands) < maxCommands {
		return
	}
	for id, expiry := range c.commands {
		if now > expiry {
			delete(c.commands, id)
			c.forgotten = max(c.forgotten, expiry)
		}
	}
}

// hostClock is what the host's newest heartbeat said its time is. The guest's
// wall clock has no part in it: whoever sets that must not make a command last.
type hostClock struct {
	time uint64 // host wall time, nanoseconds since 1970; 0: not told yet
	boot uint64 // ours, CLOCK_BOOTTIME, when it was read
}

// pin is the command key of the first host that named one to this run. Whoever
// gets hold of the port later is not believed another one, unless the domain
// has come to another host or was defined anew, and that is told as well.
type pin struct {
	key         [32]byte // zero: none yet
	incarnation string   // log of the domain, without its shard
	refused     bool     // the newest Hello named another key for the same incarnation
	told        [32]byte // which one: a Hello that repeats it is not told again
}

// pinKey looks at the key of a Hello and returns what is to be sealed about
// it, if anything. The lock is held.
func (a *Agent) pinKey(h *wire.Hello) *record.Tamper {
	p := &a.pin
	now := incarnation(h)
	none := [32]byte{}
	if h.CommandKey == none {
		p.refused = false // there is nothing that could be believed
		return nil
	}
	if p.key == none || h.CommandKey == p.key {
		p.key, p.incarnation, p.refused = h.CommandKey, now, false
		return nil
	}
	if now != p.incarnation {
		t := &record.Tamper{Kind: "command_key",
			Detail: fmt.Sprintf("command key %x of incarnation %s is replaced by %x of incarnation %s", p.key, p.incarnation, h.CommandKey, now)}
		*p = pin{key: h.CommandKey, incarnation: now}
		return t
	}
	p.refused = true
	if p.told == h.CommandKey {
		return nil
	}
	p.told = h.CommandKey
	return &record.Tamper{Kind: "command_key", Refused: true,
		Detail: fmt.Sprintf("a host names command key %x for incarnation %s, this run goes by %x", h.CommandKey, now, p.key)}
}

// incarnation names the domain's stay on a host: its log, whichever shard. Numbers of
// incarnations begin anew on each host.
func incarnation(h *wire.Hello) string {
	name := h.Origin
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[:i]
	}
	return fmt.Sprintf("%s (%d)", name, h.Incarnation)
}

// command carries out a command of the host, or says why not. The answer waits
// to be written; what the answer reports has happened or is certain to.
func (a *Agent) command(ctx context.Context, body []byte) error {
	c, err := wire.ParseCommand(body)
	if err != nil {
		return err
	}
	result := wire.Result{ID: c.ID}
	request, status, why := a.judge(&c)
	if status == wire.ResultDone {
		switch request.Kind {
		case wire.KindStop:
			err = a.obeyStop(ctx, &c, &request)
		case wire.KindKill:
			status, why, err = a.obeyKill(ctx, &c, &request)
		default: // judge knows the kinds
			err = fmt.Errorf("nobody carries out %s", request.Kind)
		}
		if err != nil {
			status, why = wire.ResultFailed, err.Error()
		}
	}
	if status != wire.ResultDone {
		a.cfg.Log.WarnContext(ctx, "command of the host is not carried out", "id", fmt.Sprintf("%x", c.ID), "why", why)
	}
	result.Status, result.Body = status, []byte(why)
	result.Sign(a.key, body)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.results) < maxResults { // full: a host that does not read its answers
		a.results = append(a.results, result)
	}
	return nil
}

// judge says whether a command is to be carried out: it is the host's own, for
// this conversation, new, in time, and of a kind that is known. An id is spent
// whatever comes of it, but for forgeries: they must not spend the host's.
func (a *Agent) judge(c *wire.Command) (wire.Request, uint8, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	refuse := func(format string, args ...any) (wire.Request, uint8, string) {
		return wire.Request{}, wire.ResultRefused, fmt.Sprintf(format, args...)
	}
	hello := &a.conv.hello
	if !a.conv.welcomed {
		return refuse("there is no conversation that it could belong to")
	}
	if err := c.Verify(&hello.CommandKey); err != nil {
		return refuse("%s", err)
	}
	if a.pin.refused {
		return refuse("its key is not the one that this run of the agent goes by")
	}
	if c.Epoch != hello.Epoch {
		return refuse("it is for epoch %x, this one is %x", c.Epoch, hello.Epoch)
	}
	if c.Nonce != hello.Nonce {
		return refuse("it is for another conversation")
	}
	if _, spent := a.conv.commands[c.ID]; spent {
		return refuse("a command of this id was answered already")
	}
	clock := a.conv.clock
	now := clock.time + (a.cfg.Boot() - clock.boot)
	if clock.time > 0 {
		a.conv.forget(now)
	}
	if len(a.conv.commands) >= maxCommands {
		return refuse("%d commands that have not expired, limit %d", len(a.conv.commands), maxCommands)
	}
	if a.conv.commands == nil {
		a.conv.commands = map[[16]byte]uint64{}
	}
	a.conv.commands[c.ID] = c.Expiry
	if clock.time == 0 {
		return refuse("the host's time is not known: no heartbeat has come yet")
	}
	if now > c.Expiry {
		return refuse("it expired %d ms ago", (now-c.Expiry)/1e6)
	}
	if c.Expiry <= a.conv.forgotten {
		return refuse("it expires before one that has expired already")
	}
	r, err := wire.ParseRequest(c.Body)
	if err != nil {
		return refuse("%s", err)
	}
	switch {
	case r.Kind == wire.KindKill && a.cfg.Kill == nil:
		return refuse("the configuration of this guest does not allow it (setting allow-kill)")
	case r.Kind != wire.KindStop && r.Kind != wire.KindKill:
		return wire.Request{}, wire.ResultUnsupported, fmt.Sprintf("this agent knows no %s", r.Kind)
	}
	return r, wire.ResultDone, ""
}

// obeyStop begins the end that the host has asked for. Protection goes first:
// where it cannot be given up the agent stays, and says so.
func (a *Agent) obeyStop(ctx context.Context, c *wire.Command, r *wire.Request) error {
	why := fmt.Sprintf("command %x of the host, asked by %s: %s", c.ID, r.Requester, r.Reason)
	if a.cfg.Protector != nil {
		if err := a.cfg.Protector.Release(why); err != nil {
			return fmt.Errorf("release protection: %w", err)
		}
	}
	a.cfg.Log.WarnContext(ctx, "stopping as the host has asked", "id", fmt.Sprintf("%x", c.ID), "requester", r.Requester, "reason", r.Reason)
	a.end(&record.AgentStopped{Authorised: true, Reason: r.Reason, Command: c.ID[:]})
	return nil
}

// obeyKill kills a process of which this session has told. One of another session
// may be of another boot, where the same number and start mean somebody else.
func (a *Agent) obeyKill(ctx context.Context, c *wire.Command, r *wire.Request) (status uint8, why string, err error) {
	t, err := wire.ParseTarget(r.Arguments)
	if err != nil {
		return 0, "", err
	}
	if t.Session != a.session {
		return wire.ResultRefused, fmt.Sprintf("session %016x told of the process, this is session %016x", t.Session, a.session), nil
	}
	err = a.cfg.Kill(t.Pid, t.Start)
	a.cfg.Log.WarnContext(ctx, "told to kill a process", "id", fmt.Sprintf("%x", c.ID), "pid", t.Pid, "requester", r.Requester, "reason", r.Reason, "error", err)
	if errors.Is(err, os.ErrProcessDone) {
		return wire.ResultGone, "it had ended already", nil
	}
	return wire.ResultDone, "", err
}
