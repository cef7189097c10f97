package sigma

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// pattern is a text with wildcards: parts of literal text, "*" for any run of
// characters and "?" for any one.
type pattern []part

type part struct {
	wild byte // '*', '?', or 0 for text
	text string
}

// parsePattern reads a value. A backslash makes a wildcard or a backslash
// behind it literal, and is itself literal before anything else.
func parsePattern(s string) pattern {
	var p pattern
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '*' || c == '?':
			p = p.literal(b.String()).wildcard(c)
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	return p.literal(b.String())
}

func (p pattern) literal(s string) pattern {
	if s == "" {
		return p
	}
	return append(p, part{text: s})
}

// wildcard appends one; "**" is "*".
func (p pattern) wildcard(c byte) pattern {
	if n := len(p); c == '*' && n > 0 && p[n-1].wild == '*' {
		return p
	}
	return append(p, part{wild: c})
}

// around puts "*" before and behind p.
func (p pattern) around(before, behind bool) pattern {
	var out pattern
	if before {
		out = out.wildcard('*')
	}
	for _, x := range p {
		if x.wild != 0 {
			out = out.wildcard(x.wild)
		} else {
			out = append(out, x)
		}
	}
	if behind {
		out = out.wildcard('*')
	}
	return out
}

// plain returns the text of a pattern without wildcards.
func (p pattern) plain() (string, bool) {
	switch {
	case len(p) == 0:
		return "", true
	case len(p) == 1 && p[0].wild == 0:
		return p[0].text, true
	}
	return "", false
}

// glob returns p as the function glob takes it.
func (p pattern) glob() string {
	var b strings.Builder
	for _, x := range p {
		if x.wild != 0 {
			b.WriteByte(x.wild)
			continue
		}
		for i := 0; i < len(x.text); i++ {
			if strings.IndexByte(`*?[\`, x.text[i]) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(x.text[i])
		}
	}
	return b.String()
}

// shape returns the function which a pattern needs, "" for equality, with its
// argument. "has" means that anything fits.
func (p pattern) shape() (function, arg string) {
	if s, ok := p.plain(); ok {
		return "", s
	}
	star := func(i int) bool { return p[i].wild == '*' }
	switch {
	case len(p) == 1 && star(0):
		return "has", ""
	case len(p) == 2 && star(1) && p[0].wild == 0:
		return "startswith", p[0].text
	case len(p) == 2 && star(0) && p[1].wild == 0:
		return "endswith", p[1].text
	case len(p) == 3 && star(0) && star(2) && p[1].wild == 0:
		return "strcontains", p[1].text
	}
	return "glob", p.glob()
}

// transforms are the modifiers that change values before they are compared.
var transforms = map[string]func(string) []string{
	"windash":      windash,
	"wide":         utf16Bytes(false, ""),
	"utf16le":      utf16Bytes(false, ""),
	"utf16be":      utf16Bytes(true, ""),
	"utf16":        utf16Bytes(false, "\xff\xfe"),
	"base64":       func(s string) []string { return []string{base64.StdEncoding.EncodeToString([]byte(s))} },
	"base64offset": base64Offsets,
}

var optionDash = regexp.MustCompile(`(^|[^0-9A-Za-z_])[-/]([0-9A-Za-z_])`)

// windash gives each form that Windows takes for the dash of an option.
func windash(s string) []string {
	all := []string{s}
	for _, dash := range []string{"-", "/", "\u2013", "\u2014", "\u2015"} {
		v := optionDash.ReplaceAllString(s, "${1}"+dash+"${2}")
		if v != s {
			all = append(all, v)
		}
	}
	return all
}

func utf16Bytes(big bool, mark string) func(string) []string {
	return func(s string) []string {
		b := []byte(mark)
		for _, u := range utf16.Encode([]rune(s)) {
			if big {
				b = append(b, byte(u>>8), byte(u))
			} else {
				b = append(b, byte(u), byte(u>>8))
			}
		}
		return []string{string(b)}
	}
}

// base64Offsets gives what is the same in every encoding of a text that has s
// in it, for each place s may have in a group of three bytes.
func base64Offsets(s string) []string {
	var all []string
	for offset := range 3 {
		enc := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + s))
		from := []int{0, 2, 3}[offset]
		to := len(enc) - []int{0, 3, 2}[(len(s)+offset)%3]
		if from < to {
			all = append(all, enc[from:to])
		}
	}
	return all
}

// transform applies the modifiers to a text, which must have no wildcards if
// there are any.
func transform(s string, modifiers []string) ([]pattern, error) {
	p := parsePattern(s)
	if len(modifiers) == 0 {
		return []pattern{p}, nil
	}
	if len(modifiers) == 1 && modifiers[0] == "windash" {
		var all []pattern
		for _, v := range windash(s) { // wildcards stay what they are
			all = append(all, parsePattern(v))
		}
		return all, nil
	}
	text, ok := p.plain()
	if !ok {
		return nil, fmt.Errorf("wildcards cannot be encoded with |%s", modifiers[0])
	}
	texts := []string{text}
	for _, m := range modifiers {
		var next []string
		for _, t := range texts {
			next = append(next, transforms[m](t)...)
		}
		texts = next
	}
	all := make([]pattern, len(texts))
	for i, t := range texts {
		if !utf8.ValidString(t) {
			return nil, fmt.Errorf("|%s makes bytes that are no text", modifiers[len(modifiers)-1])
		}
		all[i] = pattern{}.literal(t)
	}
	return all, nil
}
