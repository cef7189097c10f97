package probe

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// door keeps others from BPF objects that are made while it is shut: until all
// of them are made and known by their numbers, nothing else could tell them from
// those of others. It is a program without any map, since it comes before the
// first: there is nothing of it that could be changed. Descriptors by number of
// what is older are given as before; of what others make meanwhile they are
// refused too, for the seconds that it takes.
type door struct {
	program *ebpf.Program
	link    link.Link
}

// wrapped is from where on numbers may soon begin again at 1, so that a small
// one does not mean an old object: then all are refused.
const wrapped = math.MaxInt32 / 2

// refused is what bpf(2) gives others; the verifier wants it as a constant.
const refused = -int32(unix.EPERM)

// shut closes the door.
func (k *kernel) shut() error {
	code, err := doorCode(os.Getpid())
	if err != nil {
		return fmt.Errorf("shut others out: %w", err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "guard_start", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "bpf", License: "GPL", Instructions: code})
	if err != nil {
		return fmt.Errorf("shut others out: load program: %w", err)
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: p})
	if err != nil {
		return errors.Join(fmt.Errorf("shut others out: attach program: %w", err), p.Close())
	}
	k.onFunctions = true
	k.door = &door{p, l}
	return nil
}

// doorCode is the program: it refuses everybody but self what is newer than now.
func doorCode(self int) (asm.Instructions, error) {
	asks := []struct {
		next, get uintptr
		label     string
	}{
		{unix.BPF_PROG_GET_NEXT_ID, unix.BPF_PROG_GET_FD_BY_ID, "programs"},
		{unix.BPF_MAP_GET_NEXT_ID, unix.BPF_MAP_GET_FD_BY_ID, "maps"},
		{unix.BPF_LINK_GET_NEXT_ID, unix.BPF_LINK_GET_FD_BY_ID, "links"},
	}
	// The arguments of the hook: command, attributes, which begin with the number, and their size.
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JEq.Imm(asm.R0, int32(self), "allow"),
		asm.LoadMem(asm.R3, asm.R6, 8, asm.DWord),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 4),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R8, asm.RFP, -8, asm.Word),
	}
	for _, a := range asks {
		code = append(code, asm.JEq.Imm(asm.R7, int32(a.get), a.label))
	}
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("allow"), asm.Return())
	for _, a := range asks {
		newest, err := newestID(a.next)
		if err != nil {
			return nil, err
		}
		code = append(code,
			asm.JGT.Imm(asm.R8, int32(newest), "refuse").WithSymbol(a.label),
			asm.Mov.Imm(asm.R0, 0), asm.Return())
	}
	code = append(code, asm.Mov.Imm(asm.R0, refused).WithSymbol("refuse"), asm.Return())
	return code, nil
}

// Close opens the door.
func (d *door) Close() error {
	if err := errors.Join(d.link.Close(), d.program.Close()); err != nil {
		return fmt.Errorf("let others in again: %w", err)
	}
	return nil
}

// newestID is the largest number of a kind of object, 0 where numbers say
// nothing of age. Objects that come and go while it is asked make it no smaller.
func newestID(next uintptr) (uint32, error) {
	newest := uint32(0)
	for {
		attr := [4]uint32{newest}
		_, _, errno := unix.Syscall(unix.SYS_BPF, next, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch {
		case errno == unix.ENOENT && newest < wrapped:
			return newest, nil
		case errno == unix.ENOENT:
			return 0, nil
		case errno != 0:
			return 0, fmt.Errorf("look for the newest object: %w", errno)
		}
		newest = attr[1]
	}
}
