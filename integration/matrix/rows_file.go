package matrix

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 30, Name: "create a file, write, close", Do: func(e *Env) error { return writeTimes(e, 1, "text") }, Check: func(c *Checker) {
			path, inode := c.Text("dir")+"/f", c.Inode("f")
			by := []Field{Is("process.pid", c.Number("self")), Is("process.start", c.actor.start)}
			create := c.One(record.ClassFileCreate, by, File(path, inode), Is("file.mode", inode.Mode))
			write := c.One(record.ClassFileModify, by, File(path, inode), Is("file.how", "write"))
			c.Order(create, write)
			if c.Covers(record.ClassFileClose) {
				c.Order(write, c.One(record.ClassFileClose, by, File(path, inode), Is("file.operations", 1), Is("file.size_before", 0), Is("file.size", 4)))
			}
		}},
		Row{ID: 31, Name: "write a hundred times", Do: func(e *Env) error { return writeTimes(e, 100, "x") }, Check: func(c *Checker) {
			path, inode := c.Text("dir")+"/f", c.Inode("f")
			c.One(record.ClassFileModify, File(path, inode), Is("file.how", "write"))
			if c.Covers(record.ClassFileClose) {
				c.One(record.ClassFileClose, File(path, inode), Is("file.operations", 100), Is("file.size", 100))
			}
		}},
		Row{ID: 32, Name: "open for writing and write nothing", Do: func(e *Env) error {
			if err := writeTimes(e, 0, ""); err != nil {
				return err
			}
			fd, err := unix.Open(e.Path("f"), unix.O_RDWR, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}, Check: func(c *Checker) {
			path := Is("file.path", c.Text("dir")+"/f")
			c.One(record.ClassFileCreate, path)
			c.None(record.ClassFileModify, path)
			c.None(record.ClassFileClose, path)
		}},
		Row{ID: 76, Name: "churn files", Do: func(e *Env) error {
			return e.RunCmd(e.Sub("churn", e.Dir, strconv.Itoa(5*e.Storm)))
		}, Host: drained, Check: func(c *Checker) {
			checkChurn(c, c.Number("pid"), int64(5*c.Storm), (*Checker).Told)
			if err := c.Books.Balance(); err != nil {
				c.Errorf("%w", err)
			}
		}},
	)
	registerSub("churn", func(args []string) int {
		n, err := strconv.Atoi(args[1])
		for i := range n {
			if err == nil {
				err = churn(args[0], i)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	})
}

// churn makes a file, writes it, and gives it another name, under which it goes.
func churn(dir string, i int) error {
	name := dir + "/c" + strconv.Itoa(i)
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("churn"))
	return errors.Join(err, unix.Close(fd), unix.Rename(name, name+"r"), unix.Unlink(name+"r"))
}

// checkChurn holds that every file of a churn is there, once in each class, as
// count counts them.
func checkChurn(c *Checker, pid, files int64, count func(*Checker, record.Class, int64, ...any)) {
	// A sum is of the directory.
	by := []Field{Is("process.pid", pid), Starts("file.path", c.Text("dir"))}
	for _, class := range []record.Class{record.ClassFileCreate, record.ClassFileModify, record.ClassFileRename, record.ClassFileDelete} {
		count(c, class, files, by)
	}
	if c.Covers(record.ClassFileClose) {
		count(c, record.ClassFileClose, files, by)
	}
}

// writeTimes creates file f of the act's directory, writes the text n times,
// and closes it.
func writeTimes(e *Env, n int, text string) error {
	fd, err := unix.Open(e.Path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	for range n {
		if m, err := unix.Write(fd, []byte(text)); err != nil || m != len(text) {
			return errors.Join(err, fmt.Errorf("wrote %d of %d bytes", m, len(text)))
		}
	}
	return errors.Join(e.Fstat("f", fd), unix.Close(fd))
}
