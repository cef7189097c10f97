package proof

import (
	"fmt"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
)

const (
	// HeartbeatEvery is how often the host seals in the log of a domain what it
	// does and whether its agent is heard (log.tick).
	HeartbeatEvery = time.Minute
	// maxPause is the longest time without an entry that heartbeats cover: two
	// of them, and time for the host to be busy.
	maxPause = 150 * time.Second
	// settled is how long after a time its silence is surely sealed: the host
	// tells silence within two minutes.
	settled = maxPause
	// maxGaps bounds what is told of a stretch of time.
	maxGaps = 1000
)

// AgentHeard is the Detail of a heartbeat's VM where the agent is connected and
// not silent. Part of the format.
const AgentHeard = "connected"

// Gap is a time in which something may have happened that no entry tells.
type Gap struct {
	From  int64 // host monotone time, nanoseconds
	To    int64
	Index uint64 // of the entry that ends it, or tells of it
	Why   string
}

// Coverage finds the times that the entries of a VM log do not cover. What it
// says rests on the entries being complete, which is for others to prove, and on
// the host's word about libvirt and silence. Add is given the entries in order;
// who begins with a heartbeat some time before knows the state when the time
// begins.
type Coverage struct {
	since, until int64

	begun  bool
	last   int64 // monotone time of the newest entry
	before int64 // likewise of the newest one of an earlier commit: those of one commit have one time
	state  state
	dark   int64 // since when the guest ran unheard
	isDark bool
	gaps   []Gap
	more   int
}

// Settles returns until when entries tell of a time that ends at until.
func Settles(until int64) int64 { return until + int64(settled) }

// state is what is known of a domain at an entry.
type state struct{ known, runs, heard bool }

// NewCoverage is of the time from since to until, in host monotone time. What was
// sealed up to Settles behind it belongs to it.
func NewCoverage(since, until int64) *Coverage { return &Coverage{since: since, until: until} }

// losses are the classes which say that something may be untold.
var losses = map[record.Class]string{
	record.ClassVMGap:                 "libvirt was not heard",
	record.ClassAgentDropped:          "the agent lost records",
	record.ClassAgentSequenceGap:      "records of the agent are missing",
	record.ClassAgentRollback:         "the agent and the host disagree on what was acknowledged",
	record.ClassAgentRewound:          "memory was taken back, with what it had seen and not sent",
	record.ClassAgentForked:           "the agent's key signs two histories",
	record.ClassAgentStale:            "frames of an earlier epoch were refused",
	record.ClassAgentSignatureInvalid: "frames were refused whose signature is not valid",
	record.ClassAgentRefused:          "frames of the agent were refused",
	record.ClassAgentKeyChanged:       "an agent with another key was refused",
	record.ClassAgentTamper:           "the agent was tampered with",
	record.ClassAgentAggregating:      "acts were told as sums",
}

// Add takes the next entry. m is its payload, of a heartbeat and of a lost one
// (log.tick, and those that TellsOfSilence names); it may be nil, which covers less.
func (c *Coverage) Add(leaf *record.Leaf, m record.Message) {
	first := !c.begun
	if first {
		c.begun, c.last, c.before = true, leaf.Mono, leaf.Mono
		if leaf.Mono > c.since {
			c.gap(c.since, leaf.Mono, leaf.Index, "no entry stands before it")
		}
	}
	if leaf.Mono-c.last > int64(maxPause) {
		c.gap(c.last, leaf.Mono, leaf.Index, fmt.Sprintf("no entry and no heartbeat for %s", time.Duration(leaf.Mono-c.last).Round(time.Second)))
	}
	if leaf.Mono > c.last {
		c.before, c.last = c.last, leaf.Mono
	}
	host := leaf.Origin == record.OriginHost || leaf.Origin == record.OriginOperator
	class := leaf.Header.Class
	// What a guest says it lost counts; what it says of the host does not.
	if why, ok := losses[class]; ok && (host || class.FromGuest()) {
		c.gap(c.before, leaf.Mono, leaf.Index, why)
	}
	if host {
		c.state.turn(class, m)
	}
	switch dark := !c.state.known || c.state.runs && !c.state.heard; {
	case dark && !c.isDark:
		c.isDark, c.dark = true, leaf.Mono-silence(class, m)
		if first && leaf.Mono > c.since && !c.state.known {
			c.dark = c.since
		}
	case !dark && c.isDark:
		c.isDark = false
		c.gap(c.dark, leaf.Mono, leaf.Index, "the guest ran, or may have, and its agent was not heard")
	}
}

// TellsOfSilence reports whether entries of a class say for how long an agent was not
// heard: one that was heard, or one that never was.
func TellsOfSilence(c record.Class) bool {
	return c == record.ClassAgentHeartbeatLost || c == record.ClassAgentAbsent
}

// silence is for how long an agent was not heard when it is sealed that it is
// silent.
func silence(class record.Class, m record.Message) int64 {
	if !TellsOfSilence(class) {
		return 0
	}
	if s, ok := m.(*record.AgentState); ok {
		return max(0, s.Silent)
	}
	return int64(maxPause)
}

// AddUnreadable takes an entry whose leaf cannot be read: nothing is known of it
// but that it stands here. It may have told that something before it was lost.
func (c *Coverage) AddUnreadable(index uint64, why string) {
	c.state = state{}
	if !c.isDark {
		c.isDark, c.dark = true, c.before
		c.gap(c.before, c.last, index, why)
	}
	c.dark = min(c.dark, c.before)
}

// turn is what an entry of the host changes.
func (s *state) turn(class record.Class, m record.Message) {
	switch class {
	case record.ClassTick:
		e, ok := m.(*record.Event)
		if !ok || e.Vm == nil { // withheld or erased: it may have told of silence
			*s = state{}
			return
		}
		runs := slices.Contains([]string{"running", "blocked", "shutdown"}, e.Vm.State)
		*s = state{known: true, runs: runs, heard: e.Vm.Detail == AgentHeard}
	case record.ClassVMStart, record.ClassVMReboot, record.ClassVMEpoch, record.ClassVMMigrate:
		*s = state{known: true, runs: true}
	case record.ClassVMStop, record.ClassVMPause, record.ClassVMCrash, record.ClassVMUndefine:
		s.known, s.runs = true, false
	case record.ClassVMResume:
		s.known, s.runs = true, true
	case record.ClassAgentFrame, record.ClassAgentEnrolled, record.ClassAgentHeartbeatBack:
		s.heard = true
		s.known = s.known || class == record.ClassAgentFrame
		s.runs = s.runs || class == record.ClassAgentFrame
	case record.ClassAgentHeartbeatLost, record.ClassAgentAbsent, record.ClassAgentStopped, record.ClassAgentDisconnected:
		s.heard = false
	}
}

// gap notes what of a time lies in the time asked for.
func (c *Coverage) gap(from, to int64, index uint64, why string) {
	from, to = max(from, c.since), min(to, c.until)
	if from > to || from == to && from != c.since && to != c.until {
		return
	}
	if len(c.gaps) == maxGaps {
		c.more++
		return
	}
	c.gaps = append(c.gaps, Gap{From: from, To: to, Index: index, Why: why})
}

// Gaps returns the times that are not covered, when all entries are added, and
// how many more there are. None means: whatever else happened in that time and
// is watched would be an entry.
func (c *Coverage) Gaps() (gaps []Gap, more int) {
	if !c.begun {
		return []Gap{{From: c.since, To: c.until, Why: "there is no entry"}}, 0
	}
	end := *c
	end.gaps = slices.Clone(c.gaps)
	if c.isDark {
		end.gap(c.dark, c.until, 0, "the guest ran, or may have, and its agent was not heard")
	}
	if open := c.last - int64(settled); open < c.until {
		end.gap(open, c.until, 0, "what is sealed does not reach two and a half minutes further yet, when silence would show")
	}
	return end.gaps, end.more
}

// maxSaid bounds how many gaps a report tells of one by one.
const maxSaid = 5

// concludeCoverage says whether anything else can have happened between the
// first and the last entry of a range, and else when.
func (v *verification) concludeCoverage(say func(string, ...any), r Range) {
	from, to := v.entries[r.First].leaf, v.entries[r.Last].leaf
	until := to.Mono - int64(settled)
	if until < from.Mono {
		say("Whether anything else happened is not claimed: the range is shorter than two and a half minutes.")
		return
	}
	c := NewCoverage(from.Mono, until)
	for i := r.First; i <= r.Last; i++ {
		e := v.entries[i]
		c.Add(&e.leaf, e.message)
	}
	gaps, more := c.Gaps()
	if len(gaps) == 0 {
		say("Heartbeats cover the time from %s to %s: while the guest ran its agent was heard, nothing is told to be lost, and nothing else happened that is watched.", stamp(from.Mono), stamp(until))
		return
	}
	for i, g := range gaps {
		if i == maxSaid {
			more += len(gaps) - i
			break
		}
		say("Not covered from %s to %s: %s (entry %d).", stamp(g.From), stamp(g.To), g.Why, g.Index)
	}
	if more > 0 {
		say("%d more times are not covered.", more)
	}
}
