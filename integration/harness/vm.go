package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// VMConfig describes a guest under plain QEMU, without libvirt.
type VMConfig struct {
	Image Image
	// Dir takes sockets and the console log. It must exist.
	Dir string
	// Accel is AccelTCG (zero value) or AccelKVM.
	Accel Accel
	// MemoryMiB: zero value 512.
	MemoryMiB int
	// CPUs: zero value 1.
	CPUs int
}

// VM is a guest under plain QEMU. Its Control field runs scripts in it.
type VM struct {
	*Control
	cfg    VMConfig
	cmd    *exec.Cmd
	exited chan struct{} // closed when QEMU has ended; err is set before
	err    error
}

// StartVM boots a guest and returns at once; WaitBoot("") waits until it answers. QEMU runs in a
// process group of its own and is killed by Close.
func StartVM(cfg VMConfig) (*VM, error) {
	qemu, err := lookQEMU()
	if err != nil {
		return nil, err
	}
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = 512
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	vm := &VM{cfg: cfg, exited: make(chan struct{})}
	vm.Control = newControl(func(context.Context) (string, error) {
		select {
		case <-vm.exited:
			return "", fmt.Errorf("reach guest: QEMU has ended: %w", vm.err)
		default:
			return filepath.Join(cfg.Dir, "control.sock"), nil
		}
	})
	log, err := os.Create(filepath.Join(cfg.Dir, "qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(qemu, vmArgs(cfg)...)
	cmd.Dir = cfg.Dir // socket names stay relative, so a long directory does not matter
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	vm.cmd = cmd
	go func() {
		vm.err = cmd.Wait()
		if vm.err == nil {
			vm.err = errors.New("it ended by itself")
		}
		close(vm.exited)
	}()
	return vm, nil
}

func vmArgs(cfg VMConfig) []string {
	cpu := "max,la57=off"
	if cfg.Accel == AccelKVM {
		cpu = "host"
	}
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", cfg.accel(), "-cpu", cpu,
		"-m", strconv.Itoa(cfg.MemoryMiB), "-smp", strconv.Itoa(cfg.CPUs),
		"-kernel", cfg.Image.Kernel, "-initrd", cfg.Image.Initrd, "-append", cfg.Image.Cmdline,
		"-serial", "file:console.log",
		"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off", "-device", "virtserialport,chardev=agent,name=" + AgentPort,
		"-chardev", "socket,id=control,path=control.sock,server=on,wait=off", "-device", "virtserialport,chardev=control,name=" + ControlPort,
	}
}

// AgentSocket is the host end of the agent's channel.
func (vm *VM) AgentSocket() string { return filepath.Join(vm.cfg.Dir, "agent.sock") }

// Console is the path of the log of the guest's serial port.
func (vm *VM) Console() string { return filepath.Join(vm.cfg.Dir, "console.log") }

// Pid is QEMU's process id.
func (vm *VM) Pid() int { return vm.cmd.Process.Pid }

// WaitConsole waits until the console log holds the text, and fails early when QEMU ends.
func (vm *VM) WaitConsole(ctx context.Context, text string) error {
	for {
		data, err := os.ReadFile(vm.Console())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read console: %w", err)
		}
		if strings.Contains(string(data), text) {
			return nil
		}
		select {
		case <-vm.exited:
			return fmt.Errorf("wait for %q on the console: QEMU has ended: %w: %s", text, vm.err, vm.qemuLog())
		default:
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %q on the console: %w; its last lines: %s", text, err, lastLines(string(data), 5))
		}
	}
}

func (vm *VM) qemuLog() string {
	data, err := os.ReadFile(filepath.Join(vm.cfg.Dir, "qemu.log"))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(data), 5)
}

// Close kills QEMU and waits for its end.
func (vm *VM) Close() error {
	_ = vm.cmd.Process.Kill() // it may have ended already
	<-vm.exited
	return vm.Control.Close()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, " | ")
}

// accel is QEMU's argument. Emulated processors take turns in one thread: run at the same time, QEMU
// 7.2 may execute a breakpoint of the kernel's live patching that is gone already, and the guest dies.
func (cfg VMConfig) accel() string {
	if cfg.Accel.orTCG() == AccelTCG {
		return "tcg,thread=single"
	}
	return string(cfg.Accel)
}
