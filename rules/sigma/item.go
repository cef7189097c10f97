package sigma

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/provostd/provost/rules/event"
)

// worker works out the condition of one rule for one view.
type worker struct {
	view  *view
	views []view
	cased bool
	// missed are what the rule names and no view has.
	missed map[string]bool
}

// modes are what the modifiers of an item say.
type modes struct {
	op         string // "", contains, startswith, endswith, re, cidr, exists, fieldref, lt, lte, gt, gte
	all        bool
	cased      bool
	negate     bool
	flags      string // of a regular expression
	transforms []string
}

func parseModifiers(list []string) (modes, error) {
	var m modes
	for _, name := range list {
		switch name {
		case "contains", "startswith", "endswith":
			if m.op == "fieldref" {
				name = "fieldref " + name
			}
			fallthrough
		case "re", "cidr", "exists", "lt", "lte", "gt", "gte":
			if m.op != "" && !strings.HasPrefix(name, "fieldref ") {
				return m, fmt.Errorf("the modifiers |%s and |%s do not go together", m.op, name)
			}
			m.op = name
		case "fieldref":
			if m.op != "" {
				name += " " + m.op
			}
			m.op = name
		case "all":
			m.all = true
		case "cased":
			m.cased = true
		case "neq":
			m.negate = true
		case "i", "m", "s", "ignorecase", "multiline", "dotall":
			if m.op != "re" {
				return m, fmt.Errorf("the modifier |%s belongs behind |re", name)
			}
			m.flags += map[string]string{"ignorecase": "i", "multiline": "m", "dotall": "s"}[name]
			if len(name) == 1 {
				m.flags += name
			}
		case "expand":
			return m, fmt.Errorf("placeholders (|expand) are filled in by other tools")
		default:
			if transforms[name] == nil {
				return m, fmt.Errorf("the modifier |%s is not known", name)
			}
			m.transforms = append(m.transforms, name)
		}
	}
	return m, nil
}

// item works out one field with its values.
func (w *worker) item(it item) *node {
	m, err := parseModifiers(it.modifiers)
	if err != nil {
		return bad(err.Error())
	}
	if it.field == "" {
		return w.keywords(it, m)
	}
	if set, ok := w.view.fixed[it.field]; ok {
		return w.fixed(it, m, set)
	}
	t, ok := w.view.fields[it.field]
	if !ok {
		return w.absent(it, m)
	}
	n := w.values(it, m, t)
	if m.negate && n.kind != nodeBad {
		return not(n)
	}
	return n
}

// absent works out a field that records of this view lack.
func (w *worker) absent(it item, m modes) *node {
	for _, v := range w.views {
		_, known := v.fields[it.field]
		if _, fixed := v.fixed[it.field]; known || fixed {
			v := it.values[0]
			if m.op == "exists" {
				return truth(v.kind == valueBool && v.text == "false")
			}
			return truth((len(it.values) == 1 && v.kind == valueNull) != m.negate)
		}
	}
	return bad(fmt.Sprintf("events have nothing like the field %s", it.field))
}

// fixed compares values with what the field always is in this view.
func (w *worker) fixed(it item, m modes, set []string) *node {
	if m.op != "" || m.all || len(m.transforms) > 0 {
		return bad(fmt.Sprintf("the field %s can only be compared with whole values", it.field))
	}
	found := false
	for _, v := range it.values {
		text := strings.ToLower(v.text)
		found = found || v.kind != valueNull && slices.Contains(set, text)
		if !slices.ContainsFunc(w.views, func(o view) bool { return slices.Contains(o.fixed[it.field], text) }) {
			w.missed[it.field+" "+v.text] = true
		}
	}
	return truth(found != m.negate)
}

func (w *worker) keywords(it item, m modes) *node {
	if w.view.words == "" {
		return bad("keywords search the text of log lines, and events have none")
	}
	if m.op != "" || len(m.transforms) > 0 {
		return bad("keywords with modifiers other than |all are not converted")
	}
	t := target{expr: w.view.words, kind: event.KindString}
	m.op = "contains"
	return w.values(it, m, t)
}

// values works out a field that events have.
func (w *worker) values(it item, m modes, t target) *node {
	switch {
	case m.op == "exists":
		if len(it.values) != 1 || it.values[0].kind != valueBool {
			return bad(fmt.Sprintf("the field %s|exists needs true or false", it.field))
		}
		if it.values[0].text == "true" {
			return t.present()
		}
		return not(t.present())
	case strings.HasPrefix(m.op, "fieldref"):
		return w.reference(it, m, t)
	case t.names != nil:
		return w.named(it, m, t)
	case t.kind == event.KindNumber:
		return numbers(it, m, t)
	case t.kind == event.KindAddress && (m.op == "" || m.op == "cidr"):
		return addresses(it, m, t)
	case m.op == "cidr" || slices.Contains([]string{"lt", "lte", "gt", "gte"}, m.op):
		return bad(fmt.Sprintf("the field %s is text and cannot be compared with |%s", it.field, m.op))
	}
	return w.strings(it, m, t)
}

// present is the condition that the field is there.
func (t target) present() *node {
	if strings.Contains(t.expr, "(") { // has() takes fields only
		return leaf(t.expr + " != null")
	}
	return leaf("has(" + t.expr + ")")
}

// reference compares a field with another one.
func (w *worker) reference(it item, m modes, t target) *node {
	function := "equals"
	if _, op, ok := strings.Cut(m.op, " "); ok {
		function = functionOf[op]
	}
	if !w.exactly(m, t) {
		function += "_i"
	}
	var all []*node
	for _, v := range it.values {
		other, ok := w.view.fields[v.text]
		if !ok || other.kind == event.KindNumber || t.kind == event.KindNumber {
			return bad(fmt.Sprintf("the fields %s and %s cannot be compared", it.field, v.text))
		}
		all = append(all, leaf(fmt.Sprintf("%s(%s, %s)", function, t.expr, other.expr)))
	}
	return m.combine(all)
}

// combine joins the conditions of several values.
func (m modes) combine(all []*node) *node {
	if m.all {
		return and(all...)
	}
	return or(all...)
}

// exactly reports whether letters are compared with regard to case.
func (w *worker) exactly(m modes, t target) bool { return m.cased || w.cased && t.path }

var functionOf = map[string]string{"contains": "strcontains", "startswith": "startswith", "endswith": "endswith"}

// named compares a field of few values.
func (w *worker) named(it item, m modes, t target) *node {
	var all []*node
	for _, v := range it.values {
		name, ok := t.names[strings.ToLower(v.text)]
		switch {
		case v.kind == valueNull:
			all = append(all, not(t.present()))
		case ok && m.op == "":
			all = append(all, leaf(t.expr+" == "+quote(name)))
		default:
			w.missed[it.field+" "+v.text] = true
			all = append(all, truth(false))
		}
	}
	return m.combine(all)
}

func numbers(it item, m modes, t target) *node {
	var all []*node
	var exact []string
	for _, v := range it.values {
		if v.kind == valueNull || v.text == "" || slices.Contains(t.unset, strings.ToLower(v.text)) {
			all = append(all, not(t.present()))
			continue
		}
		n, err := strconv.ParseUint(v.text, 0, 64)
		if err != nil {
			return bad(fmt.Sprintf("the field %s is a number and is compared with %q", it.field, v.text))
		}
		text := strconv.FormatUint(n, 10)
		switch m.op {
		case "":
			exact = append(exact, text)
		case "lt", "lte", "gt", "gte":
			op := map[string]string{"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}[m.op]
			all = append(all, and(t.present(), leaf(t.expr+" "+op+" "+text)))
		default:
			return bad(fmt.Sprintf("the field %s is a number and cannot be compared with |%s", it.field, m.op))
		}
	}
	switch {
	case len(exact) == 1 || m.all:
		for _, n := range exact {
			all = append(all, leaf(t.expr+" == "+n))
		}
	case len(exact) > 1:
		all = append(all, leaf(fmt.Sprintf("contains([%s], %s)", strings.Join(exact, ", "), t.expr)))
	}
	return m.combine(all)
}

func addresses(it item, m modes, t target) *node {
	var all []*node
	var prefixes []string
	for _, v := range it.values {
		if v.kind == valueNull || v.text == "" {
			all = append(all, not(t.present()))
			continue
		}
		p, err := netip.ParsePrefix(v.text)
		if err != nil {
			var a netip.Addr
			a, err = netip.ParseAddr(v.text)
			p = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())
		} else if m.op == "" {
			err = fmt.Errorf("a prefix without |cidr")
		}
		if err != nil {
			f, arg := parsePattern(v.text).shape()
			if m.op == "" && f != "" && f != "has" { // such as 10.*
				all = append(all, leaf(fmt.Sprintf("%s(%s, %s)", f, t.expr, quote(strings.ToLower(arg)))))
				continue
			}
			return bad(fmt.Sprintf("the field %s is compared with %q, which is no address", it.field, v.text))
		}
		text := p.Masked().String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		prefixes = append(prefixes, quote(text))
	}
	if len(prefixes) > 0 {
		if m.all && len(prefixes) > 1 {
			return bad(fmt.Sprintf("the field %s cannot be several addresses at once", it.field))
		}
		all = append(all, leaf(fmt.Sprintf("in_cidr(%s, [%s])", t.expr, strings.Join(prefixes, ", "))))
	}
	return m.combine(all)
}

// strings compares text.
func (w *worker) strings(it item, m modes, t target) *node {
	fold := "_i"
	if w.exactly(m, t) {
		fold = ""
	}
	var all []*node
	var exact []string
	for _, v := range it.values {
		if v.kind == valueNull || v.text == "" && m.op == "" {
			all = append(all, not(t.present()))
			continue
		}
		if m.op == "re" {
			all = append(all, expression(v.text, m, t))
			continue
		}
		patterns, err := transform(v.text, m.transforms)
		if err != nil {
			return bad(err.Error())
		}
		var forms []*node
		for _, p := range patterns {
			p = p.around(m.op == "contains" || m.op == "endswith", m.op == "contains" || m.op == "startswith")
			f, arg := p.shape()
			if f == "" && !m.all && len(patterns) == 1 {
				exact = append(exact, quote(arg))
				continue
			}
			forms = append(forms, t.compare(f, fold, arg))
		}
		if len(forms) > 0 {
			all = append(all, or(forms...))
		}
	}
	if len(exact) > 0 {
		all = append(all, t.member(exact, fold))
	}
	return m.combine(all)
}

func (t target) compare(function, fold, arg string) *node {
	switch function {
	case "has":
		return t.present()
	case "":
		return t.member([]string{quote(arg)}, fold)
	}
	return leaf(fmt.Sprintf("%s%s(%s, %s)", function, fold, t.expr, quote(arg)))
}

// member is the condition that the field is one of the quoted texts.
func (t target) member(exact []string, fold string) *node {
	switch {
	case len(exact) == 1 && fold == "":
		return leaf(t.expr + " == " + exact[0])
	case len(exact) == 1:
		return leaf(fmt.Sprintf("equals_i(%s, %s)", t.expr, exact[0]))
	}
	return leaf(fmt.Sprintf("contains%s([\n%s,\n], %s)", fold, strings.Join(exact, ",\n"), t.expr))
}

// expression is a regular expression, which Sigma compares with regard to case.
func expression(text string, m modes, t target) *node {
	flags := strings.ReplaceAll(m.flags, "i", "")
	if flags != "" {
		text = "(?" + flags + ":" + text + ")"
	}
	if _, err := regexp.Compile(text); err != nil {
		return bad(fmt.Sprintf("the regular expression %q is not RE2: %s", text, oneLine(err.Error())))
	}
	if strings.Contains(m.flags, "i") {
		return leaf(fmt.Sprintf("matches_i(%s, %s)", t.expr, quote(text)))
	}
	return leaf(fmt.Sprintf("matches(%s, %s)", t.expr, quote(text)))
}
