package access

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peers authenticates who is at the other end of a unix socket, as the kernel
// says: root, the account that the daemon runs as, and the members of one group
// are operators. What a request says of itself counts for nothing.
type Peers struct {
	Group int // id of that group; below 0: none
}

type peerKey struct{}

// peer is who connected to a unix socket, when it did.
type peer struct {
	cred   unix.Ucred
	groups []uint32
	name   func() string
}

// WithPeer is the ConnContext of a server on a unix socket: it remembers who
// is at the other end.
func WithPeer(ctx context.Context, c net.Conn) context.Context {
	if below, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = below.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	p := &peer{}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		if cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			p.groups, failed = peerGroups(fd)
		}
	})
	if err != nil || failed != nil {
		return ctx // nobody
	}
	p.cred = *cred
	// Asked for behind the accept loop, since it may take long: names may come
	// over the network.
	p.name = sync.OnceValue(func() string {
		id := strconv.FormatUint(uint64(p.cred.Uid), 10)
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return "uid " + id
	})
	return context.WithValue(ctx, peerKey{}, p)
}

// peerGroups returns the supplementary groups of a socket's peer.
func peerGroups(fd uintptr) ([]uint32, error) {
	all := make([]uint32, 64)
	for {
		size := uint32(4 * len(all))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&all[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return all[:size/4], nil
		case e == unix.ERANGE && len(all) < 1<<16: // the kernel's most
			all = make([]uint32, 1<<16)
		default:
			return nil, fmt.Errorf("groups of a peer: %w", e)
		}
	}
}

func (p Peers) authenticate(r *http.Request, _ time.Time) (*Identity, string) {
	who, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok {
		return nil, "the kernel does not say who connects"
	}
	gid := uint32(p.Group)
	if who.cred.Uid != 0 && int(who.cred.Uid) != os.Geteuid() && (p.Group < 0 || who.cred.Gid != gid && !slices.Contains(who.groups, gid)) {
		return nil, fmt.Sprintf("uid %d is neither root nor in the group of the socket", who.cred.Uid)
	}
	return &Identity{Name: who.name(), Role: Operator, How: fmt.Sprintf("uid %d, pid %d", who.cred.Uid, who.cred.Pid)}, ""
}
