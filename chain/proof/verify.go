package proof

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/record"
)

// Frame is what a guest agent signs of a frame.
type Frame struct {
	Domain  [16]byte
	Epoch   [16]byte // zero: not known
	Session uint64
	Number  uint64
	First   uint64 // sequence of the first record
	Count   uint32
	Root    record.Hash // RFC 6962, over the record hashes
}

// Options of Verify.
type Options struct {
	// Frame verifies the signature of a frame statement with an Ed25519
	// public key and decodes it: guestagent/wire knows how. Without it a
	// bundle that holds entries of a guest does not verify.
	Frame func(statement, signature, key []byte) (Frame, error)
	// Policy says which witnesses must have cosigned the host checkpoint.
	// Where it names logs the host log must be one of them, under the key
	// given. Without it cosignatures are not looked at.
	Policy *Policy
}

// verification is one Verify under way.
type verification struct {
	b       *Bundle
	hostKey string
	opts    Options
	r       *Report

	vm      Origin
	host    Checkpoint
	vmHead  Checkpoint
	vmKey   note.Verifier
	entries map[uint64]*opened
	bound   []*opened // the host's word on keys and epochs, by index
}

// opened is an entry whose leaf is decoded.
type opened struct {
	*Entry
	leaf    record.Leaf
	hash    record.Hash
	payload []byte         // nil where withheld or wrong
	message record.Message // nil likewise
}

// Verify checks everything in b against the host log's verifier key (the text
// of host.vkey, from a source the caller trusts and never from b itself: the
// copy in b must be the same). It fails closed: unless all
// of it is right the error is an *InvalidError, and the report lists every
// failure that was found.
func Verify(b *Bundle, hostKey string, opts Options) (*Report, error) {
	r := &Report{HostOrigin: b.HostOrigin, VMOrigin: b.VMOrigin, Failures: slices.Clone(b.faults)}
	v := &verification{b: b, hostKey: strings.TrimSpace(hostKey), opts: opts, r: r, entries: map[uint64]*opened{}}
	hostVerifier, err := note.NewVerifier(strings.TrimSpace(hostKey))
	if err != nil {
		return nil, fmt.Errorf("verify evidence: host key is no verifier key, want the text of host.vkey: %w: %w", record.ErrReject, err)
	}
	v.origins(hostVerifier)
	// Stock tools are tempted to take the copy for the key: a bundle which
	// brings another one is a trap, whatever else is right in it.
	if strings.TrimSpace(b.HostKey) != strings.TrimSpace(hostKey) {
		v.fail(hostKeyFile, b.HostOrigin, nil, "it is not the key given: the bundle brings another key for the host log")
	}
	v.hostLog(hostVerifier)
	v.vmLog()
	for i := range b.Entries {
		v.entry(&b.Entries[i])
	}
	v.order()
	v.genesis()
	v.frames()
	v.links()
	v.policies()
	if len(r.Failures) > 0 {
		return r, &InvalidError{r}
	}
	r.Valid = true
	v.conclude()
	return r, nil
}

func (v *verification) fail(file, log string, index *uint64, format string, args ...any) {
	v.r.Failures = append(v.r.Failures, Failure{File: file, Log: log, Index: index, Problem: fmt.Sprintf(format, args...)})
}

func (v *verification) failEntry(e *Entry, suffix, format string, args ...any) {
	v.fail(e.base()+suffix, v.b.VMOrigin, &e.Index, format, args...)
}

// origins checks that the names of logs and keys belong together.
func (v *verification) origins(host note.Verifier) {
	h, err := ParseOrigin(v.b.HostOrigin)
	if err != nil || !h.IsHost() {
		v.fail(manifestFile, "", nil, "%q is not the origin of a host log", v.b.HostOrigin)
	}
	if v.b.HostOrigin != host.Name() {
		v.fail(manifestFile, v.b.HostOrigin, nil, "the bundle is from %s, the key given is that of %s", v.b.HostOrigin, host.Name())
	}
	if v.vm, err = ParseOrigin(v.b.VMOrigin); err != nil || v.vm.IsHost() {
		v.fail(manifestFile, "", nil, "%q is not the origin of a VM log", v.b.VMOrigin)
	} else if v.vm.HostID != h.HostID {
		v.fail(manifestFile, v.b.VMOrigin, nil, "the VM log is of another host than %s", v.b.HostOrigin)
	}
	if len(v.b.Entries) == 0 {
		v.fail(manifestFile, v.b.VMOrigin, nil, "the bundle holds no entries")
	}
}

// hostLog checks the host checkpoint and the two host-log entries.
func (v *verification) hostLog(host note.Verifier) {
	var err error
	if v.host, err = OpenCheckpoint(v.b.HostCheckpoint, host); err != nil {
		v.fail(hostCheckpointFile, v.b.HostOrigin, nil, "%v", err)
		// Without it nothing of the host log can be believed; what can be
		// said about the VM log is said all the same.
	} else {
		v.notEmpty(hostCheckpointFile, v.b.HostOrigin, v.host)
	}
	v.witnesses()
	v.r.HostSize, v.r.HostRoot = v.host.Size, v.host.Root.String()
	v.certificates()
	if quote, ok := v.hostEntry(quoteBase, &v.b.Quote, record.ClassVMCheckpoint).(*record.VMCheckpoint); ok {
		if quote.Origin != v.b.VMOrigin {
			v.fail(quoteBase+".payload", v.b.HostOrigin, nil, "it quotes a checkpoint of %s, not of %s", quote.Origin, v.b.VMOrigin)
		}
		if !bytes.Equal(quote.Note, v.b.VMCheckpoint) {
			v.fail(vmCheckpointFile, v.b.VMOrigin, nil, "it is not the checkpoint that the host log quotes")
		}
	}
	if c, q, ok := v.hostIndexes(); ok && c >= q {
		v.fail(certificateBase+".leaf", v.b.HostOrigin, &c, "the key is certified after the checkpoint it signed was quoted, in entry %d", q)
	}
}

// notEmpty fails a checkpoint of size 0: nothing is included under one, and
// sealed takes the size for a checkpoint that was reported.
func (v *verification) notEmpty(file, log string, c Checkpoint) {
	if c.Size == 0 {
		v.fail(file, log, nil, "it is of an empty log, which holds no entry")
	}
}

// witnesses holds the host checkpoint against the policy.
func (v *verification) witnesses() {
	p := v.opts.Policy
	if p == nil {
		return
	}
	if len(p.Logs) > 0 {
		// The keys themselves are compared: their hashes have 32 bits only.
		if key, ok := p.LogKey(v.b.HostOrigin); !ok || key != v.hostKey {
			v.fail(hostCheckpointFile, v.b.HostOrigin, nil, "the policy does not trust this log under the key given")
		}
	}
	found, err := p.Check(v.b.HostCheckpoint)
	if err != nil {
		v.fail(hostCheckpointFile, v.b.HostOrigin, nil, "%v", err)
	}
	for _, c := range found {
		v.r.Cosigned = append(v.r.Cosigned, ReportCosignature{Witness: c.Witness, Key: c.ID, Time: c.Time})
	}
}

func (v *verification) hostIndexes() (certificate, quote uint64, ok bool) {
	c, err1 := record.ParseLeaf(v.b.Certificate.Leaf)
	q, err2 := record.ParseLeaf(v.b.Quote.Leaf)
	return c.Index, q.Index, err1 == nil && err2 == nil
}

// hostEntry checks an entry of the host log and returns its payload, or nil.
func (v *verification) hostEntry(base string, s *Sealed, class record.Class) record.Message {
	leaf, ok := v.sealed(base, v.b.HostOrigin, nil, s, v.b.HostCheckpoint, v.host)
	if !ok {
		return nil
	}
	if leaf.Header.Class != class || leaf.Origin != record.OriginHost {
		v.fail(base+".leaf", v.b.HostOrigin, &leaf.Index, "it is a %s of origin %s, want %s of the host", leaf.Header.Class, leaf.Origin, class)
		return nil
	}
	if s.Opening == nil {
		v.fail(base+".payload", v.b.HostOrigin, &leaf.Index, "it is missing")
		return nil
	}
	payload := v.opening(base, v.b.HostOrigin, &leaf, s)
	if payload == nil {
		return nil
	}
	m, err := record.Decode(class, payload)
	if err != nil {
		v.fail(base+".payload", v.b.HostOrigin, &leaf.Index, "%v", err)
		return nil
	}
	return m
}

// sealed checks a leaf and its inclusion under the checkpoint with the given
// note. ok says that the leaf could be decoded, not that it is included.
func (v *verification) sealed(base, log string, index *uint64, s *Sealed, want []byte, c Checkpoint) (leaf record.Leaf, ok bool) {
	leaf, err := record.ParseLeaf(s.Leaf)
	if err != nil {
		v.fail(base+".leaf", log, index, "%v", err)
		return record.Leaf{}, false
	}
	if index == nil {
		index = &leaf.Index
	} else if leaf.Index != *index {
		v.fail(base+".leaf", log, index, "the leaf says that it is entry %d", leaf.Index)
	}
	p, err := ParseInclusion(s.Proof)
	switch {
	case err != nil:
		v.fail(base+".tlog-proof", log, index, "%v", err)
	case p.Index != *index:
		v.fail(base+".tlog-proof", log, index, "the proof is for entry %d", p.Index)
	case !bytes.Equal(p.Note, want):
		v.fail(base+".tlog-proof", log, index, "the proof is under another checkpoint than the bundle's")
	case c.Size == 0:
		// The checkpoint has been reported already.
	default:
		if err := VerifyInclusion(record.LeafHash(s.Leaf), *index, p.Path, c); err != nil {
			v.fail(base+".leaf", log, index, "leaf and proof do not fit the checkpoint: %v", err)
		}
	}
	return leaf, true
}

// opening checks a payload against the commitment and returns it, or nil.
func (v *verification) opening(base, log string, leaf *record.Leaf, s *Sealed) []byte {
	var salt record.Salt
	if len(s.Opening) < len(salt) {
		v.fail(base+".payload", log, &leaf.Index, "%d bytes, want a salt of %d and the payload", len(s.Opening), len(salt))
		return nil
	}
	copy(salt[:], s.Opening)
	payload := s.Opening[len(salt):]
	if record.Commit(&salt, payload) != leaf.Commitment {
		v.fail(base+".payload", log, &leaf.Index, "salt and payload are not what the leaf commits to")
		return nil
	}
	return payload
}

// certificates follows the keys of the VM logs from the first one on, and takes
// the last of them for the key of this VM log.
func (v *verification) certificates() {
	chain := KeyChain{HostID: v.vm.HostID}
	add := func(base string, s *Sealed) (*record.KeyCertificate, bool) {
		c, ok := v.hostEntry(base, s, record.ClassKeyCertificate).(*record.KeyCertificate)
		leaf, err := record.ParseLeaf(s.Leaf)
		if !ok || err != nil {
			return nil, false // reported
		}
		if err := chain.Add(leaf.Index, c); err != nil {
			v.fail(base+".payload", v.b.HostOrigin, &leaf.Index, "%v", err)
			return nil, false
		}
		return c, true
	}
	for i := range v.b.Certificates {
		if _, ok := add(fmt.Sprintf(earlierKeys, i), &v.b.Certificates[i]); !ok {
			break // those behind it cannot fit
		}
	}
	if c, ok := add(certificateBase, &v.b.Certificate); ok {
		v.certificate(c)
	}
}

// certificate takes the VM-log key from its certificate.
func (v *verification) certificate(c *record.KeyCertificate) {
	key, err := NewVerifier(v.b.VMOrigin, c.PublicKey)
	if err != nil {
		v.fail(certificateBase+".payload", v.b.HostOrigin, nil, "%v", err)
		return
	}
	v.vmKey = key
	if text, _ := VerifierKey(v.b.VMOrigin, c.PublicKey); v.b.VMKey != text {
		v.fail(vmKeyFile, v.b.VMOrigin, nil, "it is not the key that the host log certifies")
	}
}

// vmLog checks the VM log's checkpoint with the certified key.
func (v *verification) vmLog() {
	if v.vmKey == nil {
		v.fail(vmCheckpointFile, v.b.VMOrigin, nil, "no certified key to verify it with")
		return
	}
	var err error
	if v.vmHead, err = OpenCheckpoint(v.b.VMCheckpoint, v.vmKey); err != nil {
		v.fail(vmCheckpointFile, v.b.VMOrigin, nil, "%v", err)
	} else {
		v.notEmpty(vmCheckpointFile, v.b.VMOrigin, v.vmHead)
	}
	v.r.VMSize, v.r.VMRoot = v.vmHead.Size, v.vmHead.Root.String()
}

// entry checks one entry of the VM log by itself.
func (v *verification) entry(e *Entry) {
	leaf, ok := v.sealed(e.base(), v.b.VMOrigin, &e.Index, &e.Sealed, v.b.VMCheckpoint, v.vmHead)
	if !ok {
		return
	}
	o := &opened{Entry: e, leaf: leaf, hash: record.LeafHash(e.Leaf)}
	v.entries[e.Index] = o
	if e.Opening == nil {
		v.r.Withheld++
	} else if o.payload = v.opening(e.base(), v.b.VMOrigin, &leaf, &e.Sealed); o.payload != nil {
		v.r.Opened++
		var err error
		if o.message, err = record.Decode(leaf.Header.Class, o.payload); err != nil && leaf.Origin == record.OriginGuest {
			// A guest may seal what it likes: its bytes are proved, not their sense.
			v.r.Unreadable++
		} else if err != nil {
			v.failEntry(e, ".payload", "%v", err)
		}
	}
	v.r.Entries = append(v.r.Entries, ReportEntry{
		Index: e.Index, Role: e.Role, Class: leaf.Header.Class.String(), Origin: leaf.Origin.String(),
		Wall: leaf.Wall, Hash: o.hash.String(), Payload: o.payload != nil,
	})
}

// order checks the chain between neighbours, the host's time, and that a range
// is complete.
func (v *verification) order() {
	var before *opened
	for i := range v.b.Entries {
		o := v.entries[v.b.Entries[i].Index]
		if o == nil {
			before = nil
			continue
		}
		if o.Index == 0 && !o.leaf.Prev.IsZero() {
			v.failEntry(o.Entry, ".leaf", "the first leaf names a leaf before it")
		}
		if before != nil && before.Index+1 == o.Index && o.leaf.Prev != before.hash {
			v.failEntry(o.Entry, ".leaf", "it follows a leaf with hash %s, entry %d has %s", o.leaf.Prev, before.Index, before.hash)
		}
		if before != nil && o.leaf.Mono < before.leaf.Mono {
			v.failEntry(o.Entry, ".leaf", "the host's monotone time steps back behind entry %d", before.Index)
		}
		before = o
	}
	r := v.b.Range
	if r == nil {
		return
	}
	if r.First > r.Last || r.Last >= max(v.vmHead.Size, 1) {
		v.fail(manifestFile, v.b.VMOrigin, nil, "the range from %d to %d is not in a log of %d leaves", r.First, r.Last, v.vmHead.Size)
		return
	}
	for i, missing := r.First, 0; i <= r.Last && missing < 16; i++ {
		if _, ok := v.entries[i]; !ok {
			missing++
			v.fail(manifestFile, v.b.VMOrigin, &i, "the bundle claims the range from %d to %d, and this entry is missing or unreadable", r.First, r.Last)
		}
	}
}

// genesis checks that leaf 0 names the domain that the origin names.
func (v *verification) genesis() {
	o := v.entries[0]
	if o == nil {
		v.fail(manifestFile, v.b.VMOrigin, nil, "the genesis, entry 0, is missing or unreadable")
		return
	}
	g, ok := o.message.(*record.Genesis)
	if !ok {
		v.failEntry(o.Entry, ".payload", "the genesis cannot be read")
		return
	}
	if o.leaf.Header.Class != record.ClassGenesis || o.leaf.Origin != record.OriginHost || g.Origin != v.b.VMOrigin || g.DomainUuid != v.vm.Domain || g.Incarnation != v.vm.Incarnation {
		v.failEntry(o.Entry, ".payload", "the genesis is of %s, domain %s, incarnation %d", g.Origin, g.DomainUuid, g.Incarnation)
	}
}

// conclude says in sentences what has been proved.
func (v *verification) conclude() {
	say := func(format string, args ...any) { v.r.Proved = append(v.r.Proved, fmt.Sprintf(format, args...)) }
	certificate, quote, _ := v.hostIndexes()
	say("Host log %s has a checkpoint of %d entries with root %s, signed by the key given.", v.host.Origin, v.host.Size, v.host.Root)
	for _, c := range v.r.Cosigned {
		say("Witness %q (%s) cosigned that checkpoint at %s: all of it was there by then.", c.Witness, c.Key, stamp(c.Time*int64(time.Second)))
	}
	if p := v.opts.Policy; p != nil && p.None() {
		say("The policy asks for no witness.")
	} else if p != nil {
		say("The cosignatures satisfy the policy.")
	}
	if n := len(v.b.Certificates); n > 0 {
		say("%d keys of the VM logs were replaced before: each next one was certified in the host log and signed by the one before it.", n)
	}
	say("Its entry %d certifies the key of the VM logs; its entry %d quotes the checkpoint of VM log %s at %d entries with root %s.", certificate, quote, v.vmHead.Origin, v.vmHead.Size, v.vmHead.Root)
	if g, ok := v.entries[0].message.(*record.Genesis); ok {
		say("That log is incarnation %d of domain %s (%q).", g.Incarnation, g.DomainUuid, g.DomainName)
	}
	first, last := v.b.Entries[0].Index, v.b.Entries[len(v.b.Entries)-1].Index
	say("All %d entries of the bundle, from %d to %d, are in that log.", len(v.b.Entries), first, last)
	if r := v.b.Range; r != nil {
		from, to := v.entries[r.First].leaf, v.entries[r.Last].leaf
		say("Entries %d to %d are complete: each follows the one before it, sealed from %s to %s, and nothing was between them.", r.First, r.Last, stamp(from.Wall), stamp(to.Wall))
		v.concludeCoverage(say, *r)
	}
	if v.r.Withheld > 0 {
		say("%d payloads are what their authors committed to; %d are not disclosed.", v.r.Opened, v.r.Withheld)
	} else {
		say("All %d payloads are what their authors committed to.", v.r.Opened)
	}
	if v.r.Unreadable > 0 {
		say("%d payloads of the guest are bytes that cannot be read as records.", v.r.Unreadable)
	}
	v.concludeAgents(say)
	v.concludeLinks(say)
	v.concludePolicies(say)
}

func stamp(nanoseconds int64) string { return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano) }

func hexKey(b []byte) string { return hex.EncodeToString(b) }
