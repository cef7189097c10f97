package matrix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// ownDisk is why rows with file systems on disks are done in guests only.
const ownDisk = "it would take a loop device of the machine"

// Flags of inodes, as FS_IOC_SETFLAGS and as FS_IOC_FSSETXATTR have them.
const (
	flagNoDump   = 0x40
	flagNoAtime  = 0x80
	xflagNoAtime = 0x40

	getXattrs = 0x801c581f // FS_IOC_FSGETXATTR
	setXattrs = 0x401c5820 // FS_IOC_FSSETXATTR
)

func init() {
	ext4, xfs := "/usr/sbin/mkfs.ext4", "/usr/sbin/mkfs.xfs"
	register(
		Row{ID: 222, Name: "clone files where the file system can", GuestOnly: ownDisk, Needs: []string{"loop", "xfs"}, Programs: []string{xfs},
			Do: func(e *Env) error { return onDisk(e, xfs, func() error { return clone(e) }) }, Check: func(c *Checker) {
				checkCopied(c, "clone")
				checkCopied(c, "range")
				checkCopied(c, "copy")
			}, Tracepoint: Gap(record.ClassFileModify, "FICLONE").And(Gap(record.ClassFileClose, "FICLONE")).And(Other(func(c *Checker) {
				checkCopied(c, "copy")
			}))},
		Row{ID: 223, Name: "chattr on a disk", GuestOnly: ownDisk, Needs: []string{"loop"}, Programs: []string{ext4},
			Do: func(e *Env) error { return onDisk(e, ext4, func() error { return changeFlags(e) }) }, Check: func(c *Checker) {
				of := File(c.Text("dir")+"/m/f", c.Inode("f"))
				flags := uint64(c.Number("flags"))
				first := c.One(record.ClassFileAttributes, of, Is("file.attributes", flags|flagNoDump))
				switch {
				case c.Tracepoint():
					c.Declared(record.ClassFileAttributes, "of FS_IOC_FSSETXATTR the flags are not known")
					c.N(2, record.ClassFileAttributes, of)
				case c.KernelAtLeast(5, 13):
					c.Order(first, c.One(record.ClassFileAttributes, of, Is("file.attributes", flags|flagNoDump|flagNoAtime)))
					c.N(2, record.ClassFileAttributes, of)
				default:
					c.Declared(record.ClassFileAttributes, "those by FS_IOC_FSSETXATTR are not seen")
					c.N(1, record.ClassFileAttributes, of)
				}
			}},
		Row{ID: 224, Name: "write to a block device", GuestOnly: ownDisk, Needs: []string{"loop"}, Do: writeDevice, Check: func(c *Checker) {
			of := File(c.Text("device"), c.Inode("node"))
			c.One(record.ClassFileModify, of, Is("file.how", "write"), Is("file.mode", c.Inode("node").Mode))
			c.N(1, record.ClassFileModify, of)
			c.N(1, record.ClassFileClose, of)
		}},
		Row{ID: 225, Name: "write a file on a disk by another path", GuestOnly: ownDisk, Needs: []string{"loop"}, Programs: []string{ext4},
			Do: func(e *Env) error {
				return onDisk(e, ext4, func() error {
					err := errors.Join(os.MkdirAll(e.Path("m/etc/x"), 0o755), os.Mkdir(e.Path("b"), 0o755), os.WriteFile(e.Path("m/etc/x/passwd"), nil, 0o600),
						e.Stat("f", e.Path("m/etc/x/passwd")), unix.Mount(e.Path("m/etc"), e.Path("b"), "", unix.MS_BIND, ""))
					return errors.Join(err, os.WriteFile(e.Path("b/x/passwd"), []byte("x"), 0), unix.Unmount(e.Path("b"), unix.MNT_DETACH))
				})
			}, Check: func(c *Checker) {
				dir, f := c.Text("dir"), c.Inode("f")
				c.One(record.ClassFileCreate, File(dir+"/m/etc/x/passwd", f), Is("file.filesystem_path", ""))
				// An alias: only device, inode and the path in the file system say which file it is.
				c.One(record.ClassFileModify, File(dir+"/b/x/passwd", f), Is("file.filesystem_path", "/etc/x/passwd"))
			}},
	)
}

// onDisk makes a file system on a disk of its own, which is a file, and mounts
// it on m.
func onDisk(e *Env, mkfs string, act func() error) error {
	args := []string{"-q", "-F"}
	kind := "ext4"
	if mkfs[len(mkfs)-3:] == "xfs" {
		kind, args = "xfs", []string{"-q", "-m", "reflink=1"}
	}
	return withDisk(e, func(device string) error {
		if out, err := exec.Command(mkfs, append(args, device)...).CombinedOutput(); err != nil {
			return fmt.Errorf("run %s: %w: %s", mkfs, err, out)
		}
		m := e.Path("m")
		if err := errors.Join(os.Mkdir(m, 0o755), unix.Mount(device, m, kind, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", kind, err)
		}
		return errors.Join(act(), unix.Unmount(m, unix.MNT_DETACH)) // the agent may be reading a file for its digest
	})
}

// diskSize is what mkfs.xfs asks for at least. Nothing is in it.
const diskSize = 320 << 20

// withDisk makes a file a disk, until nobody uses it any more.
func withDisk(e *Env, act func(device string) error) error {
	image, err := os.Create(e.Path("disk"))
	if err != nil {
		return err
	}
	defer image.Close()
	if err := image.Truncate(diskSize); err != nil {
		return err
	}
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open loop control: %w", err)
	}
	defer unix.Close(control)
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("find a loop device: %w", err)
	}
	device := fmt.Sprintf("/dev/loop%d", n)
	loop, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(unix.IoctlSetInt(loop, unix.LOOP_SET_FD, int(image.Fd())),
		unix.IoctlLoopSetStatus64(loop, &unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}))
	if err != nil {
		return errors.Join(fmt.Errorf("make %s a disk: %w", device, err), unix.Close(loop))
	}
	return errors.Join(act(device), unix.Close(loop))
}

// clone makes a file, and others that share its blocks: by each call that can.
func clone(e *Env) error {
	if err := os.WriteFile(e.Path("m/from"), make([]byte, 8192), 0o644); err != nil {
		return err
	}
	from, err := os.Open(e.Path("m/from"))
	if err != nil {
		return err
	}
	defer from.Close()
	for name, call := range map[string]func(to int) error{
		"clone": func(to int) error { return unix.IoctlFileClone(to, int(from.Fd())) },
		"range": func(to int) error {
			return unix.IoctlFileCloneRange(to, &unix.FileCloneRange{Src_fd: int64(from.Fd()), Src_offset: 4096, Src_length: 4096})
		},
		"copy": func(to int) error { return full(unix.CopyFileRange(int(from.Fd()), nil, to, nil, 8192, 0)) },
	} {
		to, err := unix.Open(e.Path("m", name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := call(to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := errors.Join(e.Fstat(name, to), unix.Close(to)); err != nil {
			return err
		}
	}
	return nil
}

// checkCopied holds that a file was made, and its content copied into it.
func checkCopied(c *Checker, name string) {
	of := File(c.Text("dir")+"/m/"+name, c.Inode(name))
	create := c.One(record.ClassFileCreate, of)
	copied := c.One(record.ClassFileModify, of, Is("file.how", "copy"))
	c.N(1, record.ClassFileModify, of)
	closed := c.One(record.ClassFileClose, of, Contains("file.how", "copy"), Is("file.size", c.Inode(name).Size), AtLeast("file.operations", 1))
	c.Order(create, copied, closed)
}

// changeFlags sets one flag of a file by each of the two calls.
func changeFlags(e *Env) error {
	f, err := os.Create(e.Path("m/f"))
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("get flags: %w", err)
	}
	flags &= 1<<32 - 1
	e.Fact("flags", flags)
	if err := errors.Join(e.Stat("f", f.Name()), unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|flagNoDump)); err != nil {
		return fmt.Errorf("set flags: %w", err)
	}
	var x [7]uint32 // struct fsxattr: the flags come first
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getXattrs, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return fmt.Errorf("get attributes: %w", errno)
	}
	x[0] |= xflagNoAtime
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setXattrs, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return fmt.Errorf("set attributes: %w", errno)
	}
	return nil
}

// writeDevice writes a sector of a disk itself.
func writeDevice(e *Env) error {
	return withDisk(e, func(device string) error {
		e.Fact("device", device)
		fd, err := unix.Open(device, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(e.Stat("node", device), full(unix.Pwrite(fd, make([]byte, 512), 4096)), unix.Close(fd))
	})
}
