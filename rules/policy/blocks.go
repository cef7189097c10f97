package policy

import (
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// Exception says which matches are none.
type Exception struct {
	Name      string
	Condition *Condition
	Reason    string
	Expires   time.Time // zero: never

	rng hcl.Range
}

// Approval says whose approval makes a match none.
type Approval struct {
	Group   string
	Require int           // signers; 0: as many as the group asks for
	Grace   time.Duration // in which a late approval still counts
}

// Threshold lets a match pass when Count of them lie within Window.
//
// The window slides: of each key are counted the matches whose host time is
// later than that of the newest less Window. The match that makes them Count
// passes, and counting begins anew. With Distinct, matches of one value count
// once, at the time of the newest; a missing value does not count.
type Threshold struct {
	Count    uint64
	Distinct *Value   // nil: every match counts
	By       []*Value // empty: one key for the VM
	Window   time.Duration
	MaxKeys  int
	// StateDigest changes when what was counted would lose its meaning.
	StateDigest Digest
}

// Sequence lets the last of several events in order pass.
type Sequence struct {
	By      []*Value // empty: one key for the VM
	Within  time.Duration
	Steps   []*Step
	Reset   *Step // nil: none
	MaxKeys int

	StateDigest Digest
}

// parts are the steps and the reset.
func (s *Sequence) parts() []*Step {
	all := append([]*Step(nil), s.Steps...)
	if s.Reset != nil {
		all = append(all, s.Reset)
	}
	return all
}

// Step is one event of a sequence, or what resets it.
type Step struct {
	Name      string // "" for a reset
	On        []record.Class
	Condition *Condition
	Count     uint64   // how many such events make the step, at least 1
	By        []*Value // its own key, as many values as that of the sequence

	set event.ClassSet
}

// Looks reports whether the step looks at events of class c.
func (s *Step) Looks(c record.Class) bool { return s.set.Has(c) }

// FirstSeen lets a match pass when no match with its values was within
// History before it.
type FirstSeen struct {
	By      []*Value
	History time.Duration
	Learn   time.Duration // in which values are only remembered
	MaxKeys int

	StateDigest Digest
}

// Limit bounds how often the policy's actions that change the domain are done.
type Limit struct {
	Max   uint64
	Per   time.Duration
	Scope string // LimitVM or LimitHost
	Then  string // LimitAlert or LimitAudit

	StateDigest Digest
}

// Where a Limit counts, and what remains of a verdict beyond it.
const (
	LimitVM    = "vm"
	LimitHost  = "host"
	LimitAlert = "alert" // only its alerts
	LimitAudit = "audit" // nothing is done
)

// What becomes of an event which a policy could not decide.
const (
	OnErrorAlert  = "alert"
	OnErrorIgnore = "ignore"
	OnErrorMatch  = "treat_as_match"
)

// Prevent is what the host is to stop, whatever the guest says.
type Prevent struct {
	Kind  string   // egress
	Allow []string // prefixes and addresses
	Deny  []string
	Scope string // all or external
}

// Escalate is done besides when matches keep coming. Every match is counted,
// whether a cooldown swallows it or not.
type Escalate struct {
	Name      string
	Threshold *Threshold
	Actions   []*Action
}

// Capture is a value that an expression reads of something else than the
// event being judged.
type Capture struct {
	Kind  CaptureKind
	Step  int    // index into Sequence.Steps
	Value *Value // of CaptureField

	info *event.Info
	name string // as policies write it
}

// Name is the name by which policies read the value.
func (c *Capture) Name() string { return c.name }

// CaptureKind says what a Capture is.
type CaptureKind uint8

// The kinds of captures.
const (
	CaptureField  CaptureKind = iota + 1 // step.NAME.FIELD
	CaptureTaken                         // step.NAME.count
	CaptureCount                         // threshold.count
	CaptureWindow                        // threshold.window
)

// ActionKinds are the kinds of actions in the language.
var ActionKinds = []string{"alert", "pause", "snapshot", "detach_network", "quarantine", "kill_process"}
