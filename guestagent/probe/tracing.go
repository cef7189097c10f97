package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
)

// functionTracing is the switch of what programs on functions and on BPF LSM
// hang on. While it is 0 they are not called; to attach or detach one then
// stops the machine on 6.1 and breaks tracing for good on 6.12.
const functionTracing = "/proc/sys/kernel/ftrace_enabled"

// traceable turns function tracing on where it is off, and reports whether it
// had to. A kernel without the switch has nothing to turn on.
func traceable(path string) (was bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read whether functions can be traced: %w", err)
	}
	if strings.TrimSpace(string(b)) != "0" {
		return true, nil
	}
	if err := os.WriteFile(path, []byte("1\n"), 0); err != nil {
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
