package main

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plain is a writer of text for people. A server, or whoever stands in front of
// one, chooses words that are shown: what a terminal would act on is written as
// its number. Lines and columns stay.
type plain struct{ w io.Writer }

// Write implements io.Writer. What it is given holds whole characters.
func (p plain) Write(b []byte) (int, error) {
	out := make([]byte, 0, len(b))
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, rest[0])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			out = append(out, rest[:n]...)
		case r < 0x100:
			out = fmt.Appendf(out, `\x%02x`, r)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// plainJSON is plain for JSON, in which such a character stands in strings only, and
// is written as an escape: programs read the same value.
type plainJSON struct{ w io.Writer }

// Write implements io.Writer. What it is given holds whole characters.
func (p plainJSON) Write(b []byte) (int, error) {
	out := make([]byte, 0, len(b))
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && !(r == utf8.RuneError && n == 1):
			out = append(out, rest[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// encoder writes JSON to the standard output.
func (a *app) encoder() *json.Encoder { return json.NewEncoder(plainJSON{a.stdout}) }
