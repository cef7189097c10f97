package enforce

import (
	"context"

	"github.com/provostd/provost/chain/record"
)

// alert tells somebody.
type alert struct {
	message  string
	channels []string
}

func readAlert(a *record.Action, p *params) action { return alert{a.Message, p.list("channels")} }

// run hands an alert to its channels. The outcome says who has taken it, not
// that anybody has read it: what becomes of it at each channel is sealed later.
func (a alert) run(ctx context.Context, x *attempt) error {
	v := x.j.verdict
	handed, err := x.e.cfg.Alert(ctx, Alert{
		Policy: v.Policy, Severity: v.Severity, Title: v.Title, Message: a.message,
		Domain: x.j.id, Log: x.j.log, Verdict: x.j.index, Cause: v.CauseIndex, Action: x.i, Channels: a.channels,
	})
	x.rows, x.durable = handed.Rows, handed.Durable
	x.o.Result, x.o.StateAfter = resultDone, "logged"
	for i, name := range handed.To {
		x.o.StateAfter += map[bool]string{true: ", queued for ", false: ", "}[i == 0] + name
	}
	return err
}
