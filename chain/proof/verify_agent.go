package proof

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// frames checks that every entry of a guest is signed by an agent whose key
// was enrolled on the domain's channel before.
func (v *verification) frames() {
	v.bound = v.bindings()
	verified := map[uint64]*Frame{}
	keys := map[uint64]*record.Enrolled{} // by frame
	epochs := map[uint64]bool{}           // by frame: its epoch is bound to its key
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		if o == nil || o.leaf.Header.Class != record.ClassAgentFrame || o.leaf.Origin != record.OriginHost {
			continue
		}
		if f, key := v.frame(o); f != nil {
			verified[o.Index], keys[o.Index], epochs[o.Index] = f, key, v.epoch(o, f, key)
		}
	}
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		if o == nil {
			continue
		}
		if o.leaf.Origin != record.OriginGuest {
			if o.Frame != nil {
				v.failEntry(o.Entry, ".leaf", "the manifest gives it a place in a frame, but its origin is %s", o.leaf.Origin)
			}
			continue
		}
		if o.Frame == nil {
			v.failEntry(o.Entry, ".leaf", "it is an entry of the guest without a place in a signed frame")
			continue
		}
		f := verified[o.Frame.Index]
		if f == nil {
			v.failEntry(o.Entry, ".leaf", "its frame, entry %d, is missing or does not verify", o.Frame.Index)
			continue
		}
		if v.inFrame(o, f) {
			v.r.Signed++
			at, _ := slices.BinarySearchFunc(v.r.Entries, o.Index, func(e ReportEntry, i uint64) int { return cmp.Compare(e.Index, i) })
			e := &v.r.Entries[at]
			e.Agent, e.Frame = hexKey(keys[o.Frame.Index].Key), o.Frame.Index
			if epochs[o.Frame.Index] {
				e.Epoch = hex.EncodeToString(f.Epoch[:])
			}
		}
	}
}

// frame verifies one statement with the key that was enrolled for its session
// last before it.
func (v *verification) frame(o *opened) (*Frame, *record.Enrolled) {
	m, ok := o.message.(*record.Frame)
	if !ok {
		v.failEntry(o.Entry, ".payload", "the frame's statement cannot be read")
		return nil, nil
	}
	if v.opts.Frame == nil {
		v.failEntry(o.Entry, ".payload", "this program cannot verify signatures of guest agents")
		return nil, nil
	}
	enrolled := v.enrolledBefore(o.Index)
	if len(enrolled) == 0 {
		v.failEntry(o.Entry, ".payload", "no enrolment of a key stands before it in the bundle")
		return nil, nil
	}
	// The session that counts is in the signed statement, so a key can only
	// be tried: the newest one first.
	var last error
	for _, e := range enrolled {
		f, err := v.opts.Frame(m.Statement, m.Signature, e.Key)
		if err != nil {
			last = err
			continue
		}
		if f.Session != e.Session {
			v.failEntry(o.Entry, ".payload", "it is signed by the key of session %x and claims session %x", e.Session, f.Session)
			return nil, nil
		}
		if domain := strings.ReplaceAll(v.vm.Domain, "-", ""); hex.EncodeToString(f.Domain[:]) != domain {
			v.failEntry(o.Entry, ".payload", "the agent signed it for domain %x", f.Domain)
			return nil, nil
		}
		if f.Count != m.Count || uint64(f.Count) > o.Index {
			v.failEntry(o.Entry, ".payload", "the statement covers %d records, the entry says %d", f.Count, m.Count)
			return nil, nil
		}
		return &f, e
	}
	v.failEntry(o.Entry, ".payload", "no enrolled key verifies it: %v", last)
	return nil, nil
}

// bindings returns what the host says of keys and epochs, in order.
func (v *verification) bindings() []*opened {
	var all []*opened
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		if o == nil || o.leaf.Origin != record.OriginHost {
			continue
		}
		switch o.message.(type) {
		case *record.Enrolled, *record.Epoch:
			all = append(all, o)
		}
	}
	return all
}

// maxTries bounds how many keys are tried on one frame. An agent's key is enrolled
// each time it connects, so that it is the newest, or nearly, for all that an
// honest host has sealed; in a bundle that was made up there could be a key for
// each frame, and no end of trying.
const maxTries = 16

// enrolledBefore returns the enrolments before index that may have signed, the
// newest first: each key once, and none that a newer one retired.
func (v *verification) enrolledBefore(index uint64) []*record.Enrolled {
	end, _ := slices.BinarySearchFunc(v.bound, index, func(o *opened, i uint64) int { return cmp.Compare(o.Index, i) })
	var all []*record.Enrolled
	gone := map[string]bool{}
	for i, looked := end-1, 0; i >= 0 && len(all) < maxTries && looked < 16*maxTries; i-- {
		e, ok := v.bound[i].message.(*record.Enrolled)
		if !ok {
			continue
		}
		if looked++; !gone[string(e.Key)] {
			all = append(all, e)
		}
		gone[string(e.Key)], gone[string(e.RetiredKey)] = true, true
	}
	return all
}

// epoch reports whether the key of a frame was enrolled for the epoch that the
// frame names. A frame that was made right before memory was moved names the
// parent epoch, whose enrolment may stand in another log or outside of the
// bundle: then nothing is claimed. It is a fault only where the bundle holds
// the log from its beginning, so that nothing can be hidden outside.
func (v *verification) epoch(o *opened, f *Frame, key *record.Enrolled) bool {
	if f.Epoch == [16]byte{} {
		return false
	}
	var enrolled [][]byte
	parents := map[string][]byte{}
	for _, b := range v.bound {
		if b.Index >= o.Index {
			break
		}
		switch m := b.message.(type) {
		case *record.Enrolled:
			if m.Session == f.Session && bytes.Equal(m.Key, key.Key) {
				enrolled = append(enrolled, m.Epoch)
			}
		case *record.Epoch:
			parents[string(m.Epoch)] = m.Parent
		}
	}
	names := func(epoch []byte) bool { return bytes.Equal(epoch, f.Epoch[:]) }
	if slices.ContainsFunc(enrolled, names) {
		return true
	}
	if r := v.b.Range; r == nil || r.First > 0 || r.Last < o.Index {
		return false
	}
	for _, epoch := range enrolled {
		if parent, sealed := parents[string(epoch)]; !sealed || names(parent) {
			return false
		}
	}
	v.failEntry(o.Entry, ".payload", "it names epoch %x, for which its key was never enrolled", f.Epoch)
	return false
}

// inFrame checks that the frame's signature covers the entry.
func (v *verification) inFrame(o *opened, f *Frame) bool {
	first := o.Frame.Index - uint64(f.Count)
	if o.Index < first || o.Index >= o.Frame.Index {
		v.failEntry(o.Entry, ".leaf", "its frame, entry %d, covers entries %d to %d", o.Frame.Index, first, o.Frame.Index-1)
		return false
	}
	place := o.Index - first
	if h := o.leaf.Header; h.Session != f.Session || h.Sequence != f.First+place {
		v.failEntry(o.Entry, ".leaf", "it has session %x and sequence %d, its frame has session %x and sequence %d there", h.Session, h.Sequence, f.Session, f.First+place)
		return false
	}
	root, ok := record.RootFromPath(o.leaf.RecordHash(), place, uint64(f.Count), o.Frame.Path)
	if !ok || root != f.Root {
		v.failEntry(o.Entry, ".leaf", "header and commitment are not what the agent signed in its frame, entry %d", o.Frame.Index)
		return false
	}
	return true
}

// concludeAgents says whose word the guest's entries are.
func (v *verification) concludeAgents(say func(string, ...any)) {
	byKey := map[string]int{}
	for _, e := range v.r.Entries {
		if e.Agent != "" {
			byKey[e.Agent]++
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		level, index := uint32(0), uint64(0)
		for _, i := range slices.Sorted(maps.Keys(v.entries)) {
			if e, ok := v.entries[i].message.(*record.Enrolled); ok && hexKey(e.Key) == key {
				level, index = e.AttestationLevel, i
			}
		}
		say("%d entries are signed by the guest agent with key %s, enrolled in entry %d at attestation level %d.", byKey[key], key, index, level)
	}
}
