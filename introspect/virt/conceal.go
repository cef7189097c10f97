package virt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const concealed = "(concealed)"

// secret says whether an attribute or the text of an element is a password. Those are left out, without
// even a digest: passwords can be guessed. libvirt does not show them, and its own files do. plain is the
// path of the element without keys.
func secret(plain, name string) bool {
	return hasAny(name, "passw") || strings.HasPrefix(plain, "/metadata/") && secretWord(name)
}

// secretElement says whether all of an element is secret. libvirt shows cookies of disks that
// are read over HTTP in its own file only; what applications keep in the metadata is known by its name.
func secretElement(parent, name string) bool {
	return name == "cookies" && strings.HasPrefix(parent, "/devices/") || strings.HasPrefix(parent, "/metadata") && secretWord(name)
}

// secretWord judges a name of somebody else's, without its name space.
func secretWord(name string) bool {
	if n := strings.LastIndexAny(name, "}:"); n >= 0 {
		name = name[n+1:]
	}
	return hasAny(name, "passw", "passphrase", "secret", "token", "credential", "apikey", "api_key", "api-key", "private")
}

func hasAny(s string, words ...string) bool {
	s = strings.ToLower(s)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}

// conceal hides values that may be secrets among others of their kind. name is the
// attribute of that name of the element.
func conceal(plain, name, value string) string {
	switch {
	case plain == "/qemu:commandline/qemu:arg/@value" && secretArgument(value),
		plain == "/qemu:commandline/qemu:env/@value",
		plain == "/sysinfo/oemStrings/entry",
		strings.HasPrefix(plain, "/sysinfo/") && strings.HasSuffix(plain, "/entry") && (strings.HasPrefix(name, "opt/") || secretArgument(value)):
		return concealed
	}
	return value
}

// secretArgument knows objects that are secrets, and what brings text into a guest: fw_cfg,
// and SMBIOS strings.
func secretArgument(v string) bool {
	return hasAny(v, "secret", "passw", "token", "key=", "credential", "cookie", "string=", "type=11,") ||
		strings.Contains(v, "://") && strings.Contains(v, "@")
}

// Conceal replaces the secrets in a domain's XML and leaves all else byte for byte: whoever
// is shown the genesis of a log reads it. A text that is larger than what is read goes as it
// is: it is sealed nowhere.
func Conceal(text string) (string, error) {
	if len(text) > MaxXMLBytes {
		return text, nil
	}
	d := xml.NewDecoder(strings.NewReader(text))
	var out strings.Builder
	var at []place
	kept := 0 // of text
	replace := func(from int, with string) {
		out.WriteString(text[kept:from] + with)
		kept = int(d.InputOffset())
	}
	for {
		from := int(d.InputOffset())
		tok, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			out.WriteString(text[kept:])
			return out.String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("read XML: %w", err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(at) >= maxXMLDepth {
				return "", errors.New("elements too deep")
			}
			p := enter(at, t)
			if tag, changed := p.tag(t); changed {
				if strings.HasSuffix(text[from:d.InputOffset()], "/>") {
					tag += "/"
				}
				replace(from, tag+">")
			}
			at = append(at, p)
		case xml.EndElement:
			at = at[:max(len(at)-1, 0)]
		case xml.CharData:
			if s := strings.TrimSpace(string(t)); s != "" && len(at) > 0 && at[len(at)-1].hides(s) {
				replace(from, concealed)
			}
		}
	}
}

// place is an element that is open.
type place struct {
	plain  string
	name   string // attribute
	secret bool
}

func enter(at []place, t xml.StartElement) place {
	if len(at) == 0 {
		return place{} // the domain itself
	}
	up, name := at[len(at)-1], rawName(t.Name)
	p := place{plain: up.plain + "/" + name, secret: up.secret || secretElement(up.plain, name)}
	for _, a := range t.Attr {
		if rawName(a.Name) == "name" {
			p.name = a.Value
		}
	}
	return p
}

func rawName(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// hides reports whether the text of an element is concealed.
func (p place) hides(s string) bool {
	return p.secret || secret(p.plain, p.plain[strings.LastIndex(p.plain, "/")+1:]) || conceal(p.plain, p.name, s) != s
}

// tag writes the beginning of an element, up to where it is closed.
func (p place) tag(t xml.StartElement) (text string, changed bool) {
	var b strings.Builder
	b.WriteString("<" + rawName(t.Name))
	for _, a := range t.Attr {
		name, v := rawName(a.Name), a.Value
		if a.Name.Space != "xmlns" && name != "xmlns" && (p.secret || secret(p.plain, name)) {
			v = concealed
		} else {
			v = conceal(p.plain+"/@"+name, p.name, v)
		}
		changed = changed || v != a.Value
		b.WriteString(" " + name + `="`)
		_ = xml.EscapeText(&b, []byte(v)) // a Builder takes it all
		b.WriteString(`"`)
	}
	return b.String(), changed
}
