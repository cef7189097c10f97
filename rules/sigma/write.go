package sigma

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/provostd/provost/rules/policy"
)

// maxText bounds a text that is taken over from a rule, in bytes.
const maxText = 4000

var technique = regexp.MustCompile(`(?i)\Aattack\.(t[0-9]{4}(\.[0-9]{3})?)\z`)

// write renders one policy with what it owes to the rule's author.
func (c *converter) write(b *strings.Builder, s Source, r *rule, p *draft, notes []string) {
	license := "Detection Rule License (DRL) 1.1, https://github.com/SigmaHQ/Detection-Rule-License"
	if r.License != "" {
		license = r.License
	}
	author := strings.Join(r.Author, ", ")
	comment(b, r.Title)
	comment(b, "Converted from the Sigma rule "+strings.TrimSpace(r.ID+" "+s.Name)+" of "+c.opts.Origin+", and so changed.")
	if author != "" {
		comment(b, "Author: "+author)
	}
	comment(b, "Licence: "+license)
	if fp := oneLine(strings.Join(r.FalsePositives, "; ")); fp != "" {
		comment(b, "False positives: "+fp)
	}
	for _, n := range notes {
		comment(b, "Note: "+n+".")
	}
	attack, tags := r.tags()
	fmt.Fprintf(b, "policy %s {\n", quote(p.name))
	title := clip(oneLine(r.Title), maxText)
	if p.suffix != "" {
		title += " (" + p.suffix + ")"
	}
	attribute(b, "title", quote(title))
	attribute(b, "description", quote(clip(r.description(author), maxText)))
	attribute(b, "references", list(append([]string{c.opts.Origin}, r.References...)))
	attribute(b, "tags", list(tags))
	attribute(b, "severity", quote(r.severity()))
	if len(attack) > 0 {
		attribute(b, "attack", list(attack))
	}
	attribute(b, "mode", `"audit"`)
	b.WriteByte('\n')
	attribute(b, "on", list(p.on))
	if p.condition != "" {
		attribute(b, "condition", p.condition)
	}
	fmt.Fprintf(b, "\naction \"alert\" {\nmessage = \"%s\"\n}\n}\n", message(r, author, p.on))
}

func comment(b *strings.Builder, s string) {
	b.WriteString("# ")
	for _, r := range clip(oneLine(s), maxText) {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		}
	}
	b.WriteByte('\n')
}

func attribute(b *strings.Builder, name, expr string) { fmt.Fprintf(b, "%s = %s\n", name, expr) }

// list renders texts, one a line where there are several.
func list(all []string) string {
	var quoted []string
	for _, s := range all {
		if s = quote(clip(oneLine(s), maxText)); s != `""` && !slices.Contains(quoted, s) {
			quoted = append(quoted, s)
		}
	}
	if len(quoted) < 2 {
		return "[" + strings.Join(quoted, "") + "]"
	}
	return "[\n" + strings.Join(quoted, ",\n") + ",\n]"
}

// tags splits the rule's tags into techniques of ATT&CK and others, and adds
// where the policy is from.
func (r *rule) tags() (attack, tags []string) {
	tags = []string{"sigma"}
	if r.ID != "" {
		tags = append(tags, "sigma.id."+r.ID)
	}
	if r.Status != "" {
		tags = append(tags, "sigma.status."+r.Status)
	}
	for _, t := range r.Tags {
		if m := technique.FindStringSubmatch(t); m != nil {
			attack = append(attack, strings.ToUpper(m[1]))
		} else {
			tags = append(tags, t)
		}
	}
	return attack, tags
}

func (r *rule) severity() string {
	if l := strings.ToLower(r.Level); slices.Contains(policy.Severities, l) {
		return l
	}
	return "medium"
}

func (r *rule) description(author string) string {
	text := oneLine(r.Description)
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	if author != "" {
		text += " Sigma rule by " + oneLine(author) + "."
	}
	if text = strings.TrimSpace(text); text == "" {
		return oneLine(r.Title)
	}
	return text
}

// message is the template of the alert. The licence wants the author with it.
func message(r *rule, author string, on []string) string {
	what := "${process.executable}"
	switch {
	case slices.Contains(on, "process.exec"):
		what = "${process.command_line}"
	case !slices.ContainsFunc(on, func(t string) bool { return t != "file.rename" && t != "file.link" }):
		what = "${file.path} to ${file.target_path} by ${process.executable}"
	case slices.ContainsFunc(on, func(t string) bool { return strings.HasPrefix(t, "file.") }):
		what = "${file.path} by ${process.executable}"
	case slices.Contains(on, "dns.query"):
		what = "${dns.question.name} by ${process.executable}"
	case slices.ContainsFunc(on, func(t string) bool { return strings.HasPrefix(t, "network.") }):
		what = "${destination.ip}:${destination.port} by ${process.executable}"
	}
	text := escape(clip(oneLine(r.Title), maxText/8)) + ": " + what
	if author != "" {
		text += escape(" (Sigma rule by " + clip(oneLine(author), maxText/8) + ")")
	}
	return text
}

// quote renders a text as a literal of HCL.
func quote(s string) string { return `"` + escape(s) + `"` }

// escape renders a text as part of a quoted template that stands for itself.
func escape(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{"):
			// "$${" is HCL's own way, and means something else behind another "$".
			if i == 0 || s[i-1] != byte(r) {
				b.WriteRune(r)
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		case !strconv.IsPrint(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case !strconv.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit - len("...")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
