package proof

import (
	"fmt"
	"io"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Failure is one thing that is wrong with a bundle.
type Failure struct {
	File    string  `json:"file,omitempty"`  // member of the archive
	Log     string  `json:"log,omitempty"`   // origin
	Index   *uint64 `json:"index,omitempty"` // entry of that log
	Problem string  `json:"problem"`
}

// String returns the failure as a line of text. Names and reasons come from
// the archive: what a terminal would act on is quoted.
func (f Failure) String() string {
	var where []string
	if f.Index != nil {
		where = append(where, fmt.Sprintf("entry %d", *f.Index))
	}
	if f.Log != "" {
		where = append(where, "of "+printable(f.Log))
	}
	if f.File != "" {
		where = append(where, "("+printable(f.File)+")")
	}
	if len(where) == 0 {
		return printable(f.Problem)
	}
	return strings.Join(where, " ") + ": " + printable(f.Problem)
}

// printable makes text of an archive or a payload safe to show.
func printable(s string) string { return record.Printable([]byte(s)) }

// Report says what a verification has proved, or everything that stands
// against it.
type Report struct {
	Valid    bool      `json:"valid"`
	Failures []Failure `json:"failures,omitempty"`
	// Proved holds sentences. It is empty unless Valid.
	Proved []string `json:"proved,omitempty"`

	HostOrigin string `json:"host_origin"`
	HostSize   uint64 `json:"host_size,omitempty"`
	HostRoot   string `json:"host_root,omitempty"`
	VMOrigin   string `json:"vm_origin"`
	VMSize     uint64 `json:"vm_size,omitempty"`
	VMRoot     string `json:"vm_root,omitempty"`

	// Cosigned lists the policy's witnesses that cosigned the host checkpoint.
	Cosigned []ReportCosignature `json:"cosigned,omitempty"`

	Entries []ReportEntry `json:"entries,omitempty"`
	Signed  int           `json:"signed_by_agent"` // entries
	Opened  int           `json:"payloads_match"`  // entries
	// Unreadable counts payloads of guests which match and are no record.
	Unreadable int `json:"payloads_unreadable"`
	Withheld   int `json:"payloads_withheld"`
	// Policies are the texts of policy bundles that the entries name.
	Policies []ReportPolicy `json:"policies_given,omitempty"`
}

// ReportPolicy is the text of a policy bundle, which is the one that its digest names.
type ReportPolicy struct {
	Digest string `json:"digest"`
	Files  int    `json:"files"`
	Lacks  string `json:"lacks,omitempty"` // why it is not there
}

// ReportCosignature is a verified cosignature.
type ReportCosignature struct {
	Witness string `json:"witness"` // as the policy calls it
	Key     string `json:"key"`     // name and hash of its verifier key
	Time    int64  `json:"time"`    // Unix seconds, on its clock
}

// ReportEntry is one verified entry.
type ReportEntry struct {
	Index   uint64 `json:"index"`
	Role    string `json:"role"`
	Class   string `json:"class"`
	Origin  string `json:"origin"`
	Wall    int64  `json:"wall"` // Unix nanoseconds
	Hash    string `json:"leaf_hash"`
	Payload bool   `json:"payload"`
	Agent   string `json:"agent_key,omitempty"` // Ed25519 public key, hexadecimal
	Frame   uint64 `json:"frame_index,omitempty"`
	// Epoch is set where the agent's key was enrolled for the epoch that it
	// signed; hexadecimal.
	Epoch string `json:"epoch,omitempty"`
}

// InvalidError is the error of a bundle that does not verify.
type InvalidError struct{ Report *Report }

// Error names the first failure and counts the others.
func (e *InvalidError) Error() string {
	f := e.Report.Failures
	if len(f) == 1 {
		return fmt.Sprintf("evidence does not verify: %s", f[0])
	}
	return fmt.Sprintf("evidence does not verify: %s (and %d more failures)", f[0], len(f)-1)
}

// Is makes an InvalidError a rejection.
func (e *InvalidError) Is(target error) bool { return target == record.ErrReject }

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Valid {
		b.WriteString("VALID\n")
	} else {
		fmt.Fprintf(&b, "INVALID: %d failures, nothing is proved\n", len(r.Failures))
	}
	for _, p := range r.Proved {
		fmt.Fprintf(&b, "  %s\n", printable(p))
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
