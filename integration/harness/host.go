package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxHostDir is the longest directory of a host in bytes: libvirt puts socket paths of up to 50
// bytes below it and a socket address holds 107.
const maxHostDir = 50

// HostConfig describes a host.
type HostConfig struct {
	// Dir holds all of the host's state; it is made if missing and removed by Close. At most 50
	// bytes. Two runs with the same Dir: the later one clears what an interrupted one has left and
	// refuses when the earlier one still runs.
	Dir string
	// Name is the host name inside.
	Name string
	// UUID is the host's own UUID; random when empty.
	UUID string
	// Network gives the host a network namespace of its own (with loopback up) instead of the caller's.
	Network bool
	// KeepDir leaves Dir in place on Close, for diagnosis.
	KeepDir bool
}

// Host is a private libvirtd with its own /etc/libvirt, /var/lib/libvirt, /run/libvirt, /dev/kvm
// and host name, in its own mount and UTS namespaces. Nothing of it is visible to the machine's
// own libvirtd.
type Host struct {
	cfg    HostConfig
	state  hostState
	holder *exec.Cmd // keeps the namespaces open while libvirtd restarts; nil for an adopted host
	daemon *exec.Cmd // libvirtd as a child of this process; nil once stopped
}

// hostState is host.json: what a later run needs to clear up after this one.
type hostState struct {
	Boot    string  `json:"boot"`    // boot id of the machine: pids of another boot mean nothing
	Owner   process `json:"owner"`   // who called NewHost
	Kept    bool    `json:"kept"`    // the owner has left it running on purpose
	Holder  process `json:"holder"`  // keeps the namespaces
	Daemon  process `json:"daemon"`  // libvirtd
	UTS     string  `json:"uts"`     // namespace identity: every process in it belongs to this host
	UUID    string  `json:"uuid"`    // host UUID
	Network bool    `json:"network"` // own network namespace
}

// namespaceScript runs inside the new namespaces and ends by becoming the holder. $1 is the host's
// directory, $2 its name, $3 "yes" for an own network namespace.
//
// A copy of the /dev/kvm node with mode 0666 is put over the real one: where the real one is closed
// to libvirt's own user, libvirt probes QEMU again for each look-up and defining one domain takes
// 100 s. The copy lives on a tmpfs of the namespace because the directory may forbid device nodes.
// The system bus is hidden, else libvirt would register guests with the machine's systemd-machined.
const namespaceScript = `set -eu
dir=$1
hostname "$2"
mkdir -p /run/libvirt /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
mount --bind "$dir/etc" /etc/libvirt
mount --bind "$dir/lib" /var/lib/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/run" /run/libvirt
if [ -c /dev/kvm ]; then
	mount -t tmpfs -o dev,mode=0755 tmpfs "$dir/dev"
	mknod -m 0666 "$dir/dev/kvm" c 10 232
	mount --bind "$dir/dev/kvm" /dev/kvm
fi
if [ -d /run/dbus ]; then mount -t tmpfs tmpfs /run/dbus; fi
if [ "$3" = yes ]; then
	ip link set lo up
	mkdir -p "$dir/sys"
	mount -t tmpfs tmpfs "$dir/sys"
	for d in fs/cgroup fs/bpf kernel/security kernel/tracing; do
		[ -d "/sys/$d" ] || continue
		mkdir -p "$dir/sys/$d"
		mount --rbind "/sys/$d" "$dir/sys/$d"
	done
	mount -t sysfs sysfs /sys
	for d in fs/cgroup fs/bpf kernel/security kernel/tracing; do
		[ -d "$dir/sys/$d" ] && mount --rbind "$dir/sys/$d" "/sys/$d" || true
	done
fi
echo ready
exec sleep 2147483647
`

// rootScript runs before namespaceScript, which is its $4. Mounts made from here on must not show
// outside. In a chroot the root is no mount point: it can then not be made private by its name
// (nsenter reaches the namespace's real root), nor could provostd's or libvirt's children do so in
// their turn, so it is bound to where it is one. Libvirt's own namespaces for QEMU's /dev come out
// empty there and are switched off.
const rootScript = `set -eu
if mount --make-rprivate / 2>/dev/null; then
	exec sh -c "$4" host "$1" "$2" "$3"
fi
nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
echo 'namespaces = [ ]' >>"$1/etc/qemu.conf"
mkdir -p "$1/root"
mount --rbind / "$1/root"
exec chroot "$1/root" sh -c "$4" host "$1" "$2" "$3"
`

// NewHost starts a private libvirtd and waits until it answers.
func NewHost(ctx context.Context, cfg HostConfig) (*Host, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start host: root is required for namespaces and libvirtd; run it as root")
	}
	if !filepath.IsAbs(cfg.Dir) || len(cfg.Dir) > maxHostDir {
		return nil, fmt.Errorf("start host: directory %q must be absolute and at most %d bytes long, because socket paths below it hold 107", cfg.Dir, maxHostDir)
	}
	if cfg.UUID == "" {
		cfg.UUID = NewUUID()
	}
	for _, p := range []string{"libvirtd", "virsh", "unshare", "nsenter"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("start host: %w (apt-get install libvirt-daemon-system libvirt-clients util-linux)", err)
		}
	}
	if err := ClearHost(cfg.Dir); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg}
	if err := h.prepare(); err != nil {
		return nil, fmt.Errorf("start host: %w", err)
	}
	if err := h.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start host: %w", err), h.Close())
	}
	return h, nil
}

func (h *Host) prepare() error {
	for _, d := range []string{"etc/qemu", "lib/boot", "cache", "log/qemu", "run", "dev"} {
		if err := os.MkdirAll(filepath.Join(h.cfg.Dir, d), 0o755); err != nil {
			return err
		}
	}
	libvirtd := fmt.Sprintf("host_uuid = %q\nauth_unix_rw = \"none\"\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n", h.cfg.UUID)
	// stdio_handler: no virtlogd is started. security_driver: the machine's AppArmor profiles do not know these paths.
	qemu := "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n"
	return errors.Join(
		os.WriteFile(filepath.Join(h.cfg.Dir, "etc/libvirtd.conf"), []byte(libvirtd), 0o644),
		os.WriteFile(filepath.Join(h.cfg.Dir, "etc/qemu.conf"), []byte(qemu), 0o644))
}

func (h *Host) start(ctx context.Context) error {
	owner, err := findProcess(os.Getpid())
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	h.state = hostState{Boot: boot, Owner: owner, UUID: h.cfg.UUID, Network: h.cfg.Network}
	if err := h.startHolder(ctx); err != nil {
		return err
	}
	return h.StartLibvirtd(ctx)
}

// startHolder makes the namespaces and the process that keeps them.
func (h *Host) startHolder(ctx context.Context) error {
	args := []string{"-m", "-u", "--propagation", "unchanged"}
	own := "no"
	if h.cfg.Network {
		args, own = append(args, "-n"), "yes"
	}
	args = append(args, "sh", "-c", rootScript, "host", h.cfg.Dir, h.cfg.Name, own, namespaceScript)
	cmd := exec.Command("unshare", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	errFile, err := os.Create(filepath.Join(h.cfg.Dir, "log", "holder.log"))
	if err != nil {
		return err
	}
	defer errFile.Close()
	cmd.Stderr = errFile
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	h.holder = cmd
	if h.state.Holder, err = findProcess(cmd.Process.Pid); err != nil {
		return err
	}
	if err := h.save(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = r.SetReadDeadline(deadline)
	}
	var line [6]byte
	if n, _ := r.Read(line[:]); string(line[:n]) != "ready\n" {
		if data, rerr := os.ReadFile(errFile.Name()); rerr == nil {
			stderr.Write(data)
		}
		return fmt.Errorf("make namespaces: %s", strings.TrimSpace(stderr.String()))
	}
	if h.state.UTS, err = namespaceID(cmd.Process.Pid, "uts"); err != nil {
		return err
	}
	return h.save()
}

// StartLibvirtd starts libvirtd in the host's namespaces and waits until it answers. NewHost has
// done so already; it is for those that stop and start the daemon.
func (h *Host) StartLibvirtd(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(h.cfg.Dir, "log", "libvirtd.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start libvirtd: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("nsenter", h.nsArgs("/", "libvirtd", "--pid-file", "/run/libvirt/libvirtd.pid")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start libvirtd: %w", err)
	}
	h.daemon = cmd
	// nsenter becomes libvirtd, so the child is the daemon.
	if h.state.Daemon, err = findProcess(cmd.Process.Pid); err != nil {
		return fmt.Errorf("start libvirtd: %w", err)
	}
	if err := h.save(); err != nil {
		return fmt.Errorf("start libvirtd: %w", err)
	}
	for {
		_, err := h.Virsh(ctx, "uri")
		if err == nil {
			return nil
		}
		if !h.state.Daemon.alive() {
			data, _ := os.ReadFile(log.Name())
			return fmt.Errorf("start libvirtd: it has ended: %s", lastLines(string(data), 5))
		}
		if perr := pause(ctx, 50*time.Millisecond); perr != nil {
			return fmt.Errorf("start libvirtd: %w: %w", perr, err)
		}
	}
}

// StopLibvirtd ends libvirtd and leaves guests running, as an upgrade does. With kill it gets SIGKILL.
func (h *Host) StopLibvirtd(kill bool) error {
	if h.daemon == nil {
		return h.state.Daemon.stop(10 * time.Second)
	}
	if kill {
		_ = h.daemon.Process.Kill()
	} else {
		_ = h.daemon.Process.Signal(syscall.SIGTERM)
	}
	stuck := time.AfterFunc(15*time.Second, func() { _ = h.daemon.Process.Kill() })
	_ = h.daemon.Wait() // its exit status says nothing of use
	stuck.Stop()
	h.daemon = nil
	return nil
}

// Libvirtd is the pid of libvirtd.
func (h *Host) Libvirtd() int { return h.state.Daemon.Pid }

func (h *Host) save() error {
	data, err := json.MarshalIndent(h.state, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(h.cfg.Dir, "host.json"), 0o600, append(data, '\n'))
}

// Dir is the host's directory. Inside its namespaces etc, lib, cache, log and run below it are
// /etc/libvirt, /var/lib/libvirt, /var/cache/libvirt, /var/log/libvirt and /run/libvirt.
func (h *Host) Dir() string { return h.cfg.Dir }

// UUID is the host's own UUID.
func (h *Host) UUID() string { return h.cfg.UUID }

// URI reaches the host from outside its namespaces. Inside it is InsideURI.
func (h *Host) URI() string {
	return "qemu+unix:///system?socket=" + filepath.Join(h.cfg.Dir, "run/libvirt-sock")
}

// InsideURI is the connection URI for programs that run inside the host's namespaces.
const InsideURI = "qemu:///system"

// Outside turns a path as programs inside the host see it into the path to the same file for the
// caller. Paths which are the same on both sides are returned as they are.
func (h *Host) Outside(path string) string {
	for inside, below := range map[string]string{"/etc/libvirt": "etc", "/var/lib/libvirt": "lib", "/var/cache/libvirt": "cache",
		"/var/log/libvirt": "log", "/run/libvirt": "run", "/var/run/libvirt": "run"} {
		if rest, ok := strings.CutPrefix(path, inside+"/"); ok {
			return filepath.Join(h.cfg.Dir, below, rest)
		}
	}
	return path
}

// nsArgs makes nsenter run argv in the host's namespaces, with the holder's root (the caller may be
// in a chroot) and in directory dir as seen inside.
func (h *Host) nsArgs(dir string, argv ...string) []string {
	args := []string{"-t", fmt.Sprint(h.state.Holder.Pid), "-m", "-u", "-r"}
	if h.state.Network {
		args = append(args, "-n")
	}
	return append(append(args, "--", "sh", "-c", `cd -- "$0" && exec "$@"`, dir), argv...)
}

// Command prepares a program that runs inside the host's namespaces, in the caller's working
// directory. nsenter becomes the program, so the command's pid and signals are the program's own.
// It gets a process group of its own. Set no Dir: it would not survive the change of namespaces.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	cmd := exec.CommandContext(ctx, "nsenter", h.nsArgs(dir, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Virsh runs virsh on this host and returns its standard output.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", h.URI()}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("run virsh %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// Keep leaves the host running after this process ends. ClearHost or a
// NewHost in the same directory ends it.
func (h *Host) Keep() error {
	h.state.Kept = true
	if err := h.save(); err != nil {
		return fmt.Errorf("keep host: %w", err)
	}
	return nil
}

// Close ends libvirtd, every guest and every other process of the host, and removes its directory.
func (h *Host) Close() error {
	errs := []error{h.state.end(h.cfg.Dir)}
	for _, c := range []*exec.Cmd{h.daemon, h.holder} {
		if c != nil {
			_ = c.Wait() // only reaps: end has killed it
		}
	}
	h.daemon, h.holder = nil, nil
	if !h.cfg.KeepDir {
		errs = append(errs, os.RemoveAll(h.cfg.Dir))
	}
	return errors.Join(errs...)
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// NewUUID draws a random (version 4) UUID in its usual form.
func NewUUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
