package index

import (
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/provostd/provost/chain/lineage"
	"github.com/provostd/provost/chain/record"
)

// writers finds who made a file what it was at an ordinal: everything since it
// was made, or got this name.
func (b *builder) writers(s step) error {
	n := s.n
	if err := b.digest(s); err != nil {
		return err
	}
	q := Query{Logs: b.logs[n.Domain], Path: Exactly(n.path), From: &s.from, Classes: slices.Concat(changing, naming)}
	return b.each(q, b.q.Events, n, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok {
			return true, nil
		}
		class := f.Leaf.Header.Class
		isFile, isTarget := n.is(e.File), n.is(e.Target)
		if !isTarget && (!isFile || !changes(class) && class != record.ClassFileRename) {
			return true, nil
		}
		p, err := b.actorOf(f, n)
		if err != nil {
			return false, err
		}
		b.visit(p, f.Ordinal, s.depth+1, false)
		if class != record.ClassFileRename && class != record.ClassFileLink {
			b.link(p, n, class.String(), f)
			return class != record.ClassFileCreate, nil // nothing older is in a new file
		}
		swapped := isFile && e.File.Flags&record.FileExchanged != 0
		if !isTarget && !swapped {
			b.link(p, n, lineage.ClassAway, f)
			return true, nil
		}
		b.link(p, n, class.String(), f)
		old := e.File.GetPath()
		if swapped {
			old = e.Target.GetPath()
		}
		if before := b.file(n.Domain, old, n); before != nil {
			b.link(before, n, class.String(), f)
			b.visit(before, f.Ordinal, s.depth+1, false)
		}
		return false, nil // what had this name before is another file
	})
}

// digest notes the digest that was told last of a file.
func (b *builder) digest(s step) error {
	n := s.n
	f, err := b.newest(Query{Logs: b.logs[n.Domain], Path: Exactly(n.path), From: &s.from, Classes: digesting})
	if err != nil || f == nil || n.Sha256 != "" {
		return err
	}
	e, ok := f.Message.(*record.Event)
	switch {
	case ok && n.is(e.File):
		n.Sha256 = hex.EncodeToString(e.File.Sha256)
	case ok && e.Process != nil && string(e.Process.Executable) == string(n.path):
		n.Sha256 = hex.EncodeToString(e.Process.Sha256)
	}
	return nil
}

// inputs finds what a process had taken in up to an ordinal: its image, what it
// mapped, whom it talked to, who traced it and its parent.
func (b *builder) inputs(s step) error {
	n := s.n
	born := false
	q := Query{Logs: b.logs[n.Domain], Process: n.process, From: &s.from,
		Classes: slices.Concat(using, talking, coming, []record.Class{record.ClassProcessExec, record.ClassProcessFork})}
	err := b.each(q, b.q.Events, n, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok || e.Process == nil {
			return true, nil
		}
		n.describe(e.Process)
		class := f.Leaf.Header.Class
		if n.kin == nil && e.Parent != nil {
			n.kin = append([]*record.Process{e.Parent}, e.Ancestors...)
		}
		switch {
		case class == record.ClassProcessFork:
			born = true
			return false, b.parent(s, f, parentOf(e), class.String())
		case class == record.ClassProcessExec:
			b.used(s, f, e.Process.Executable, class.String())
			b.used(s, f, e.Process.Script, class.String())
		case takesIn(class) && e.File != nil:
			b.used(s, f, e.File.Path, class.String())
		case talks(class) && e.Network != nil:
			b.met(n, f, e.Network, true)
		case e.Auth != nil:
			b.cameFrom(n, f, e)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if !born {
		if err := b.told(s); err != nil {
			return err
		}
	}
	return b.tracers(s)
}

// used links a file that a process took in and has its writers looked for.
func (b *builder) used(s step, f *Found, path []byte, class string) {
	if nameless(path) {
		return
	}
	if file := b.file(s.n.Domain, path, s.n); file != nil {
		b.link(file, s.n, class, f)
		b.visit(file, f.Ordinal, s.depth+1, false)
	}
}

// met links an address that a process talked to.
func (b *builder) met(n *node, f *Found, net *record.Network, back bool) {
	text := remote(net)
	if text == "" {
		return
	}
	a := b.address(text, n)
	if a == nil {
		return
	}
	if len(a.Name) == 0 {
		a.Name = net.Name
	}
	if back {
		b.link(a, n, f.Leaf.Header.Class.String(), f)
	} else {
		b.link(n, a, f.Leaf.Header.Class.String(), f)
	}
}

// tracers finds who read or changed the memory of a process.
func (b *builder) tracers(s step) error {
	q := Query{Logs: b.logs[s.n.Domain], object: s.n.process, Classes: []record.Class{record.ClassProcessTrace}, From: &s.from}
	return b.each(q, b.q.Events, s.n, func(f *Found) (bool, error) {
		p, err := b.actorOf(f, s.n)
		if err != nil || p == nil {
			return err == nil, err
		}
		b.link(p, s.n, f.Leaf.Header.Class.String(), f)
		b.visit(p, f.Ordinal, s.depth+1, false)
		return true, nil
	})
}

// parent links the parent of a process and has its own parents looked for.
func (b *builder) parent(s step, f *Found, p *record.Process, class string) error {
	n, err := b.process(f, p, s.n)
	if err != nil || n == nil {
		return err
	}
	if n.kin == nil && len(s.n.kin) > 1 {
		n.kin = s.n.kin[1:]
	}
	b.link(n, s.n, class, f)
	b.visit(n, f.Ordinal, s.depth, true)
	return nil
}

// cameFrom links the address from which somebody logged in.
func (b *builder) cameFrom(n *node, f *Found, e *record.Event) {
	eachAddress(&record.Event{Auth: e.Auth}, func(a netip.Addr, _ uint32) {
		b.link(b.address(a.String(), n), n, f.Leaf.Header.Class.String(), f)
	})
}

// visitor links who came in to a process last: a parent that serves many has
// made its child for that one, as far as anybody can tell.
func (b *builder) visitor(s step) error {
	f, err := b.newest(Query{Logs: b.logs[s.n.Domain], Process: s.n.process, From: &s.from, Classes: coming})
	if err != nil || f == nil {
		return err
	}
	e, ok := f.Message.(*record.Event)
	switch {
	case ok && e.Network != nil:
		b.met(s.n, f, e.Network, true)
	case ok && e.Auth != nil:
		b.cameFrom(s.n, f, e)
	}
	return nil
}

// maxOwn is how many entries of a parent are read to learn what it ran and
// where it came from.
const maxOwn = 50

// parents finds where a process came from that matters as somebody's parent
// only: who came in to it last, what it had run last, and its own parent.
func (b *builder) parents(s step) error {
	n := s.n
	if err := b.visitor(s); err != nil {
		return err
	}
	born, ran := false, false
	q := Query{Logs: b.logs[n.Domain], Process: n.process, From: &s.from, Classes: []record.Class{record.ClassProcessExec, record.ClassProcessFork}}
	err := b.each(q, maxOwn, nil, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok || e.Process == nil {
			return true, nil
		}
		if f.Leaf.Header.Class == record.ClassProcessFork {
			born = true
			return false, b.parent(s, f, parentOf(e), f.Leaf.Header.Class.String())
		}
		if !ran {
			ran = true
			n.describe(e.Process)
		}
		return true, nil
	})
	if err != nil || born {
		return err
	}
	return b.told(s)
}

// parentOf returns the parent of the process that did what an event tells.
func parentOf(e *record.Event) *record.Process {
	if e.Parent != nil && e.Parent.Pid != 0 {
		return e.Parent
	}
	if p := e.Process; p != nil && p.Ppid != 0 {
		return &record.Process{Pid: p.Ppid, Start: p.ParentStart}
	}
	return nil
}

// told links the parent of a process that no entry tells to have been forked,
// as it is named beside what the process, or one that it made, did.
func (b *builder) told(s step) error {
	f, err := b.newest(Query{Logs: b.logs[s.n.Domain], Process: s.n.process, From: &s.from})
	if err != nil {
		return err
	}
	if f != nil {
		if e, ok := f.Message.(*record.Event); ok {
			return b.parent(s, f, parentOf(e), lineage.ClassParent)
		}
		return nil
	}
	if len(s.n.kin) == 0 {
		return nil
	}
	// Only its children's entries name it.
	if f, err = b.newest(Query{Logs: b.logs[s.n.Domain], parent: s.n.process, From: &s.from}); err != nil || f == nil {
		return err
	}
	return b.parent(s, f, s.n.kin[0], lineage.ClassParent)
}
