package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// peerCalls says what makes scap-open tell of a class, as near as it comes:
// calls, and what else it numbers among them. It tells of each call of a kind,
// where the agent joins some (writes to one open file, datagrams to one
// destination).
var peerCalls = map[string]string{
	"process.exec":         "execve execveat",
	"process.fork":         "fork vfork clone clone3",
	"process.exit":         "sched_process_exit",
	"process.creds":        "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset",
	"process.chroot":       "chroot pivot_root",
	"process.namespace":    "setns unshare",
	"process.signal":       "kill tkill tgkill",
	"process.trace":        "ptrace process_vm_readv process_vm_writev pidfd_getfd",
	"file.create":          "open openat openat2 creat mkdir mkdirat mknod mknodat symlink symlinkat",
	"file.modify":          "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range splice fallocate",
	"file.close":           "close",
	"file.delete":          "unlink unlinkat rmdir",
	"file.rename":          "rename renameat renameat2",
	"file.truncate":        "truncate ftruncate",
	"file.chmod":           "chmod fchmod fchmodat fchmodat2",
	"file.chown":           "chown lchown fchown fchownat",
	"file.link":            "link linkat",
	"file.xattr":           "setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat",
	"file.utime":           "utime utimes utimensat futimesat",
	"file.mount":           "mount move_mount fsmount open_tree mount_setattr",
	"file.unmount":         "umount2",
	"network.connect":      "connect",
	"network.accept":       "accept accept4",
	"network.listen":       "listen",
	"network.bind":         "bind",
	"network.send":         "sendto sendmsg sendmmsg",
	"memory.map":           "mmap",
	"memory.protect":       "mprotect pkey_mprotect",
	"memory.file":          "memfd_create memfd_secret",
	"kernel.module_load":   "init_module finit_module",
	"kernel.module_unload": "delete_module",
	"kernel.bpf":           "bpf",
	"kernel.perf":          "perf_event_open",
	"kernel.kexec":         "kexec_load kexec_file_load",
	"kernel.userfaultfd":   "userfaultfd",
	"kernel.io_uring":      "io_uring_setup io_uring_enter io_uring_register",
}

// joined are the classes whose single calls the agent joins. A configuration
// of the peer leaves them out: its users often do.
var joined = map[string]bool{"file.modify": true, "file.close": true, "network.send": true}

var peerCode = regexp.MustCompile(`(?m)^- PPM_SC > (\S+) .*ppm_code: \((\d+)\)$`)

// peerArgs are the arguments that select what an agent covers. Without calls
// of joined classes if few.
func peerArgs(path string, hooks *record.Hooks, few bool) ([]string, error) {
	out, err := exec.Command(path, "--print_syscalls", "--modern_bpf").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask %s what it can tell: %w: %s", path, err, out)
	}
	codes := map[string]string{}
	for _, m := range peerCode.FindAllStringSubmatch(string(out), -1) {
		codes[m[1]] = m[2]
	}
	args := []string{"-oL", path}
	n := 0
	for _, h := range hooks.Hooks {
		class := record.Class(h.Class).String()
		if h.Name == "" || few && joined[class] {
			continue
		}
		for _, call := range strings.Fields(peerCalls[class]) {
			if codes[call] != "" {
				args = append(args, "--ppm_sc", codes[call])
				n++
			}
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("%s names no call that the agent covers", path)
	}
	return append(args, "--modern_bpf"), nil
}

// peer is scap-open.
type peer struct {
	p *process
	// What it says at the end.
	events, drops, bytes uint64
}

func startPeer(ctx context.Context, args []string) (*peer, error) {
	// Its output would be held back in a pipe.
	p, err := startProcess("stdbuf", args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.out.String(), "Live capture in progress") {
		select {
		case err := <-p.waited:
			return nil, fmt.Errorf("start scap-open: %w: %s", errOr(err, errors.New("it ended")), &p.out)
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			return nil, fmt.Errorf("start scap-open: %w: %s", errors.Join(ctx.Err(), <-p.waited), &p.out)
		case <-tick.C:
		}
	}
	return &peer{p: p}, nil
}

func (p *peer) pids() []int { return []int{p.p.pid()} }

// drained has nothing to wait for: the caller lets some time pass after each
// workload, and scap-open verifies nothing.
func (p *peer) drained(context.Context, *done) error { return nil }

func (p *peer) end(context.Context) error {
	if err := p.p.end(os.Interrupt); err != nil {
		return err
	}
	s := bufio.NewScanner(strings.NewReader(p.p.out.String()))
	for s.Scan() {
		for prefix, to := range map[string]*uint64{
			"[1] n_evts: ": &p.events, "[1] n_drops: ": &p.drops, "Number of bytes received: ": &p.bytes,
		} {
			if v, ok := strings.CutPrefix(s.Text(), prefix); ok {
				n, err := strconv.ParseUint(strings.Fields(v)[0], 10, 64)
				if err != nil {
					return fmt.Errorf("parse %q: %w", s.Text(), err)
				}
				*to = n
			}
		}
	}
	if p.events == 0 {
		return fmt.Errorf("scap-open tells of no events: %s", &p.p.out)
	}
	return nil
}
