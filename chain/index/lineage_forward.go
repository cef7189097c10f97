package index

import (
	"slices"

	"github.com/provostd/provost/chain/lineage"
	"github.com/provostd/provost/chain/record"
)

// readers finds what came of a file from an ordinal on, until it is no more or
// another file has its name; of the start, of all files that had its name.
func (b *builder) readers(s step) error {
	n, one := s.n, s.from != 0
	q := Query{Logs: b.logs[n.Domain], Path: Exactly(n.path), From: &s.from, Oldest: true,
		Classes: slices.Concat(using, naming, []record.Class{record.ClassProcessExec, record.ClassFileCreate, record.ClassFileDelete})}
	return b.each(q, b.q.Events, n, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok {
			return true, nil
		}
		class := f.Leaf.Header.Class
		isFile, isTarget := n.is(e.File), n.is(e.Target)
		switch {
		case class == record.ClassFileRename || class == record.ClassFileLink:
			if isFile {
				b.became(s, f, e.Target.GetPath())
			} else if isTarget && e.File.GetFlags()&record.FileExchanged != 0 {
				b.became(s, f, e.File.GetPath())
			}
			return !one || class == record.ClassFileLink && isFile, nil
		case class == record.ClassFileDelete, class == record.ClassFileCreate:
			return !one || !isFile, nil
		case class == record.ClassProcessExec, takesIn(class) && isFile:
			p, err := b.actorOf(f, n)
			if err != nil || p == nil {
				return err == nil, err
			}
			b.link(n, p, class.String(), f)
			b.visit(p, f.Ordinal, s.depth+1, false)
		}
		return true, nil
	})
}

// became links a file with the name that it got.
func (b *builder) became(s step, f *Found, path []byte) {
	if to := b.file(s.n.Domain, path, s.n); to != nil {
		b.link(s.n, to, f.Leaf.Header.Class.String(), f)
		b.visit(to, f.Ordinal+1, s.depth+1, false)
	}
}

// outputs finds what a process did from an ordinal on: what it wrote, whom it
// talked to, whom it traced, and its children.
func (b *builder) outputs(s step) error {
	n := s.n
	q := Query{Logs: b.logs[n.Domain], Process: n.process, From: &s.from, Oldest: true,
		Classes: slices.Concat(changing, naming, talking, []record.Class{record.ClassProcessExec, record.ClassProcessTrace})}
	err := b.each(q, b.q.Events, n, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok || e.Process == nil {
			return true, nil
		}
		class := f.Leaf.Header.Class
		switch {
		case class == record.ClassProcessExec:
			n.Executable, n.Args = nil, nil // the newest image is the one to show
			n.describe(e.Process)
		case class == record.ClassFileRename || class == record.ClassFileLink:
			b.wrote(s, f, e.Target)
			if e.File != nil && class == record.ClassFileRename {
				if old := b.file(n.Domain, e.File.Path, n); old != nil {
					b.link(n, old, lineage.ClassAway, f)
				}
			}
		case changes(class):
			b.wrote(s, f, e.File)
		case talks(class) && e.Network != nil:
			b.met(n, f, e.Network, false)
		case class == record.ClassProcessTrace:
			o, err := b.process(f, e.Object, n)
			if err != nil {
				return false, err
			}
			b.link(n, o, class.String(), f)
			b.visit(o, f.Ordinal, s.depth+1, false)
		}
		n.describe(e.Process)
		return true, nil
	})
	if err != nil {
		return err
	}
	return b.children(s)
}

func (b *builder) wrote(s step, f *Found, file *record.File) {
	if file == nil || nameless(file.Path) {
		return
	}
	if to := b.file(s.n.Domain, file.Path, s.n); to != nil {
		b.link(s.n, to, f.Leaf.Header.Class.String(), f)
		if f.Leaf.Header.Class != record.ClassFileDelete {
			b.visit(to, f.Ordinal+1, s.depth+1, false)
		}
	}
}

// children finds the processes that a process made.
func (b *builder) children(s step) error {
	q := Query{Logs: b.logs[s.n.Domain], parent: s.n.process, Classes: []record.Class{record.ClassProcessFork}, From: &s.from, Oldest: true}
	return b.each(q, b.q.Events, s.n, func(f *Found) (bool, error) {
		p, err := b.actorOf(f, s.n)
		if err != nil || p == nil {
			return err == nil, err
		}
		b.link(s.n, p, f.Leaf.Header.Class.String(), f)
		b.visit(p, f.Ordinal, s.depth+1, false)
		return true, nil
	})
}

// peers finds the processes that talked to the address which was asked for.
func (b *builder) peers(s step) error {
	back := b.steps.back
	q := Query{Logs: b.logs[b.q.Domain], Address: b.q.Address, Port: b.q.Port, From: &s.from, Oldest: !back, Classes: talking}
	return b.each(q, b.q.Events, s.n, func(f *Found) (bool, error) {
		e, ok := f.Message.(*record.Event)
		if !ok || e.Network == nil || !talks(f.Leaf.Header.Class) {
			return true, nil
		}
		p, err := b.actorOf(f, s.n)
		if err != nil || p == nil {
			return err == nil, err
		}
		if len(s.n.Name) == 0 {
			s.n.Name = e.Network.Name
		}
		if back {
			b.link(p, s.n, f.Leaf.Header.Class.String(), f)
		} else {
			b.link(s.n, p, f.Leaf.Header.Class.String(), f)
		}
		b.visit(p, f.Ordinal, s.depth+1, false)
		return true, nil
	})
}
