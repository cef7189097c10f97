package mirror

import (
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Window is a time of which is asked whether anything else happened in it, in the
// host's monotone time, Unix nanoseconds. The zero value asks nothing.
type Window struct{ Since, Until int64 }

func (w Window) asked() bool { return w != Window{} }

// LogWindow is what a VM log tells of that time.
type LogWindow struct {
	// Covered says that there are no gaps: nothing else happened that is watched.
	Covered bool        `json:"covered"`
	Gaps    []WindowGap `json:"gaps,omitempty"`
	More    int         `json:"more_gaps,omitempty"` // left out of Gaps
}

// WindowGap is a time in which something may have happened that no entry tells.
type WindowGap struct {
	From  string `json:"from"` // RFC 3339
	To    string `json:"to"`
	Entry uint64 `json:"entry"` // that ends it, or tells of it; 0: none
	Why   string `json:"why"`
}

// maxWindowGaps bounds how many gaps a report tells of one by one for each log.
const maxWindowGaps = 5

// cover takes the next entry of a VM log for the window.
func (c *logCheck) cover(l *record.Leaf, o *opened) {
	if c.coverage == nil {
		return
	}
	var m record.Message
	if o != nil {
		m = o.message
	}
	c.coverage.Add(l, m)
	if l.Index == 0 {
		c.began = l.Mono
	}
	if l.Header.Class == record.ClassClosed && l.Origin == record.OriginHost {
		c.closed = l.Mono
	}
}

// covers reports whether the window needs the payloads of a class: heartbeats, and
// how long an agent was silent.
func (c *logCheck) covers(class record.Class) bool {
	return c.coverage != nil && (class == record.ClassTick || proof.TellsOfSilence(class))
}

// window says in the report what a log tells of the window.
func (c *logCheck) window() {
	if w := c.v.opts.Window; c.coverage == nil || c.began > w.Until || c.closed != 0 && c.closed < w.Since {
		return // it is of another time: a log that only ends before is silent in it
	}
	gaps, more := c.coverage.Gaps()
	w := &LogWindow{Covered: len(gaps) == 0, More: more}
	if over := len(gaps) - maxWindowGaps; over > 0 {
		gaps, w.More = gaps[:maxWindowGaps], more+over
	}
	for _, g := range gaps {
		w.Gaps = append(w.Gaps, WindowGap{From: stamp(g.From), To: stamp(g.To), Entry: g.Index, Why: g.Why})
	}
	c.r.Window = w
}

// concludeWindow says of which logs nothing else can have happened, and of which not.
func (v *verification) concludeWindow(say func(string, ...any)) {
	w := v.opts.Window
	if !w.asked() {
		return
	}
	not := func(format string, args ...any) {
		v.r.Unclaimed = append(v.r.Unclaimed, fmt.Sprintf(format, args...))
	}
	since, until := stamp(w.Since), stamp(w.Until)
	for _, l := range v.r.Logs {
		if l.Window == nil {
			continue
		}
		if l.Window.Covered {
			say("Heartbeats in %s cover the time from %s to %s: while the guest ran its agent was heard, nothing is told to be lost, and nothing else happened that is watched.", l.Origin, since, until)
		}
		for _, g := range l.Window.Gaps {
			not("That nothing else happened in %s from %s to %s: %s (entry %d).", l.Origin, g.From, g.To, g.Why, g.Entry)
		}
		if l.Window.More > 0 {
			not("The same of %d more times in %s.", l.Window.More, l.Origin)
		}
	}
	if !slices.ContainsFunc(v.r.Logs, func(l LogReport) bool { return l.Window != nil }) {
		not("Anything of the time from %s to %s: no VM log that was read is of it.", since, until)
	}
}

// newCoverage returns what finds the times that a VM log does not cover, where that
// is asked.
func (v *verification) newCoverage() *proof.Coverage {
	if w := v.opts.Window; w.asked() {
		return proof.NewCoverage(w.Since, w.Until)
	}
	return nil
}
