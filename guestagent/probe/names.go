package probe

import (
	"bytes"
	"path"
	"strings"
)

// pathOf makes a path of names that stand leaf first, each with its NUL.
// truncated says that the root's side is missing, detached that the last name
// lies in no directory: neither then begins with a slash.
func pathOf(names []byte, truncated, detached bool) []byte {
	absolute := !truncated && !detached
	if len(names) == 0 {
		if absolute {
			return []byte("/")
		}
		return nil
	}
	if names[len(names)-1] == 0 {
		names = names[:len(names)-1]
	}
	out := make([]byte, 0, len(names)+1)
	for {
		i := bytes.LastIndexByte(names, 0)
		if absolute || len(out) > 0 {
			out = append(out, '/')
		}
		out = append(out, names[i+1:]...)
		if i < 0 {
			return out
		}
		names = names[:i]
	}
}

// filesystemPath names a file inside its file system, where that differs from
// its path: names are those of its path, all but the last outer bytes of them
// within the mount, whose root lies at place.
func filesystemPath(names []byte, outer uint16, place []byte) []byte {
	inner := len(names) - int(outer)
	if len(place) == 0 || inner < 0 {
		return nil
	}
	p := pathOf(place, false, false)
	if inner > 0 {
		p = append(p, pathOf(names[:inner], false, false)...)
	}
	return p[max(0, len(p)-maxFilesystemPath):]
}

// maxFilesystemPath bounds it, so that two of them fit into a payload beside
// the longest paths; one that is cut has lost its slash at the front.
const maxFilesystemPath = 2048

// userPath joins a directory with a name as a process passed it; of an absolute
// name the directory is the process's root. Dots are resolved as text: what
// symbolic links would make of them is not known.
func userPath(dir, name []byte) []byte {
	n := string(cstring(name))
	if strings.HasPrefix(n, "/") {
		n = path.Clean(n) // no dots lead out of the root
	}
	return []byte(path.Clean(string(dir) + "/" + n))
}

// cstring cuts b at its first NUL.
func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// arguments splits an argument vector. Empty arguments stay.
func arguments(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	if b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return bytes.Split(b, []byte{0})
}
