package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
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
//
// A second program stands at the switch of function tracing, without which the
// first is not called. It comes before that, and before the switch is looked at.
type door struct {
	programs []*ebpf.Program
	links    []link.Link
}

// wrapped is from where on numbers may soon begin again at 1, so that a small
// one does not mean an old object: then all are refused.
const wrapped = math.MaxInt32 / 2

// expectedAttachType is where that stands in the attributes of BPF_PROG_LOAD.
const expectedAttachType = 68

// refused is what bpf(2) gives others; the verifier wants it as a constant.
const refused = -int32(unix.EPERM)

// prepare makes sure that function tracing is on, and shuts the door where others
// are to be kept out.
func (k *kernel) prepare(shut bool) (err error) {
	if k.tracing, err = openTracing(); err != nil {
		return err
	}
	if shut {
		k.door = &door{}
		// Without control groups of version 2 nothing guards the switch later
		// either, and the hooks record says so.
		if err := k.openCgroup(); err == nil {
			if err := k.door.holdSwitch(k.cgroup); err != nil {
				return fmt.Errorf("shut others out: %w", err)
			}
		}
	}
	was, err := traceable(k.tracing)
	if err != nil {
		return err
	}
	k.wasBlind = !was
	if !shut {
		return nil
	}
	k.onFunctions = true
	if err := k.door.shut(); err != nil {
		return fmt.Errorf("shut others out: %w", err)
	}
	return nil
}

// holdSwitch lets nobody turn function tracing off.
func (d *door) holdSwitch(cgroup int) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "guard_switch", Type: ebpf.CGroupSysctl, AttachType: ebpf.AttachCGroupSysctl, License: "GPL", Instructions: switchCode()})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	d.programs = append(d.programs, p)
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: cgroup, Program: p, Attach: ebpf.AttachCGroupSysctl})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	d.links = append(d.links, l)
	return nil
}

// shut keeps others from objects that are made from now on.
func (d *door) shut() error {
	code, err := doorCode(os.Getpid())
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "guard_start", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "bpf", License: "GPL", Instructions: code})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	d.programs = append(d.programs, p)
	l, err := link.AttachLSM(link.LSMOptions{Program: p})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	d.links = append(d.links, l)
	return nil
}

// switchCode is the program at the switch: a value that does not begin with a
// digit from 1 to 9 is refused, whoever writes it.
func switchCode() asm.Instructions {
	name := append([]byte(strings.TrimPrefix(functionTracing, "sys/")), make([]byte, 8)...)
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word), // whether it is a write
		asm.JEq.Imm(asm.R7, 0, "allow"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -32, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, -24, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -32),
		asm.Mov.Imm(asm.R3, 32),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSysctlGetName.Call(), // leaves what is behind the name as it was
	}
	for at := 0; at < len(functionTracing)-len("sys/")+1; at += 8 {
		code = append(code,
			asm.LoadMem(asm.R1, asm.RFP, int16(at-32), asm.DWord),
			asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[at:])), asm.DWord),
			asm.JNE.Reg(asm.R1, asm.R2, "allow"))
	}
	return append(code,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 8),
		asm.FnSysctlGetNewValue.Call(), // of a longer one the beginning, of none zeroes
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Byte),
		asm.JLT.Imm(asm.R1, '1', "refuse"),
		asm.JGT.Imm(asm.R1, '9', "refuse"),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("allow"), asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"), asm.Return(),
	)
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
		// The command is an int: of the register that it came in, the upper half
		// is whatever was left there, which on 5.10 is now and then not zero.
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word),
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JEq.Imm(asm.R0, int32(self), "allow"),
		asm.LoadMem(asm.R3, asm.R6, 8, asm.DWord),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -16),
		asm.Mov.Imm(asm.R2, 12),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R8, asm.RFP, -16, asm.Word), // the number
		asm.LoadMem(asm.R9, asm.RFP, -8, asm.Word),  // of what is attached, the kind of hook
		// A later program at the switch would change what is written behind ours.
		asm.JEq.Imm(asm.R7, unix.BPF_PROG_LOAD, "loaded"),
		asm.JEq.Imm(asm.R7, unix.BPF_PROG_ATTACH, "attached"),
		asm.JEq.Imm(asm.R7, unix.BPF_LINK_CREATE, "attached"),
	}
	for _, a := range asks {
		code = append(code, asm.JEq.Imm(asm.R7, int32(a.get), a.label))
	}
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("allow"), asm.Return(),
		asm.JEq.Imm(asm.R9, int32(ebpf.AttachCGroupSysctl), "refuse").WithSymbol("attached"),
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
		// One that changes what functions return could answer in our place.
		asm.LoadMem(asm.R3, asm.R6, 8, asm.DWord).WithSymbol("loaded"),
		asm.Add.Imm(asm.R3, expectedAttachType),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -16),
		asm.Mov.Imm(asm.R2, 4),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R9, asm.RFP, -16, asm.Word),
		asm.JEq.Imm(asm.R9, int32(ebpf.AttachModifyReturn), "refuse"),
		asm.Mov.Imm(asm.R0, 0), asm.Return())
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
	var errs []error
	for _, l := range d.links {
		errs = append(errs, l.Close())
	}
	for _, p := range d.programs {
		errs = append(errs, p.Close())
	}
	if err := errors.Join(errs...); err != nil {
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
