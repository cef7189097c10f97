package mirror

import (
	"fmt"
	"io"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Kind says what is wrong, in one word.
type Kind string

// The kinds of failures.
const (
	KindEntry     Kind = "entry"     // an entry is not what it should be, or not in its place
	KindLog       Kind = "log"       // a log is missing, or is another one
	KindSize      Kind = "size"      // a log ends too early, or went back
	KindSignature Kind = "signature" // a signature, or the key that made it
	KindQuorum    Kind = "quorum"    // witnesses that lack
	KindGap       Kind = "gap"       // something that must be there is missing
	KindFork      Kind = "fork"      // two histories of one log
)

// maxFailures bounds a report: what comes after is counted only.
const maxFailures = 200

// Failure is one thing that is wrong with a mirror.
type Failure struct {
	Kind    Kind    `json:"kind"`
	Log     string  `json:"log,omitempty"`   // origin
	Index   *uint64 `json:"index,omitempty"` // entry of that log
	Problem string  `json:"problem"`
}

// String returns the failure as a line of text. What a terminal would act on is
// quoted: names come from the mirror.
func (f Failure) String() string {
	where := string(f.Kind) + ": "
	if f.Index != nil {
		where += fmt.Sprintf("entry %d of ", *f.Index)
	}
	if f.Log != "" {
		where += record.Printable([]byte(f.Log)) + ": "
	}
	return where + record.Printable([]byte(f.Problem))
}

// Report says what a verification has proved, or what stands against it.
type Report struct {
	Valid    bool      `json:"valid"`
	Failures []Failure `json:"failures,omitempty"`
	More     int       `json:"more_failures,omitempty"` // left out of Failures
	// Proved holds sentences. It is empty unless Valid.
	Proved []string `json:"proved,omitempty"`
	// Rest holds sentences on everything but what lacks. It is empty unless all Failures
	// are gaps of an archive which the host log tells of, as entries that were damaged.
	Rest []string `json:"rest,omitempty"`
	// Lost are the entries of that archive which lack, or their payloads that verification
	// needs; where these are more than 10,000 ranges the last one spans all that are left.
	Lost []proof.Range `json:"lost,omitempty"`
	// Unclaimed holds sentences on what was not checked, or is told to be missing.
	Unclaimed []string `json:"unclaimed,omitempty"`

	Logs     []LogReport               `json:"logs"`
	Dropped  []DroppedLog              `json:"dropped,omitempty"` // logs that the host keeps no longer, and does not give
	Entries  uint64                    `json:"entries"`           // of all logs
	Cosigned []proof.ReportCosignature `json:"cosigned,omitempty"`
	// Checkpoint is the signed note of the log that the key is of: what to hold
	// the next verification against. It is empty unless Valid.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// LogReport is what was seen of one log.
type LogReport struct {
	Origin   string `json:"origin"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
	Quotes   uint64 `json:"quotes"`    // in the host log: made; of a VM log: checkpoints of it
	Frames   uint64 `json:"frames"`    // of guest agents
	Signed   uint64 `json:"signed"`    // entries of the guest
	Opened   uint64 `json:"opened"`    // payloads that match
	Unopened uint64 `json:"unopened"`  // payloads that were not given
	Pruned   uint64 `json:"pruned"`    // entries that are gone, as the log says
	Gaps     uint64 `json:"told_gaps"` // entries which tell that something is missing
	// Window is left out where none was asked for, and of logs of another time.
	Window *LogWindow `json:"window,omitempty"`
}

// DroppedLog is a VM log that the host keeps no longer, as its host log says.
type DroppedLog struct {
	Origin    string `json:"origin"`
	Size      uint64 `json:"size"`
	Root      string `json:"root"`
	Index     uint64 `json:"index"` // entry of the host log that says so
	Reason    string `json:"reason"`
	Requester string `json:"requester"`
	SHA256    string `json:"archive_sha256"`
	Bytes     uint64 `json:"archive_bytes"`
}

// InvalidError is the error of a mirror that does not verify.
type InvalidError struct{ Report *Report }

// Error names the first failure and counts the others.
func (e *InvalidError) Error() string {
	n := len(e.Report.Failures) - 1 + e.Report.More
	if n == 0 {
		return fmt.Sprintf("the mirror does not verify: %s", e.Report.Failures[0])
	}
	return fmt.Sprintf("the mirror does not verify: %s (and %d more failures)", e.Report.Failures[0], n)
}

// Is makes an InvalidError a rejection.
func (e *InvalidError) Is(target error) bool { return target == record.ErrReject }

// fail adds a failure.
func (r *Report) fail(kind Kind, log string, index *uint64, format string, args ...any) {
	if len(r.Failures) >= maxFailures {
		r.More++
		return
	}
	r.Failures = append(r.Failures, Failure{Kind: kind, Log: log, Index: index, Problem: fmt.Sprintf(format, args...)})
}

func (r *Report) failed() bool { return len(r.Failures) > 0 }

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Valid {
		b.WriteString("VALID\n")
	} else {
		proved := "nothing is proved"
		if len(r.Rest) > 0 {
			proved = "gaps that the host log tells of"
		}
		fmt.Fprintf(&b, "INVALID: %d failures, %s\n", len(r.Failures)+r.More, proved)
	}
	for _, p := range r.Proved {
		fmt.Fprintf(&b, "  %s\n", record.Printable([]byte(p)))
	}
	if r.Valid && len(r.Unclaimed) > 0 {
		b.WriteString("Not claimed:\n")
		for _, p := range r.Unclaimed {
			fmt.Fprintf(&b, "  %s\n", record.Printable([]byte(p)))
		}
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "  and %d more\n", r.More)
	}
	if len(r.Rest) > 0 {
		b.WriteString("All else holds:\n")
	}
	for _, p := range r.Rest {
		fmt.Fprintf(&b, "  %s\n", record.Printable([]byte(p)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
