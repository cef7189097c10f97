package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

func tailCommand(a *app) func(context.Context, []string) error {
	dial := a.daemon()
	a.asRaw()
	q := client.StreamQuery{Lost: func(err error) { fmt.Fprintf(plain{a.stderr}, "provost tail: %v; going on\n", err) }}
	a.flags.BoolVar(&q.Follow, "f", false, "go on as entries are sealed")
	a.flags.IntVar(&q.Last, "n", 0, "only the newest `N` entries that match; 0: all")
	a.flags.BoolVar(&q.New, "new", false, "none that are sealed already; with -f")
	classes := a.flags.String("class", "", "only these `CLASSES`, separated by commas, such as process.exec,file.*")
	return func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			q.Domain = args[0]
		}
		if *classes != "" {
			q.Classes = strings.Split(*classes, ",")
		}
		if q.Last < 0 {
			return &usageError{"-n is below zero"}
		}
		c := dial()
		defer c.Close()
		for e, err := range c.Stream(ctx, q) {
			if err != nil {
				return err
			}
			if err := a.entry(e); err != nil {
				return err
			}
		}
		return nil
	}
}

// asRaw declares --raw.
func (a *app) asRaw() {
	a.flags.BoolVar(&a.raw, "raw", false, "entries in the bytes that were sealed, one JSON object a line: for tests and explanations of policies")
}

// entry prints one entry. An entry that cannot be decoded is shown as such:
// it is part of the history all the same.
func (a *app) entry(e *client.Entry) error {
	if a.raw {
		if err := a.encoder().Encode(e); err != nil {
			return fmt.Errorf("write entry: %w", err)
		}
		return nil
	}
	l, m, err := e.Open()
	if a.output == "json" {
		return a.entryJSON(e, &l, m, err)
	}
	text := ""
	if err != nil {
		text = err.Error()
	} else {
		text = record.Text(l.Header.Class, m)
	}
	at := time.Unix(0, l.Wall).UTC().Format("2006-01-02T15:04:05.000Z")
	where := "host"
	if e.Domain != "" {
		where = record.Printable([]byte(e.Domain))
	}
	_, err = fmt.Fprintf(plain{a.stdout}, "%s %s %6d %-8s %-22s %s\n", at, where, l.Index, l.Origin, l.Header.Class, text)
	return err
}

// entryLine is the JSON form of an entry: what the leaf says, and the payload
// decoded.
type entryLine struct {
	Log        string         `json:"log"`
	Domain     string         `json:"domain,omitempty"`
	Index      uint64         `json:"index"`
	LeafHash   string         `json:"leaf_hash"`
	Time       string         `json:"time"` // host wall time, RFC 3339
	Mono       int64          `json:"mono"` // host monotone time, nanoseconds
	Origin     string         `json:"origin"`
	Class      string         `json:"class"`
	Session    string         `json:"session"` // hexadecimal
	Sequence   uint64         `json:"sequence"`
	GuestTime  uint64         `json:"author_time"` // author's clock, nanoseconds
	Commitment string         `json:"commitment"`
	Text       string         `json:"text"`
	Payload    map[string]any `json:"payload,omitempty"`
	Error      string         `json:"error,omitempty"`
}

func (a *app) entryJSON(e *client.Entry, l *record.Leaf, m record.Message, err error) error {
	out := entryLine{
		Log: e.Log, Domain: e.Domain, Index: l.Index, LeafHash: record.LeafHash(e.Leaf).String(),
		Time: time.Unix(0, l.Wall).UTC().Format(time.RFC3339Nano), Mono: l.Mono, Origin: l.Origin.String(),
		Class: l.Header.Class.String(), Session: fmt.Sprintf("%016x", l.Header.Session), Sequence: l.Header.Sequence, GuestTime: l.Header.Time,
		Commitment: l.Commitment.String(),
	}
	if err != nil {
		out.Error = err.Error()
	} else {
		out.Text = record.Text(l.Header.Class, m)
		if out.Payload, err = record.JSON(m); err != nil {
			return err
		}
	}
	enc := a.encoder()
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("write entry: %w", err)
	}
	return nil
}
