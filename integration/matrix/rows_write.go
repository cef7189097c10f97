package matrix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 33, Name: "empty a file by opening it", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })
		}, Check: func(c *Checker) {
			checkTruncate(c, fdFile(c), 0)
			c.None(record.ClassFileModify, fdFile(c))
			c.None(record.ClassFileClose, fdFile(c))
		}},
		Row{ID: 34, Name: "cut a file by its name", Do: func(e *Env) error {
			return errors.Join(prepare(e), unix.Truncate(e.Path("f"), 2))
		}, Check: func(c *Checker) { checkTruncate(c, named(c, "file", c.Text("dir")+"/f", c.Inode("f")), 2) }},
		Row{ID: 35, Name: "cut an open file", Do: func(e *Env) error {
			return withFile(e, unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, 3) })
		}, Check: func(c *Checker) { checkTruncate(c, fdFile(c), 3) }},
		Row{ID: 36, Name: "append", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY|unix.O_APPEND, func(fd int) error { return full(unix.Write(fd, []byte("more"))) })
		}, Check: func(c *Checker) {
			checkWrite(c, fdFile(c), "write", 1, 1, Is("file.size_before", 7), Is("file.size", 11))
		}},
		Row{ID: 37, Name: "write with offsets and vectors", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				v := [][]byte{[]byte("ab"), []byte("cd")}
				return errors.Join(full(unix.Pwrite(fd, v[0], 1)), full(unix.Writev(fd, v)), full(unix.Pwritev2(fd, v, 3, 0)))
			})
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "write", 3, 3) }},
		Row{ID: 38, Name: "write by Linux AIO", Do: writeAIO, Check: func(c *Checker) { checkWrite(c, fdFile(c), "write", 1, 1) }},
		Row{ID: 39, Name: "make and write a file by io_uring", Do: func(e *Env) error { return uringFile(e, 0, 0) }, Check: checkUring, Tracepoint: uringGap},
		Row{ID: 40, Name: "make and write a file by a thread of io_uring", Do: func(e *Env) error { return uringFile(e, uringSQPoll, 0) },
			Check: func(c *Checker) {
				checkUring(c)
				c.N(1, record.ClassFileModify, Has("flags", record.EventIOWorker))
			}, Tracepoint: uringGap},
		Row{ID: 41, Name: "make and write a file by a worker of io_uring", Do: func(e *Env) error { return uringFile(e, 0, uringAsync) },
			Check: func(c *Checker) {
				checkUring(c)
				c.N(1, record.ClassFileModify, Has("flags", record.EventIOWorker))
			}, Tracepoint: uringGap},
		Row{ID: 42, Name: "sendfile", Do: func(e *Env) error {
			return copied(e, func(from, to int) error { return full(unix.Sendfile(to, from, nil, 4)) })
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "copy", 1, 4) }},
		Row{ID: 43, Name: "splice", Do: func(e *Env) error {
			return copied(e, func(from, to int) error {
				var p [2]int
				if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
					return err
				}
				n, err := unix.Splice(from, nil, p[1], nil, 4, 0)
				m, err2 := unix.Splice(p[0], nil, to, nil, int(n), 0)
				return errors.Join(full(int(m), err), err2, unix.Close(p[0]), unix.Close(p[1]))
			})
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "copy", 1, 4) }},
		Row{ID: 44, Name: "copy_file_range", Do: func(e *Env) error {
			return copied(e, func(from, to int) error { return full(unix.CopyFileRange(from, nil, to, nil, 4, 0)) })
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "copy", 1, 4) }},
		Row{ID: 45, Name: "clone where the file system cannot", Do: func(e *Env) error {
			return copied(e, func(from, to int) error {
				if err := unix.IoctlFileClone(to, from); err != unix.EOPNOTSUPP && err != nil {
					return err
				}
				return nil
			})
		}, Check: func(c *Checker) {
			// Some kernels ask for leave to write before they find out: that is an attempt.
			for _, s := range c.All(record.ClassFileModify, fdFile(c)) {
				if s.Event().File.How != "copy" {
					c.Errorf("a clone is told as %q", s.Event().File.How)
				}
			}
		}},
		Row{ID: 46, Name: "allocate room", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8192) })
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "falloc", 1, 1, Is("file.size", 8192)) }},
		Row{ID: 47, Name: "store into a shared mapping", Do: func(e *Env) error {
			return withFile(e, unix.O_RDWR, func(fd int) error {
				return errors.Join(e.laterThan(fd), store(fd, unix.PROT_READ|unix.PROT_WRITE))
			})
		}, Check: func(c *Checker) {
			checkWrite(c, fdFile(c), "mmap", 1, 1)
			for _, s := range c.All(record.ClassFileClose, fdFile(c)) {
				f := s.Event().File
				if !c.Tracepoint() && f.GetCtime() <= f.GetCtimeBefore() { // there the time before is not known
					c.Errorf("the close tells of a change at %d, which was the time before", f.GetCtime())
				}
			}
		}},
		Row{ID: 48, Name: "make a shared mapping writable and store", Do: func(e *Env) error {
			return withFile(e, unix.O_RDWR, func(fd int) error { return store(fd, unix.PROT_READ) })
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "mmap", 1, 1) }, Tracepoint: Gap(record.ClassFileModify, "mprotect")},
		Row{ID: 49, Name: "write a file that another process opened", Do: passFile, Check: func(c *Checker) {
			checkWrite(c, []any{fdFile(c), Is("process.pid", c.Number("pid"))}, "write", 1, 1)
		}},
		Row{ID: 50, Name: "write a file that the parent opened", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				cmd := e.Sub("write")
				cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "f")}
				err := e.RunCmd(cmd)
				runtime.KeepAlive(cmd)
				return err
			})
		}, Check: func(c *Checker) {
			c.One(record.ClassFileModify, fdFile(c), Is("process.pid", c.Number("pid")))
			c.N(1, record.ClassFileModify, fdFile(c))
		}},
		Row{ID: 51, Name: "write through a symbolic link", Do: func(e *Env) error {
			if err := errors.Join(prepare(e), os.Symlink("f", e.Path("sl"))); err != nil {
				return err
			}
			return os.WriteFile(e.Path("sl"), []byte("x"), 0)
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "write", 1, 1) }},
		Row{ID: 52, Name: "write through /proc/self/fd", Do: func(e *Env) error {
			if err := prepare(e); err != nil {
				return err
			}
			fd, err := unix.Open(e.Path("f"), unix.O_PATH, 0)
			if err != nil {
				return err
			}
			to, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(full(unix.Write(to, []byte("x"))), unix.Close(to), unix.Close(fd))
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "write", 1, 1) }},
		Row{ID: 53, Name: "write a file opened by its handle", Do: func(e *Env) error {
			if err := prepare(e); err != nil {
				return err
			}
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, e.Path("f"), 0)
			if err != nil {
				return err
			}
			dir, err := unix.Open(e.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				return err
			}
			fd, err := unix.OpenByHandleAt(dir, h, unix.O_WRONLY)
			if err != nil {
				return err
			}
			return errors.Join(full(unix.Write(fd, []byte("x"))), unix.Close(fd), unix.Close(dir))
		}, Check: func(c *Checker) { checkWrite(c, fdFile(c), "write", 1, 1) }},
		Row{ID: 75, Name: "write what is no file", Do: writeElsewhere, Check: func(c *Checker) {
			c.None(record.ClassFileModify)
			c.None(record.ClassFileClose)
		}},
		Row{ID: 77, Name: "write a file through two descriptions", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				other, err := unix.Open(e.Path("f"), unix.O_WRONLY, 0)
				if err != nil {
					return err
				}
				return errors.Join(full(unix.Write(fd, []byte("a"))), full(unix.Write(other, []byte("b"))), full(unix.Write(fd, []byte("c"))), unix.Close(other))
			})
		}, Check: func(c *Checker) {
			c.N(2, record.ClassFileModify, fdFile(c))
			if c.Covers(record.ClassFileClose) {
				c.One(record.ClassFileClose, fdFile(c), Is("file.operations", 1))
				c.One(record.ClassFileClose, fdFile(c), Is("file.operations", 2))
			}
		}},
		Row{ID: 78, Name: "write memory that has a name only", Do: func(e *Env) error {
			fd, err := unix.MemfdCreate("mem", 0)
			if err != nil {
				return err
			}
			return errors.Join(full(unix.Write(fd, []byte("x"))), unix.Close(fd))
		}, Check: func(c *Checker) {
			f := []Field{Is("file.path", "memfd:mem"), Has("file.flags", record.FileMemory), Lacks("file.flags", record.FileDeleted), NonZero("file.inode")}
			c.One(record.ClassFileModify, f)
			if c.Covers(record.ClassFileClose) {
				c.One(record.ClassFileClose, f)
			}
		}},
		Row{ID: 79, Name: "write a file that is deleted", Do: func(e *Env) error {
			return withFile(e, unix.O_WRONLY, func(fd int) error {
				return errors.Join(unix.Unlink(e.Path("f")), full(unix.Write(fd, []byte("x"))))
			})
		}, Check: func(c *Checker) {
			c.One(record.ClassFileModify, fdFile(c), Has("file.flags", record.FileDeleted), Is("file.links", 0))
		}},
	)
	registerSub("write", func([]string) int {
		if full(unix.Write(3, []byte("child"))) != nil {
			return 1
		}
		return 0
	})
	registerSub("receive", receiveFile)
	registerSub("prepare", func(args []string) int {
		if os.WriteFile(args[0], []byte("content"), 0o644) != nil {
			return 1
		}
		return 0
	})
}

// uringGap is what mode tracepoint owes for files that io_uring opens.
var uringGap = Gap(record.ClassFileCreate, "io_uring").And(Gap(record.ClassFileModify, "io_uring"))

// named is the object of an act by name: without LSM its inode is not known.
func named(c *Checker, at, path string, i Inode) []Field {
	if c.Tracepoint() {
		return append(byAct(c), Is(at+".path", path), Has("file.flags", record.FileUserPath))
	}
	return append(byAct(c), append(fileAt(at, path, i), Lacks("file.flags", record.FileUserPath))...)
}

// byAct leaves out who made the files that an act begins with.
func byAct(c *Checker) []Field {
	if _, ok := c.Facts["prepared"]; !ok {
		return nil
	}
	return []Field{Not("process.pid", c.Number("prepared"))}
}

// fdFile is file f, acted upon through a descriptor.
func fdFile(c *Checker) []Field {
	return append(byAct(c), File(c.Text("dir")+"/f", c.Inode("f"))...)
}

// full says whether all was written.
func full(n int, err error) error {
	if err == nil && n <= 0 {
		err = fmt.Errorf("wrote %d bytes", n)
	}
	return err
}

// prepare makes file f with seven bytes, by a process that is not the act's.
func prepare(e *Env) error {
	cmd := e.Sub("prepare", e.Path("f"))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make file f: %w", err)
	}
	e.Fact("prepared", cmd.Process.Pid)
	return e.Stat("f", e.Path("f"))
}

// withFile opens a prepared file f for an act.
func withFile(e *Env, flags int, act func(fd int) error) error {
	if err := prepare(e); err != nil {
		return err
	}
	fd, err := unix.Open(e.Path("f"), flags, 0)
	if err != nil {
		return err
	}
	return errors.Join(act(fd), unix.Close(fd))
}

// copied is withFile with another file to copy from.
func copied(e *Env, act func(from, to int) error) error {
	return withFile(e, unix.O_WRONLY, func(to int) error {
		from, err := unix.Open(e.Path("f"), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if _, err := unix.Seek(to, 64, 0); err != nil {
			return err
		}
		return errors.Join(act(from, to), unix.Close(from))
	})
}

// checkWrite holds that a description was written: told once, and once at its end.
func checkWrite(c *Checker, of any, how string, least, most uint64, end ...Field) {
	fields, ok := of.([]any)
	if !ok {
		fields = []any{of}
	}
	c.One(record.ClassFileModify, append(fields, Is("file.how", how))...)
	c.N(1, record.ClassFileModify, fields...)
	if !c.Covers(record.ClassFileClose) {
		return
	}
	if len(fields) > 1 {
		fields = fields[:1] // another process may close
	}
	if c.Tracepoint() { // which sees the file when it is written already
		c.Declared(record.ClassFileClose, "the size before is not known")
		end = slices.DeleteFunc(end, func(f Field) bool { return f.path == "file.size_before" })
	}
	close := c.One(record.ClassFileClose, append(fields, Contains("file.how", how), end)...)
	if n := close.File.GetOperations(); n < least || n > most {
		c.Errorf("the close tells of %d operations, want %d to %d", n, least, most)
	}
	if !c.Tracepoint() && (close.File.GetCtime() < close.File.GetCtimeBefore() || close.File.GetCtimeBefore() == 0) {
		c.Errorf("the close tells of changes at %d, and at %d before", close.File.GetCtime(), close.File.GetCtimeBefore())
	}
	c.N(1, record.ClassFileClose, fields...)
}

func checkTruncate(c *Checker, fields []Field, size int) {
	e := c.One(record.ClassFileTruncate, fields, Is("file.size", size))
	c.N(1, record.ClassFileTruncate, fields)
	if !c.Tracepoint() && e.File.GetSizeBefore() != 7 {
		c.Errorf("the size before was %d, want 7", e.File.GetSizeBefore())
	}
}

func checkUring(c *Checker) {
	by := []any{fdFile(c), Is("process.pid", c.Number("self")), Is("process.executable", c.Text("exe"))}
	c.One(record.ClassKernelIOUring, append(by[1:len(by):len(by)], Is("kernel.operation", "io_uring_setup"), Is("kernel.size", 4))...)
	c.One(record.ClassFileCreate, by...)
	c.One(record.ClassFileModify, by...)
	if c.Covers(record.ClassFileClose) {
		c.One(record.ClassFileClose, append(by[:1:1], AtLeast("file.operations", 1), Is("file.size", 5))...)
	}
}

// writeAIO writes by one request of Linux AIO.
func writeAIO(e *Env) error {
	return withFile(e, unix.O_WRONLY, func(fd int) error {
		var ctx uint64
		if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
			return fmt.Errorf("set up AIO: %w", errno)
		}
		text := []byte("aio")
		cb := make([]byte, 64)
		binary.NativeEndian.PutUint16(cb[16:], 1) // IOCB_CMD_PWRITE
		binary.NativeEndian.PutUint32(cb[20:], uint32(fd))
		binary.NativeEndian.PutUint64(cb[24:], uint64(uintptr(unsafe.Pointer(&text[0]))))
		binary.NativeEndian.PutUint64(cb[32:], uint64(len(text)))
		list := []*byte{&cb[0]}
		if n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, uintptr(ctx), 1, uintptr(unsafe.Pointer(&list[0]))); errno != 0 || n != 1 {
			return fmt.Errorf("submit AIO: %d, %w", n, errno)
		}
		done := make([]byte, 32)
		_, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(ctx), 1, 1, uintptr(unsafe.Pointer(&done[0])), 0, 0)
		runtime.KeepAlive(text)
		if res := int64(binary.NativeEndian.Uint64(done[16:])); errno != 0 || res != int64(len(text)) {
			return fmt.Errorf("AIO gave %d, %w", res, errno)
		}
		_, _, errno = unix.Syscall(unix.SYS_IO_DESTROY, uintptr(ctx), 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// store maps a file, makes the mapping writable if it is not, and stores.
func store(fd, prot int) error {
	m, err := unix.Mmap(fd, 0, 7, prot, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if prot&unix.PROT_WRITE == 0 {
		if err := unix.Mprotect(m, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return err
		}
	}
	m[0] = 'X'
	return unix.Munmap(m)
}

// passFile opens a file and hands it to a process that was there before.
func passFile(e *Env) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	cmd := e.Sub("receive")
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "socket")}
	if err := errors.Join(cmd.Start(), cmd.ExtraFiles[0].Close()); err != nil {
		return err
	}
	e.Fact("pid", cmd.Process.Pid)
	err = withFile(e, unix.O_WRONLY, func(fd int) error {
		return unix.Sendmsg(pair[0], []byte("f"), unix.UnixRights(fd), nil, 0)
	})
	return errors.Join(err, cmd.Wait(), unix.Close(pair[0]))
}

func receiveFile([]string) int {
	b, oob := make([]byte, 1), make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(3, b, oob, 0)
	if err != nil {
		return 1
	}
	m, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(m) != 1 {
		return 2
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil || full(unix.Write(fds[0], []byte("received"))) != nil || unix.Close(fds[0]) != nil {
		return 3
	}
	return 0
}

// writeElsewhere writes to everything that is no regular file.
func writeElsewhere(e *Env) error {
	var p [2]int
	s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err := errors.Join(err, unix.Pipe2(p[:], 0)); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	comm, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	ev, err := unix.Eventfd(0, 0)
	if err != nil {
		return err
	}
	return errors.Join(full(unix.Write(null, []byte("x"))), full(unix.Write(p[1], []byte("x"))), full(unix.Write(s[0], []byte("x"))),
		full(unix.Write(comm, []byte("0"))), full(unix.Write(ev, []byte{1, 0, 0, 0, 0, 0, 0, 0})), unix.Close(comm), unix.Close(null))
}
