package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Env is where an act is done.
type Env struct {
	// Dir is a fresh directory, the working directory of the act.
	Dir string
	// Storm is how often the acts that do something very often do it.
	Storm int
	// Hold is how long the acts last that the host does something meanwhile.
	Hold time.Duration

	facts map[string]any
}

// Path is a path in the act's directory.
func (e *Env) Path(elem ...string) string {
	return filepath.Join(append([]string{e.Dir}, elem...)...)
}

// Fact notes what the check needs to know. Byte slices keep every byte.
func (e *Env) Fact(name string, v any) { e.facts[name] = v }

// Inode is what names a file in its events, and what else stat(2) tells of it.
type Inode struct {
	Dev   uint64 `json:"dev"` // as st_dev
	Ino   uint64 `json:"ino"`
	Mode  uint32 `json:"mode"`
	Size  int64  `json:"size"`
	Links uint64 `json:"links"`
	Rdev  uint64 `json:"rdev"`
}

// Stat notes a file under a name, not following symbolic links.
func (e *Env) Stat(name, path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	e.note(name, &st)
	return nil
}

// Fstat notes an open file.
func (e *Env) Fstat(name string, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	e.note(name, &st)
	return nil
}

func (e *Env) note(name string, st *unix.Stat_t) {
	e.Fact(name, Inode{Dev: st.Dev, Ino: st.Ino, Mode: st.Mode, Size: st.Size, Links: st.Nlink, Rdev: st.Rdev})
}

// Copy makes path a copy of this program, so that an act can start it under
// another name; "sub NAME" is its first arguments.
func (e *Env) Copy(path string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Run starts a program, waits for it, and notes its number as fact pid. Its
// status does not matter.
func (e *Env) Run(name string, args ...string) error {
	return e.RunCmd(exec.Command(name, args...))
}

// RunCmd is Run for a prepared command.
func (e *Env) RunCmd(c *exec.Cmd) error {
	err := c.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		return fmt.Errorf("run %s: %w", c.Path, err)
	}
	e.Fact("pid", c.Process.Pid)
	return nil
}

// Sub prepares a program of ours.
func (e *Env) Sub(name string, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{"sub", name}, args...)...)
}

// Until waits until something is so, for some seconds.
func (e *Env) Until(what string, so func() bool) error {
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("wait for %s: it did not come within 20 s", what)
		}
	}
	return nil
}

// laterThan waits until a change of an open file would have another time than
// the last one had: files have the time of the last tick.
func (e *Env) laterThan(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var now unix.Timespec
	var err error
	return errors.Join(e.Until("the next tick", func() bool {
		err = unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now)
		return err != nil || now.Nano() > st.Ctim.Nano()
	}), err)
}

// Exists says whether a file is there.
func Exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Act does a row and writes its facts, a line of JSON.
func Act(r Row, e *Env, w io.Writer) error {
	e.facts = map[string]any{"dir": e.Dir, "self": os.Getpid()}
	if err := os.Chdir(e.Dir); err != nil {
		return err
	}
	// What this program writes of itself is no part of the act.
	if f, ok := w.(*os.File); ok {
		if err := e.Fstat("stdout", int(f.Fd())); err != nil {
			return err
		}
	}
	if exe, err := os.Readlink("/proc/self/exe"); err != nil {
		return err
	} else if err := e.Stat("act", exe); err != nil {
		return err
	} else {
		e.Fact("exe", exe)
	}
	if err := r.Do(e); err != nil {
		return fmt.Errorf("row %d, %s: %w", r.ID, r.Name, err)
	}
	b, err := json.Marshal(e.facts)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// Empty says whether a directory has nothing in it.
func Empty(dir string) bool {
	names, err := os.ReadDir(dir)
	return err == nil && len(names) == 0
}
