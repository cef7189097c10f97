package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect/api/client"
)

// Config says what a lab holds.
type Config struct {
	// Dir holds all state; at most 40 bytes. It is removed by Close.
	Dir string
	// Bin is the directory of the built programs. Default: bin beside go.mod.
	Bin string
	// Policies is the bundle's directory; empty: no policies.
	Policies string
	// Kernel of the guest: 6.12 (default), 6.1 or 5.10.
	Kernel string
	// NoBPFLSM boots it without bpf among its security modules.
	NoBPFLSM bool
	// Files, Modules and SpareModules go into the guest; see harness.ImageConfig.
	Files                 map[string]string
	Modules, SpareModules []string
	// AgentArgs are further arguments of the guest agent.
	AgentArgs []string
	// HostID names the host in its logs; default kvm1.lab. The part before the dot is
	// its host name.
	HostID string
	// Domain is the domain's name; default demo-vm. UUID is random when empty.
	Domain, UUID string
	// Channel defines the domain with the agent's channel, instead of leaving
	// that to provost domain enroll.
	Channel bool
	// Devices is further XML for the domain's devices, such as interfaces.
	Devices string
	// Network gives the host a network namespace of its own; the daemon's metrics are
	// then out of reach.
	Network bool
	// Extra is further text of the daemon's configuration.
	Extra string
	// Out is told what is being done, a line each.
	Out func(format string, args ...any)
	// Keep leaves Dir behind.
	Keep bool
}

// Lab is a running host. Its methods are for one goroutine.
type Lab struct {
	Config
	Host   *harness.Host
	Guest  *harness.Guest
	Client *client.Client
	Listen string // of metrics and tiles

	daemon *exec.Cmd
	ended  chan struct{} // closed when daemon has ended
}

// New builds the guest image and starts libvirtd; the domain is defined and not
// started, the daemon is configured and not started.
func New(ctx context.Context, cfg Config) (l *Lab, err error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	l = &Lab{Config: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := Clear(cfg.Dir); err != nil {
		return l, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return l, err
	}
	cfg.Out("building the guest: Debian's %s cloud kernel, busybox, provost-agent", cfg.Kernel)
	image, err := harness.BuildImage(ctx, harness.ImageConfig{
		KernelVersion: cfg.Kernel, Agent: filepath.Join(cfg.Bin, "provost-agent"), AgentArgs: cfg.AgentArgs,
		NoBPFLSM: cfg.NoBPFLSM, Files: cfg.Files, Modules: cfg.Modules, SpareModules: cfg.SpareModules,
	})
	if err != nil {
		return l, fmt.Errorf("build guest image: %w", err)
	}
	cache, err := harness.DefaultCache()
	if err != nil {
		return l, err
	}
	accel, err := harness.BestAccel(ctx, cache, image)
	if err != nil {
		return l, fmt.Errorf("choose accelerator: %w", err)
	}
	cfg.Out("starting a libvirtd of its own (guests run with %s)", accel)
	if l.Host, err = harness.NewHost(ctx, harness.HostConfig{Dir: l.path("host"), Name: strings.TrimSuffix(cfg.HostID, ".lab"), KeepDir: cfg.Keep, Network: cfg.Network}); err != nil {
		return l, fmt.Errorf("start host: %w", err)
	}
	cfg.Out("defining the domain %s", cfg.Domain)
	l.Guest, err = l.Host.DefineGuest(ctx, harness.GuestConfig{Name: cfg.Domain, UUID: cfg.UUID, Image: image, Accel: accel, AgentChannel: cfg.Channel, Devices: cfg.Devices})
	if err != nil {
		return l, fmt.Errorf("define domain: %w", err)
	}
	return l, l.configure()
}

// Clear ends what an earlier lab in dir has left running and removes dir. It
// refuses while the program that made it still runs.
func Clear(dir string) error {
	l := &Lab{Config: Config{Dir: dir}}
	if err := l.clearDaemon(); err != nil {
		return err
	}
	if err := harness.ClearHost(l.path("host")); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Leave lets everything run on after this process; Clear ends it.
func (l *Lab) Leave() error {
	l.Client.Close()
	return l.Host.Keep()
}

func (c *Config) defaults() error {
	if c.Out == nil {
		c.Out = func(string, ...any) {}
	}
	if c.Kernel == "" {
		c.Kernel = "6.12"
	}
	if c.Domain == "" {
		c.Domain = "demo-vm"
	}
	if c.HostID == "" {
		c.HostID = "kvm1.lab"
	}
	if len(c.Dir) == 0 || len(c.Dir) > 40 {
		return fmt.Errorf("lab directory %q has %d bytes, want 1 to 40: paths of unix sockets are short", c.Dir, len(c.Dir))
	}
	if c.Bin == "" {
		root, err := harness.ModuleRoot()
		if err != nil {
			return err
		}
		c.Bin = filepath.Join(root, "bin")
	}
	for _, b := range []string{"provostd", "provost", "provost-agent"} {
		if _, err := os.Stat(filepath.Join(c.Bin, b)); err != nil {
			return fmt.Errorf("%w; make build makes it", err)
		}
	}
	return nil
}

func (l *Lab) path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

// configure writes the daemon's configuration and begins its ledger.
func (l *Lab) configure() error {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.Listen = port.Addr().String()
	if err := port.Close(); err != nil {
		return err
	}
	text := fmt.Sprintf("host_id   = %q\nstate_dir = %q\nanchor    = %q\n", l.HostID, l.path("state"), l.path("anchor", "anchor"))
	if l.Policies != "" {
		text += fmt.Sprintf("policies  = %q\n", l.Policies)
	}
	text += fmt.Sprintf("api {\n  socket = %q\n  listen = %q\n}\n%s", l.Socket(), l.Listen, l.Extra)
	if err := os.WriteFile(l.ConfigFile(), []byte(text), 0o600); err != nil {
		return err
	}
	l.Client = client.New(l.Socket())
	out, err := exec.Command(filepath.Join(l.Bin, "provostd"), "-config", l.ConfigFile(), "init").CombinedOutput()
	if err != nil {
		return fmt.Errorf("begin ledger: %w: %s", err, out)
	}
	return nil
}

// Socket is the path of the daemon's control socket.
func (l *Lab) Socket() string { return l.path("provostd.sock") }

// ConfigFile is the path of the daemon's configuration.
func (l *Lab) ConfigFile() string { return l.path("provostd.hcl") }

// DaemonLog is the path of what the daemon says.
func (l *Lab) DaemonLog() string { return l.path("provostd.log") }

// StartDaemon starts provostd inside the host's namespaces and waits until it
// is connected to libvirt.
func (l *Lab) StartDaemon(ctx context.Context) error {
	log, err := os.OpenFile(l.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := l.Host.Command(context.WithoutCancel(ctx), filepath.Join(l.Bin, "provostd"), "-config", l.ConfigFile())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start provostd: %w", err)
	}
	if err := os.WriteFile(l.path("provostd.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is in its log and in ProcessState
	l.daemon, l.ended = cmd, ended
	for {
		if s, err := l.Client.Status(ctx); err == nil && s.Libvirt.Connected {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("provostd ended at its start: %s", l.lastLines())
		case <-ctx.Done():
			return fmt.Errorf("wait for provostd: %w: %s", ctx.Err(), l.lastLines())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// WaitLibvirt waits until the daemon hears libvirt, or does not.
func (l *Lab) WaitLibvirt(ctx context.Context, heard bool) error {
	for {
		s, err := l.Client.Status(ctx)
		if err == nil && s.Libvirt.Connected == heard {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for libvirt heard=%v: %w: %s", heard, ctx.Err(), l.lastLines())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *Lab) lastLines() string {
	b, _ := os.ReadFile(l.DaemonLog())
	return string(b[max(0, len(b)-2000):])
}

// StopDaemon asks provostd to end and waits for it.
func (l *Lab) StopDaemon() error { return l.signal(syscall.SIGTERM) }

// KillDaemon ends provostd as a crash would.
func (l *Lab) KillDaemon() error { return l.signal(syscall.SIGKILL) }

func (l *Lab) signal(sig syscall.Signal) error {
	if l.daemon == nil {
		return nil
	}
	// The whole group: nsenter may stand between us and the daemon.
	if err := syscall.Kill(-l.daemon.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal provostd: %w", err)
	}
	select {
	case <-l.ended:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-l.daemon.Process.Pid, syscall.SIGKILL)
		<-l.ended
		return fmt.Errorf("provostd did not end within 30 s of signal %d: %s", sig, l.lastLines())
	}
	l.daemon = nil
	return os.Remove(l.path("provostd.pid"))
}

// SignalDaemon sends a signal that does not end provostd, such as SIGSTOP.
func (l *Lab) SignalDaemon(sig syscall.Signal) error {
	if l.daemon == nil {
		return errors.New("signal provostd: it does not run")
	}
	if err := syscall.Kill(-l.daemon.Process.Pid, sig); err != nil {
		return fmt.Errorf("signal provostd: %w", err)
	}
	return nil
}

// clearDaemon ends a provostd that an interrupted run has left.
func (l *Lab) clearDaemon() error {
	b, err := os.ReadFile(l.path("provostd.pid"))
	if err != nil {
		return nil // none was left
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte(l.ConfigFile())) {
		return nil // the pid is somebody else's now
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end the provostd of an earlier run: %w", err)
	}
	return nil
}

// Provost runs the command line and returns its standard output. An exit code
// other than 0 is an error that holds what it said.
func (l *Lab) Provost(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "provost"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("provost %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Fsck checks the ledger. The daemon must not run.
func (l *Lab) Fsck(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(l.Bin, "provostd"), "-config", l.ConfigFile(), "fsck").CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("provostd fsck: %w: %s", err, out)
	}
	return string(out), nil
}

// Entry is a sealed entry, decoded.
type Entry struct {
	Log  string
	Leaf record.Leaf
	Hash record.Hash
	Msg  record.Message
}

// Wait returns the first entry of the domain, from its log's start on, that
// match accepts. It waits for one until ctx ends.
func (l *Lab) Wait(ctx context.Context, what string, match func(*Entry) bool) (*Entry, error) {
	for e, err := range l.Client.Stream(ctx, client.StreamQuery{Domain: l.Domain, Follow: true}) {
		if err != nil {
			return nil, fmt.Errorf("wait for %s: %w; %s", what, err, l.lastLines())
		}
		if d, err := open(e); err != nil {
			return nil, err
		} else if match(d) {
			return d, nil
		}
	}
	return nil, fmt.Errorf("wait for %s: it was not sealed in time; %s", what, l.lastLines())
}

// Entries returns the entries of the domain's log that are sealed now.
func (l *Lab) Entries(ctx context.Context) ([]*Entry, error) {
	var all []*Entry
	for e, err := range l.Client.Stream(ctx, client.StreamQuery{Domain: l.Domain}) {
		if err != nil {
			return nil, err
		}
		d, err := open(e)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

func open(e *client.Entry) (*Entry, error) {
	leaf, m, err := e.Open()
	if err != nil {
		return nil, err
	}
	return &Entry{Log: e.Log, Leaf: leaf, Hash: record.LeafHash(e.Leaf), Msg: m}, nil
}

var closing sync.Mutex // one Close at a time: it unmounts

// Close ends everything and removes the directory.
func (l *Lab) Close() error {
	closing.Lock()
	defer closing.Unlock()
	err := l.StopDaemon()
	if l.Client != nil {
		l.Client.Close()
	}
	if l.Host != nil {
		err = errors.Join(err, l.Host.Close())
	}
	if !l.Keep {
		err = errors.Join(err, os.RemoveAll(l.Dir))
	}
	return err
}

// CopyLog writes what the daemon said to w.
func (l *Lab) CopyLog(w io.Writer) error {
	b, err := os.ReadFile(l.DaemonLog())
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}
