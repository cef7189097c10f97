package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// Command runs a program for each alert. Which one, and with which arguments,
// is what the host's configuration says: no shell, and nothing of the alert on
// its command line or in its environment. The alert is JSON on its input, as a
// CloudEvent.
type Command struct {
	argv []string
	who  *syscall.Credential // nil: as the daemon
}

const (
	commandPath   = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxOutput     = 4096
	exitTakenAway = 100 // the program says that another try would be no use
)

// NewCommand returns a sender. An empty name runs it as the daemon's user.
func NewCommand(argv []string, name string) (*Command, error) {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return nil, fmt.Errorf("command %q: want the absolute path of a program, and its arguments: %w", argv, record.ErrReject)
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("command: %w: %w", err, record.ErrReject)
	}
	c := &Command{argv: argv}
	if name == "" {
		return c, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("command: %w: %w", err, record.ErrReject)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("command: user %s: %w: %w", name, err, record.ErrReject)
	}
	c.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return c, nil
}

// Send runs the program. What it leaves running in its process group is killed
// when the time is up, and when it ends.
func (c *Command) Send(ctx context.Context, a *Alert) (string, error) {
	body, err := json.Marshal(event(a))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	out := &bounded{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(body, '\n')), out, out
	cmd.Dir, cmd.Env = "/", []string{commandPath, "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.who}
	group := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = group
	cmd.WaitDelay = time.Second // for output that somebody else keeps open
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the program: %w", err)
	}
	awaitEnd(cmd.Process.Pid)
	_ = group() // what it left behind; mostly nothing
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "the program ended with 0", nil
	case errors.As(err, &exit):
		return "", &Failure{What: "the program ended with " + exit.ProcessState.String(), Said: out.String(), Final: exit.ExitCode() == exitTakenAway}
	}
	return "", &Failure{What: "the program: " + err.Error(), Said: out.String()}
}

// awaitEnd returns once a child of ours has ended, and leaves it to be waited
// for: until then nobody else gets its number, which is that of its group.
func awaitEnd(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	_, _ = b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())]) // never fails
	return len(p), nil
}
