package matrix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// Sealed is one record that a guest's agent wrote, as it was sealed.
type Sealed struct {
	Header record.Header
	Msg    record.Message
}

// Event is the payload of an observation, or nil.
func (s *Sealed) Event() *record.Event {
	e, _ := s.Msg.(*record.Event)
	return e
}

// Books are the sealed records of a domain's agent in their order, and the
// balances of its lanes.
type Books struct {
	Records []*Sealed
	Lanes   map[LaneID]*Lane

	hooks *record.Hooks
	forks map[identity][]identity
}

// LaneID names a lane: each session of an agent, which is a run of it, counts anew.
type LaneID struct {
	Session uint64
	Number  uint32
}

func (l LaneID) String() string { return fmt.Sprintf("%x of session %016x", l.Number, l.Session) }

// Lane balances a lane: every observation that was counted has arrived, or its
// loss is owned up to.
type Lane struct{ Counted, Arrived, Dropped uint64 }

type identity struct {
	pid   uint32
	start uint64
}

func (i identity) String() string { return fmt.Sprintf("process %d (start %d)", i.pid, i.start) }

func of(p *record.Process) identity {
	if p == nil {
		return identity{}
	}
	return identity{p.Pid, p.Start}
}

// NewBooks keeps records; statements are the signed ones over them.
func NewBooks(records []*Sealed, statements []wire.Statement) (*Books, error) {
	b := &Books{Records: records, Lanes: map[LaneID]*Lane{}, forks: map[identity][]identity{}}
	for _, s := range statements {
		for _, l := range s.Lanes {
			x := b.lane(s.Session, l.Number)
			if l.First != x.Counted {
				return nil, fmt.Errorf("frame %d: lane %d begins at %d, the statement before ended at %d", s.Frame, l.Number, l.First, x.Counted)
			}
			x.Counted = l.Next
			for _, d := range l.Drops {
				x.Dropped += d.Count
			}
		}
	}
	for _, r := range records {
		if r.Header.Lane != record.NoLane {
			b.lane(r.Header.Session, r.Header.Lane).Arrived++
		}
		switch r.Header.Class {
		case record.ClassAgentHooks:
			b.hooks, _ = r.Msg.(*record.Hooks)
		case record.ClassProcessFork:
			if e := r.Event(); e != nil && e.Process != nil {
				parent := identity{e.Process.Ppid, e.Process.ParentStart}
				b.forks[parent] = append(b.forks[parent], of(e.Process))
			}
		}
	}
	return b, nil
}

func (b *Books) lane(session uint64, number uint32) *Lane {
	id := LaneID{session, number}
	if b.Lanes[id] == nil {
		b.Lanes[id] = &Lane{}
	}
	return b.Lanes[id]
}

// Balance is an error when a lane counted anything but what arrived and what is
// declared lost. While records are under way it may be off.
func (b *Books) Balance() error {
	for n, l := range b.Lanes {
		if l.Counted != l.Arrived+l.Dropped {
			return fmt.Errorf("lane %s counted %d observations; %d arrived and %d are declared lost: %d are missing without a word",
				n, l.Counted, l.Arrived, l.Dropped, int64(l.Counted-l.Arrived-l.Dropped))
		}
	}
	return nil
}

// Exec finds the last start of a program with an argument: an act that enters
// namespaces first is started a second time in them.
func (b *Books) Exec(arg string) (int, *Sealed) {
	for i, r := range slices.Backward(b.Records) {
		if r.Header.Class != record.ClassProcessExec {
			continue
		}
		if e := r.Event(); e != nil && slices.ContainsFunc(e.Process.GetArgs(), func(a []byte) bool { return string(a) == arg }) {
			return i, r
		}
	}
	return -1, nil
}

// tree is the process and all that descend from it.
func (b *Books) tree(root identity) map[identity]bool {
	in := map[identity]bool{root: true}
	for todo := []identity{root}; len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		for _, c := range b.forks[p] {
			if !in[c] {
				in[c] = true
				todo = append(todo, c)
			}
		}
	}
	return in
}

// caused are the records of what a row's processes did, and of what anybody,
// such as a thread of the kernel, did to files below its directory. The start
// and the end of the program act itself are no part of the row, nor is what it
// prints.
func (b *Books) caused(run *Run) (actor identity, out []*Sealed, err error) {
	begin, exec := b.Exec(run.Nonce)
	if exec == nil {
		return actor, nil, fmt.Errorf("the start of the act itself (a program with the argument %s) is not among the %d sealed records", run.Nonce, len(b.Records))
	}
	actor = of(exec.Event().Process)
	in := b.tree(actor)
	dir := run.Facts.Text("dir")
	stdout := run.Facts.Inode("stdout")
	for i, r := range b.Records {
		e := r.Event()
		if e == nil || e.Process == nil {
			continue
		}
		p := of(e.Process)
		switch path := string(e.File.GetPath()); {
		case p == actor && (i <= begin || r.Header.Class == record.ClassProcessExit):
		case e.File != nil && path == dir && e.Target == nil && e.Count <= 1: // a sum is of what was done in it
		case e.File != nil && e.File.Device == stdout.Dev && e.File.Inode == stdout.Ino && stdout.Ino != 0:
		case in[p] || in[of(e.Parent)] || slices.ContainsFunc(e.Ancestors, func(a *record.Process) bool { return of(a) == actor }):
			out = append(out, r)
		case i > begin && strings.HasPrefix(path, dir+"/"):
			out = append(out, r)
		}
	}
	return actor, out, nil
}
