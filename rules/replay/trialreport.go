package replay

import (
	"fmt"
	"io"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// TrialReport is what would be different with a candidate.
type TrialReport struct {
	Since     string `json:"since"`
	Candidate string `json:"candidate"` // digests
	Active    string `json:"active"`
	Logs      uint64 `json:"logs"`
	Entries   uint64 `json:"entries"` // that were counted
	Ahead     uint64 `json:"ahead"`   // that were judged before, for what policies remember
	// NotGiven are entries that could not be judged, since their payloads are gone.
	NotGiven uint64         `json:"not_given"`
	Policies []*TrialPolicy `json:"policies"`
	// Wanted are the actions that the candidate wants, alerts among them, in whatever
	// mode its policies are.
	Wanted  uint64         `json:"wanted"`
	Actions []TrialActions `json:"actions"`
	Noisy   []Noisy        `json:"noisy"`
	// Nanoseconds is what the candidate takes for an entry, about.
	Nanoseconds uint64 `json:"ns_per_entry"`
}

// TrialPolicy is one policy of either bundle.
type TrialPolicy struct {
	Name         string    `json:"name"`
	Candidate    bool      `json:"candidate"` // has it
	Active       bool      `json:"active"`    // has it
	Matches      uint64    `json:"matches"`   // of the candidate
	Was          uint64    `json:"was"`       // of the bundle in force
	New          uint64    `json:"new"`
	Lost         uint64    `json:"lost"`
	Errors       uint64    `json:"errors"` // of the candidate
	NewExamples  []Example `json:"new_examples,omitempty"`
	LostExamples []Example `json:"lost_examples,omitempty"`
}

// Example is one entry, for a look at it.
type Example struct {
	Log   string `json:"log"` // origin
	Entry uint64 `json:"entry"`
}

// TrialActions are the actions of one kind that the candidate wants on a domain.
type TrialActions struct {
	Domain   string `json:"domain"`
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Total    uint64 `json:"total"`
	Peak     uint64 `json:"peak"` // in one hour
	PeakHour string `json:"peak_hour"`
}

// Noisy is something that a policy of the candidate matches often.
type Noisy struct {
	Policy     string `json:"policy"`
	Name       string `json:"name"` // of the domain
	Subject    string `json:"subject"`
	Count      uint64 `json:"count"`
	AtMostLess uint64 `json:"at_most_less"` // by which the count may be too high
}

// WriteText writes the report for people.
func (r *TrialReport) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "replayed %d entries of %d logs since %s, %d ahead of them for memory; %d ns an entry\n", r.Entries, r.Logs, r.Since, r.Ahead, r.Nanoseconds)
	if r.NotGiven > 0 {
		fmt.Fprintf(&b, "%d entries could not be judged: their payloads are gone\n", r.NotGiven)
	}
	fmt.Fprintf(&b, "\n%-40s %10s %10s %10s %10s %10s\n", "policy", "matches", "in force", "new", "lost", "errors")
	for _, p := range r.Policies {
		name := p.Name
		switch {
		case !p.Active:
			name = "+ " + name
		case !p.Candidate:
			name = "- " + name
		default:
			name = "  " + name
		}
		fmt.Fprintf(&b, "%-40s %10d %10d %10d %10d %10d\n", name, p.Matches, p.Was, p.New, p.Lost, p.Errors)
		for _, e := range p.NewExamples {
			fmt.Fprintf(&b, "    new on entry %d of %s\n", e.Entry, record.Printable([]byte(e.Log)))
		}
		for _, e := range p.LostExamples {
			fmt.Fprintf(&b, "    lost on entry %d of %s\n", e.Entry, record.Printable([]byte(e.Log)))
		}
	}
	fmt.Fprintf(&b, "\n%d actions that it would want\n", r.Wanted)
	for _, a := range r.Actions {
		fmt.Fprintf(&b, "  %s %s: %d %s, at most %d in an hour (%s)\n", a.Domain, record.Printable([]byte(a.Name)), a.Total, a.Kind, a.Peak, a.PeakHour)
	}
	if len(r.Noisy) > 0 {
		b.WriteString("\nmost frequent\n")
	}
	for _, n := range r.Noisy {
		fmt.Fprintf(&b, "  %8d %s on %s: %s\n", n.Count, n.Policy, record.Printable([]byte(n.Name)), n.Subject)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
