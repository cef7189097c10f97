package enforce

import (
	"context"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// alert hands an alert to its channels. The outcome says who has taken it, not
// that anybody has read it: what becomes of it at each channel is sealed later.
func (e *Enforcer) alert(ctx context.Context, j *job, a *record.Action, o *record.Outcome) error {
	var channels []string
	if names := a.Parameters["channels"]; names != "" {
		channels = strings.Split(names, ",")
	}
	var err error
	j.handed, err = e.cfg.Alert(ctx, Alert{
		Policy: j.verdict.Policy, Severity: j.verdict.Severity, Title: j.verdict.Title, Message: a.Message,
		Domain: j.id, Log: j.log, Verdict: j.index, Cause: j.verdict.CauseIndex, Action: o.ActionIndex, Channels: channels,
	})
	o.Result, o.StateAfter = resultDone, "logged"
	if len(j.handed.To) > 0 {
		o.StateAfter += ", queued for " + strings.Join(j.handed.To, ", ")
	}
	return err
}
