package virt

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// Devices are changed in libvirt's own words: a device's XML is cut out of the
// domain's, one child of it is replaced, and all else goes back byte for byte. A
// round through Go types would lose what a newer libvirt has added.

// span is where an element stands in a text.
type span struct{ from, to int }

// elements returns where the elements at a path such as devices/interface stand
// below the root of a document.
func elements(doc, path string) ([]span, error) {
	d := xml.NewDecoder(strings.NewReader(doc))
	var at []string
	var all []span
	open := -1 // where the element begins that is being read
	for {
		from := int(d.InputOffset())
		tok, err := d.Token()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read XML: %w", err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			at = append(at, t.Name.Local)
			if open < 0 && len(at) > 1 && strings.Join(at[1:], "/") == path {
				open = from
			}
		case xml.EndElement:
			if open >= 0 && strings.Join(at[1:], "/") == path {
				all = append(all, span{open, int(d.InputOffset())})
				open = -1
			}
			at = at[:len(at)-1]
		}
	}
}

// child returns the first child of an element with the given name, as it stands
// there; "" where there is none.
func child(doc, name string) (string, error) {
	all, err := elements(doc, name)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return doc[all[0].from:all[0].to], nil
}

// withChild replaces the children of an element that have the given name by one
// text; "" leaves none.
func withChild(doc, name, text string) (string, error) {
	all, err := elements(doc, name)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		end := strings.LastIndex(doc, "</")
		if text == "" {
			return doc, nil
		}
		if end < 0 {
			return "", fmt.Errorf("change XML: %.40q has no room for %s", doc, name)
		}
		return doc[:end] + text + doc[end:], nil
	}
	out := doc
	for i := len(all) - 1; i >= 0; i-- {
		put := ""
		if i == 0 {
			put = text
		}
		out = out[:all[i].from] + put + out[all[i].to:]
	}
	return out, nil
}
