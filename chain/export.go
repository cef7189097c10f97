package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// MaxExport is the largest number of entries that one export may select.
const MaxExport = 100_000

// DefaultExportBytes is how much of a bundle one export holds in memory, in
// bytes. It is below what proof.ReadBundle takes.
const DefaultExportBytes = 256 << 20

// Selection says what to export of a VM log. One of the two is set.
type Selection struct {
	Indexes []uint64
	// Range stands for all entries from First to Last, and the bundle says
	// so: its verification proves that nothing is left out.
	Range *proof.Range
	// Withhold leaves out the payloads of the selected entries, and of the causes
	// and verdicts that they name. What the verification itself needs is disclosed
	// all the same: genesis, frames, enrolments, erasures.
	Withhold bool
	// Opened is told, in their order, the entries of the VM log whose payloads the
	// bundle holds, and whether they were selected. It comes before the first byte
	// is written. Nil: nobody is told.
	Opened func(i *Item, selected bool)
	// Turn is called when the entries are cosigned, or as far as they will be, and
	// before anything of the bundle is held in memory: it waits until it may be, and
	// returns what is called behind that. Nil: at once.
	Turn func(ctx context.Context) (leave func(), err error)
	// Policies returns the files of the policy bundle with a digest that opened entries
	// name, or one of the words proof.Lacks* for why they are not given. Nil: evidence says
	// nothing of policies.
	Policies func(ctx context.Context, digest record.Hash) (files map[string][]byte, lacks string, err error)
	// MaxBytes bounds the bundle, and with it the memory of the export; 0
	// means DefaultExportBytes. Whatever it is, a bundle that proof.ReadBundle
	// would refuse is not written.
	MaxBytes int64
}

// Export writes the evidence bundle of some entries of a VM log. It makes a
// checkpoint of everything first, so it needs Run to be running. What the
// selected entries need to be judged comes along: the frames that sign them,
// the enrolment of the keys, the genesis, causes and verdicts. A selection that
// is too large is an error that wraps record.ErrReject, with nothing written.
func Export(ctx context.Context, s *Store, l *Log, sel Selection, w io.Writer) error {
	if l.name.IsHost() {
		return fmt.Errorf("export %s: bundles are of VM logs, this is a host log: %w", l.origin, record.ErrReject)
	}
	if err := l.Gone(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	q, err := s.checkpointNow(ctx, l)
	if err != nil {
		return fmt.Errorf("export %s: %w", l.origin, err)
	}
	if err := s.CosignNow(ctx); err != nil {
		return fmt.Errorf("export %s: %w", l.origin, err)
	}
	if sel.Turn != nil {
		leave, err := sel.Turn(ctx)
		if err != nil {
			return fmt.Errorf("export %s: %w", l.origin, err)
		}
		defer leave()
	}
	e := &exporter{store: s, log: l, sel: sel, quote: q, items: map[uint64]*Item{}, roles: map[uint64]string{}, enrolled: map[uint64]uint64{}, frameOf: map[uint64]uint64{}, bundles: map[record.Hash]bool{}}
	if e.room = sel.MaxBytes; e.room == 0 {
		e.room = DefaultExportBytes
	}
	b, err := e.bundle(ctx)
	if err != nil {
		return fmt.Errorf("export %s: %w", l.origin, err)
	}
	if err := proof.WriteBundle(w, b); err != nil {
		return fmt.Errorf("export %s: %w", l.origin, err)
	}
	return nil
}

// exporter collects the entries of one bundle.
type exporter struct {
	store *Store
	log   *Log
	sel   Selection
	quote quote // of the log, that the bundle is under

	items    map[uint64]*Item
	roles    map[uint64]string
	enrolled map[uint64]uint64 // session to enrolment
	frameOf  map[uint64]uint64 // guest's entry to frame
	frames   []frameSpan       // by index
	tree     *frameTree        // of the frame used last: entries come in order
	size     uint64            // of the VM checkpoint
	room     int64             // bytes the bundle may still grow by

	bundles map[record.Hash]bool // of policies, that opened entries name
}

// charge takes n bytes of the bundle's room. It comes before they are kept.
func (e *exporter) charge(index uint64, n int) error {
	if e.room -= int64(n); e.room < 0 {
		limit := e.sel.MaxBytes
		if limit == 0 {
			limit = DefaultExportBytes
		}
		return fmt.Errorf("the bundle would be larger than %d bytes, which it reaches at entry %d; choose a smaller range and export in parts: %w", limit, index, record.ErrReject)
	}
	return nil
}

func (e *exporter) bundle(ctx context.Context) (*proof.Bundle, error) {
	b := &proof.Bundle{HostOrigin: e.store.host.origin, VMOrigin: e.log.origin, HostKey: e.store.host.vkey, Range: e.sel.Range}
	if err := e.heads(b); err != nil {
		return nil, err
	}
	indexes, err := e.selected()
	if err != nil {
		return nil, err
	}
	if err := e.add(0, proof.RoleGenesis); err != nil {
		return nil, err
	}
	for _, i := range indexes {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := e.add(i, proof.RoleChosen); err != nil {
			return nil, err
		}
	}
	for _, i := range slices.Sorted(maps.Keys(e.items)) {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		entry, err := e.entry(i, b.VMCheckpoint)
		if err != nil {
			return nil, err
		}
		if entry.Opening != nil && e.sel.Opened != nil {
			e.sel.Opened(e.items[i], e.roles[i] == proof.RoleChosen)
		}
		if entry.Opening != nil {
			e.notePolicies(e.items[i])
		}
		delete(e.items, i) // the bundle has its own copy of the payload
		b.Entries = append(b.Entries, entry)
	}
	b.Policies, err = e.policies(ctx)
	return b, err
}

// heads fills in the checkpoints and the two entries of the host log.
func (e *exporter) heads(b *proof.Bundle) error {
	e.store.checkpointMu.Lock()
	certified := e.store.vmKeys
	e.store.checkpointMu.Unlock()
	q, host := e.quote, e.store.host.published.Load()
	if c, ok := e.store.Cosigned(); ok && q.index < c.Size {
		host = &c // the one that others have seen
	}
	if host == nil || q.index >= host.Size {
		return corrupt("the published host checkpoint does not cover the quote")
	}
	b.HostCheckpoint = host.Note
	var err error
	if b.Quote, err = e.hostEntry(q.index, host); err != nil {
		return err
	}
	var m record.VMCheckpoint
	if err := m.UnmarshalVT(b.Quote.Opening[len(record.Salt{}):]); err != nil || m.Origin != e.log.origin || m.Size != q.size {
		return corrupt("entry %d of the host log does not quote %s at size %d", q.index, e.log.origin, q.size)
	}
	b.VMCheckpoint, e.size = m.Note, m.Size
	return e.certificates(b, certified, host)
}

// certificates adds the certificate of the key that signed the VM checkpoint,
// and those of the keys before it.
func (e *exporter) certificates(b *proof.Bundle, certified []vmKey, host *Published) error {
	_, key, err := e.store.openNote(e.log, b.VMCheckpoint, certified)
	if err != nil {
		return corrupt("the quoted checkpoint of %s: %v", e.log.origin, err)
	}
	if b.VMKey, err = proof.VerifierKey(e.log.origin, key); err != nil {
		return err
	}
	for _, k := range certified {
		if b.Certificate, err = e.hostEntry(k.index, host); err != nil {
			return err
		}
		if k.key.Equal(key) {
			return nil
		}
		if err := e.charge(0, len(b.Certificate.Leaf)+len(b.Certificate.Opening)+2*len(b.Certificate.Proof)); err != nil {
			return err
		}
		b.Certificates = append(b.Certificates, b.Certificate)
	}
	return corrupt("no entry certifies the key of %s", e.log.origin)
}

func (e *exporter) hostEntry(index uint64, p *Published) (proof.Sealed, error) {
	item, err := e.store.host.Item(index)
	if err != nil {
		return proof.Sealed{}, err
	}
	return e.sealed(&item, p.Size, p.Note, true)
}

// sealed makes the proof of an entry.
func (e *exporter) sealed(item *Item, size uint64, note []byte, open bool) (proof.Sealed, error) {
	path, err := item.Log.ProveInclusion(item.Index, size)
	if err != nil {
		return proof.Sealed{}, err
	}
	p := proof.Inclusion{Index: item.Index, Note: note, Path: fromPath(path)}
	s := proof.Sealed{Leaf: item.LeafBytes, Proof: p.Format()}
	if open && !item.Erased {
		s.Opening = item.opening()
	}
	return s, nil
}

func fromPath(path []tlog.Hash) []record.Hash {
	out := make([]record.Hash, len(path))
	for i := range path {
		out[i] = record.Hash(path[i])
	}
	return out
}

func (e *exporter) selected() ([]uint64, error) {
	if r := e.sel.Range; r != nil {
		if r.First > r.Last || r.Last >= e.size {
			return nil, fmt.Errorf("entries %d to %d: the log has %d entries: %w", r.First, r.Last, e.size, record.ErrReject)
		}
		if r.Last-r.First >= MaxExport {
			return nil, fmt.Errorf("entries %d to %d: more than %d at once; export them in parts: %w", r.First, r.Last, MaxExport, record.ErrReject)
		}
		all := make([]uint64, 0, r.Last-r.First+1)
		for i := r.First; i <= r.Last; i++ {
			all = append(all, i)
		}
		return all, nil
	}
	if len(e.sel.Indexes) == 0 || len(e.sel.Indexes) > MaxExport {
		return nil, fmt.Errorf("%d entries selected, want 1 to %d: %w", len(e.sel.Indexes), MaxExport, record.ErrReject)
	}
	return slices.Compact(slices.Sorted(slices.Values(e.sel.Indexes))), nil
}

// add takes an entry into the bundle, with what it needs.
func (e *exporter) add(index uint64, role string) error {
	if index >= e.size {
		return fmt.Errorf("entry %d: the log has %d entries: %w", index, e.size, record.ErrReject)
	}
	if old, ok := e.roles[index]; ok {
		if role == proof.RoleChosen && old != proof.RoleFrame {
			e.roles[index] = role
		}
		return nil
	}
	item, err := e.log.Item(index)
	if err != nil {
		return err
	}
	if item.Leaf.Header.Class == record.ClassAgentFrame {
		role = proof.RoleFrame // where its files stand depends on what it is
	}
	if err := e.charge(index, len(item.LeafBytes)+len(item.secret)+len(item.Payload)); err != nil {
		return err
	}
	e.items[index], e.roles[index] = &item, role
	if item.Erased && item.ErasedBy < e.size { // who erased it, and why
		if err := e.add(item.ErasedBy, proof.RoleLink); err != nil {
			return err
		}
	}
	if item.Leaf.Origin == record.OriginGuest {
		return e.addFrame(&item)
	}
	if item.Erased {
		return nil // a verdict whose words went with the record it judges
	}
	m, err := item.Decode()
	if err != nil {
		return corrupt("entry %d: %v", index, err)
	}
	switch m := m.(type) {
	case *record.Frame:
		return e.addKey(&item, m)
	case *record.Verdict:
		if m.CauseShard > 0 {
			return nil // evidence is of one log
		}
		return e.add(m.CauseIndex, proof.RoleLink)
	case *record.Outcome:
		return e.add(m.VerdictIndex, proof.RoleLink)
	}
	return nil
}

// frameSpan is a frame that is in the bundle already.
type frameSpan struct {
	first uint64 // index of the first record
	index uint64 // of the statement behind the last one
}

// known returns where the frame over the record at index stands among those
// that are known, or belongs, and whether it is there.
func (e *exporter) known(index uint64) (at int, ok bool) {
	at = sort.Search(len(e.frames), func(i int) bool { return e.frames[i].index > index })
	return at, at < len(e.frames) && e.frames[at].first <= index
}

// addFrame finds the statement over a guest's entry: the first one behind it.
// Each frame is looked for once, however many of its records are chosen.
func (e *exporter) addFrame(item *Item) error {
	if at, ok := e.known(item.Index); ok {
		e.frameOf[item.Index] = e.frames[at].index
		return nil
	}
	for i := item.Index + 1; i < min(e.size, item.Index+1+MaxBatchEntries); i++ {
		leaf, err := e.log.readHeader(i)
		if err != nil {
			return err
		}
		if leaf.Header.Class == record.ClassAgentFrame && leaf.Origin == record.OriginHost {
			e.frameOf[item.Index] = i
			return e.add(i, proof.RoleFrame)
		}
	}
	return corrupt("no signed frame stands behind the guest's entry %d", item.Index)
}

func (e *exporter) leaf(index uint64) (record.Leaf, error) {
	return e.log.readLeaf(index)
}

// addKey adds the enrolment of the key that signed a frame.
func (e *exporter) addKey(frame *Item, m *record.Frame) error {
	if uint64(m.Count) > frame.Index || m.Count > MaxBatchEntries {
		return corrupt("the frame in entry %d covers %d records", frame.Index, m.Count)
	}
	session := uint64(0)
	if m.Count > 0 {
		last, err := e.log.readHeader(frame.Index - 1)
		if err != nil {
			return err
		}
		session = last.Header.Session
	}
	at, _ := e.known(frame.Index)
	e.frames = slices.Insert(e.frames, at, frameSpan{first: frame.Index - uint64(m.Count), index: frame.Index})
	if i, ok := e.enrolled[session]; ok && i < frame.Index {
		return nil
	}
	i, err := e.findEnrolment(frame.Index, session, m.Count == 0)
	if err != nil {
		return err
	}
	e.enrolled[session] = i
	return e.add(i, proof.RoleKey)
}

// findEnrolment looks backwards for the enrolment of a frame's session. A
// frame without records does not say its session here: the newest enrolment
// before it is meant.
func (e *exporter) findEnrolment(before, session uint64, newest bool) (index uint64, err error) {
	var unread error
	for i := before; i > 0; i-- {
		if e.log.goneBundle((i-1)/tileWidth) != nil {
			continue // the one that is needed stays
		}
		leaf, err := e.log.readHeader(i - 1)
		if errors.Is(err, ErrUnreadable) { // most likely it is something else
			unread = cmp.Or(unread, err)
			continue
		}
		if err != nil {
			return 0, err
		}
		if leaf.Header.Class != record.ClassAgentEnrolled {
			continue
		}
		item, err := e.log.Item(i - 1)
		if err != nil {
			return 0, err
		}
		var m record.Enrolled
		if err := m.UnmarshalVT(item.Payload); err != nil {
			return 0, corrupt("entry %d: %v", i-1, err)
		}
		if m.Session == session || newest {
			return i - 1, nil
		}
	}
	if unread != nil {
		return 0, fmt.Errorf("the enrolment before the frame in entry %d may be among what cannot be read: %w", before, unread)
	}
	return 0, corrupt("no enrolment stands before the frame in entry %d", before)
}

// entry makes the bundle's form of an entry.
func (e *exporter) entry(index uint64, note []byte) (proof.Entry, error) {
	item, role := e.items[index], e.roles[index]
	open := !e.sel.Withhold || index == 0 || OpensItself(&item.Leaf) || item.Leaf.Header.Class == record.ClassErased || role != proof.RoleChosen && role != proof.RoleLink
	s, err := e.sealed(item, e.size, note, open)
	if err != nil {
		return proof.Entry{}, err
	}
	// The proof is there twice, for stock tools.
	if err := e.charge(index, 2*len(s.Proof)); err != nil {
		return proof.Entry{}, err
	}
	entry := proof.Entry{Index: index, Role: role, Sealed: s}
	if frame, ok := e.frameOf[index]; ok {
		t, err := e.frameTree(index, frame)
		if err != nil {
			return proof.Entry{}, err
		}
		path, err := t.path(index)
		if err != nil {
			return proof.Entry{}, err
		}
		if err := e.charge(index, 2*len(record.Hash{})*len(path)); err != nil { // in hexadecimal
			return proof.Entry{}, err
		}
		entry.Frame = &proof.FramePlace{Index: frame, Path: path}
	}
	return entry, nil
}

// frameTree is the Merkle tree over the record hashes of one frame.
type frameTree struct {
	frameSpan
	n     int64
	nodes []tlog.Hash // as x/mod stores them
}

var _ tlog.HashReader = (*frameTree)(nil)

// ReadHashes returns stored hashes of the tree.
func (t *frameTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = t.nodes[x]
	}
	return out, nil
}

func (t *frameTree) path(index uint64) ([]record.Hash, error) {
	if index < t.first || index >= t.first+uint64(t.n) {
		return nil, corrupt("entry %d does not lie in its frame, entries %d to %d", index, t.first, t.first+uint64(t.n)-1)
	}
	p, err := tlog.ProveRecord(t.n, int64(index-t.first), t)
	return fromPath(p), err
}

// frameTree returns the tree of a frame, built from the leaves it covers. One
// is kept: the records of a frame are neighbours.
func (e *exporter) frameTree(index, frame uint64) (*frameTree, error) {
	if e.tree != nil && e.tree.index == frame {
		return e.tree, nil
	}
	at, ok := e.known(index)
	if !ok || e.frames[at].index != frame {
		return nil, corrupt("entry %d does not lie in the frame behind it, entry %d", index, frame)
	}
	t := &frameTree{frameSpan: e.frames[at]}
	for i := t.first; i < frame; i++ {
		leaf, err := e.leaf(i)
		if err != nil {
			return nil, err
		}
		h, err := tlog.StoredHashesForRecordHash(t.n, tlog.Hash(leaf.RecordHash()), t)
		if err != nil {
			return nil, err
		}
		t.nodes = append(t.nodes, h...)
		t.n++
	}
	e.tree = t
	return t, nil
}
