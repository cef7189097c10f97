package proof

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Format of the manifest. Part of the format.
const (
	bundleFormat  = "provost-evidence"
	bundleVersion = 4 // that is written; those of scripts are read
)

// Fixed names of members. Part of the format.
const (
	manifestFile       = "manifest.json"
	readmeFile         = "README.txt"
	scriptFile         = "verify.sh"
	hostCheckpointFile = "host.checkpoint"
	vmCheckpointFile   = "vm.checkpoint"
	hostKeyFile        = "host.vkey"
	vmKeyFile          = "vm.vkey"
	quoteBase          = "vm-checkpoint"
	certificateBase    = "vm-key"
	earlierKeys        = "vm-keys/%08d" // by the number of the key
)

// maxKeys bounds how many keys may stand before the one that signs.
const maxKeys = 16384

// Roles of entries: why an entry is in the bundle.
const (
	RoleChosen  = "chosen"  // asked for
	RoleFrame   = "frame"   // the signed statement over a chosen entry
	RoleKey     = "key"     // the enrolment of the key that signed a frame
	RoleGenesis = "genesis" // says which domain the log is of
	RoleLink    = "link"    // a cause or a verdict that a chosen entry names
)

// Bundle is evidence for some entries of one VM log, complete in itself: with
// the public key of the host log nothing else is needed to verify it.
type Bundle struct {
	HostOrigin string
	VMOrigin   string
	// Range says that every entry from First to Last is there; nil where
	// entries were picked one by one.
	Range *Range

	// Verifier keys for stock tools. They prove nothing: Verify is given the
	// host's key, which HostKey must equal, and the VM log's is certified in
	// the host log.
	HostKey string
	VMKey   string

	HostCheckpoint []byte // signed note
	VMCheckpoint   []byte // signed note

	Quote       Sealed // entry of the host log that quotes VMCheckpoint
	Certificate Sealed // entry of the host log that certifies the VM-log key
	// Certificates are those of the keys before, from the first one on.
	Certificates []Sealed
	Entries      []Entry
	// Policies are the texts of the policy bundles that the entries name, by digest.
	Policies []PolicyText

	version int       // it was read with; 0: the newest
	faults  []Failure // found while reading
}

// Range is a range of indexes, both included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Sealed is one entry with its proof.
type Sealed struct {
	Leaf    []byte // 136 bytes
	Opening []byte // 32 bytes salt, then the payload; nil where it is not disclosed
	Proof   []byte // c2sp.org/tlog-proof@v1 under the bundle's checkpoint of the log
}

// Entry is one entry of the VM log.
type Entry struct {
	Index uint64
	Role  string
	Frame *FramePlace // for an entry that a guest agent authored
	Sealed
}

// FramePlace ties a guest's record to the statement that signs it.
type FramePlace struct {
	Index uint64        // of the frame's statement in the VM log
	Path  []record.Hash // RFC 6962 audit path of the record hash in the frame's root
}

// manifest is manifest.json.
type manifest struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Host    string          `json:"host_origin"`
	VM      string          `json:"vm_origin"`
	Range   *Range          `json:"range,omitempty"`
	Keys    int             `json:"earlier_keys,omitempty"`
	Entries []manifestEntry `json:"entries"`
	// Policies are in order of their digests; from version 4 on.
	Policies []manifestPolicy `json:"policies,omitempty"`
}

type manifestEntry struct {
	Index uint64         `json:"index"`
	Role  string         `json:"role"`
	File  string         `json:"file"` // without suffix
	Open  bool           `json:"payload"`
	Frame *manifestFrame `json:"frame,omitempty"`
}

type manifestFrame struct {
	Index uint64   `json:"index"`
	Path  []string `json:"path"`
}

// base returns the name of an entry's files without suffix.
func (e *Entry) base() string {
	dir := "events"
	if e.Role == RoleFrame {
		dir = "frames"
	}
	return fmt.Sprintf("%s/%08d", dir, e.Index)
}

// member is one file of the archive.
type member struct {
	name string
	data []byte
}

// members returns the archive's files, sorted by name.
func (b *Bundle) members() ([]member, error) {
	m := manifest{Format: bundleFormat, Version: cmp.Or(b.version, bundleVersion), Host: b.HostOrigin, VM: b.VMOrigin, Range: b.Range, Keys: len(b.Certificates)}
	files := []member{
		{readmeFile, readme(b)}, {scriptFile, scripts[m.Version]},
		{hostCheckpointFile, b.HostCheckpoint}, {vmCheckpointFile, b.VMCheckpoint},
		{hostKeyFile, []byte(b.HostKey + "\n")}, {vmKeyFile, []byte(b.VMKey + "\n")},
	}
	add := func(base string, s *Sealed) {
		files = append(files, member{base + ".leaf", s.Leaf}, member{base + ".tlog-proof", s.Proof}, member{base + ".leaf.spicy", Spicy(s.Proof)})
		if s.Opening != nil {
			files = append(files, member{base + ".payload", s.Opening})
		}
	}
	add(quoteBase, &b.Quote)
	add(certificateBase, &b.Certificate)
	for i := range b.Certificates {
		add(fmt.Sprintf(earlierKeys, i), &b.Certificates[i])
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		me := manifestEntry{Index: e.Index, Role: e.Role, File: e.base(), Open: e.Opening != nil}
		if e.Frame != nil {
			me.Frame = &manifestFrame{Index: e.Frame.Index, Path: []string{}}
			for _, h := range e.Frame.Path {
				me.Frame.Path = append(me.Frame.Path, h.String())
			}
		}
		m.Entries = append(m.Entries, me)
		add(me.File, &e.Sealed)
	}
	for i := range b.Policies {
		p, texts, err := manifestOf(&b.Policies[i])
		if err != nil {
			return nil, err
		}
		m.Policies = append(m.Policies, p)
		files = append(files, texts...)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	files = append(files, member{manifestFile, append(text, '\n')})
	slices.SortFunc(files, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// parseManifest decodes manifest.json strictly. An error wraps
// record.ErrReject and comes with a zero manifest.
func parseManifest(text []byte) (manifest, error) {
	bad := func(format string, args ...any) (manifest, error) {
		return manifest{}, fmt.Errorf("parse %s: %s: %w", manifestFile, fmt.Sprintf(format, args...), record.ErrReject)
	}
	var m manifest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return bad("%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("something follows the manifest")
	}
	if m.Format != bundleFormat || scripts[m.Version] == nil {
		return bad("format is %q version %d, this program reads %q versions 2 to %d", m.Format, m.Version, bundleFormat, bundleVersion)
	}
	if m.Keys < 0 || m.Keys > maxKeys {
		return bad("%d earlier keys, limit %d", m.Keys, maxKeys)
	}
	if err := m.checkPolicies(); err != nil {
		return bad("%v", err)
	}
	for i, e := range m.Entries {
		switch e.Role {
		case RoleChosen, RoleFrame, RoleKey, RoleGenesis, RoleLink:
		default:
			return bad("entry %d has role %q", e.Index, e.Role)
		}
		if want := (&Entry{Index: e.Index, Role: e.Role}).base(); e.File != want || path.Clean(e.File) != e.File {
			return bad("entry %d has file %q, want %q", e.Index, e.File, want)
		}
		if i > 0 && m.Entries[i-1].Index >= e.Index {
			return bad("entry %d does not come after entry %d", e.Index, m.Entries[i-1].Index)
		}
		if e.Frame != nil && len(e.Frame.Path) > maxPath {
			return bad("entry %d has a path of %d hashes in its frame", e.Index, len(e.Frame.Path))
		}
	}
	return m, nil
}

// place converts the manifest's form of a place in a frame.
func (f *manifestFrame) place() (*FramePlace, error) {
	if f == nil {
		return nil, nil
	}
	p := &FramePlace{Index: f.Index}
	for _, s := range f.Path {
		h, err := record.ParseHash(s)
		if err != nil {
			return nil, err
		}
		p.Path = append(p.Path, h)
	}
	return p, nil
}
