package mirror

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const (
	// maxFrame bounds how many records one frame may speak for.
	maxFrame = 4096
	// maxTries bounds how many keys are tried on one frame, and maxKeys how many are
	// held: an agent's key is enrolled each time it connects, and one that replaces it
	// retires it, so of what an honest host has sealed the newest has signed, or nearly.
	maxTries = 16
	maxKeys  = 256
)

// agents checks what guest agents have signed in one VM log.
type agents struct {
	keys    []agentKey // that are not retired, the newest last
	parents map[string][]byte
	told    uint64 // entries that tell of something missing

	// Records since the last statement.
	records  []record.Hash
	first    uint64 // index of the first of them
	header   record.Header
	sequence uint64 // of the next one
	broken   bool   // they do not belong together, which is reported

	// Behind entries that were pruned.
	lossy   bool      // what stood in them of epochs is not known
	torn    bool      // the first records of a frame may have been among them
	keyless bool      // so may keys, until one is enrolled
	bereft  bool      // likewise among what lacks and was not pruned
	open    []suspect // frames that such a key may have signed
}

// suspect is a frame that no known key verifies.
type suspect struct {
	index   uint64
	problem string
}

// cut says that entries are gone.
func (a *agents) cut() {
	a.records, a.broken = a.records[:0], false
	a.lossy, a.torn, a.keyless = true, true, true
	a.told++ // numbers need not go on
}

// settle decides on frames that no known key verifies, where the pruned entries
// are known: the newest enrolment before the last of them is kept.
func (a *agents) settle(c *logCheck) {
	for _, s := range a.open {
		if s.index >= c.pruned.end {
			c.fail(KindSignature, &s.index, "%s", s.problem)
		}
	}
}

// agentKey is an enrolled key.
type agentKey struct {
	key     []byte
	session uint64
	epochs  [][]byte // it was enrolled for
	frame   uint64   // number of its newest frame; 0: none since it was enrolled last
	next    uint64   // sequence behind that
	told    uint64   // by then
}

// entry takes the next entry of the log.
func (a *agents) entry(c *logCheck, l *record.Leaf, index uint64, o *opened) {
	if l.Origin == record.OriginGuest {
		a.record(c, l, index)
		return
	}
	if l.Origin == record.OriginHost && l.Header.Class == record.ClassAgentFrame {
		if o != nil {
			a.frame(c, index, o)
		}
		a.records, a.broken, a.torn = a.records[:0], false, false
		return
	}
	a.loose(c)
	a.torn = false
	if l.Origin != record.OriginHost {
		return
	}
	if tellsOfGap(l.Header.Class) {
		a.told++
	}
	if o == nil {
		return
	}
	switch m := o.message.(type) {
	case *record.Enrolled:
		a.keyless, a.bereft = false, false
		a.enroll(c, m)
	case *record.Epoch:
		a.parents[string(m.Epoch)] = m.Parent
	}
}

// record takes an entry of the guest, which waits for its statement.
func (a *agents) record(c *logCheck, l *record.Leaf, index uint64) {
	if len(a.records) == 0 {
		a.first, a.header, a.sequence = index, l.Header, l.Header.Sequence
	}
	if h := l.Header; !a.broken && (h.Session != a.header.Session || h.Sequence != a.sequence || len(a.records) >= maxFrame) {
		a.broken = true
		c.fail(KindEntry, &index, "it has session %x and sequence %d, its frame goes on with session %x and sequence %d", h.Session, h.Sequence, a.header.Session, a.sequence)
	}
	a.sequence++
	if len(a.records) < maxFrame {
		a.records = append(a.records, l.RecordHash())
	}
}

// loose reports records that no statement follows.
func (a *agents) loose(c *logCheck) {
	if len(a.records) > 0 {
		c.fail(KindSignature, &a.first, "%d entries of the guest begin here and no signed frame stands behind them", len(a.records))
		a.records, a.broken = a.records[:0], false
	}
}

func (a *agents) end(c *logCheck) {
	a.loose(c)
	a.records = nil
}

// enroll takes a key, and retires the one that it replaces.
func (a *agents) enroll(c *logCheck, m *record.Enrolled) {
	var kept []agentKey
	now := agentKey{key: m.Key, session: m.Session}
	for _, k := range a.keys {
		switch {
		case bytes.Equal(k.key, m.Key) && k.session == m.Session:
			// It connects again: maybe from memory that was taken back.
			now.epochs = k.epochs
		case !bytes.Equal(k.key, m.RetiredKey):
			kept = append(kept, k)
		}
	}
	now.epochs = append(now.epochs, m.Epoch)
	a.keys = append(kept, now)
	if len(a.keys) > maxKeys {
		a.keys = slices.Delete(a.keys, 0, len(a.keys)-maxKeys)
	}
	known := make([][]byte, 0, maxTries)
	for i := range min(len(a.keys), maxTries) {
		known = append(known, a.keys[len(a.keys)-1-i].key) // the newest first
	}
	c.known.set(known)
}

// frame checks a statement and the records that it speaks for.
func (a *agents) frame(c *logCheck, index uint64, o *opened) {
	m, ok := o.message.(*record.Frame)
	if !ok || c.v.opts.Frame == nil {
		c.fail(KindSignature, &index, "this program cannot verify signatures of guest agents")
		return
	}
	c.r.Frames++
	k, f, err := a.signer(c, m, o)
	n := uint64(len(a.records))
	switch domain := strings.ReplaceAll(c.name.Domain, "-", ""); {
	case k == nil && a.bereft:
		if c.lost.frames++; c.lost.frames == 1 {
			c.lost.frame = index
		}
	case k == nil && a.keyless && len(a.open) < maxFailures:
		a.open = append(a.open, suspect{index, fmt.Sprintf("no enrolled key verifies the agent's signature on this frame (%v)", err)})
	case k != nil && a.torn && n < uint64(f.Count) && f.Count == m.Count:
		// The rest of its records was pruned.
		k.frame, k.next, k.told = f.Number, f.First+uint64(f.Count), a.told
	case k == nil && err == nil:
		c.fail(KindSignature, &index, "no key of an agent is enrolled before this frame")
	case k == nil:
		c.fail(KindSignature, &index, "no enrolled key verifies the agent's signature on this frame: %v", err)
	case f.Session != k.session:
		c.fail(KindSignature, &index, "it is signed by the key of session %x and claims session %x", k.session, f.Session)
	case hex.EncodeToString(f.Domain[:]) != domain:
		c.fail(KindSignature, &index, "the agent signed it for domain %x", f.Domain)
	case uint64(f.Count) != n || f.Count != m.Count:
		c.fail(KindGap, &index, "the agent signed %d records, %d stand before it, the entry says %d", f.Count, n, m.Count)
	case record.Root(a.records) != f.Root:
		c.fail(KindEntry, &index, "the records before it, from entry %d on, are not those that the agent signed", a.first)
	case n > 0 && (a.header.Session != f.Session || a.header.Sequence != f.First):
		c.fail(KindEntry, &index, "the records before it begin with session %x sequence %d, the agent signed session %x sequence %d", a.header.Session, a.header.Sequence, f.Session, f.First)
	default:
		a.follow(c, index, k, f)
		c.r.Signed += n
	}
}

// signer returns the enrolled key that verifies a statement.
func (a *agents) signer(c *logCheck, m *record.Frame, o *opened) (*agentKey, *proof.Frame, error) {
	var last error
	for i := len(a.keys) - 1; i >= 0; i-- {
		k := &a.keys[i]
		if len(o.key) > 0 && bytes.Equal(k.key, o.key) {
			return k, &o.frame, nil // a worker has verified it
		}
	}
	for i := len(a.keys) - 1; i >= 0 && i >= len(a.keys)-maxTries; i-- {
		f, err := c.v.opts.Frame(m.Statement, m.Signature, a.keys[i].key)
		if err == nil {
			return &a.keys[i], &f, nil
		}
		last = err
	}
	return nil, nil, last
}

// follow checks that a frame follows the one before it, unless an entry between
// them says that something is missing, and that its epoch may be its key's.
func (a *agents) follow(c *logCheck, index uint64, k *agentKey, f *proof.Frame) {
	if f.Number <= k.frame { // numbers go back behind an enrolment only
		c.fail(KindEntry, &index, "frame %d of session %x goes back behind frame %d: it was signed before, and stands here again", f.Number, f.Session, k.frame)
		return
	}
	if k.frame > 0 && a.told == k.told {
		if f.Number != k.frame+1 {
			c.fail(KindGap, &index, "frame %d of session %x follows frame %d, and no entry between them says that frames are missing", f.Number, f.Session, k.frame)
		} else if f.First != k.next {
			c.fail(KindGap, &index, "frame %d of session %x begins with sequence %d, %d comes next, and no entry says that records are missing", f.Number, f.Session, f.First, k.next)
		}
	}
	k.frame, k.next, k.told = f.Number, f.First+uint64(f.Count), a.told
	if a.lossy || f.Epoch == [16]byte{} || contains(k.epochs, f.Epoch[:]) {
		return
	}
	for _, e := range k.epochs {
		if parent, sealed := a.parents[string(e)]; !sealed || bytes.Equal(parent, f.Epoch[:]) {
			return // it was made right before memory was moved
		}
	}
	c.fail(KindSignature, &index, "it names epoch %x, for which its key was never enrolled", f.Epoch)
}
