package harness

import (
	"bufio"
	"fmt"
	"io"
)

// File modes of the newc format, from the kernel's initramfs buffer format description.
const (
	cpioRegular = 0o100000
	cpioDir     = 0o040000
	cpioLink    = 0o120000
	cpioChar    = 0o020000
)

// cpioWriter writes a cpio archive in the newc format, the one the kernel unpacks as initramfs.
// Owners, times and inode numbers are fixed, so equal content gives equal bytes.
type cpioWriter struct {
	w    *bufio.Writer
	ino  uint32
	dirs map[string]bool
	err  error
}

func newCpioWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{".": true, "": true}}
}

// file adds a regular file. Parent directories are added when missing.
func (c *cpioWriter) file(name string, perm uint32, data []byte) {
	c.parents(name)
	c.entry(name, cpioRegular|perm, 0, 0, data)
}

// symlink adds a symbolic link.
func (c *cpioWriter) symlink(name, target string) {
	c.parents(name)
	c.entry(name, cpioLink|0o777, 0, 0, []byte(target))
}

// char adds a character device node.
func (c *cpioWriter) char(name string, perm, major, minor uint32) {
	c.parents(name)
	c.entry(name, cpioChar|perm, major, minor, nil)
}

// dir adds a directory once, with its parents.
func (c *cpioWriter) dir(name string, perm uint32) {
	if c.dirs[name] {
		return
	}
	c.parents(name)
	c.dirs[name] = true
	c.entry(name, cpioDir|perm, 0, 0, nil)
}

func (c *cpioWriter) parents(name string) {
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '/' {
			c.dir(name[:i], 0o755)
			return
		}
	}
}

// close writes the trailer and returns the first error of any entry.
func (c *cpioWriter) close() error {
	c.ino = ^uint32(0)
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

func (c *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	if c.err != nil {
		return
	}
	if uint64(len(data)) > 1<<32-1 {
		c.err = fmt.Errorf("pack %s: %d bytes do not fit a newc archive", name, len(data))
		return
	}
	c.ino++
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.write([]byte(h))
	c.write([]byte(name))
	c.write(make([]byte, 1+pad4(len(h)+len(name)+1)))
	c.write(data)
	c.write(make([]byte, pad4(len(data))))
}

func (c *cpioWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	_, c.err = c.w.Write(b)
}

// pad4 is the number of zero bytes that follow n bytes up to the next multiple of four.
func pad4(n int) int { return (4 - n%4) % 4 }
