package matrix

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// past is a time that a file's times are set to.
var past = unix.Timespec{Sec: 1000000000, Nsec: 123456789}

func init() {
	register(
		Row{ID: 63, Name: "change modes", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				err := errors.Join(unix.Chmod(e.Path("f"), 0o600), unix.Fchmod(fd, 0o4755))
				if _, _, errno := unix.Syscall6(unix.SYS_FCHMODAT2, uintptr(unix.AT_FDCWD&(1<<64-1)), cpath(e.Path("f")), 0o711, unix.AT_SYMLINK_NOFOLLOW, 0, 0); errno == 0 {
					e.Fact("fchmodat2", 1)
				} else {
					e.Fact("fchmodat2", 0) // before 6.6
				}
				return err
			})
		}, Check: func(c *Checker) {
			path, f := c.Text("dir")+"/f", c.Inode("f")
			first := c.One(record.ClassFileChmod, named(c, "file", path, f), That("file.mode", "0600", mode(0o600)))
			second := c.One(record.ClassFileChmod, File(path, f), Is("file.mode", unix.S_IFREG|0o4755))
			c.Order(first, second)
			n := 2 + int(c.Number("fchmodat2"))
			c.N(n, record.ClassFileChmod)
			if n == 3 {
				c.One(record.ClassFileChmod, named(c, "file", path, f), That("file.mode", "0711", mode(0o711)))
			}
			if !c.Tracepoint() && (first.File.GetModeBefore() != unix.S_IFREG|0o644 || second.File.GetModeBefore() != unix.S_IFREG|0o600) {
				c.Errorf("the modes before were %o and %o", first.File.GetModeBefore(), second.File.GetModeBefore())
			}
		}},
		Row{ID: 64, Name: "change owners", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				return errors.Join(unix.Chown(e.Path("f"), 1, 2), unix.Fchown(fd, 3, -1))
			})
		}, Check: func(c *Checker) {
			path, f := c.Text("dir")+"/f", c.Inode("f")
			c.Order(c.One(record.ClassFileChown, named(c, "file", path, f), Is("file.uid", 1), Is("file.gid", 2)),
				c.One(record.ClassFileChown, File(path, f), Is("file.uid", 3), Is("file.gid", 2)))
			c.N(2, record.ClassFileChown)
		}},
		Row{ID: 65, Name: "set and remove extended attributes", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				caps := make([]byte, 20)
				caps[3] = 2 // VFS_CAP_REVISION_2
				return errors.Join(unix.Setxattr(e.Path("f"), "trusted.a", []byte("four"), 0), unix.Fsetxattr(fd, "security.capability", caps, 0),
					unix.Lremovexattr(e.Path("f"), "trusted.a"))
			})
		}, Check: func(c *Checker) {
			path, f := c.Text("dir")+"/f", c.Inode("f")
			c.Order(c.One(record.ClassFileXattr, named(c, "file", path, f), Is("file.attribute", "trusted.a"), Is("file.attribute_size", 4)),
				c.One(record.ClassFileXattr, File(path, f), Is("file.attribute", "security.capability"), Is("file.attribute_size", 20)),
				c.One(record.ClassFileXattr, named(c, "file", path, f), Is("file.attribute", "trusted.a"), Is("file.attribute_size", 0), Is("reason", "removed")))
			c.N(3, record.ClassFileXattr)
		}},
		Row{ID: 66, Name: "chattr", Do: func(e *Env) error {
			return withFile(e, unix.O_RDONLY, func(fd int) error {
				flags := uint64(0x40) // FS_NODUMP_FL
				_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_SETFLAGS, uintptr(unsafe.Pointer(&flags)))
				e.Fact("done", errno == 0) // tmpfs: since 6.6
				return nil
			})
		}, Check: func(c *Checker) {
			var done bool
			c.into("done", &done)
			switch {
			case done:
				c.One(record.ClassFileAttributes, fdFile(c), Is("file.attributes", 0x40))
			case c.KernelAtLeast(6, 6):
				c.Errorf("the file system took no flags")
			case c.Tracepoint() || c.KernelAtLeast(5, 13): // told when done, and it was not
				c.None(record.ClassFileAttributes)
			default: // an attempt
				c.One(record.ClassFileAttributes, fdFile(c), Is("file.attributes", 0x40), Is("result_known", false))
			}
		}},
		Row{ID: 67, Name: "set times", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				times := []unix.Timespec{past, past}
				_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
				err := unix.UtimesNanoAt(unix.AT_FDCWD, e.Path("f"), times, 0)
				if errno != 0 {
					err = errors.Join(err, errno)
				}
				return err
			})
		}, Check: func(c *Checker) {
			at := past.Nano()
			c.Some(record.ClassFileUtime, fdFile(c), Is("file.mtime", at), Is("file.atime", at), NonZero("file.ctime"))
			if c.Tracepoint() {
				c.One(record.ClassFileUtime, named(c, "file", c.Text("dir")+"/f", c.Inode("f")))
			}
			c.N(2, record.ClassFileUtime)
		}},
	)
}

// mode fits permission bits, whether the kind of file is known or not.
func mode(bits uint64) func(any) bool {
	return func(v any) bool { n, ok := v.(uint64); return ok && n&0o7777 == bits }
}

// cpath is a path for a raw system call, for as long as the program runs.
func cpath(s string) uintptr {
	p, keep := CString(s)
	kept = append(kept, keep)
	return p
}

var kept []*byte
