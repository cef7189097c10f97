package enforce

import (
	"context"
	"fmt"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// Killed is what a guest agent says of a process that it was to kill: its own
// word, signed. Without Done or Gone it was not killed, and Detail says why.
type Killed struct {
	Done, Gone bool
	Detail     string
	Command    [16]byte // its entries have it
}

// kill has the guest's agent kill the process that did what a verdict is about.
// It is named by session, number and start, so that no other is ever meant. It may
// be asked for again: what is gone stays gone.
type kill struct{}

// killTimeout bounds how long an agent may take to answer: what the policy has written
// behind the kill waits for it.
const killTimeout = 5 * time.Second

func readKill(*record.Action, *params) action { return kill{} }

func (kill) run(ctx context.Context, x *attempt) error {
	j, o := x.j, x.o
	if err := x.current("kill_process"); err != nil {
		return err
	}
	if x.e.cfg.Kill == nil {
		return fmt.Errorf("kill_process: this host asks no agent: %w", record.ErrReject)
	}
	t, err := culprit(j.log, j.verdict.CauseIndex)
	if err != nil {
		return fmt.Errorf("kill_process: %w", err)
	}
	o.StateBefore = fmt.Sprintf("process %d", t.Pid)
	k, err := x.e.cfg.Kill(ctx, j.id, t, "policy "+j.verdict.Policy, fmt.Sprintf("verdict %d of %s", j.index, j.log.Origin()))
	switch {
	case err != nil:
		// It is not tried for long: until the agent is back the process may have
		// done everything, and other actions on the domain wait behind this one.
		return fmt.Errorf("kill_process: nothing was asked: %s", err)
	case k.Done:
		o.Result, o.StateAfter = resultDone, fmt.Sprintf("ended, says the agent's answer to command %x", k.Command)
	case k.Gone:
		o.Result, o.StateAfter = resultAlready, fmt.Sprintf("gone, says the agent's answer to command %x", k.Command)
	default:
		return fmt.Errorf("kill_process: command %x: %s", k.Command, k.Detail)
	}
	return nil
}

// culprit names the process that an entry of a guest is about.
func culprit(l *chain.Log, index uint64) (wire.Target, error) {
	it, err := l.Item(index)
	if err != nil {
		return wire.Target{}, fmt.Errorf("read the cause: %w", err)
	}
	m, err := it.Decode()
	if err != nil {
		return wire.Target{}, fmt.Errorf("read the cause: %w", err)
	}
	ev, ok := m.(*record.Event)
	p := ev.GetProcess()
	if !ok || it.Leaf.Origin != record.OriginGuest || p == nil || p.Pid <= 1 || p.Start == 0 {
		return wire.Target{}, fmt.Errorf("entry %d, a %s, names no process of the guest that could be killed", index, it.Leaf.Header.Class)
	}
	return wire.Target{Session: it.Leaf.Header.Session, Pid: p.Pid, Start: p.Start}, nil
}
