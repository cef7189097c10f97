package rules

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/event"
)

// MetadataNamespace is the XML namespace of Provost's element in a domain's
// <metadata>:
//
//	<provost:vm xmlns:provost="urn:provost:vm:1">
//	  <provost:tag>prod</provost:tag>
//	  <provost:value key="zone">restricted</provost:value>
//	</provost:vm>
//
// The domain's XML is sealed in the log's genesis, so tags and values are part
// of the evidence.
const MetadataNamespace = "urn:provost:vm:1"

// Bounds of what is taken from a domain's XML.
const (
	maxXML       = 1 << 20
	maxFacts     = 64
	maxFactBytes = 256
)

// teaches reports whether an entry may say something about the domain.
func teaches(leaf *record.Leaf) bool {
	class := leaf.Header.Class
	return leaf.Origin == record.OriginHost && (class == record.ClassGenesis || class>>8 == record.ClassVMDefine>>8)
}

// learn takes from an entry what it says about the domain. Only the host is
// believed. It returns a problem in words, or "".
func (st *State) learn(leaf *record.Leaf, payload record.Message) string {
	if !teaches(leaf) {
		return ""
	}
	switch p := payload.(type) {
	case *record.Genesis:
		st.fact(&st.vm.UUID, strings.ToLower(p.DomainUuid))
		st.fact(&st.vm.Name, p.DomainName)
		return st.learnXML(p.DomainXml)
	case *record.Event:
		st.learnEvent(leaf.Header.Class, p.Vm)
	}
	return ""
}

func (st *State) learnEvent(class record.Class, vm *record.VM) {
	if vm == nil {
		return
	}
	st.fact(&st.vm.UUID, strings.ToLower(vm.Uuid))
	st.fact(&st.vm.Name, vm.Name)
	state := vm.State
	if state == "" {
		state = stateAfter[class]
	}
	st.fact(&st.vm.State, state)
}

// stateAfter is the state that an event implies where it does not say.
var stateAfter = map[record.Class]string{
	record.ClassVMStart: "running", record.ClassVMResume: "running", record.ClassVMPause: "paused",
	record.ClassVMStop: "shutoff", record.ClassVMCrash: "crashed",
}

// fact sets a fact that is known; a changed one selects policies anew.
func (st *State) fact(have *string, now string) {
	if len(now) > maxText/4 { // normalising may make it longer
		now = now[:maxText/4]
	}
	if now = event.Normalize(now); now == "" || *have == now {
		return
	}
	*have = strings.Clone(now)
	st.stale = true
}

func (st *State) learnXML(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	if !bytes.Contains(data, []byte(MetadataNamespace)) {
		if len(st.vm.Tags)+len(st.vm.Metadata) > 0 { // of a shard before
			st.vm.Tags, st.vm.Metadata, st.stale = nil, nil, true
		}
		return ""
	}
	if len(data) > maxXML {
		return fmt.Sprintf("the domain's XML has %d bytes, more than %d: its tags and metadata are not known", len(data), maxXML)
	}
	tags, meta, err := parseMetadata(data)
	if err != nil {
		return "the domain's tags and metadata are not known: " + err.Error()
	}
	st.vm.Tags, st.vm.Metadata = tags, meta
	st.stale = true
	return ""
}

// parseMetadata reads Provost's elements wherever they stand in the XML.
func parseMetadata(data []byte) ([]string, map[string]string, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	var tags []string
	meta := make(map[string]string)
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return tags, meta, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("parse domain XML: %w", err)
		}
		el, ok := tok.(xml.StartElement)
		if !ok || el.Name.Space != MetadataNamespace {
			continue
		}
		switch el.Name.Local {
		case "vm":
			continue // its children come next
		case "tag", "value":
		default:
			return nil, nil, fmt.Errorf("parse domain XML: there is no element %q in %s", el.Name.Local, MetadataNamespace)
		}
		var text string
		if err := d.DecodeElement(&text, &el); err != nil {
			return nil, nil, fmt.Errorf("parse domain XML: %w", err)
		}
		text = event.Normalize(strings.TrimSpace(text))
		if len(text) > maxFactBytes || len(tags)+len(meta) >= maxFacts {
			return nil, nil, fmt.Errorf("parse domain XML: more than %d tags and values, or one longer than %d bytes", maxFacts, maxFactBytes)
		}
		if el.Name.Local == "tag" {
			tags = append(tags, text)
			continue
		}
		k := attribute(el, "key")
		if k == "" || len(k) > maxFactBytes {
			return nil, nil, fmt.Errorf("parse domain XML: a value in %s needs a key", MetadataNamespace)
		}
		meta[k] = text
	}
}

func attribute(el xml.StartElement, name string) string {
	for _, a := range el.Attr {
		if a.Name.Local == name {
			return event.Normalize(a.Value)
		}
	}
	return ""
}
