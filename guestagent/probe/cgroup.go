package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// rootInode is the inode number of the root of control groups, on every kernel
// with version 2 of them.
const rootInode = 1

// openRootCgroup opens the directory of the root control group, version 2, in an
// instance of our own: it works where the guest mounts version 1 only, or nothing.
func openRootCgroup() (int, error) {
	fd, err := instance("cgroup2")
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(fmt.Errorf("examine root of cgroup2: %w", err), unix.Close(fd))
	}
	if st.Ino != rootInode {
		return -1, errors.Join(errors.New("the agent runs in a control group namespace of its own, where hooks would see a part of the guest only"), unix.Close(fd))
	}
	return fd, nil
}

// openCgroup opens the root control group, once.
func (k *kernel) openCgroup() error {
	if k.cgroup >= 0 {
		return nil
	}
	fd, err := openRootCgroup()
	if err == nil {
		k.cgroup = fd
	}
	return err
}

// linkCgroup attaches a program to the root control group, beside those of
// others, so that it sees all of the guest.
func (k *kernel) linkCgroup(name string) (link.Link, error) {
	if err := k.openCgroup(); err != nil {
		return nil, err
	}
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: k.cgroup, Program: k.programs[name], Attach: k.spec.Programs[name].AttachType})
	if err != nil {
		return nil, fmt.Errorf("attach to the root control group: %w", err)
	}
	return l, nil
}

// onCgroup reports whether programs of a type are attached to a control group.
func onCgroup(t ebpf.ProgramType) bool {
	switch t {
	case ebpf.CGroupSKB, ebpf.CGroupSock, ebpf.CGroupSockAddr, ebpf.CGroupSysctl, ebpf.CGroupSockopt:
		return true
	}
	return false
}
