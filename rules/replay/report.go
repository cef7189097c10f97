package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Report says whether what is sealed is what the policies in force give.
type Report struct {
	// Valid says that no verdict is missing, none is extra and none says something
	// else, of all that could be evaluated, and that all bundles were given.
	Valid bool         `json:"valid"`
	Logs  []*LogReport `json:"logs"`
	// Missing are digests of bundles that were in force and are not given.
	Missing []string `json:"missing_bundles"`
}

// LogReport is what was found in one log.
type LogReport struct {
	Origin      string          `json:"origin"`
	Entries     uint64          `json:"entries"` // in the time that is asked for
	Judged      uint64          `json:"judged"`  // of them, by policies that are known
	Activations []*Activation   `json:"activations"`
	Policies    []*PolicyReport `json:"policies"`
	Verdicts    uint64          `json:"verdicts"` // sealed ones that are as they must be
	Differences []Difference    `json:"differences"`
	More        uint64          `json:"more_differences,omitempty"`

	// Before says what policies began with, in a log that is not the first shard.
	Before *Before `json:"before,omitempty"`

	// What is not claimed.
	Erased   uint64 `json:"erased"`   // records that policies judge and that were erased
	Withheld uint64 `json:"withheld"` // likewise, and not given
	Skipped  uint64 `json:"skipped"`  // entries that are not there
	Unknown  uint64 `json:"unknown"`  // entries under policies that are not known
	Unopened uint64 `json:"unopened"` // sealed verdicts that are not given
	Unsure   uint64 `json:"unsure"`   // verdicts that depend on any of the above
	Pending  uint64 `json:"pending"`  // verdicts on the last moments, not sealed yet
	Own      uint64 `json:"own"`      // verdicts of the host itself, on entries it could not judge

	erased []span
}

// Activation is a stretch of a log under the same policies.
type Activation struct {
	Entry    uint64 `json:"entry"` // that says so
	Wall     int64  `json:"wall"`  // Unix nanoseconds
	Name     string `json:"name"`
	Version  string `json:"version"`
	Digest   string `json:"digest"`
	Policies int    `json:"policies"`
	Judged   uint64 `json:"judged"` // entries
	Problem  string `json:"problem,omitempty"`
}

// PolicyReport counts for one policy.
type PolicyReport struct {
	Name      string `json:"name"`
	Judged    uint64 `json:"judged"`     // records of its types while it was in force
	NotJudged uint64 `json:"not_judged"` // of them, those whose payload is not given
	Verdicts  uint64 `json:"verdicts"`
	// NotEvaluated says why its verdicts were not compared, of all or of some records.
	NotEvaluated string `json:"not_evaluated,omitempty"`

	remembers bool
}

// Before is what policies remember at the beginning of a shard.
type Before struct {
	Origin   string  `json:"origin"`          // of the shard before
	Entry    *uint64 `json:"entry,omitempty"` // that says what it is; none where none does
	Compared bool    `json:"compared"`        // it is what the shard before gives
	Problem  string  `json:"problem,omitempty"`
}

// The kinds of differences.
const (
	KindMissing = "missing"
	KindExtra   = "extra"
	KindDiffers = "differs"
	KindCarried = "carried" // what policies began with is not what the shard before gives
)

// Difference is a verdict that is not as it must be.
type Difference struct {
	Kind   string `json:"kind"`
	Policy string `json:"policy"`
	Cause  uint64 `json:"cause"` // entry that was judged
	// CauseShard is the shard that the cause stands in, where that is an earlier one.
	CauseShard uint32  `json:"cause_shard,omitempty"`
	Entry      *uint64 `json:"entry,omitempty"` // of the verdict; none where it is missing
	Problem    string  `json:"problem"`
}

func (r *Report) conclude() {
	r.Valid = len(r.Missing) == 0
	for _, l := range r.Logs {
		r.Valid = r.Valid && len(l.Differences) == 0
		for _, a := range l.Activations {
			r.Valid = r.Valid && a.Problem == ""
		}
	}
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Valid {
		b.WriteString("POLICIES: every verdict is sealed that the policies in force give, and no other\n")
	} else {
		b.WriteString("POLICIES: NOT AS SEALED\n")
	}
	for _, d := range r.Missing {
		fmt.Fprintf(&b, "  the bundle with digest %s was in force and is not given: name its directory with --bundle\n", d)
	}
	for _, l := range r.Logs {
		l.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l *LogReport) write(b *strings.Builder) {
	say := func(n uint64, text string) {
		if n > 0 {
			fmt.Fprintf(b, "    not claimed: "+text+"\n", n)
		}
	}
	fmt.Fprintf(b, "  %s: %d entries, %d judged, %d verdicts as they must be\n", record.Printable([]byte(l.Origin)), l.Entries, l.Judged, l.Verdicts)
	for _, a := range l.Activations {
		fmt.Fprintf(b, "    from entry %d, %s: bundle %s %s, %d policies, digest %.16s: %d entries judged\n", a.Entry, time.Unix(0, a.Wall).UTC().Format(time.RFC3339),
			record.Printable([]byte(a.Name)), record.Printable([]byte(a.Version)), a.Policies, a.Digest, a.Judged)
		if a.Problem != "" {
			fmt.Fprintf(b, "      not evaluated: %s\n", record.Printable([]byte(a.Problem)))
		}
	}
	if s := l.Before; s != nil {
		fmt.Fprintf(b, "    begins with what policies remember of %s: ", record.Printable([]byte(s.Origin)))
		if s.Compared {
			fmt.Fprintf(b, "it is what that gives, by entry %d\n", *s.Entry)
		} else {
			fmt.Fprintf(b, "not evaluated: %s\n", record.Printable([]byte(s.Problem)))
		}
	}
	for _, p := range l.Policies {
		fmt.Fprintf(b, "    policy %s: %d records judged, %d verdicts", record.Printable([]byte(p.Name)), p.Judged, p.Verdicts)
		if p.NotJudged > 0 {
			fmt.Fprintf(b, ", %d records not given", p.NotJudged)
		}
		if p.NotEvaluated != "" {
			fmt.Fprintf(b, "; not evaluated again: %s", p.NotEvaluated)
		}
		b.WriteByte('\n')
	}
	for _, d := range l.Differences {
		at := ""
		if d.Entry != nil {
			at = fmt.Sprintf(" in entry %d", *d.Entry)
		}
		switch {
		case d.Kind == KindCarried:
			fmt.Fprintf(b, "    %s:%s: %s\n", d.Kind, at, record.Printable([]byte(d.Problem)))
			continue
		case d.CauseShard > 0:
			at = fmt.Sprintf(" of shard %d", d.CauseShard) + at
		}
		fmt.Fprintf(b, "    %s: verdict of %s on entry %d%s: %s\n", d.Kind, record.Printable([]byte(d.Policy)), d.Cause, at, record.Printable([]byte(d.Problem)))
	}
	if l.More > 0 {
		fmt.Fprintf(b, "    and %d more\n", l.More)
	}
	say(l.Erased, "%d records that policies judged were erased and cannot be evaluated again")
	say(l.Withheld, "%d records that policies judged are not given")
	say(l.Skipped, "%d entries are not there, pruned or left out; what policies remembered of them is not known")
	say(l.Unknown, "%d entries came under policies that are not known")
	say(l.Unopened, "%d sealed verdicts are not given")
	say(l.Unsure, "%d verdicts depend on what is not given")
	say(l.Pending, "%d verdicts on the last minute are not sealed yet")
	if l.Own > 0 {
		fmt.Fprintf(b, "    %d verdicts are the host's own, on what it could not judge; no policy gives them\n", l.Own)
	}
}
