package matrix

import (
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// common holds every event of a row to what all events must say.
func (c *Checker) common() {
	complained := 0
	for _, s := range c.Events {
		for _, d := range c.differs(s, commonFields(s)) {
			if complained++; complained <= 5 {
				c.Errorf("%s, sequence %d: %s", s.Header.Class, s.Header.Sequence, d)
			}
		}
	}
}

func commonFields(s *Sealed) []Field {
	f := []Field{NonZero("header.time"), NonZero("process.pid"), NonZero("process.start"), NonZero("process.executable"),
		NonZero("process.mount_namespace"), NonZero("process.cgroup_id"), NonZero("parent.pid"), NonZero("#ancestors")}
	e := s.Event()
	if e.Parent.GetPid() == 1 {
		f = f[:len(f)-1] // the first process has no parent
	}
	if e.Process.Flags&record.ProcessKernelThread != 0 {
		f = f[:3] // a thread of the kernel has no executable, and may have no parent
	}
	switch s.Header.Class {
	case record.ClassFileCreate, record.ClassFileModify, record.ClassFileClose:
		// What has a name only has no inode: a directory about to be made, or a
		// file that is gone before the name which a process passed is looked up.
		if e.File.GetFlags()&record.FileUserPath == 0 && e.File.GetMode()&unix.S_IFMT == unix.S_IFREG {
			f = append(f, NonZero("file.device"), NonZero("file.inode"))
		}
		f = append(f, NonZero("file.path"))
	}
	return f
}
