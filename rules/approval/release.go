package approval

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// ReleaseType is the type of a release.
const ReleaseType = "provost-release/v1"

// maxHolds bounds the holds of one release.
const maxHolds = 256

// Release is the word of a second person that holds of a VM may end: a quarantine whose
// policy wants two persons. It names each of them, so that it is good for no other.
type Release struct {
	Type        string   `json:"type"`
	Host        string   `json:"host"`
	Group       string   `json:"group"`
	VM          string   `json:"vm"`
	Holds       []string `json:"holds"` // origin, verdict and action, see HoldName; in order
	RequestedBy string   `json:"requested_by"`
	Reason      string   `json:"reason"`
	NotAfter    Time     `json:"not_after"`
	Issued      Time     `json:"issued"`
	Nonce       string   `json:"nonce"`
}

// HoldName names a hold in a release: the log of the verdict, its entry there, and which
// of its actions it is.
func HoldName(log string, verdict uint64, action uint32) string {
	return fmt.Sprintf("%s %d %d", log, verdict, action)
}

// Encode returns the bytes to be signed.
func (s *Release) Encode() ([]byte, error) { return encode(s, s.check) }

// ParseRelease reads a release. An error wraps record.ErrReject and comes with nil.
func ParseRelease(b []byte) (*Release, error) {
	s := &Release{}
	if err := parse(b, s, "release"); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("read release: %w: %w", err, record.ErrReject)
	}
	return s, nil
}

func (s *Release) check() error {
	var p problems
	p.add(s.Type == ReleaseType, "type is %.40q, want %q", s.Type, ReleaseType)
	p.text("host", s.Host)
	p.add(nameForm.MatchString(s.Group), "group is %.80q, want letters, digits or . _ -", s.Group)
	p.add(uuidForm.MatchString(s.VM), "vm is %.80q, want a UUID in lower case", s.VM)
	p.list("holds", s.Holds, 1, maxHolds, func(h string) bool { return len(h) <= 512 && printable(h) && strings.Count(h, " ") == 2 }, "a log, a verdict and an action")
	p.add(slices.IsSorted(s.Holds), "holds are not in order")
	p.text("requested_by", s.RequestedBy)
	p.text("reason", s.Reason)
	p.add(s.Issued.Before(s.NotAfter.Time), "not_after %s is not after issued %s", s.NotAfter, s.Issued)
	p.add(nonceForm.MatchString(s.Nonce), "nonce is not 32 hexadecimal digits in lower case")
	p.add(years(s.NotAfter, s.Issued), "a time is before 2000 or after 9999")
	return errors.Join(p...)
}

// VerifyRelease checks a release against the trust roots. Who has requested it does not
// count among those who sign.
func (r *Roots) VerifyRelease(statement []byte, signatures [][]byte, at time.Time) (*Release, []string, error) {
	s, err := ParseRelease(statement)
	if err != nil {
		return nil, nil, err
	}
	fail := func(format string, args ...any) (*Release, []string, error) {
		return nil, nil, fmt.Errorf("release of VM %s: %w: %w", s.VM, fmt.Errorf(format, args...), record.ErrReject)
	}
	g := r.Group(s.Group)
	switch {
	case g == nil:
		return fail("this host has no approver_group %q in its configuration", s.Group)
	case at.After(s.NotAfter.Time):
		return fail("it ended at %s; make a new one", s.NotAfter)
	case s.Issued.After(at.Add(maxSkew)):
		return fail("it was issued at %s, which is in the future", s.Issued)
	case s.NotAfter.Sub(s.Issued.Time) > g.MaxDuration:
		return fail("it is valid for %s, group %q allows %s at most", s.NotAfter.Sub(s.Issued.Time), g.Name, g.MaxDuration)
	}
	signers, err := g.signers(statement, signatures, s.Issued.Time, at)
	if err != nil {
		return fail("%w", err)
	}
	signers = slices.DeleteFunc(signers, func(who string) bool { return strings.EqualFold(who, s.RequestedBy) })
	if len(signers) < g.Require {
		return fail("%d of the %d signers that group %q wants have signed, and %q, who requested it, does not count", len(signers), g.Require, g.Name, s.RequestedBy)
	}
	return s, signers, nil
}
