package index

import (
	"container/heap"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/lineage"
	"github.com/provostd/provost/chain/record"
)

// LineageQuery says whose lineage is wanted: of a path, a process or an
// address, one of them.
type LineageQuery struct {
	Domain  string // UUID; empty with an address: all domains
	Path    []byte
	Process Process
	Address netip.Prefix
	Port    uint16

	Back, Forward bool
	Since, Until  int64 // host wall time, Unix nanoseconds, both included; 0: open
	Depth         int   // steps from the start; parents of processes do not count
	Nodes         int   // that the graph may have
	Events        int   // that are read for one node
}

// Defaults and bounds of a LineageQuery.
const (
	DefaultDepth  = 4
	DefaultNodes  = 200
	DefaultEvents = 2000
	MaxNodes      = 5000
	MaxDepth      = 64
	MaxEvents     = 100_000
)

func (q *LineageQuery) complete() error {
	for _, d := range []struct {
		name     string
		v        *int
		def, max int
	}{{"depth", &q.Depth, DefaultDepth, MaxDepth}, {"nodes", &q.Nodes, DefaultNodes, MaxNodes}, {"events", &q.Events, DefaultEvents, MaxEvents}} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 1 || *d.v > d.max {
			return fmt.Errorf("%s is %d, want 1 to %d: %w", d.name, *d.v, d.max, record.ErrReject)
		}
	}
	if !q.Back && !q.Forward {
		q.Back = true
	}
	if q.Domain == "" && !q.Address.IsValid() {
		return fmt.Errorf("a path or a process is one domain's; name the domain: %w", record.ErrReject)
	}
	return nil
}

// NothingError says that no entry tells of what a lineage was asked for.
type NothingError struct{ What string }

func (e *NothingError) Error() string { return "no entry tells of " + e.What }

// Lineage follows the entries from the start to what brought it about and to
// what it brought about. What a process does counts as made of everything that
// the process had taken in before: what it ran, mapped and talked to, and what
// its parent was. A node that is reached in several ways is looked into once,
// for the widest time in which it mattered.
func (x *Index) Lineage(ctx context.Context, q LineageQuery) (*lineage.Graph, error) {
	if err := q.complete(); err != nil {
		return nil, fmt.Errorf("follow lineage: %w", err)
	}
	b := &builder{ctx: ctx, x: x, q: &q, g: &lineage.Graph{Back: q.Back, Forward: q.Forward}, logs: map[string][]chain.LogID{},
		nodes: map[string]*node{}, edges: map[edgeKey]*edge{}}
	for _, l := range x.cfg.Store.Logs() {
		if o := l.Name(); !o.IsHost() {
			b.logs[o.Domain] = append(b.logs[o.Domain], l.ID())
		}
	}
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("follow lineage: %w", err)
	}
	b.g.Behind = x.Lag()
	return b.g, nil
}

// node is a node of a graph in the making.
type node struct {
	*lineage.Node
	path     []byte
	process  Process
	kin      []*record.Process // of a process, parent first, as some entry told
	depth    int
	expanded [2]bool // back: as a parent, in full
}

type edgeKey struct{ from, to, class string }

type edge struct {
	*lineage.Edge
	seen map[uint64]bool // ordinals
}

// step is a node that waits to be looked into, from an ordinal on.
type step struct {
	n      *node
	from   uint64
	depth  int
	parent bool // only its own parents are wanted
}

// steps are ordered so that a node is met first with the bound that admits
// most: back the newest, forward the oldest.
type steps struct {
	all  []step
	back bool
}

func (s *steps) Len() int      { return len(s.all) }
func (s *steps) Swap(i, j int) { s.all[i], s.all[j] = s.all[j], s.all[i] }
func (s *steps) Push(v any)    { s.all = append(s.all, v.(step)) }
func (s *steps) Pop() any {
	last := s.all[len(s.all)-1]
	s.all = s.all[:len(s.all)-1]
	return last
}
func (s *steps) Less(i, j int) bool {
	a, b := &s.all[i], &s.all[j]
	if a.from != b.from {
		return a.from > b.from == s.back
	}
	return a.depth < b.depth
}

type builder struct {
	ctx   context.Context
	x     *Index
	q     *LineageQuery
	g     *lineage.Graph
	logs  map[string][]chain.LogID // of each domain
	nodes map[string]*node
	edges map[edgeKey]*edge
	steps *steps
}

func (b *builder) build() error {
	start, err := b.start()
	if err != nil {
		return err
	}
	b.g.Start = start.ID
	for _, back := range []bool{true, false} {
		if back && !b.q.Back || !back && !b.q.Forward {
			continue
		}
		b.steps = &steps{back: back}
		for _, n := range b.nodes { // both directions begin at the start alone
			n.expanded = [2]bool{}
		}
		from := uint64(0)
		if back {
			from = ^uint64(0)
		}
		heap.Push(b.steps, step{n: start, from: from})
		for b.steps.Len() > 0 {
			if err := b.expand(heap.Pop(b.steps).(step)); err != nil {
				return err
			}
		}
	}
	return nil
}

// start makes the node that was asked for.
func (b *builder) start() (*node, error) {
	q := b.q
	switch {
	case len(q.Path) > 0:
		if f, err := b.newest(Query{Logs: b.logs[q.Domain], Path: Exactly(q.Path)}); err != nil {
			return nil, err
		} else if f == nil {
			return nil, &NothingError{record.Word(q.Path)}
		}
		return b.file(q.Domain, q.Path, nil), nil
	case q.Process.Pid != 0:
		f, err := b.newest(Query{Logs: b.logs[q.Domain], Process: q.Process})
		if err != nil {
			return nil, err
		} else if f == nil {
			return nil, &NothingError{fmt.Sprintf("a process %d", q.Process.Pid)}
		}
		return b.actor(f)
	}
	if f, err := b.newest(Query{Logs: b.logs[q.Domain], Address: q.Address, Port: q.Port}); err != nil {
		return nil, err
	} else if f == nil {
		return nil, &NothingError{addressText(q.Address, q.Port)}
	}
	return b.address(addressText(q.Address, q.Port), nil), nil
}

func addressText(p netip.Prefix, port uint16) string {
	switch {
	case !p.IsSingleIP():
		return p.String()
	case port != 0:
		return netip.AddrPortFrom(p.Addr(), port).String()
	}
	return p.Addr().String()
}

// newest returns the newest entry that a query wants within the bounds of time,
// nil where there is none.
func (b *builder) newest(q Query) (*Found, error) {
	var first *Found
	err := b.each(q, 1<<30, nil, func(f *Found) (bool, error) { first = f; return false, nil })
	return first, err
}

// each calls f for what a query wants within the bounds of time, until f
// returns false. It marks n where there was more than may be read.
func (b *builder) each(q Query, budget int, n *node, f func(*Found) (bool, error)) error {
	q.Since, q.Until, q.Budget = b.q.Since, b.q.Until, budget
	if len(q.Logs) == 0 && b.q.Domain != "" {
		return nil // a domain without a log
	}
	var stats Stats
	defer func() { b.g.Examined += stats.Examined }()
	for e, err := range b.x.Find(b.ctx, &q, &stats) {
		if err != nil {
			return err
		}
		if more, err := f(e); err != nil || !more {
			return err
		}
	}
	if stats.Cut && n != nil {
		n.AddCut(lineage.CutEvents)
	}
	return nil
}

// intern returns the node with the id, made by make where there is room. by is
// marked where there is none, and nil is returned.
func (b *builder) intern(id string, by *node, make func() *node) *node {
	if n := b.nodes[id]; n != nil {
		return n
	}
	if by != nil && len(b.nodes) >= b.q.Nodes {
		by.AddCut(lineage.CutNodes)
		return nil
	}
	n := make()
	n.ID = id
	b.nodes[id] = n
	b.g.Nodes = append(b.g.Nodes, n.Node)
	return n
}

func (b *builder) file(domain string, path []byte, by *node) *node {
	if len(path) == 0 {
		return nil
	}
	return b.intern(lineage.FileID(domain, path), by, func() *node {
		return &node{Node: &lineage.Node{Kind: lineage.File, Domain: domain, Path: path}, path: path}
	})
}

func (b *builder) address(text string, by *node) *node {
	return b.intern(lineage.AddressID(text), by, func() *node {
		return &node{Node: &lineage.Node{Kind: lineage.Address, Address: text}}
	})
}

// boot returns the boot id of the guest that wrote an entry.
func (b *builder) boot(f *Found) (boot [16]byte, err error) {
	boot, _, err = b.x.bootOf(f.Log.ID(), f.Leaf.Header.Session)
	return boot, err
}

// actor returns the node of the process that did what an entry tells.
func (b *builder) actor(f *Found) (*node, error) { return b.actorOf(f, nil) }

func (b *builder) actorOf(f *Found, by *node) (*node, error) {
	e, ok := f.Message.(*record.Event)
	if !ok || e.Process == nil || e.Process.Pid == 0 {
		return nil, nil
	}
	n, err := b.process(f, e.Process, by)
	if n != nil && n.kin == nil && e.Parent != nil {
		n.kin = append([]*record.Process{e.Parent}, e.Ancestors...)
	}
	return n, err
}

// process returns the node of a process that an entry names.
func (b *builder) process(f *Found, p *record.Process, by *node) (*node, error) {
	boot, err := b.boot(f)
	if err != nil || p == nil || p.Pid == 0 {
		return nil, err
	}
	text := ""
	if boot != [16]byte{} {
		text = hex.EncodeToString(boot[:])
	}
	domain := f.Log.Name().Domain
	n := b.intern(lineage.ProcessID(domain, text, p.Pid, p.Start), by, func() *node {
		return &node{Node: &lineage.Node{Kind: lineage.Process, Domain: domain, Pid: p.Pid, StartTime: p.Start, Boot: text},
			process: Process{Pid: p.Pid, Start: p.Start, Boot: boot}}
	})
	if n != nil {
		n.describe(p)
	}
	return n, nil
}

// describe notes what is not known yet of a process.
func (n *node) describe(p *record.Process) {
	if len(n.Executable) == 0 {
		n.Executable = p.Executable
		if len(p.Executable) == 0 {
			n.Executable = p.Name
		}
	}
	if n.Args == nil && len(p.Args) > 0 && string(n.Executable) == string(p.Executable) {
		for _, a := range p.Args {
			n.Args = append(n.Args, a)
		}
	}
	if c := p.Credentials; c != nil && n.UID == nil {
		uid := c.Uid
		n.UID = &uid
	}
}

// link adds an entry to the edge between two nodes; either may be nil: there
// was no room for it.
func (b *builder) link(from, to *node, class string, f *Found) {
	if from == nil || to == nil || from == to {
		return
	}
	k := edgeKey{from.ID, to.ID, class}
	ref := lineage.Ref{Log: f.Log.Origin(), Index: f.Index, Time: f.Leaf.Wall}
	e := b.edges[k]
	if e == nil {
		e = &edge{Edge: &lineage.Edge{From: from.ID, To: to.ID, Class: class, First: ref, Last: ref}, seen: map[uint64]bool{}}
		b.edges[k] = e
		b.g.Edges = append(b.g.Edges, e.Edge)
	}
	if b.steps.back {
		e.Back = true
	} else {
		e.Forward = true
	}
	if e.seen[f.Ordinal] {
		return
	}
	e.seen[f.Ordinal] = true
	acts := uint64(1)
	if m, ok := f.Message.(*record.Event); ok && m.Count > 1 {
		acts = m.Count
	}
	e.Count += acts
	if before(ref, e.First) {
		e.First = ref
	}
	if before(e.Last, ref) {
		e.Last = ref
	}
}

func before(a, b lineage.Ref) bool {
	if a.Log == b.Log {
		return a.Index < b.Index
	}
	return a.Time < b.Time
}

// visit has a node looked into from an ordinal on.
func (b *builder) visit(n *node, from uint64, depth int, parent bool) {
	if n != nil {
		heap.Push(b.steps, step{n: n, from: from, depth: depth, parent: parent})
	}
}

// expand looks into a node.
func (b *builder) expand(s step) error {
	full := 1
	if s.parent {
		full = 0
	}
	if s.n.expanded[1] || s.n.expanded[full] {
		return nil
	}
	if s.depth >= b.q.Depth && !s.parent {
		if !s.n.expanded[0] {
			s.n.AddCut(lineage.CutDepth)
		}
		return nil
	}
	s.n.expanded[full] = true
	s.n.Cut = removed(s.n.Cut, lineage.CutDepth)
	switch {
	case b.steps.back && s.n.Kind == lineage.Process && s.parent:
		return b.parents(s)
	case b.steps.back && s.n.Kind == lineage.Process:
		return b.inputs(s)
	case b.steps.back && s.n.Kind == lineage.File:
		return b.writers(s)
	case s.n.Kind == lineage.Process:
		return b.outputs(s)
	case s.n.Kind == lineage.File:
		return b.readers(s)
	case s.n.ID == b.g.Start:
		return b.peers(s)
	}
	return nil // what an address has to do with others is another question
}

func removed(all []string, word string) []string {
	var out []string
	for _, w := range all {
		if w != word {
			out = append(out, w)
		}
	}
	return out
}

// is reports whether a file of an event is the one of a node.
func (n *node) is(f *record.File) bool {
	return f != nil && (string(f.Path) == string(n.path) || len(f.FilesystemPath) > 0 && string(f.FilesystemPath) == string(n.path))
}

// remote returns the address at the other side of what an event tells.
func remote(n *record.Network) string {
	ip, port := n.DestinationIp, n.DestinationPort
	if n.Direction == "ingress" {
		ip, port = n.SourceIp, n.SourcePort
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.IsUnspecified() {
		return ""
	}
	a = a.Unmap()
	if n.Direction == "ingress" || port == 0 || port > 65535 {
		return a.String() // the port of one who comes in says nothing
	}
	return netip.AddrPortFrom(a, uint16(port)).String()
}

// Classes by what they tell of the process and the object of an event. Only
// these are asked for: a program that runs all day long must not hide who wrote
// it, nor a million writes what their writer had taken in.
var (
	// changing: the process changes the file.
	changing = []record.Class{record.ClassFileCreate, record.ClassFileModify, record.ClassFileDelete, record.ClassFileChmod,
		record.ClassFileChown, record.ClassFileTruncate, record.ClassFileClose, record.ClassFileXattr, record.ClassFileAttributes, record.ClassFileUtime}
	// naming: a file gets a name, from another.
	naming = []record.Class{record.ClassFileRename, record.ClassFileLink}
	// using: the process takes in the file.
	using = []record.Class{record.ClassMemoryMap, record.ClassMemoryProtect, record.ClassKernelModuleLoad}
	// talking: the process exchanges data with the address.
	talking = []record.Class{record.ClassNetworkConnect, record.ClassNetworkAccept, record.ClassNetworkSend, record.ClassNetworkFlow}
	// coming: somebody comes in to the process.
	coming = []record.Class{record.ClassNetworkAccept, record.ClassAuthLogin, record.ClassAuthSession, record.ClassAuthAuthenticate}
	// digesting: the content of the file was measured.
	digesting = []record.Class{record.ClassFileDigest, record.ClassProcessDigest}
)

func changes(c record.Class) bool { return slices.Contains(changing, c) }
func takesIn(c record.Class) bool { return slices.Contains(using, c) }
func talks(c record.Class) bool   { return slices.Contains(talking, c) }

// nameless tells files that have no name in a tree.
func nameless(path []byte) bool { return len(path) == 0 || strings.HasPrefix(string(path), "memfd:") }
