package daemon

import (
	"context"

	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/enforce"
)

// kill has the agent of a domain kill a process.
func (d *Daemon) kill(ctx context.Context, id domain.UUID, t wire.Target, requester, reason string) (enforce.Killed, error) {
	a, err := d.sessions.Kill(ctx, id, t, requester, reason)
	if err != nil {
		return enforce.Killed{}, err
	}
	k := enforce.Killed{Done: a.Status == wire.ResultDone, Gone: a.Status == wire.ResultGone, Command: a.ID, Detail: answerStatus(a.Status)}
	if a.Detail != "" {
		k.Detail += ": " + a.Detail
	}
	return k, nil
}
