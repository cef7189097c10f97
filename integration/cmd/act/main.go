// Command act does what the rows of the event matrix do, inside a guest:
//
//	act -list
//	act -run NONCE ROW
//
// It prints the facts of the act as a line of JSON. With -private it first
// enters mount and network namespaces of its own, to act natively without
// touching the machine. "act sub NAME" is a program that acts start.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/integration/matrix"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "act:", err)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) > 1 && args[0] == "sub" {
		return matrix.RunSub(args[1], args[2:])
	}
	if len(args) > 0 && args[0] == "nopx" {
		return 0, nil // started by the first line of a script, which can pass one argument
	}
	f := flag.NewFlagSet("act", flag.ContinueOnError)
	list := f.Bool("list", false, "list the rows")
	nonce := f.String("run", "", "text that nothing else has as an argument: it names this run in the events")
	dir := f.String("dir", "", "directory to make for the act (default /tmp/act-ROW)")
	storm := f.Int("storm", 1000, "how often the acts that do something very often do it")
	hold := f.Duration("hold", 3*time.Second, "how long the acts last that the host does something meanwhile")
	private := f.Bool("private", false, "act in mount and network namespaces of its own, with a file system of its own in the directory")
	if err := f.Parse(args); err != nil {
		return 2, nil // the flag package has said why
	}
	if *list {
		for _, r := range matrix.Rows() {
			fmt.Printf("%d\t%s\n", r.ID, r.Name)
		}
		return 0, nil
	}
	id, err := strconv.Atoi(f.Arg(0))
	if f.NArg() != 1 || err != nil || *nonce == "" {
		return 2, errors.New("usage: act -run NONCE [-private] [-dir DIRECTORY] [-storm N] [-hold DURATION] ROW")
	}
	row, err := matrix.Find(id)
	if err != nil {
		return 2, err
	}
	if *dir == "" {
		*dir = fmt.Sprintf("/tmp/act-%d", id)
	}
	if *private {
		return 1, enter(*dir, []string{"-run", *nonce, "-dir", *dir, "-storm", strconv.Itoa(*storm), "-hold", hold.String(), f.Arg(0)})
	}
	if err := os.Mkdir(*dir, 0o755); err != nil && (!errors.Is(err, os.ErrExist) || !matrix.Empty(*dir)) {
		return 1, fmt.Errorf("make directory of the act: %w", err)
	}
	if err := matrix.Act(row, &matrix.Env{Dir: *dir, Storm: *storm, Hold: *hold}, os.Stdout); err != nil {
		return 1, err
	}
	return 0, nil
}

// enter moves this process into namespaces of its own and starts act again in
// it. Nothing of it is left when the last process of the act has ended.
func enter(dir string, args []string) error {
	runtime.LockOSThread() // namespaces belong to the thread until exec
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a file system for the act: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	return unix.Exec(exe, append([]string{"act"}, args...), os.Environ())
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
