// Command underunit runs a program under the restrictions of a systemd unit
// where there is no systemd:
//
//	underunit UNIT PROGRAM [ARG...]
//
// It knows the restrictions that our units use and refuses a unit with others, so
// that none is forgotten. What a control group limits is not applied.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: underunit UNIT PROGRAM [ARG...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "underunit:", err)
		os.Exit(1)
	}
}

// elsewhere are settings that say when and how to start and stop, and limits of
// control groups.
var elsewhere = []string{"Type", "ExecStart", "Restart", "RestartSec", "TimeoutStopSec", "SendSIGKILL", "OOMScoreAdjust", "MemoryMax", "MemorySwapMax", "TasksMax"}

type restriction struct {
	name  string
	apply func(value string) error
}

// order is that in which restrictions are applied: each takes away what those
// before it need.
var order = []restriction{
	{"ProtectSystem", protectSystem}, {"ProtectHome", protectHome},
	{"LimitMEMLOCK", limit(unix.RLIMIT_MEMLOCK)}, {"LimitCORE", limit(unix.RLIMIT_CORE)},
	{"CapabilityBoundingSet", bound}, {"NoNewPrivileges", noNewPrivileges},
	{"RestrictAddressFamilies", families},
	{"SystemCallArchitectures", only("native")}, {"LockPersonality", only("yes")}, // by the same filter
}

// run never returns without an error. All is done by one thread, which becomes
// the program.
func run(unit string, command []string) error {
	runtime.LockOSThread()
	settings, err := read(unit)
	if err != nil {
		return err
	}
	for name := range settings {
		if !slices.Contains(elsewhere, name) && !slices.ContainsFunc(order, func(r restriction) bool { return r.name == name }) {
			return fmt.Errorf("%s sets %s, which is not known here: add it", unit, name)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from others: %w", err)
	}
	for _, o := range order {
		v, ok := settings[o.name]
		if !ok {
			continue
		}
		if err := o.apply(v); err != nil {
			return fmt.Errorf("apply %s=%s: %w", o.name, v, err)
		}
	}
	return fmt.Errorf("start %s: %w", command[0], unix.Exec(command[0], command, os.Environ()))
}

// read returns the settings of a unit's service.
func read(unit string) (map[string]string, error) {
	f, err := os.Open(unit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	settings := map[string]string{}
	section := ""
	in := bufio.NewScanner(f)
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		switch name, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = line
		case !ok:
			return nil, fmt.Errorf("%s: %q is no setting", unit, line)
		case section == "[Service]":
			settings[name] = value
		}
	}
	return settings, in.Err()
}

func only(want string) func(string) error {
	return func(value string) error {
		if value != want {
			return fmt.Errorf("only %s is known here", want)
		}
		return nil
	}
}

func protectSystem(value string) error {
	if err := only("full")(value); err != nil {
		return err
	}
	for _, dir := range []string{"/usr", "/boot", "/etc"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

func protectHome(value string) error {
	if err := only("yes")(value); err != nil {
		return err
	}
	for _, dir := range []string{"/home", "/root", "/run/user"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "mode=000"); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

func limit(resource int) func(string) error {
	return func(value string) error {
		var l unix.Rlimit
		switch value {
		case "infinity":
			l = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		case "0":
		default:
			return errors.New("only infinity and 0 are known here")
		}
		err := unix.Setrlimit(resource, &l)
		if errors.Is(err, unix.EPERM) { // in a container; what is asked for is more than this machine gives anybody
			fmt.Fprintf(os.Stderr, "underunit: limit %d cannot be %s on this machine, left as it is\n", resource, value)
			return nil
		}
		return err
	}
}

// capabilities are their names by number.
var capabilities = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
	CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE
	CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME
	CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
	CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// bound takes all other capabilities away for good; those that are in force go
// when the program is started.
func bound(value string) error {
	keep := strings.Fields(value)
	for _, name := range keep {
		if !slices.Contains(capabilities, name) {
			return fmt.Errorf("%s is no capability", name)
		}
	}
	for n, name := range capabilities {
		if slices.Contains(keep, name) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

func noNewPrivileges(value string) error {
	if err := only("yes")(value); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// families filters socket(2), and calls other than those of 64-bit programs.
func families(value string) error {
	numbers := map[string]uint32{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK}
	var keep []uint32
	for name := range strings.FieldsSeq(value) {
		n, ok := numbers[name]
		if !ok {
			return fmt.Errorf("%s is not known here", name)
		}
		keep = append(keep, n)
	}
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		same = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		end  = unix.BPF_RET | unix.BPF_K
	)
	refuse := func(errno unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	allow := unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW}
	filter := []unix.SockFilter{
		{Code: load, K: 4}, {Code: same, K: unix.AUDIT_ARCH_X86_64, Jt: 1}, refuse(unix.EPERM),
		{Code: load, K: 0}, {Code: same, K: unix.SYS_SOCKET, Jt: 1}, allow,
		{Code: load, K: 16},
	}
	for _, n := range keep {
		filter = append(filter, unix.SockFilter{Code: same, K: n, Jf: 1}, allow)
	}
	filter = append(filter, refuse(unix.EAFNOSUPPORT))
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	runtime.KeepAlive(filter)
	return nil
}
