package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// functionTracing is the switch of what programs on functions and on BPF LSM
// hang on. While it is 0 they are not called; to attach or detach one then
// stops the machine on 6.1 and breaks tracing for good on 6.12.
const functionTracing = "sys/kernel/ftrace_enabled"

// openTracing opens the switch in an instance of procfs that stands in no tree:
// whatever is mounted over /proc says nothing there. A kernel without the
// switch gives nil.
func openTracing() (*os.File, error) {
	dir, err := instance("proc")
	if err != nil {
		return nil, fmt.Errorf("look for the switch of function tracing: %w", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, functionTracing, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the switch of function tracing: %w", err)
	}
	return os.NewFile(uintptr(fd), functionTracing), nil
}

// traceable turns function tracing on where it is off, and reports whether it
// had to.
func traceable(f *os.File) (was bool, err error) {
	if f == nil {
		return true, nil
	}
	b := make([]byte, 16)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read whether functions can be traced: %w", err)
	}
	if strings.TrimSpace(string(b[:n])) != "0" {
		return true, nil
	}
	if _, err := f.WriteAt([]byte("1\n"), 0); err != nil {
		return false, fmt.Errorf("turn function tracing on: %w", err)
	}
	return false, nil
}

// onFunction reports whether a program hangs on function tracing.
func onFunction(p *ebpf.ProgramSpec) bool {
	switch p.AttachType {
	case ebpf.AttachTraceFEntry, ebpf.AttachTraceFExit, ebpf.AttachModifyReturn, ebpf.AttachLSMMac:
		return true
	}
	return false
}
