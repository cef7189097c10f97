package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 142, Name: "go on while the host does not read", Do: load, Host: withoutReader, Check: checkLoad},
		Row{ID: 145, Name: "restart the agent", Do: startOld, Host: restart, Check: func(c *Checker) {
			old := c.All(record.ClassProcessFork, Is("process.pid", c.Number("old")))
			if len(old) != 1 {
				c.Errorf("%d forks of the process that outlives the agent, want 1", len(old))
				return
			}
			after := c.One(record.ClassFileCreate, Is("file.path", c.Text("dir")+"/after"), Is("process.pid", c.Number("old")),
				Is("process.start", old[0].Event().Process.Start), Not("header.session", old[0].Header.Session),
				Is("process.executable", c.Text("exe")), Has("process.flags", record.ProcessSnapshot), NonZero("process.ppid"), NonZero("parent.pid"), NonZero("parent.start"), NonZero("parent.name"))
			// What an old process does from then on is told as of any other.
			c.One(record.ClassProcessExec, Is("process.pid", after.Process.GetPid()), Not("header.session", old[0].Header.Session),
				Lacks("process.flags", record.ProcessSnapshot), Is("process.filename", "/bin/true"))
			c.One(record.ClassProcessExit, Is("process.pid", after.Process.GetPid()), Is("process.start", after.Process.GetStart()))
			sessions := map[uint64]bool{}
			for _, s := range c.Books.Records {
				if s.Header.Class == record.ClassAgentHooks {
					sessions[s.Header.Session] = true
				}
			}
			for _, s := range c.Events {
				if !sessions[s.Header.Session] {
					c.Errorf("session %016x sealed no hooks record", s.Header.Session)
				}
			}
		}},
		Row{ID: 146, Name: "meet processes that are older than the agent", As: 145, Check: func(c *Checker) {
			pid := Is("process.pid", c.Number("old"))
			before := c.One(record.ClassProcessExec, pid, Is("process.filename", "/proc/self/exe"))
			session := uint64(0)
			for _, s := range c.All(record.ClassProcessExec, pid, Is("process.filename", "/proc/self/exe")) {
				session = s.Header.Session
			}
			c.None(record.ClassProcessFork, pid, Not("header.session", session))
			// The one exec of the new session is the one that happened in it.
			c.One(record.ClassProcessExec, pid, Not("header.session", session))
			for _, s := range c.Events {
				if s.Header.Session != session && s.Header.Time < before.Process.GetStart() {
					c.Errorf("%s is told of a time before the process began", s.Header.Class)
				}
			}
		}},
	)
	register(Row{ID: 134, Name: "lose what a full queue does not hold, with its number", Do: overflow, Host: withoutReader, Check: checkOverflow,
		GuestOnly: "natively the agent's queue is made larger than what others do on the machine"})
	registerSub("load", loadSub)
	registerSub("overflow", overflowSub)
	registerSub("old", oldSub)
}

// withoutReader stops the reader, has the load done from its start to its end,
// and lets the reader go on: a load that waited for it would never end.
func withoutReader(ctx context.Context, h Host, act func() (Facts, error)) error {
	// What others have lost is declared before.
	if err := h.Settle(ctx); err != nil {
		return err
	}
	if err := h.StopReading(ctx); err != nil {
		return err
	}
	_, err := act()
	if rerr := h.Read(ctx); err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	return h.Settle(ctx)
}

// drained has a storm done and what is left of it in the agent's queue sealed:
// acts right behind it would be lost with it.
func drained(ctx context.Context, h Host, act func() (Facts, error)) error {
	if _, err := act(); err != nil {
		return err
	}
	return h.Settle(ctx)
}

// done counts what a load did.
type done struct {
	Programs int `json:"programs"`
	Files    int `json:"files"`
}

// load has a process of its own start programs and churn files for a while.
func load(e *Env) error {
	var out bytes.Buffer
	cmd := e.Sub("load", e.Hold.String(), e.Dir)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := e.RunCmd(cmd); err != nil {
		return err
	}
	var d done
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		return fmt.Errorf("read what the load did: %w: %q", err, out.Bytes())
	}
	e.Fact("programs", d.Programs)
	e.Fact("files", d.Files)
	return nil
}

func loadSub(args []string) int {
	hold, err := time.ParseDuration(args[0])
	if err != nil {
		return 2
	}
	var d done
	for end := time.Now().Add(hold); time.Now().Before(end); {
		if err := startAndWait("/bin/true", "true", "load"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		d.Programs++
		if err := churn(args[1], d.Files); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		d.Files++
	}
	return printJSON(d)
}

func printJSON(v any) int {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return 1
	}
	return 0
}

// startAndWait runs a program without the standard library's extra processes.
func startAndWait(path string, args ...string) error {
	pid, err := syscall.ForkExec(path, args, nil)
	if err != nil {
		return err
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return err
		}
	}
}

// checkLoad reconciles what the load counted with what was sealed and what is
// declared lost.
func checkLoad(c *Checker) {
	if c.Number("programs") < 10 {
		c.Errorf("the load started %d programs", c.Number("programs"))
	}
	by := Is("parent.pid", c.Number("pid"))
	c.Reconcile(record.ClassProcessFork, c.Number("programs"), by)
	c.Reconcile(record.ClassProcessExec, c.Number("programs"), by, Is("process.args[1]", "load"))
	c.Reconcile(record.ClassProcessExit, c.Number("programs"), by)
	checkChurn(c, c.Number("pid"), c.Number("files"), (*Checker).Reconcile)
	if err := c.Books.Balance(); err != nil {
		c.Errorf("%w", err)
	}
}

// overflowFiles make more records than the queue of an agent holds: their path
// is of overflowDepth names of overflowName bytes.
const (
	overflowFiles    = 4000
	overflowPrograms = 20
	overflowDepth    = 4
	overflowName     = 200
)

// overflow has a process churn files at a long path, and then another start
// some programs: those of a process beyond its budget give way like its files.
func overflow(e *Env) error {
	if err := e.RunCmd(e.Sub("overflow", e.Dir)); err != nil {
		return err
	}
	churner := e.facts["pid"]
	err := e.RunCmd(e.Sub("storm", strconv.Itoa(overflowPrograms)))
	e.facts["storm"], e.facts["pid"] = e.facts["pid"], churner
	return err
}

func overflowSub(args []string) int {
	dir := args[0]
	for range overflowDepth {
		dir += "/" + strings.Repeat("d", overflowName)
	}
	err := os.MkdirAll(dir, 0o755)
	for i := range overflowFiles {
		if err == nil {
			err = churn(dir, i)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// checkOverflow holds that acts upon files were dropped, that their number is
// told, and that what matters more than they do is all there.
func checkOverflow(c *Checker) {
	// Sums are of the directory.
	by := []any{Is("process.pid", c.Number("pid")), Contains("file.path", strings.Repeat("d", overflowName))}
	for _, class := range []record.Class{record.ClassFileModify, record.ClassFileRename, record.ClassFileDelete} {
		c.Reconcile(class, overflowFiles, by...)
		lost, missing := int64(c.LostSince(class)), overflowFiles-c.acts(class, by)
		if missing == 0 || lost > missing+overflowFiles/10 {
			c.Errorf("%s: %d of %d are missing and %d are declared lost", class, missing, overflowFiles, lost)
		}
	}
	child := Is("parent.pid", c.Number("storm"))
	c.Complete(record.ClassProcessFork, overflowPrograms, child)
	c.Complete(record.ClassProcessExec, overflowPrograms, child, Is("process.args[1]", "storm"))
	c.Complete(record.ClassProcessExit, overflowPrograms, child)
	if err := c.Books.Balance(); err != nil {
		c.Errorf("%w", err)
	}
}

// startOld starts a process which outlives the act and the agent.
func startOld(e *Env) error {
	cmd := e.Sub("old", e.Dir)
	if err := cmd.Start(); err != nil {
		return err
	}
	e.Fact("old", cmd.Process.Pid)
	return e.Until("the old process", func() bool { return Exists(e.Path("waiting")) })
}

// oldSub waits for a signal, makes a file, and becomes another program.
func oldSub(args []string) int {
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, unix.SIGUSR1)
	if err := os.WriteFile(args[0]+"/waiting", nil, 0o644); err != nil {
		return 1
	}
	select {
	case <-wake:
	case <-time.After(2 * time.Minute):
		return 1
	}
	if err := os.WriteFile(args[0]+"/after", nil, 0o644); err != nil {
		return 1
	}
	if err := syscall.Exec("/bin/true", []string{"true", "after"}, nil); err != nil {
		return 1
	}
	return 0
}

// restart has the act start its process, restarts the agent, and wakes the process.
func restart(ctx context.Context, h Host, act func() (Facts, error)) error {
	f, err := act()
	if err != nil {
		return err
	}
	if err := h.RestartAgent(ctx); err != nil {
		return err
	}
	pid := strconv.FormatInt(f.Number("old"), 10)
	return h.Shell(ctx, "kill -USR1 "+pid+"; while [ -e /proc/"+pid+"/exe ]; do sleep 0.1; done")
}
