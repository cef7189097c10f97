package probe

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxGroupBytes bounds the table of control groups, by what they take. The
	// least recently used is forgotten, and asked for again when it is needed.
	maxGroupBytes = 1 << 20
	groupBytes    = 320 // of one, beside its path and container
	// maxGroupPath bounds a path in it, in bytes; the root's side is cut.
	maxGroupPath = 1024
	// handleKernfs is the type of a file handle that is a number in kernfs.
	handleKernfs = 0xfe
)

// group is one control group of version 2.
type group struct {
	id        uint64
	path      []byte // from the root of the hierarchy; nil: not known
	container string // id of the container that it belongs to
}

func (x *group) size() int { return groupBytes + len(x.path) + len(x.container) }

// groups knows control groups by their ids, which the kernel never uses
// again. The programs tell of new ones; all else is looked up in the file
// system. It is not safe for concurrent use.
type groups struct {
	known *lru[uint64, *group]
	bytes int
	// lookup gives the path of a group that still is there; nil without.
	lookup func(id uint64) []byte
}

func newGroups(lookup func(uint64) []byte) *groups {
	return &groups{known: newLRU[uint64, *group](math.MaxInt), lookup: lookup}
}

// made enters a group.
func (g *groups) made(id uint64, path []byte) *group {
	// The container is in the whole path: what is cut off may say whose the
	// groups are.
	x := &group{id: id, path: path, container: containerOf(string(path))}
	if n := len(path); n > maxGroupPath {
		x.path = bytes.Clone(path[n-maxGroupPath:])
	}
	if old, ok := g.known.get(id); ok {
		g.bytes -= old.size()
	}
	g.known.put(id, x)
	g.bytes += x.size()
	for g.bytes > maxGroupBytes && len(g.known.all) > 1 {
		_, old := g.known.drop()
		g.bytes -= old.size()
	}
	return x
}

// find returns a group; one that nothing is known of has its id only. That it
// is not known is remembered as well: asking costs system calls.
func (g *groups) find(id uint64) *group {
	if id == 0 {
		return &group{}
	}
	if x, ok := g.known.get(id); ok {
		return x
	}
	var path []byte
	if g.lookup != nil {
		path = g.lookup(id)
	}
	return g.made(id, path)
}

// groupPath looks a group up in the file system behind root, a descriptor of
// the hierarchy's root that stands in no mount tree: its paths are those of
// the hierarchy.
func groupPath(root int, id uint64) []byte {
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(handleKernfs, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	p, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil
	}
	p = strings.TrimSuffix(p, " (deleted)")
	if p == "" || p[0] != '/' {
		p = "/" + p
	}
	return []byte(p)
}

const (
	// maxContainer bounds the id of a container in bytes, and maxNested how
	// many stand in it.
	maxContainer = 256
	maxNested    = 4
)

// containerOf finds the id of the container that a control group belongs to, in
// its path, by what the usual makers of containers call theirs. Helpers of
// theirs that run outside the container (conmon, the monitor of LXC) have none.
//
// Whoever has control groups of their own can name them like any maker does. So
// what stands within a user's groups, or within another container, never is
// told as the id alone: the user or the outer container stand before it,
// "user-1000/ID" or "ID/ID", and no name with a slash is one that a maker gave.
func containerOf(path string) string {
	var ids []string
	user, above := "", ""
	for name := range strings.SplitSeq(path, "/") {
		if user == "" && len(ids) == 0 {
			user = userOf(name) // who stands nearer to the root chooses all names behind
		}
		if c, ok := containerName(above, name); ok && len(ids) < maxNested {
			if user != "" && len(ids) == 0 {
				ids = append(ids, user)
			}
			ids = append(ids, c)
		}
		above = name
	}
	if besidePayload(path) {
		ids = nil
	}
	id := strings.ToValidUTF8(strings.Join(ids, "/"), "?")
	if len(id) > maxContainer {
		id = strings.ToValidUTF8(id[:maxContainer], "")
	}
	return id
}

// besidePayload says whether a path is that of what systemd-nspawn runs beside
// the payload of a container: in its own unit, where only the system's manager
// makes groups.
func besidePayload(path string) bool {
	p := strings.Split(path, "/")
	return len(p) > 3 && p[1] == "machine.slice" && p[3] == "supervisor" && (strings.HasPrefix(p[2], "machine-") || strings.HasPrefix(p[2], "systemd-nspawn@"))
}

// userOf says whose groups begin with a name: systemd gives each user a slice,
// and a manager of their own in it.
func userOf(name string) string {
	u, ok := strings.CutPrefix(name, "user@")
	if ok {
		u, ok = strings.CutSuffix(u, ".service")
	} else if u, ok = strings.CutPrefix(name, "user-"); ok {
		u, ok = strings.CutSuffix(u, ".slice")
	}
	if !ok || u == "" || strings.Trim(u, "0123456789") != "" {
		return ""
	}
	return "user-" + u
}

// idPrefixes stand before the id of a container in the name of its scope.
var idPrefixes = []string{"docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-", "containerd-"}

func containerName(above, name string) (string, bool) {
	scope := strings.TrimSuffix(name, ".scope")
	scope = scope[strings.LastIndexByte(scope, ':')+1:] // SLICE:MAKER:ID
	if isID(scope) {
		return scope, true // docker and kubepods of cgroupfs, containerd
	}
	for _, p := range idPrefixes {
		if id, ok := strings.CutPrefix(scope, p); ok && isID(id) {
			return id, true
		}
	}
	if n, ok := strings.CutPrefix(name, "lxc.payload."); ok && n != "" {
		return n, true
	}
	if above == "lxc" && name != "" {
		return name, true
	}
	if n, ok := strings.CutPrefix(scope, "machine-"); ok && scope != name && n != "" && !strings.HasPrefix(n, `qemu\x2d`) {
		return unescape(n), true
	}
	if n, ok := strings.CutPrefix(name, "systemd-nspawn@"); ok && strings.HasSuffix(n, ".service") {
		return unescape(strings.TrimSuffix(n, ".service")), true
	}
	return "", false
}

// isID reports whether s looks like the id that runtimes draw: 64 hexadecimal digits.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// unescape undoes what systemd does to names of units.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil && n >= 0x20 && n < 0x7f {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), "?")
}

// groupLookup looks up control groups in the kernel; nil where it has none of
// version 2.
func (k *kernel) groupLookup() func(uint64) []byte {
	if err := k.openCgroup(); err != nil {
		return nil
	}
	// What fsmount gave only names a place; handles take an open directory.
	fd, err := unix.Openat(k.cgroup, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	k.groups = fd
	return func(id uint64) []byte { return groupPath(fd, id) }
}
