package virt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/chain/record"
)

var someMark = Mark{Origin: "kvm1.example/vm/11111111-2222-4333-8444-555555555555/1/1", Epoch: [16]byte{1, 2, 3}, Index: 4, Hash: record.Hash{5}, Note: []byte("a note\nof two lines <&>\n")}

// markVector is the element as libvirt shows it, part of the format.
const markVector = `<provost:epoch xmlns:provost="urn:provost:epoch:1" origin="kvm1.example/vm/11111111-2222-4333-8444-555555555555/1/1" id="01020300000000000000000000000000" leaf="4" hash="0500000000000000000000000000000000000000000000000000000000000000">YSBub3RlCm9mIHR3byBsaW5lcyA8Jj4K</provost:epoch>`

func withMetadata(text string) *libvirtxml.Domain {
	return &libvirtxml.Domain{Metadata: &libvirtxml.DomainMetadata{XML: text}}
}

func TestMark(t *testing.T) {
	text, err := someMark.element()
	if err != nil {
		t.Fatal(err)
	}
	// What libvirt does with an element that it is given.
	shown := strings.Replace(strings.Replace(text, "<epoch", `<provost:epoch xmlns:provost="`+MarkURI+`"`, 1), "</epoch", "</provost:epoch", 1)
	if shown != markVector {
		t.Errorf("the marker is\n%s\nwant\n%s", shown, markVector)
	}
	for _, beside := range []string{"", `<other:x xmlns:other="urn:other"><epoch>` + MarkURI + `</epoch></other:x>`} {
		m, err := parseMark(withMetadata("\n" + beside + markVector + "\n"))
		if err != nil || m == nil || m.Origin != someMark.Origin || m.Epoch != someMark.Epoch || m.Index != 4 || m.Hash != someMark.Hash || !bytes.Equal(m.Note, someMark.Note) {
			t.Errorf("beside %q it reads as %+v, %v", beside, m, err)
		}
	}
	for name, c := range map[string]string{
		"an epoch too short": strings.Replace(markVector, `id="01`, `id="`, 1),
		"no hash":            strings.Replace(markVector, `hash="05`, `hash="x5`, 1),
		"a leaf below zero":  strings.Replace(markVector, `leaf="4"`, `leaf="-4"`, 1),
		"no base64":          strings.Replace(markVector, "YSBu", "Y S%", 1),
		"a long note":        strings.Replace(markVector, "YSBu", strings.Repeat("YSBu", maxMark/4+1), 1),
		"a long origin":      strings.Replace(markVector, "kvm1.example", strings.Repeat("k", 1025), 1),
	} {
		if m, err := parseMark(withMetadata(c)); m != nil || !errors.Is(err, record.ErrReject) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	for _, none := range []string{"", "<epoch/>", "text of " + MarkURI, "<a " + MarkURI, `<x:other xmlns:x="` + MarkURI + `"/>`} {
		if m, err := parseMark(withMetadata(none)); m != nil || err != nil {
			t.Errorf("%q is the marker %v, %v", none, m, err)
		}
	}
	if m, err := parseMark(&libvirtxml.Domain{}); m != nil || err != nil {
		t.Errorf("no metadata at all: %v, %v", m, err)
	}
}

// FuzzMark holds that whatever stands in the metadata reads as a marker within its
// bounds, as none, or as an error of class record.ErrReject; and that a marker which
// was read is written as what reads the same.
func FuzzMark(f *testing.F) {
	f.Add(markVector)
	f.Add(`<a:b xmlns:a="urn:a"/>` + markVector)
	f.Add(fmt.Sprintf(`<epoch xmlns=%q/>`, MarkURI))
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMark(withMetadata(text))
		if err != nil {
			if m != nil || !errors.Is(err, record.ErrReject) {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		if m == nil {
			return
		}
		if len(m.Note) > maxMark || len(m.Origin) > 1024 {
			t.Fatalf("%d bytes of note, %d of origin", len(m.Note), len(m.Origin))
		}
		again, err := m.element()
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseMark(withMetadata(strings.Replace(again, "<epoch", `<epoch xmlns="`+MarkURI+`"`, 1)))
		if err != nil || n == nil || n.Epoch != m.Epoch || n.Index != m.Index || n.Hash != m.Hash || !bytes.Equal(n.Note, m.Note) {
			t.Fatalf("%+v reads back as %+v, %v", m, n, err)
		}
	})
}
