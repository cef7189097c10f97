package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// Digest is a SHA-256 digest of a bundle or a policy (package comment).
type Digest = record.Hash

// Mode says what becomes of a match. The zero value is no mode: nothing was
// said.
type Mode uint8

// The modes, the weakest first.
const (
	ModeUnset   Mode = iota
	ModeOff          // not evaluated
	ModeAudit        // the verdict is sealed, actions are recorded as "would have"
	ModeEnforce      // the actions are done
)

var modeNames = [...]string{ModeUnset: "", ModeOff: "off", ModeAudit: "audit", ModeEnforce: "enforce"}

// String returns the mode as policies write it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode returns the mode with the given name.
func ParseMode(s string) (Mode, error) {
	for m, n := range modeNames {
		if n == s && n != "" {
			return Mode(m), nil
		}
	}
	return ModeUnset, fmt.Errorf("parse mode: %q is none of off, audit, enforce", s)
}

// Severities are the severities of policies, the lowest first.
var Severities = []string{"informational", "low", "medium", "high", "critical"}

// LanguageVersion is the version of the policy language that this package
// reads.
const LanguageVersion = 1

// Bundle is a set of policies that are loaded and activated together. It is
// immutable and may be used by many goroutines.
type Bundle struct {
	Name    string
	Version string
	Mode    Mode // ModeUnset: the bundle sets no limit
	Digest  Digest
	// Policies in order of name. All that match fire: order means nothing.
	Policies []*Policy
	// Files by name, for diagnostics.
	Files map[string][]byte

	env *env // what its conditions may name
}

// Policy is one compiled policy. It is immutable and may be used by many
// goroutines, each with an Event of its own.
type Policy struct {
	Name        string
	Number      int // place in Bundle.Policies
	Title       string
	Description string
	Owner       string
	References  []string
	Tags        []string
	Severity    string
	Attack      []string // ATT&CK technique ids
	Mode        Mode     // ModeOff, ModeAudit or ModeEnforce
	Digest      Digest
	// StateDigest changes when what the policy remembers would lose its
	// meaning; windows survive a new bundle where it stays the same.
	StateDigest Digest

	On         []record.Class // empty where there is a Sequence
	Target     *Target        // nil: every VM
	Condition  *Condition     // nil: every event of On
	Exceptions []*Exception   // in order of writing
	Approval   *Approval      // nil: none
	Threshold  *Threshold     // nil: none; at most one of these three
	Sequence   *Sequence
	FirstSeen  *FirstSeen
	Cooldown   *Cooldown // nil: none
	Limit      *Limit    // nil: none
	OnError    string    // OnErrorAlert, OnErrorIgnore or OnErrorMatch
	Prevent    []*Prevent
	Actions    []*Action // in order of writing
	Escalates  []*Escalate
	// Captures are the values that the policy's expressions read and that are
	// not of the event being judged: number i is Event.Bound[i].
	Captures []*Capture
	// Deciding is how many of them conditions and exceptions read. They come first; the
	// others only stand in messages.
	Deciding int
	// Watches says that the policy judges policy.* or approval.* types, the policies' own
	// output.
	Watches bool
}

// Classes returns the event types on which the policy, any step of its
// sequence or its reset looks, without duplicates.
func (p *Policy) Classes() []record.Class {
	if p.Sequence == nil {
		return p.On
	}
	var all []record.Class
	for _, s := range p.Sequence.parts() {
		for _, c := range s.On {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// Cooldown lets one verdict pass for each key and period.
type Cooldown struct {
	Period time.Duration
	By     []*Value // empty: one key for the VM
}

// Action is what a policy wants done.
type Action struct {
	Kind     string // one of ActionKinds
	Message  *Message
	Channels []string
	// Parameters are the other arguments as text, defaults left out: numbers in
	// decimal, durations in whole seconds, lists joined by commas.
	Parameters map[string]string
}

// Destructive reports whether the action changes the domain.
func (a *Action) Destructive() bool { return a.Kind != "alert" }

// Target selects VMs. Lists: any of; attributes: all of.
type Target struct {
	Names     []*Glob
	UUIDs     []string
	Tags      []string
	Metadata  map[string]string
	Condition *Condition // reads vm.* only
}

// Selects reports whether the VM that e speaks of is selected. An error is
// that of the target's condition.
func (t *Target) Selects(e *event.Event) (bool, error) {
	if t == nil {
		return true, nil
	}
	name, _ := e.Str(event.VMName)
	uuid, _ := e.Str(event.VMUUID)
	if t.Names != nil && !anyGlob(t.Names, name) {
		return false, nil
	}
	if t.UUIDs != nil && !contains(t.UUIDs, uuid) {
		return false, nil
	}
	if t.Tags != nil && !intersects(t.Tags, e.Strings(event.VMTags)) {
		return false, nil
	}
	for k, want := range t.Metadata {
		if have, ok := e.Metadata(k); !ok || have != want {
			return false, nil
		}
	}
	return t.Condition.Eval(e)
}

func contains(list []string, s string) bool {
	for _, m := range list {
		if m == s {
			return true
		}
	}
	return false
}

func intersects(a, b []string) bool {
	for _, s := range a {
		if contains(b, s) {
			return true
		}
	}
	return false
}

func anyGlob(globs []*Glob, s string) bool {
	for _, g := range globs {
		if g.Match(s) {
			return true
		}
	}
	return false
}
