package matrix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// tooDeep directories are more than the 64 names of a path that are told.
const tooDeep = 80

func init() {
	register(
		Row{ID: 55, Name: "rename over another file", Do: func(e *Env) error {
			if err := errors.Join(prepare(e), os.WriteFile(e.Path("tmp"), []byte("new"), 0o600), e.Stat("tmp", e.Path("tmp"))); err != nil {
				return err
			}
			return os.Rename(e.Path("tmp"), e.Path("f"))
		}, Check: func(c *Checker) {
			tmp := File(c.Text("dir")+"/tmp", c.Inode("tmp"))
			made, write := c.One(record.ClassFileCreate, tmp), c.One(record.ClassFileModify, tmp)
			if c.Covers(record.ClassFileClose) {
				c.Order(write, c.One(record.ClassFileClose, tmp, Is("file.operations", 1), Is("file.size", 3)))
			}
			rename := c.One(record.ClassFileRename, named(c, "file", c.Text("dir")+"/tmp", c.Inode("tmp")), Is("target.path", c.Text("dir")+"/f"))
			c.Order(made, write, rename)
			if !c.Tracepoint() && (rename.Replaced.GetInode() != c.Inode("f").Ino || rename.Replaced.GetDevice() != c.Inode("f").Dev) {
				c.Errorf("the rename replaced %v", rename.Replaced)
			}
		}},
		Row{ID: 56, Name: "rename a directory", Do: func(e *Env) error {
			return errors.Join(os.Mkdir(e.Path("d"), 0o755), e.Stat("d", e.Path("d")), os.Rename(e.Path("d"), e.Path("d2")))
		}, Check: func(c *Checker) {
			made := c.One(record.ClassFileCreate, named(c, "file", c.Text("dir")+"/d", c.Inode("d")), Is("file.mode", unix.S_IFDIR|0o755))
			rename := c.One(record.ClassFileRename, named(c, "file", c.Text("dir")+"/d", c.Inode("d")), Is("target.path", c.Text("dir")+"/d2"))
			if !c.Tracepoint() && rename.File.GetMode()&unix.S_IFMT != unix.S_IFDIR {
				c.Errorf("the renamed is no directory: mode %o", rename.File.GetMode())
			}
			c.Order(made, rename)
		}},
		Row{ID: 57, Name: "exchange two names", Do: func(e *Env) error {
			err := errors.Join(prepare(e), os.WriteFile(e.Path("g"), nil, 0o600), e.Stat("g", e.Path("g")))
			return errors.Join(err, unix.Renameat2(unix.AT_FDCWD, e.Path("g"), unix.AT_FDCWD, e.Path("f"), unix.RENAME_EXCHANGE))
		}, Check: func(c *Checker) {
			c.One(record.ClassFileRename, named(c, "file", c.Text("dir")+"/g", c.Inode("g")), Is("target.path", c.Text("dir")+"/f"), Has("file.flags", record.FileExchanged))
			c.N(1, record.ClassFileRename)
		}},
		Row{ID: 58, Name: "remove a file and a directory", Do: func(e *Env) error {
			err := errors.Join(prepare(e), os.Mkdir(e.Path("d"), 0o755), e.Stat("d", e.Path("d")))
			if unix.Unlink(e.Path("d")) == nil || unix.Unlink(e.Path("none")) == nil {
				err = errors.Join(err, errors.New("unlink took what is no file"))
			}
			dir, derr := unix.Open(e.Dir, unix.O_PATH, 0)
			return errors.Join(err, derr, unix.Unlink(e.Path("f")), unix.Rmdir(e.Path("d")), os.Mkdir(e.Path("d2"), 0o755), e.Stat("d2", e.Path("d2")),
				unix.Unlinkat(dir, "d2", unix.AT_REMOVEDIR), unix.Close(dir))
		}, Check: func(c *Checker) {
			file := c.One(record.ClassFileDelete, named(c, "file", c.Text("dir")+"/f", c.Inode("f")))
			if !c.Tracepoint() && file.File.GetLinks() != 1 {
				c.Errorf("the removed file had %d names, want 1", file.File.GetLinks())
			}
			c.One(record.ClassFileDelete, named(c, "file", c.Text("dir")+"/d", c.Inode("d")))
			c.One(record.ClassFileDelete, named(c, "file", c.Text("dir")+"/d2", c.Inode("d2")))
			c.N(3, record.ClassFileDelete)
		}},
		Row{ID: 59, Name: "link, write by the new name, remove the old", Do: func(e *Env) error {
			return errors.Join(prepare(e), os.Link(e.Path("f"), e.Path("l")), os.WriteFile(e.Path("l"), []byte("x"), 0), unix.Unlink(e.Path("f")))
		}, Check: func(c *Checker) {
			link := c.One(record.ClassFileLink, named(c, "file", c.Text("dir")+"/f", c.Inode("f")), Is("target.path", c.Text("dir")+"/l"))
			write := c.One(record.ClassFileModify, File(c.Text("dir")+"/l", c.Inode("f")))
			c.Order(link, write, c.One(record.ClassFileDelete, named(c, "file", c.Text("dir")+"/f", c.Inode("f"))))
		}},
		Row{ID: 60, Name: "make a file without a name, and name it", Do: func(e *Env) error {
			fd, err := unix.Open(e.Dir, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(full(unix.Write(fd, []byte("x"))), e.Fstat("t", fd),
				unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.Path("t"), unix.AT_SYMLINK_FOLLOW), unix.Close(fd))
		}, Check: func(c *Checker) {
			of := []Field{Is("file.device", c.Inode("t").Dev), Is("file.inode", c.Inode("t").Ino), Has("file.flags", record.FileTemporary)}
			c.Order(c.One(record.ClassFileCreate, of), c.One(record.ClassFileModify, of))
			c.One(record.ClassFileLink, Is("target.path", c.Text("dir")+"/t"))
		}},
		Row{ID: 61, Name: "make a symbolic link", Do: func(e *Env) error {
			e.Fact("to", []byte("../no\xff\nwhere"))
			return errors.Join(unix.Symlink("../no\xff\nwhere", e.Path("sl")), e.Stat("sl", e.Path("sl")))
		}, Check: func(c *Checker) {
			c.One(record.ClassFileCreate, named(c, "file", c.Text("dir")+"/sl", c.Inode("sl")), Is("file.link_target", c.Bytes("to")), Is("file.mode", unix.S_IFLNK|0o777))
		}},
		Row{ID: 62, Name: "make device, pipe, socket and file nodes", Do: func(e *Env) error {
			if err := errors.Join(unix.Mknod(e.Path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(511, 1000))), unix.Mkfifo(e.Path("fifo"), 0o640),
				unix.Mknod(e.Path("reg"), unix.S_IFREG|0o600, 0)); err != nil {
				return err
			}
			s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			// Its name must be short, whatever the directory's.
			err = errors.Join(os.Chdir(e.Dir), unix.Bind(s, &unix.SockaddrUnix{Name: "sock"}), unix.Close(s))
			for _, n := range []string{"dev", "fifo", "reg", "sock"} {
				err = errors.Join(err, e.Stat(n, e.Path(n)))
			}
			return err
		}, Check: func(c *Checker) {
			for _, n := range []string{"dev", "fifo", "reg", "sock"} {
				if n == "sock" && c.Tracepoint() {
					c.Declared(record.ClassFileCreate, "sockets")
					continue
				}
				c.One(record.ClassFileCreate, named(c, "file", c.Text("dir")+"/"+n, c.Inode(n)), Is("file.mode", c.Inode(n).Mode), Is("file.rdev", c.Inode(n).Rdev))
			}
		}},
		Row{ID: 68, Name: "a path longer than any call takes", Do: func(e *Env) error {
			deep := strings.Repeat("d", 240)
			for range 20 {
				if err := errors.Join(os.Mkdir(deep, 0o755), os.Chdir(deep)); err != nil {
					return err
				}
			}
			return errors.Join(os.WriteFile("leaf", []byte("x"), 0o600), e.Stat("leaf", "leaf"))
		}, Check: func(c *Checker) {
			path := c.Text("dir") + strings.Repeat("/"+strings.Repeat("d", 240), 20) + "/leaf"
			of := append(File(path, c.Inode("leaf")), Lacks("file.flags", record.FilePathTruncated))
			c.One(record.ClassFileCreate, of)
			c.One(record.ClassFileModify, of)
		}},
		Row{ID: 226, Name: "a path deeper than is told", Do: func(e *Env) error {
			for range tooDeep {
				if err := errors.Join(os.Mkdir("deep", 0o755), os.Chdir("deep")); err != nil {
					return err
				}
			}
			return errors.Join(os.WriteFile("leaf", []byte("x"), 0o600), e.Stat("leaf", "leaf"))
		}, Check: func(c *Checker) {
			// The leaf's side is kept, and says that it does not begin at the root.
			of := []Field{Is("file.device", c.Inode("leaf").Dev), Is("file.inode", c.Inode("leaf").Ino), Has("file.flags", record.FilePathTruncated),
				That("file.path", "the last of it", func(v any) bool {
					s, ok := v.(string)
					return ok && strings.HasSuffix(s, strings.Repeat("/deep", 60)+"/leaf") && !strings.HasPrefix(s, "/")
				})}
			c.One(record.ClassFileCreate, of)
			c.One(record.ClassFileModify, of)
		}},
		Row{ID: 69, Name: "a name of all bytes", Do: func(e *Env) error {
			name := make([]byte, 0, 255)
			for b := byte(1); b != 0; b++ {
				if b != '/' {
					name = append(name, b)
				}
			}
			name = append(name, bytes.Repeat([]byte("z"), 255-len(name))...)
			path := e.Dir + "/" + string(name)
			e.Fact("path", []byte(path))
			return errors.Join(os.WriteFile(path, []byte("x"), 0o600), e.Stat("n", path))
		}, Check: func(c *Checker) {
			c.One(record.ClassFileCreate, File(c.Bytes("path"), c.Inode("n")))
			c.One(record.ClassFileModify, File(c.Bytes("path"), c.Inode("n")))
		}},
		Row{ID: 74, Name: "try what is not permitted", Do: func(e *Env) error {
			cmd := e.Sub("forbidden", e.Dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
			return errors.Join(prepare(e), os.Mkdir(e.Path("d"), 0o755), e.RunCmd(cmd))
		}, Check: func(c *Checker) {
			by := Is("process.pid", c.Number("pid"))
			c.One(record.ClassProcessExit, by, Is("exit.code", 0))
			for _, class := range []record.Class{record.ClassFileCreate, record.ClassFileDelete, record.ClassFileRename, record.ClassFileLink, record.ClassFileChmod,
				record.ClassFileChown, record.ClassFileTruncate, record.ClassFileUtime, record.ClassFileXattr, record.ClassFileModify, record.ClassFileMount} {
				c.None(class, by)
			}
		}},
	)
	registerSub("forbidden", func(args []string) int {
		f, d, n := args[0]+"/f", args[0]+"/d", args[0]+"/n"
		for i, err := range []error{unix.Unlink(f), unix.Rmdir(d), unix.Rename(f, n), unix.Mkdir(n, 0o755), unix.Symlink("x", n), unix.Chmod(f, 0o777),
			unix.Chown(f, 1000, 1000), unix.Truncate(f, 0), unix.UtimesNanoAt(unix.AT_FDCWD, f, make([]unix.Timespec, 2), 0),
			unix.Setxattr(f, "user.x", []byte("x"), 0), unix.Mknod(n, unix.S_IFIFO, 0), unix.Mount("tmpfs", d, "tmpfs", 0, "")} {
			if err == nil {
				return i + 1
			}
		}
		return 0
	})
}
