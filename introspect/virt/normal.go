package virt

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Bounds of a configuration that is normalised. Larger ones are refused, and
// their digest alone is compared.
const (
	MaxXMLBytes = 1 << 20 // of one text
	maxXMLLines = 20000
	maxXMLDepth = 64
	maxXMLName  = 256 // with its name space
	maxKey      = 128
	// maxNormalBytes bounds the paths and values together: each path repeats the names
	// and keys above it, so that a small text could make gigabytes of them.
	maxNormalBytes = 4 << 20
)

// Line is one value of a normalised configuration.
type Line struct {
	Path  string `json:"p"` // /devices/disk[vda]/source/@file
	Value string `json:"v,omitempty"`
	// Unit is how much of Path names the outermost part that comes and goes as
	// a whole: a device, a tag. 0: none.
	Unit int `json:"u,omitempty"`
}

// Normal is a configuration as paths and values, without what changes by
// itself and without secrets. Equal configurations are equal in this form
// whatever the order of their attributes, and each device keeps its path when another
// comes or goes.
type Normal struct {
	Lines  []Line   `json:"l,omitempty"`
	Digest [32]byte `json:"d"`
	// Error says why Lines is empty although there is a configuration; Digest
	// is then that of its text.
	Error string `json:"e,omitempty"`
}

// Empty says that there is no configuration at all.
func (n *Normal) Empty() bool { return n.Digest == [32]byte{} }

// node is an element of the XML.
type node struct {
	name  string
	attrs []xml.Attr
	text  strings.Builder
	kids  []*node
}

// Normalize brings a domain's XML into normal form.
func Normalize(text string) Normal {
	if text == "" {
		return Normal{}
	}
	root, err := parseXML(text)
	if err == nil {
		f := flattener{}
		f.element(root, "", "", 0)
		switch {
		case f.full():
			err = fmt.Errorf("more than %d bytes of paths and values", maxNormalBytes)
		case len(f.lines) > maxXMLLines:
			err = fmt.Errorf("more than %d values", maxXMLLines)
		default:
			return Normal{Lines: f.lines, Digest: digestLines(f.lines)}
		}
	}
	return Normal{Digest: sha256.Sum256([]byte(text)), Error: err.Error()}
}

func digestLines(lines []Line) [32]byte {
	d := sha256.New()
	for _, l := range lines {
		fmt.Fprintf(d, "%d %s %d %s\n", len(l.Path), l.Path, len(l.Value), l.Value)
	}
	return [32]byte(d.Sum(nil))
}

func parseXML(text string) (*node, error) {
	if len(text) > MaxXMLBytes {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), MaxXMLBytes)
	}
	dec := xml.NewDecoder(strings.NewReader(text))
	var stack []*node
	var root *node
	for n := 0; ; n++ {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read XML: %w", err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(stack) >= maxXMLDepth || n > 8*maxXMLLines {
				return nil, errors.New("elements too deep or too many")
			}
			if err := boundNames(t); err != nil {
				return nil, err
			}
			e := &node{name: elementName(t.Name), attrs: t.Attr}
			switch {
			case len(stack) > 0:
				top := stack[len(stack)-1]
				top.kids = append(top.kids, e)
			case root == nil:
				root = e
			default:
				return nil, errors.New("more than one root element")
			}
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text.Write(t)
			}
		}
	}
}

// boundNames refuses names that nobody needs: each stands in many paths.
func boundNames(t xml.StartElement) error {
	long := func(n xml.Name) bool { return len(n.Space)+len(n.Local) > maxXMLName }
	if long(t.Name) || slices.ContainsFunc(t.Attr, func(a xml.Attr) bool { return long(a.Name) }) {
		return fmt.Errorf("a name of more than %d bytes", maxXMLName)
	}
	return nil
}

func elementName(n xml.Name) string {
	switch n.Space {
	case "":
		return n.Local
	case "http://libvirt.org/schemas/domain/qemu/1.0":
		return "qemu:" + n.Local
	}
	return "{" + n.Space + "}" + n.Local
}

func (e *node) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (e *node) kid(name string) *node {
	for _, k := range e.kids {
		if k.name == name {
			return k
		}
	}
	return &node{}
}

// key names an element among its siblings by what it is, so that its path
// stays the same when another one comes or goes; "" where nothing does.
func (e *node) key() string {
	switch e.name {
	case "disk", "filesystem":
		return e.kid("target").attr("dev") + e.kid("target").attr("dir")
	case "interface":
		return e.kid("mac").attr("address")
	case "controller":
		return e.attr("type") + e.attr("index")
	case "channel":
		return e.kid("target").attr("name") + e.kid("target").attr("address")
	case "serial", "console", "parallel":
		return e.attr("type") + e.kid("target").attr("type") + e.kid("target").attr("port")
	case "graphics", "memballoon", "hub":
		return e.attr("type")
	case "input":
		return e.attr("type") + "-" + e.attr("bus")
	case "vcpupin", "vcpusched":
		return e.attr("vcpu") + e.attr("vcpus")
	case "hostdev":
		a := e.kid("source").kid("address")
		return e.attr("type") + a.attr("domain") + a.attr("bus") + a.attr("slot") + a.attr("function") + a.attr("uuid") + a.attr("device")
	}
	if unkeyed[e.name] {
		return ""
	}
	for _, name := range []string{"name", "id", "key"} {
		if v := e.attr(name); v != "" {
			return v
		}
	}
	return ""
}

// unkeyed are elements of which there is one, and whose name is a value of theirs.
var unkeyed = map[string]bool{"driver": true, "alias": true, "model": true, "target": true, "backend": true, "source": true, "config": true,
	"log": true, "parent": true, "type": true, "product": true, "vendor": true}

// flattener makes lines of elements. plain is the path without keys, by which
// rules know an element.
type flattener struct {
	lines []Line
	size  int // of all paths and values
}

// full reports that there is more than fits: nothing that follows is kept.
func (f *flattener) full() bool { return f.size > maxNormalBytes }

func (f *flattener) line(path, value string, unit int) {
	if f.size += len(path) + len(value); len(f.lines) <= maxXMLLines && !f.full() {
		f.lines = append(f.lines, Line{path, value, unit})
	}
}

func (f *flattener) element(e *node, path, plain string, unit int) {
	f.size += len(path) // also of those that make no line
	attrs := slices.Clone(e.attrs)
	slices.SortFunc(attrs, func(a, b xml.Attr) int {
		return strings.Compare(a.Name.Space+" "+a.Name.Local, b.Name.Space+" "+b.Name.Local)
	})
	said := false
	for _, a := range attrs {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue
		}
		said = true
		at := "/@" + elementName(a.Name)
		if secret(plain, elementName(a.Name)) || volatile[plain+at] || f.full() {
			continue
		}
		f.line(path+at, conceal(plain+at, e.attr("name"), a.Value), unit)
	}
	if t := strings.TrimSpace(e.text.String()); t != "" && !secret(plain, e.name) {
		f.line(path, conceal(plain, e.attr("name"), t), unit)
		said = true
	}
	if !said && len(e.kids) == 0 && path != "" {
		f.line(path, "present", unit) // a switch such as <acpi/>
	}
	total, seen := map[string]int{}, map[string]int{}
	for _, k := range e.kids {
		total[k.name]++
	}
	for _, k := range e.kids {
		p := plain + "/" + k.name
		if volatile[p] || secretElement(plain, k.name) {
			continue
		}
		if f.full() {
			return
		}
		name, u := path+"/"+k.name, unit
		key := k.key()
		if key != "" {
			name += "[" + strings.Map(keyRune, shortKey(key)) + "]"
		}
		if seen[name]++; seen[name] > 1 || key == "" && total[k.name] > 1 {
			name += "#" + strconv.Itoa(seen[name])
		}
		if u == 0 && (key != "" || strings.HasPrefix(p, "/devices/") && strings.Count(p, "/") == 2) {
			u = len(name)
		}
		f.element(k, name, p, u)
	}
}

// keyRune keeps keys from looking like other parts of a path.
func keyRune(r rune) rune {
	if r <= ' ' || strings.ContainsRune("/[]@\"'`()<>{}", r) {
		return '_'
	}
	return r
}

// volatile is what changes without anybody changing the configuration: by a start,
// by the guest, or by libvirt as it runs.
var volatile = map[string]bool{
	"/metadata/{" + MarkURI + "}epoch": true, // ours: each epoch has another
	"/@id":                             true, "/currentMemory": true,
	"/seclabel/label": true, "/seclabel/imagelabel": true, "/seclabel/baselabel": true,
	"/devices/channel/source/@path": true, "/devices/channel/target/@state": true,
	"/devices/disk/target/@tray": true, "/devices/memory/target/current": true,
}

// shortKey keeps a long key apart from others that begin like it.
func shortKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return key[:maxKey/2] + "~" + hex.EncodeToString(sum[:8])
}

// Bounds of the differences in one entry: they must fit into a payload.
const (
	maxChanges      = 64
	maxChangeText   = 256
	maxChangesBytes = 16 << 10
)

// Diff tells what is different between two normal forms, in the order of the
// new one, what is gone behind it. A device that came or went is one change with all its values.
// omitted is how many more there are than fit.
func Diff(before, after *Normal) (changes []*record.ConfigChange, omitted uint64) {
	if before.Digest == after.Digest {
		return nil, 0
	}
	if before.Error != "" || after.Error != "" {
		return []*record.ConfigChange{{Path: "/", OldValue: whole(before), NewValue: whole(after)}}, 0
	}
	was, is := index(before), index(after)
	size := 0
	add := func(path, from, to string) {
		c := &record.ConfigChange{Path: cut(path), OldValue: cut(from), NewValue: cut(to)}
		if n := len(c.Path) + len(c.OldValue) + len(c.NewValue); len(changes) < maxChanges && size+n <= maxChangesBytes {
			changes, size = append(changes, c), size+n
		} else {
			omitted++
		}
	}
	told := map[string]bool{}
	for _, l := range after.Lines {
		old, ok := was.lines[l.Path]
		switch u := l.Path[:l.Unit]; {
		case ok && old == l.Value:
		case l.Unit > 0 && !was.has(u):
			if !told[u] {
				told[u] = true
				add(u, "", is.units[u])
			}
		default:
			add(l.Path, old, l.Value)
		}
	}
	for _, l := range before.Lines {
		u := l.Path[:l.Unit]
		if _, ok := is.lines[l.Path]; ok || told[u] {
			continue
		}
		if l.Unit > 0 && !is.has(u) {
			told[u] = true
			add(u, was.units[u], "")
			continue
		}
		add(l.Path, l.Value, "")
	}
	return changes, omitted
}

// indexed is a normal form by path, and the parts that come and go as a whole with
// all their values in one text.
type indexed struct {
	lines map[string]string
	units map[string]string
}

func (x indexed) has(unit string) bool {
	_, ok := x.units[unit]
	return ok
}

// index takes one pass: a part's lines stand together.
func index(n *Normal) indexed {
	x := indexed{make(map[string]string, len(n.Lines)), map[string]string{}}
	var b strings.Builder
	for i, l := range n.Lines {
		x.lines[l.Path] = l.Value
		unit := l.Path[:l.Unit]
		if rest, ok := strings.CutPrefix(l.Path[l.Unit:], "/"); ok && l.Unit > 0 && b.Len() < 2*maxChangeText {
			b.WriteString(rest + "=" + cut(l.Value) + " ")
		}
		if i+1 < len(n.Lines) && n.Lines[i+1].Unit == l.Unit && n.Lines[i+1].Path[:l.Unit] == unit {
			continue
		}
		x.units[unit] = cmp.Or(strings.TrimSpace(b.String()), "present")
		b.Reset()
	}
	return x
}

func whole(n *Normal) string {
	if n.Empty() {
		return ""
	}
	return "sha256:" + hex.EncodeToString(n.Digest[:])
}

func cut(s string) string {
	if len(s) <= maxChangeText {
		return s
	}
	return strings.ToValidUTF8(s[:maxChangeText], "") + "..."
}
