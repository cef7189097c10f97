package domain

import (
	"encoding/hex"
	"fmt"
)

// UUID is a libvirt domain's UUID, in the byte order of its text form.
type UUID [16]byte

// ParseUUID reads the form 8-4-4-4-12 of hexadecimal digits, in either case. Libvirt's other
// forms (without hyphens, with blanks) are refused: an identity has one spelling.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("parse domain UUID: %q is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", clip(s))
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, fmt.Errorf("parse domain UUID: %q: %w", clip(s), err)
	}
	return u, nil
}

// String is the form 8-4-4-4-12 in lower case.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// IsZero says whether no UUID was set. Libvirt refuses to define a domain with the zero UUID.
func (u UUID) IsZero() bool { return u == UUID{} }

// MarshalText and UnmarshalText give the form of String in JSON and elsewhere.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads the form of String.
func (u *UUID) UnmarshalText(b []byte) error {
	p, err := ParseUUID(string(b))
	if err != nil {
		return err
	}
	*u = p
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// Domain is one libvirt domain at one moment.
type Domain struct {
	UUID       UUID   `json:"uuid"`
	Name       string `json:"name"`
	ID         int    `json:"id"` // libvirt's number of this run; -1 when it does not run. A new one with each start.
	State      State  `json:"state"`
	Persistent bool   `json:"persistent"` // it has a configuration that outlives a run
}

// State is what a domain does. The numbers are libvirt's virDomainState.
type State int

const (
	NoState     State = 0
	Running     State = 1
	Blocked     State = 2 // runs, waiting for a resource (Xen)
	Paused      State = 3
	Shutdown    State = 4 // the guest is shutting down, or QEMU has ended and libvirt is clearing up
	Shutoff     State = 5
	Crashed     State = 6
	PMSuspended State = 7 // suspended by the guest's own power management
)

var stateNames = map[State]string{NoState: "nostate", Running: "running", Blocked: "blocked", Paused: "paused",
	Shutdown: "shutdown", Shutoff: "shutoff", Crashed: "crashed", PMSuspended: "pmsuspended"}

// String is one lower-case word; a number this version does not know is written state-N.
func (s State) String() string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("state-%d", int(s))
}

// Active says whether the domain has a QEMU process, running or paused.
func (s State) Active() bool {
	return s == Running || s == Blocked || s == Paused || s == Shutdown || s == PMSuspended
}

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(b []byte) error {
	for k, n := range stateNames {
		if n == string(b) {
			*s = k
			return nil
		}
	}
	var n int
	if _, err := fmt.Sscanf(string(b), "state-%d", &n); err != nil || fmt.Sprintf("state-%d", n) != string(b) {
		return fmt.Errorf("parse domain state: %q is no state", clip(string(b)))
	}
	*s = State(n)
	return nil
}
