package mirror

import (
	"fmt"
	"time"
)

// conclude ends a verification: it says what has been proved, or that nothing is.
func (v *verification) conclude(c *logCheck, whole bool) (*Report, error) {
	r := v.r
	for i := range r.Logs {
		r.Logs[i] = *v.done[r.Logs[i].Origin].r
	}
	if r.failed() {
		if v.told == len(r.Failures)+r.More && c != nil {
			v.say(c, whole, &r.Rest)
			r.Lost = c.lost.ranges
		} else {
			for i := range r.Logs {
				r.Logs[i].Window = nil // nothing is proved
			}
		}
		r.Checkpoint, r.Unclaimed = "", nil
		return r, &InvalidError{r}
	}
	r.Valid = true
	v.say(c, whole, &r.Proved)
	return r, nil
}

// say says what has been proved.
func (v *verification) say(c *logCheck, whole bool, to *[]string) {
	r := v.r
	say := func(format string, args ...any) { *to = append(*to, fmt.Sprintf(format, args...)) }
	if e := v.vouched; e != nil {
		say("Host log %s has a checkpoint of %d entries with root %s, signed by the key given.", e.report.HostOrigin, e.report.HostSize, e.report.HostRoot)
	} else {
		say("Log %s has a checkpoint of %d entries with root %s, signed by the key given.", c.origin, c.size, c.tree.root())
	}
	for _, s := range r.Cosigned {
		say("Witness %q (%s) cosigned that checkpoint at %s: all of it was there by then.", s.Witness, s.Key, stamp(s.Time*int64(time.Second)))
	}
	if p := v.opts.Policy; p != nil && p.None() {
		say("The policy asks for no witness.")
	} else if p != nil {
		say("The cosignatures satisfy the policy.")
	}
	if v.opts.Seen != nil {
		say("It contains the checkpoint seen before: nothing of it was changed since.")
	}
	if v.vouched != nil {
		v.vouched.proved(say)
	}
	if !c.ours {
		say("All %d entries are there and make that root. They are of another format and were not looked into.", c.size)
		return
	}
	v.proved(c, say)
	if whole {
		v.provedLogs(say)
	}
	v.concludeWindow(say)
	v.unclaimed(c, whole)
}

// proved says what holds of the log that the key is of.
func (v *verification) proved(c *logCheck, say func(string, ...any)) {
	if n := c.lost.count; n > 0 {
		say("%d of %d entries are there, or what verification needs of them; with the hashes of the others they make that root, and follow each other, sealed from %s to %s.", c.size-n, c.size, stamp(c.wall[0]), stamp(c.wall[1]))
	} else {
		say("All %d entries are there, make that root, and follow each other, sealed from %s to %s.", c.size, stamp(c.wall[0]), stamp(c.wall[1]))
	}
	if c.r.Opened > 0 {
		say("%d payloads of it are what their authors committed to.", c.r.Opened)
	}
	switch n := c.r.Frames - c.lost.frames; {
	case n > 0 && c.lost.count > 0: // what lacks may have been frames
		say("%d entries of the guest are signed by enrolled agents in %d frames.", c.r.Signed, n)
	case n > 0:
		say("%d entries of the guest are signed by enrolled agents in %d frames; no frame lacks without an entry that says so.", c.r.Signed, n)
	}
	if n := len(v.keys.Keys()); n > 0 {
		say("It certifies %d keys of VM logs, each signed by the one before, and quotes %d checkpoints of %d VM logs, each signed with the key in force, none of them going back.", n, c.r.Quotes, len(v.logs))
	}
}

// provedLogs says what holds of the VM logs.
func (v *verification) provedLogs(say func(string, ...any)) {
	var sum LogReport
	n, bare := 0, 0
	for _, q := range v.logs {
		c := v.done[q.origin]
		if c == nil {
			continue
		}
		n++
		if c.bare.Load() {
			bare++
		}
		sum.Size += c.r.Size
		sum.Quotes += c.r.Quotes
		sum.Frames += c.r.Frames
		sum.Signed += c.r.Signed
		sum.Opened += c.r.Opened
	}
	say("%d VM logs with %d entries are there whole, and had at each of %d quoted sizes the root that the host log quotes.", n, sum.Size, sum.Quotes)
	if sum.Frames > 0 {
		say("%d entries of guests are signed by enrolled agents in %d frames; no frame lacks without an entry that says so.", sum.Signed, sum.Frames)
	}
	if sum.Opened > 0 {
		say("%d payloads of VM logs are what their authors committed to.", sum.Opened)
	}
	if v.linked > 0 {
		say("The genesis of %d logs quotes the log before it as the host log does.", v.linked)
	}
	unclaimed := func(n int, format string) {
		if n > 0 {
			v.r.Unclaimed = append(v.r.Unclaimed, fmt.Sprintf(format, n))
		}
	}
	unclaimed(bare, "Anything of payloads in %d VM logs, such as signatures of agents: the source has none of them.")
	unclaimed(v.unquoted, "Anything of %d VM logs that the host log quotes: they were not asked for.")
	unclaimed(v.undisclosed, "How %d VM logs continue the logs before them: the payload of their genesis was not given.")
	unclaimed(v.uncompared, "How %d VM logs continue logs that were dropped: the host log does not quote what their genesis does.")
	for _, d := range v.r.Dropped {
		v.r.Unclaimed = append(v.r.Unclaimed, fmt.Sprintf("Anything of %d entries of %s, which was dropped, as entry %d of the host log says (%s; asked for by %s): the archive of %d bytes with SHA-256 %s has it.",
			d.Size, d.Origin, d.Index, d.Reason, d.Requester, d.Bytes, d.SHA256))
	}
	unclaimed(v.abroad, "How %d VM logs continue logs of other hosts: verify those there.")
}

// unclaimed says what was not looked at, and what the logs themselves tell to be
// missing.
func (v *verification) unclaimed(c *logCheck, whole bool) {
	r := v.r
	if !whole && c.bare.Load() {
		r.Unclaimed = append(r.Unclaimed, "Anything of payloads: the source has none of them.")
	}
	if !whole && c.name.IsHost() && !c.bare.Load() {
		r.Unclaimed = append(r.Unclaimed, fmt.Sprintf("Anything of the %d VM logs that it quotes: this is the place of the host log alone.", len(v.logs)))
	}
	if !whole && !c.name.IsHost() && v.vouched == nil {
		r.Unclaimed = append(r.Unclaimed, "That the key given is the log's: the host log, which certifies it, was not read.")
	}
	if n := v.damaged.count; n > 0 {
		origin := c.origin
		if v.vouched != nil {
			origin = v.vouched.report.HostOrigin
		}
		r.Unclaimed = append(r.Unclaimed, fmt.Sprintf("What stood in evidence that was damaged and fenced off, of which %d entries of %s tell.", n, origin))
	}
	for _, l := range r.Logs {
		if l.Gaps > 0 {
			r.Unclaimed = append(r.Unclaimed, fmt.Sprintf("What is missing in %s, of which %d of its entries tell.", l.Origin, l.Gaps))
		}
	}
}

func stamp(nanoseconds int64) string { return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano) }
