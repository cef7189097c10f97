package policy

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones are known on every host

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/provostd/provost/rules/event"
)

// clock is a time of the day in minutes.
type clock int

func parseClock(s string) (clock, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of the day, such as \"07:00\"", s)
	}
	return clock(t.Hour()*60 + t.Minute()), nil
}

// parseZone returns a zone by its name in the time zone database. "Local" would
// mean something else on another host.
func parseZone(s string) (*time.Location, error) {
	if s == "Local" || s == "" {
		return nil, fmt.Errorf("%q is no time zone, such as \"UTC\" or \"Europe/Zurich\"", s)
	}
	l, err := time.LoadLocation(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no time zone, such as \"UTC\" or \"Europe/Zurich\"", s)
	}
	return l, nil
}

// timeIn reads a time as fields write it.
func timeIn(s string, zone *time.Location) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.In(zone), err == nil
}

// within reports whether a time of the day is in a span, whose end is not part
// of it and which may go over midnight.
func within(t time.Time, from, to clock) bool {
	now := clock(t.Hour()*60 + t.Minute())
	if from <= to {
		return from <= now && now < to
	}
	return from <= now || now < to
}

// base64Forms returns how a text looks inside the Base64 of a longer one,
// wherever it stands: what its neighbours have a part in is left out.
func base64Forms(s string) []string {
	var all []string
	for skip := range 3 {
		enc := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", skip) + s))
		from := []int{0, 2, 3}[skip]
		to := (skip + len(s)) * 8 / 6
		if from < to {
			all = append(all, enc[from:to])
		}
	}
	return all
}

// minBase64 keeps forms from being so short that they are in every text.
const minBase64 = 4

func base64Contains(s, t string) bool {
	if len(t) < minBase64 {
		return false
	}
	for _, f := range base64Forms(t) {
		if strings.Contains(s, f) {
			return true
		}
	}
	return false
}

// clockArgs reads the constant arguments of the functions of time, which stand
// behind the first one.
func clockArgs(args []cty.Value) (from, to clock, zone *time.Location, err error) {
	texts := make([]string, len(args))
	for i, a := range args {
		if a.IsNull() || a.Type() != cty.String {
			return 0, 0, nil, fmt.Errorf("want a string")
		}
		texts[i] = a.AsString()
	}
	if n := len(texts); n == 3 {
		if from, err = parseClock(texts[0]); err == nil {
			to, err = parseClock(texts[1])
		}
		if err == nil && from == to {
			err = fmt.Errorf("the span from %s to %s is empty", texts[0], texts[1])
		}
	}
	if err == nil {
		zone, err = parseZone(texts[len(texts)-1])
	}
	return from, to, zone, err
}

// timeImpl is the oracle's form of a function of time.
func timeImpl(null cty.Value, f func(t time.Time, from, to clock) cty.Value) func([]cty.Value) (cty.Value, error) {
	return func(a []cty.Value) (cty.Value, error) {
		from, to, zone, err := clockArgs(a[1:])
		if err != nil {
			return cty.NilVal, err
		}
		if a[0].IsNull() {
			return null, nil
		}
		t, ok := timeIn(a[0].AsString(), zone)
		if !ok {
			return null, nil
		}
		return f(t, from, to), nil
	}
}

func hourValue(t time.Time, _, _ clock) cty.Value    { return cty.NumberIntVal(int64(t.Hour())) }
func weekdayValue(t time.Time, _, _ clock) cty.Value { return cty.StringVal(t.Weekday().String()) }
func betweenValue(t time.Time, from, to clock) cty.Value {
	return cty.BoolVal(within(t, from, to))
}

// clock compiles a function of time.
func (c *compiler) clock(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	if !ok || a.isNull() {
		return term{}, false
	}
	consts := make([]cty.Value, len(x.Args)-1)
	for i, arg := range x.Args[1:] {
		if consts[i], ok = c.constant(arg); !ok {
			return term{}, false
		}
	}
	from, to, zone, err := clockArgs(consts)
	if err != nil {
		return term{}, false // the checker has reported it
	}
	s := a.asText()
	at := func(e *event.Event) (time.Time, state) {
		v, st := s(e)
		if st != present {
			return time.Time{}, st
		}
		t, ok := timeIn(v, zone)
		if !ok {
			return t, missing
		}
		return t, present
	}
	t := term{cost: a.cost + 250, fails: a.fails}
	switch x.Name {
	case "between":
		t.b = func(e *event.Event) Tri {
			now, st := at(e)
			if st == failed {
				return Failed
			}
			return tri(st == present && within(now, from, to))
		}
	case "hour":
		t.n = func(e *event.Event) (uint64, state) { now, st := at(e); return uint64(now.Hour()), st }
	case "weekday":
		t.s = func(e *event.Event) (string, state) { now, st := at(e); return now.Weekday().String(), st }
	}
	return t, true
}

func (c *compiler) base64Contains(x *hclsyntax.FunctionCallExpr) (term, bool) {
	a, ok := c.textArg(x.Args[0])
	v, isConst := c.constant(x.Args[1])
	if !ok || a.isNull() || !isConst || v.IsNull() || v.Type() != cty.String || len(v.AsString()) < minBase64 {
		return term{}, false
	}
	forms := base64Forms(v.AsString())
	t := predicate(a, 60, func(s string) bool {
		for _, f := range forms {
			if strings.Contains(s, f) {
				return true
			}
		}
		return false
	})
	t.guards = a.from.texts(OpContains, forms...)
	return t, true
}
