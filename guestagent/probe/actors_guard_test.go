package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func init() {
	actors["reach-for"] = func(who string) error {
		if who == "nobody" {
			if err := unix.Setuid(65534); err != nil {
				return err
			}
		}
		n, err := strconv.ParseUint(os.Args[len(os.Args)-1], 10, 32)
		if err != nil {
			return err
		}
		for range 1000 {
			id := [2]uint64{n}
			if _, _, e := unix.RawSyscall(unix.SYS_BPF, unix.BPF_MAP_GET_FD_BY_ID, uintptr(unsafe.Pointer(&id)), unsafe.Sizeof(id)); e != unix.EPERM {
				return fmt.Errorf("reached: %w", e)
			}
		}
		return nil
	}
	actors["reach"] = reachForMaps
	actors["busy"] = makeFiles
	actors["wait"] = func(dir string) error { return until(func() bool { return exists(dir + "/stop") }) }
	actors["starve"] = starve
	actors["own"] = own
	actors["override"] = override
	actors["seize"] = func(pid string) error {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(n), 0, 0, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
}

// reached is what a process got that reached for maps as they were made.
type reached struct {
	Got     []string // names
	Wrote   []string // of those, the ones whose values it could change
	Refused int
	Rounds  int
}

// reachForMaps takes hold of every map that is made while it runs.
func reachForMaps(dir string) error {
	old, err := newestID(unix.BPF_MAP_GET_NEXT_ID)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/ready", nil, 0o600); err != nil {
		return err
	}
	var r reached
	had := map[uint32]*ebpf.Map{}
	conf := 0 // the round in which it was found
	for !exists(dir + "/stop") {
		for id := old; ; {
			attr := [4]uint32{id}
			if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_GET_NEXT_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
				break // that was the last
			}
			if id = attr[1]; had[id] != nil {
				continue
			}
			m, err := ebpf.NewMapFromID(ebpf.MapID(id))
			if errors.Is(err, unix.EPERM) {
				r.Refused++
			}
			if err != nil {
				continue
			}
			defer m.Close() // held until the end
			had[id] = m
			i, err := m.Info()
			if err != nil {
				return err
			}
			r.Got = append(r.Got, i.Name)
			if i.Name == "conf" {
				conf = r.Rounds
				continue // what is written before it is frozen makes the agent give up
			}
			_ = m.Put(uint32(0), make([]byte, m.ValueSize())) // as soon as it is there
		}
		r.Wrote = nil
		for _, m := range had {
			i, err := m.Info()
			if err != nil {
				return err
			}
			if i.Name == "conf" && conf == r.Rounds {
				continue
			}
			if err := m.Put(uint32(0), make([]byte, m.ValueSize())); err == nil {
				r.Wrote = append(r.Wrote, i.Name)
			}
		}
		r.Rounds++
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(dir+"/new", b, 0o600), os.Rename(dir+"/new", dir+"/result")); err != nil {
			return err
		}
	}
	return nil
}

// makeFiles makes a hundred files.
func makeFiles(dir string) error {
	for i := range 100 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// starve takes processor and disk time from a process, and says what it was given.
func starve(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	const process, idle = 1, 3 << 13 // of ioprio_set(2)
	_, _, disk := unix.Syscall(unix.SYS_IOPRIO_SET, process, uintptr(n), idle)
	policy := unix.SchedSetAttr(n, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	fmt.Printf("nice %d, disk %d, policy %d", unix.Setpriority(unix.PRIO_PROCESS, n, 19), disk, policy)
	return nil
}

// own makes a process the owner of a pipe, whose readers it has told of by a
// signal that does no harm, and writes to it.
func own(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	for _, c := range [][2]int{{unix.F_SETOWN, n}, {unix.F_SETSIG, int(unix.SIGWINCH)}, {unix.F_SETFL, unix.O_ASYNC}} {
		if _, err := unix.FcntlInt(uintptr(fd[0]), c[0], c[1]); err != nil {
			return err
		}
	}
	_, err = unix.Write(fd[1], []byte("x"))
	// It goes first, or the end of its writer is a signal more.
	return errors.Join(err, unix.Close(fd[0]))
}

// override puts programs where they would answer in the place of the guards, and
// says what it was given.
func override(string) error {
	root, err := openRootCgroup()
	if err != nil {
		return err
	}
	zero := asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSysctl, AttachType: ebpf.AttachCGroupSysctl, License: "GPL", Instructions: zero})
	if err != nil {
		return err
	}
	_, attach := link.AttachRawLink(link.RawLinkOptions{Target: root, Program: p, Attach: ebpf.AttachCGroupSysctl})
	_, load := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachModifyReturn, AttachTo: "security_bpf", License: "GPL", Instructions: zero})
	fmt.Printf("attach %t, load %t", errors.Is(attach, unix.EPERM), errors.Is(load, unix.EPERM))
	return nil
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// until waits for something, for half a minute.
func until(so func() bool) error {
	for end := time.Now().Add(30 * time.Second); !so(); {
		if time.Now().After(end) {
			return errors.New("it did not come within 30 s")
		}
		<-time.After(5 * time.Millisecond)
	}
	return nil
}

// actorOf starts an actor and returns what waits for its end.
func actorOf(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "act", name, dir)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
	return cmd
}
