package api

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

type peerKey struct{}

// WithPeer is the ConnContext of the control socket's server: it remembers who
// is at the other end, as the kernel says.
func WithPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid))
}

// requester names who has sent a request, for the record.
func requester(ctx context.Context) string {
	if s, ok := ctx.Value(peerKey{}).(string); ok {
		return s
	}
	return "unknown"
}
