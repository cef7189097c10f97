// Command guestrun boots a test guest under plain QEMU, without libvirt, and runs a script in it:
//
//	go run ./integration/cmd/guestrun -kernel 6.12 -agent bin/provost-agent -exec 'uname -a'
//
// It prints what the script prints and ends with the script's exit status. Without -exec the
// script is read from standard input. The host end of the agent's channel is DIR/agent.sock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/provostd/provost/integration/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// fileFlags collects -file GUESTPATH=HOSTPATH.
type fileFlags map[string]string

func (f fileFlags) String() string { return fmt.Sprint(map[string]string(f)) }

func (f fileFlags) Set(s string) error {
	guest, host, ok := strings.Cut(s, "=")
	if !ok || guest == "" || host == "" {
		return errors.New("want GUESTPATH=HOSTPATH")
	}
	f[guest] = host
	return nil
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	files := fileFlags{}
	fs := flag.NewFlagSet("guestrun", flag.ContinueOnError)
	fs.SetOutput(stderr)
	kernel := fs.String("kernel", "6.12", "version of Debian's cloud kernel: 6.12, 6.1 or 5.10")
	noBPF := fs.Bool("no-bpf-lsm", false, "boot without bpf among the kernel's security modules")
	agent := fs.String("agent", "", "static provost-agent binary to run in the guest")
	agentArgs := fs.String("agent-args", "", "arguments of the agent, separated by blanks")
	script := fs.String("exec", "", "shell script to run in the guest (standard input when empty)")
	timeout := fs.Duration("timeout", 3*time.Minute, "deadline for boot and script together")
	dir := fs.String("dir", "", "existing directory for sockets and console.log (a temporary one when empty)")
	memory := fs.Int("memory", 512, "memory in MiB")
	cpus := fs.Int("cpus", 1, "processors")
	console := fs.Bool("console", false, "print the guest's console to standard error at the end")
	modules := fs.String("modules", "", "further kernel modules to load at boot, separated by blanks")
	fs.Var(files, "file", "further file for the guest, GUESTPATH=HOSTPATH; may be given several times")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *script == "" {
		data, err := io.ReadAll(stdin)
		if err != nil {
			fmt.Fprintln(stderr, "guestrun: read script:", err)
			return 2
		}
		*script = string(data)
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	img, err := harness.BuildImage(ctx, harness.ImageConfig{KernelVersion: *kernel, NoBPFLSM: *noBPF, Agent: *agent,
		AgentArgs: strings.Fields(*agentArgs), Files: files, Modules: strings.Fields(*modules)})
	if err != nil {
		fmt.Fprintln(stderr, "guestrun:", err)
		return 1
	}
	if *dir == "" {
		tmp, err := os.MkdirTemp("", "guestrun-")
		if err != nil {
			fmt.Fprintln(stderr, "guestrun:", err)
			return 1
		}
		defer os.RemoveAll(tmp)
		*dir = tmp
	}
	vm, err := harness.StartVM(harness.VMConfig{Image: img, Dir: *dir, MemoryMiB: *memory, CPUs: *cpus})
	if err != nil {
		fmt.Fprintln(stderr, "guestrun:", err)
		return 1
	}
	res, err := runIn(ctx, vm, *script)
	if cerr := vm.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if log, rerr := os.ReadFile(vm.Console()); rerr == nil && (*console || err != nil) {
		fmt.Fprintf(stderr, "--- console\n%s\n", log)
	}
	if err != nil {
		fmt.Fprintln(stderr, "guestrun:", err)
		return 1
	}
	fmt.Fprint(stdout, res.Stdout)
	fmt.Fprint(stderr, res.Stderr)
	return res.Status
}

func runIn(ctx context.Context, vm *harness.VM, script string) (harness.Result, error) {
	if _, err := vm.WaitBoot(ctx, ""); err != nil {
		return harness.Result{}, err
	}
	return vm.Run(ctx, script)
}
