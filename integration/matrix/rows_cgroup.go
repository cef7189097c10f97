package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// containerID is one as container runtimes draw them.
var containerID = strings.Repeat("5a", 32)

func init() {
	register(Row{ID: 231, Name: "run in the control group of a container", Do: runContained,
		GuestOnly: "the machine has one hierarchy of control groups", Check: func(c *Checker) {
			group := "/provost-act/docker-" + containerID + ".scope"
			// It moved after the fork, and is told as one of the container from then on.
			pid := Is("process.pid", c.Number("pid"))
			fork := c.One(record.ClassProcessFork, pid, Is("process.container_id", ""), Not("process.cgroup", group), NonZero("process.cgroup"))
			run := c.One(record.ClassProcessExec, pid, Is("process.cgroup", group), Is("process.cgroup_id", c.Number("group")), Is("process.container_id", containerID))
			end := c.One(record.ClassProcessExit, pid, Is("process.cgroup_id", c.Number("group")), Is("process.container_id", containerID))
			c.Order(fork, run, end)
		}})
}

// runContained has a child move to a new control group and run a program there.
func runContained(e *Env) error {
	if err := os.Mkdir(e.Path("cg"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("cgroup2", e.Path("cg"), "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %w", err)
	}
	defer unix.Unmount(e.Path("cg"), unix.MNT_DETACH)
	top := e.Path("cg", "provost-act")
	dir := filepath.Join(top, "docker-"+containerID+".scope")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.Remove(top)
	defer os.Remove(dir)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	e.Fact("group", st.Ino)
	procs, err := unix.Open(filepath.Join(dir, "cgroup.procs"), unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(procs)
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	text, keep1 := CString("0\n")
	x, keep2 := execAt(self)
	f, err := e.Fork([]Call{call(unix.SYS_WRITE, uintptr(procs), text, 2), x}, keep2...)
	runtime.KeepAlive(keep1)
	if err != nil {
		return err
	}
	if f.Results[0] != 2 || f.Results[1] != 0 {
		return fmt.Errorf("write and execveat returned %v in group %s", f.Results, strconv.Quote(dir))
	}
	e.Fact("pid", f.Pid)
	return nil
}
