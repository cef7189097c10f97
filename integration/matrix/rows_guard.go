package matrix

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// ownAgent is why rows that act upon the agent are done in guests only: there
// it is the only one.
const ownAgent = "on this machine another agent may run"

func init() {
	register(
		Row{ID: 140, Name: "attack the agent", GuestOnly: ownAgent, Do: attack, Check: func(c *Checker) {
			agent := Is("object.pid", c.Number("agent"))
			for i, what := range []string{"seize", "mem", "kill", "stop", "terminate", "limit"} {
				refused := unix.EPERM
				if what == "mem" {
					refused = unix.EACCES // what opening it makes of any refusal
				}
				if c.Number(what) != int64(refused) {
					c.Errorf("%s gave error %d, want %d", what, c.Number(what), refused)
				}
				want := [][2]string{{"trace", "seize"}, {"trace", "mem"}, {"signal", "SIGKILL"}, {"signal", "SIGSTOP"}, {"signal", "SIGTERM"}, {"limit", "resource 0"}}[i]
				c.One(record.ClassAgentTamper, Is("tamper.kind", want[0]), Is("tamper.detail", want[1]), Is("tamper.refused", true), agent, NonZero("object.start"),
					Is("process.pid", c.Number("self")), Has("flags", record.EventRefused))
			}
		}, Tracepoint: Gap(record.ClassAgentTamper, "only kernel.ftrace_enabled = 0 is refused").And(Other(func(c *Checker) {
			c.One(record.ClassProcessTrace, Is("reason", "seize"), Is("object.pid", c.Number("agent")), Is("result_known", true), Is("result", 0))
		}))},
		Row{ID: 141, Name: "reach for the agent's programs and maps", GuestOnly: ownAgent, Do: reach, Check: func(c *Checker) {
			for _, what := range []string{"prog", "map", "link"} {
				id := c.Number(what)
				if id < 0 {
					c.Errorf("no %s of the agent was refused", what)
					continue
				}
				c.One(record.ClassKernelBPF, Is("kernel.operation", what+"_get_fd_by_id"), Is("kernel.id", id))
				c.One(record.ClassAgentTamper, Is("tamper.kind", "detach"), Is("tamper.detail", what+"_get_fd_by_id "+strconv.FormatInt(id, 10)), Is("tamper.refused", true),
					NonZero("object.pid"))
			}
		}, Tracepoint: Gap(record.ClassAgentTamper, "only kernel.ftrace_enabled = 0 is refused").And(Other(func(c *Checker) {
			c.Some(record.ClassKernelBPF, Is("kernel.operation", "prog_get_fd_by_id"))
		}))},
		Row{ID: 143, Name: "prove the hooks by acts of the agent's own", Do: func(*Env) error { return nil }, Check: func(c *Checker) {
			for _, class := range []record.Class{record.ClassProcessExec, record.ClassProcessFork, record.ClassProcessExit, record.ClassFileCreate, record.ClassFileModify,
				record.ClassFileRename, record.ClassFileDelete, record.ClassNetworkConnect, record.ClassMemoryMap, record.ClassMemoryProtect, record.ClassMemoryFile,
				record.ClassKernelBPF, record.ClassKernelParamChange} {
				if !slices.ContainsFunc(c.Books.hooks.Hooks, func(h *record.Hook) bool { return record.Class(h.Class) == class && h.Proven }) {
					c.Errorf("the hooks record does not say that %s is proven", class)
				}
			}
			for _, s := range c.Books.Records {
				if s.Header.Class == record.ClassAgentTamper && s.Event().Tamper.GetKind() == "canary" {
					c.Errorf("a canary is missing: %v", s.Event().Tamper)
				}
			}
		}},
		Row{ID: 144, Name: "own up to programs that the kernel left out", As: 143, Check: func(c *Checker) {
			// How they are counted is the probe's own test: no act of a guest makes the
			// kernel leave a call out for certain. What is told of them must say of
			// what class, and that it is the agent's claim.
			for _, s := range c.Books.Records {
				l, ok := s.Msg.(*record.Lost)
				for _, n := range l.GetCounts() {
					if ok && n.Reason == record.LossReason_LOSS_REASON_MISSED && (n.Class == 0 || n.Count == 0 || l.Author != "guest") {
						c.Errorf("calls are left out of an unknown class, or nobody's: %v by %q", n, l.Author)
					}
				}
			}
			if n := c.Books.missed(); n > 0 && c.Tracepoint() {
				c.Errorf("%d calls of programs were left out in mode tracepoint, where none calls another", n)
			}
		}},
	)
}

// missed sums what is declared as left out by the kernel.
func (b *Books) missed() (n uint64) {
	for _, s := range b.Records {
		if l, ok := s.Msg.(*record.Lost); ok {
			for _, c := range l.Counts {
				if c.Reason == record.LossReason_LOSS_REASON_MISSED {
					n += c.Count
				}
			}
		}
	}
	return n
}

func errnoOf(err error) int {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	return 0
}

// attack does to the agent what would silence it. An agent that can be seized is
// one that nothing protects: then it is let go, and left alone.
func attack(e *Env) error {
	b, err := os.ReadFile("/run/provost-agent.pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	e.Fact("agent", pid)
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
	e.Fact("seize", int(errno))
	if errno == 0 {
		return nil // the end of this process lets it go
	}
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/mem", os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	e.Fact("mem", errnoOf(err))
	e.Fact("kill", errnoOf(unix.Kill(pid, unix.SIGKILL)))
	e.Fact("stop", errnoOf(unix.Kill(pid, unix.SIGSTOP)))
	e.Fact("terminate", errnoOf(unix.Kill(pid, unix.SIGTERM)))
	limit := unix.Rlimit{Cur: 1, Max: 1}
	e.Fact("limit", errnoOf(unix.Prlimit(pid, unix.RLIMIT_CPU, &limit, nil)))
	return nil
}

// reach asks for descriptors of what is loaded, of each kind until one is refused.
func reach(e *Env) error {
	for what, calls := range map[string][2]uintptr{
		"prog": {unix.BPF_PROG_GET_NEXT_ID, unix.BPF_PROG_GET_FD_BY_ID}, "map": {unix.BPF_MAP_GET_NEXT_ID, unix.BPF_MAP_GET_FD_BY_ID},
		"link": {unix.BPF_LINK_GET_NEXT_ID, unix.BPF_LINK_GET_FD_BY_ID},
	} {
		refused := int64(-1)
		for id := uint32(0); refused < 0; {
			var attr [4]uint32
			attr[0] = id
			if _, _, errno := unix.Syscall(unix.SYS_BPF, calls[0], uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
				break // that was the last
			}
			id = attr[1]
			attr = [4]uint32{id}
			fd, _, errno := unix.Syscall(unix.SYS_BPF, calls[1], uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			switch errno {
			case 0:
				if err := unix.Close(int(fd)); err != nil {
					return err
				}
			case unix.EPERM:
				refused = int64(id)
			}
		}
		e.Fact(what, refused)
	}
	return nil
}
