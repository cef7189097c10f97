package notify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Alert is what channels deliver. Its texts hold printable characters only,
// whatever a guest has written into them, and are bounded.
type Alert struct {
	// ID is the same whenever the alert is delivered again.
	ID         string    `json:"id"`
	Host       string    `json:"host"`
	Time       time.Time `json:"time"` // when the verdict was sealed
	Policy     string    `json:"policy"`
	Severity   string    `json:"severity"`
	Title      string    `json:"title"`
	Message    string    `json:"message"`
	DomainUUID string    `json:"domain_uuid,omitempty"`
	DomainName string    `json:"domain_name,omitempty"`
	// Log is the origin of the log that holds the verdict at leaf Verdict, whose
	// leaf hash is VerdictHash (hexadecimal), and what it rests on at leaf Cause.
	Log         string   `json:"log,omitempty"`
	Verdict     uint64   `json:"verdict"`
	VerdictHash string   `json:"verdict_hash,omitempty"`
	Cause       uint64   `json:"cause"`
	CauseClass  string   `json:"cause_class,omitempty"`
	Attack      []string `json:"attack,omitempty"`
	Escalation  string   `json:"escalation,omitempty"`
	Counted     uint64   `json:"counted,omitempty"`
	Suppressed  uint64   `json:"suppressed,omitempty"` // repeats that a cooldown swallowed
	Error       string   `json:"error,omitempty"`      // the policy could not be decided
	Test        bool     `json:"test,omitempty"`       // nothing happened: somebody tries the channel
}

// Bounds of texts, in bytes.
const (
	maxMessage = 4096
	maxText    = 512
	maxAttack  = 16
)

// errGone says that an alert cannot be told any more.
var errGone = errors.New("its verdict cannot be told any more")

// load reads an alert from its verdict.
func (n *Notifier) load(q *queued) (*Alert, error) {
	l, ok := n.cfg.Store.LogByID(q.log)
	if !ok {
		return nil, fmt.Errorf("%w: the ledger has no log of that number", errGone)
	}
	it, err := l.Item(q.index)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	m, err := it.Decode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	v, ok := m.(*record.Verdict)
	if !ok || int(q.action) >= len(v.Actions) {
		return nil, fmt.Errorf("%w: entry %d is no verdict with an action %d", errGone, q.index, q.action)
	}
	return n.fromVerdict(l, &it, v, q.action), nil
}

func (n *Notifier) fromVerdict(l *chain.Log, it *chain.Item, v *record.Verdict, action uint32) *Alert {
	a := &Alert{
		ID:   l.Origin() + "/" + strconv.FormatUint(it.Index, 10) + "/" + strconv.FormatUint(uint64(action), 10),
		Host: n.cfg.Host, Time: time.Unix(0, it.Leaf.Wall).UTC(),
		Policy: clean(v.Policy, maxText), Severity: clean(v.Severity, maxText), Title: clean(v.Title, maxText),
		Message:    clean(v.Actions[action].Message, maxMessage),
		DomainUUID: l.Name().Domain, DomainName: clean(n.cfg.Name(l.Name().Domain), maxText),
		Log: l.Origin(), Verdict: it.Index, VerdictHash: hex.EncodeToString(it.LeafHash[:]),
		Cause: v.CauseIndex, CauseClass: clean(v.CauseClass, maxText),
		Escalation: clean(v.Escalation, maxText), Counted: v.Counted, Suppressed: v.Suppressed, Error: clean(v.Error, maxText),
	}
	for _, t := range v.Attack[:min(len(v.Attack), maxAttack)] {
		a.Attack = append(a.Attack, clean(t, maxText))
	}
	return a
}

// clean writes whatever drives a terminal, ends a line or is no UTF-8 as an
// escape, and bounds the length.
func clean(s string, limit int) string {
	if len(s) > limit {
		end := limit
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "..."
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteString(s[:n])
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}
