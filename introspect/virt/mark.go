package virt

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// MarkURI is the name space of the marker in a domain's metadata. It is part of
// the interface between hosts and must not change.
const (
	MarkURI = "urn:provost:epoch:1"
	markKey = "provost"
	// maxMark bounds the signed note of a marker, in bytes of its text form.
	maxMark = 16 << 10
)

// Mark says which epoch the memory of a running domain belongs to. It stands in the
// live metadata, so that libvirt takes it along with the memory: into a save file, a
// snapshot, and to another host. Whoever may change a domain may write it: what it
// says is a claim, until its note and the logs that it names are verified.
type Mark struct {
	Origin string // of the log
	Epoch  [16]byte
	Index  uint64 // leaf that opened the epoch
	Hash   record.Hash
	Note   []byte // signed checkpoint of the log that covers it
}

// markXML is the marker's element. Its layout is part of the format.
type markXML struct {
	XMLName xml.Name `xml:"urn:provost:epoch:1 epoch"`
	Origin  string   `xml:"origin,attr"`
	ID      string   `xml:"id,attr"`
	Leaf    uint64   `xml:"leaf,attr"`
	Hash    string   `xml:"hash,attr"`
	Note    string   `xml:",chardata"`
}

// element is the marker as libvirt takes it: it adds the prefix and the name space.
func (m *Mark) element() (string, error) {
	b, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"epoch"`
		Origin  string   `xml:"origin,attr"`
		ID      string   `xml:"id,attr"`
		Leaf    uint64   `xml:"leaf,attr"`
		Hash    string   `xml:"hash,attr"`
		Note    string   `xml:",chardata"`
	}{Origin: m.Origin, ID: hex.EncodeToString(m.Epoch[:]), Leaf: m.Index, Hash: m.Hash.String(), Note: base64.StdEncoding.EncodeToString(m.Note)})
	if err != nil {
		return "", fmt.Errorf("write marker: %w", err)
	}
	return string(b), nil
}

// parseMark finds the marker in a definition. Nil without an error: there is none.
func parseMark(def *libvirtxml.Domain) (*Mark, error) {
	if def.Metadata == nil || !strings.Contains(def.Metadata.XML, MarkURI) {
		return nil, nil
	}
	d := xml.NewDecoder(strings.NewReader(def.Metadata.XML))
	for {
		t, err := d.Token()
		if err != nil {
			return nil, nil // text that only names the name space, or metadata of others that is damaged
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Space != MarkURI || start.Name.Local != "epoch" {
			if err := d.Skip(); err != nil {
				return nil, nil
			}
			continue
		}
		var x markXML
		if err := d.DecodeElement(&x, &start); err != nil {
			return nil, fmt.Errorf("read marker: %w: %w", err, record.ErrReject)
		}
		return x.mark()
	}
}

func (x *markXML) mark() (*Mark, error) {
	if len(x.Note) > maxMark || len(x.Origin) > 1024 {
		return nil, fmt.Errorf("read marker: %d bytes: %w", len(x.Note)+len(x.Origin), record.ErrReject)
	}
	m := &Mark{Origin: x.Origin, Index: x.Leaf}
	id, err := hex.DecodeString(x.ID)
	if err != nil || len(id) != len(m.Epoch) {
		return nil, fmt.Errorf("read marker: epoch %q: %w", clip(x.ID), record.ErrReject)
	}
	copy(m.Epoch[:], id)
	if m.Hash, err = record.ParseHash(x.Hash); err != nil {
		return nil, fmt.Errorf("read marker: %w", err)
	}
	if m.Note, err = base64.StdEncoding.DecodeString(strings.TrimSpace(x.Note)); err != nil {
		return nil, fmt.Errorf("read marker: its note: %w: %w", err, record.ErrReject)
	}
	return m, nil
}

// SetMark writes the marker into the metadata of the running domain. It needs the
// domain's job, so it may wait for a save, a snapshot or a migration that is under way.
func (h *Host) SetMark(ctx context.Context, id domain.UUID, m *Mark) error {
	text, err := m.element()
	if err == nil {
		_, err = withDomain(ctx, h, id, false, func(dom *libvirt.Domain) (struct{}, error) {
			return struct{}{}, dom.SetMetadata(libvirt.DOMAIN_METADATA_ELEMENT, text, markKey, MarkURI, libvirt.DOMAIN_AFFECT_LIVE)
		})
	}
	if err != nil {
		return fmt.Errorf("mark domain %s: %w", id, err)
	}
	return nil
}

// Image is the snapshot that libvirt says a domain's memory was taken from last.
type Image struct {
	Name    string
	Created time.Time // whole seconds; before the memory was saved
}

// CurrentSnapshot returns the snapshot that the domain was reverted to, or that was
// taken of it, whichever came last. Nil: libvirt knows of none.
func (h *Host) CurrentSnapshot(ctx context.Context, id domain.UUID) (*Image, error) {
	i, err := withDomain(ctx, h, id, false, func(dom *libvirt.Domain) (*Image, error) {
		if has, err := dom.HasCurrentSnapshot(0); err != nil || !has {
			return nil, err
		}
		s, err := dom.SnapshotCurrent(0)
		if err != nil {
			return nil, err
		}
		defer s.Free()
		text, err := s.GetXMLDesc(0)
		if err != nil {
			return nil, err
		}
		var x libvirtxml.DomainSnapshot
		if err := x.Unmarshal(text); err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		seconds, err := strconv.ParseInt(x.CreationTime, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read snapshot %q: creation time %q: %w", clip(x.Name), clip(x.CreationTime), record.ErrReject)
		}
		return &Image{Name: x.Name, Created: time.Unix(seconds, 0)}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read current snapshot of domain %s: %w", id, err)
	}
	return i, nil
}
