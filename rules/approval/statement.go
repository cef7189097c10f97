package approval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
	"unicode"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// Parts of the format, which must not change.
const (
	Namespace      = "provost-approval@v1"
	Type           = "provost-approval/v1"
	RevocationType = "provost-approval-revocation/v1"

	// MaxStatement bounds a statement, in bytes.
	MaxStatement = 16 << 10
	// MaxUses is the largest max_uses.
	MaxUses = 1_000_000

	maxPolicies = 64
	maxVMs      = 256
	maxDigests  = 128
	maxText     = 1024
)

// Time is a moment to the second, in UTC.
type Time struct{ time.Time }

const timeForm = "2006-01-02T15:04:05Z"

// At returns the moment of t, to the second.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Second)} }

// MarshalJSON returns the only form of t.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.UTC().Format(timeForm) + `"`), nil }

// UnmarshalJSON reads the only form of t.
func (t *Time) UnmarshalJSON(b []byte) error {
	at, err := time.Parse(`"`+timeForm+`"`, string(b))
	if err != nil {
		return fmt.Errorf("%.40s is no time such as \"2026-11-23T20:00:00Z\"", b)
	}
	t.Time = at
	return nil
}

func (t Time) String() string { return t.UTC().Format(timeForm) }

// Statement is an approval as it is signed. See the package comment.
type Statement struct {
	Type        string   `json:"type"`
	ID          string   `json:"id"`
	Host        string   `json:"host"`
	Group       string   `json:"group"`
	Policies    []string `json:"policies"`
	VMs         []string `json:"vms"`
	Scope       Scope    `json:"scope"`
	NotBefore   Time     `json:"not_before"`
	NotAfter    Time     `json:"not_after"`
	MaxUses     uint64   `json:"max_uses"`
	RequestedBy string   `json:"requested_by"`
	Reason      string   `json:"reason"`
	Issued      Time     `json:"issued"`
	Nonce       string   `json:"nonce"`
}

// Scope narrows what an approval covers. The zero value covers all that its
// policies match.
type Scope struct {
	On        []string `json:"on,omitempty"`
	Condition string   `json:"condition,omitempty"`
	Content   *Content `json:"content,omitempty"`
}

// Content approves results and not a window in time.
type Content struct {
	SHA256 []string `json:"sha256"`
}

// Revocation ends an approval.
type Revocation struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	Host      string `json:"host"`
	Group     string `json:"group"`
	RevokedBy string `json:"revoked_by"`
	Reason    string `json:"reason"`
	Issued    Time   `json:"issued"`
	Nonce     string `json:"nonce"`
}

// Encode returns the bytes to be signed.
func (s *Statement) Encode() ([]byte, error) { return encode(s, s.check) }

// Encode returns the bytes to be signed.
func (r *Revocation) Encode() ([]byte, error) { return encode(r, r.check) }

func encode(v any, check func() error) ([]byte, error) {
	if err := check(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	b, err := canonical(v)
	if err == nil && len(b) > MaxStatement {
		err = fmt.Errorf("the statement has %d bytes, the limit is %d: %w", len(b), MaxStatement, record.ErrReject)
	}
	return b, err
}

func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads an approval. An error wraps record.ErrReject and comes with nil.
func Parse(b []byte) (*Statement, error) {
	s := &Statement{}
	if err := parse(b, s, "approval"); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("read approval: %w: %w", err, record.ErrReject)
	}
	return s, nil
}

// ParseRevocation reads a revocation. An error wraps record.ErrReject and comes
// with nil.
func ParseRevocation(b []byte) (*Revocation, error) {
	r := &Revocation{}
	if err := parse(b, r, "revocation"); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("read revocation: %w: %w", err, record.ErrReject)
	}
	return r, nil
}

// parse wants the one form of a value, byte for byte.
func parse(b []byte, into any, what string) error {
	if len(b) > MaxStatement {
		return fmt.Errorf("read %s: it has %d bytes, the limit is %d: %w", what, len(b), MaxStatement, record.ErrReject)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w; provost approve --print writes one: %w", what, err, record.ErrReject)
	}
	again, err := canonical(into)
	if err != nil {
		return fmt.Errorf("read %s: %w: %w", what, err, record.ErrReject)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("read %s: it is not in the one form that is signed, %s; provost approve --print writes that: %w", what, difference(b, again), record.ErrReject)
	}
	return nil
}

// difference says where two texts part.
func difference(have, want []byte) string {
	at := 0
	for at < len(have) && at < len(want) && have[at] == want[at] {
		at++
	}
	line := bytes.Count(have[:at], []byte("\n"))
	return fmt.Sprintf("it differs from it in line %d", line+1)
}

var (
	idForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{2,63}$`)
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	uuidForm  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	hashForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// problems collects what is wrong, so that it can be mended at once.
type problems []error

func (p *problems) add(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

func (p *problems) list(field string, all []string, least, most int, ok func(string) bool, want string) {
	p.add(len(all) >= least && len(all) <= most, "%s has %d elements, want %d to %d", field, len(all), least, most)
	seen := map[string]bool{}
	for _, s := range all {
		p.add(ok(s), "%s: %.80q is not %s", field, s, want)
		p.add(!seen[s], "%s: %.80q stands there twice", field, s)
		seen[s] = true
	}
}

func (p *problems) text(field, s string) {
	p.add(s != "" && len(s) <= maxText && printable(s), "%s is missing, longer than %d bytes, or holds signs that cannot be shown", field, maxText)
}

// printable keeps what people sign free of what terminals hide.
func printable(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (s *Statement) check() error {
	var p problems
	p.add(s.Type == Type, "type is %.40q, want %q", s.Type, Type)
	p.add(idForm.MatchString(s.ID), "id is %.80q, want 3 to 64 letters, digits or . _ : -", s.ID)
	p.text("host", s.Host)
	p.add(nameForm.MatchString(s.Group), "group is %.80q, want letters, digits or . _ -", s.Group)
	p.list("policies", s.Policies, 1, maxPolicies, nameForm.MatchString, "the name of a policy")
	p.list("vms", s.VMs, 1, maxVMs, uuidForm.MatchString, "a UUID in lower case")
	p.list("scope.on", s.Scope.On, 0, 256, func(name string) bool {
		c, err := record.ParseClass(name)
		return err == nil && event.IsSubject(c)
	}, "an event type that policies judge")
	p.add(len(s.Scope.Condition) <= MaxStatement && printable(s.Scope.Condition), "scope.condition holds signs that cannot be shown; write it on one line")
	if s.Scope.Content != nil {
		p.list("scope.content.sha256", s.Scope.Content.SHA256, 1, maxDigests, hashForm.MatchString, "a SHA-256 in lower-case hexadecimal")
	}
	p.add(s.NotBefore.Before(s.NotAfter.Time), "not_after %s is not after not_before %s", s.NotAfter, s.NotBefore)
	p.add(s.Issued.Before(s.NotAfter.Time), "not_after %s is not after issued %s", s.NotAfter, s.Issued)
	p.add(s.MaxUses >= 1 && s.MaxUses <= MaxUses, "max_uses is %d, want 1 to %d", s.MaxUses, MaxUses)
	p.text("requested_by", s.RequestedBy)
	p.text("reason", s.Reason)
	p.add(nonceForm.MatchString(s.Nonce), "nonce is not 32 hexadecimal digits in lower case")
	p.add(years(s.NotBefore, s.NotAfter, s.Issued), "a time is before 2000 or after 9999")
	return errors.Join(p...)
}

func (r *Revocation) check() error {
	var p problems
	p.add(r.Type == RevocationType, "type is %.40q, want %q", r.Type, RevocationType)
	p.add(idForm.MatchString(r.ID), "id is %.80q, want 3 to 64 letters, digits or . _ : -", r.ID)
	p.text("host", r.Host)
	p.add(nameForm.MatchString(r.Group), "group is %.80q, want letters, digits or . _ -", r.Group)
	p.text("revoked_by", r.RevokedBy)
	p.text("reason", r.Reason)
	p.add(nonceForm.MatchString(r.Nonce), "nonce is not 32 hexadecimal digits in lower case")
	p.add(years(r.Issued), "a time is before 2000 or after 9999")
	return errors.Join(p...)
}

// years keeps times in what their form can hold.
func years(all ...Time) bool {
	return !slices.ContainsFunc(all, func(t Time) bool { return t.UTC().Year() < 2000 || t.UTC().Year() > 9999 })
}
