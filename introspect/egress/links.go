package egress

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
)

// links hears of devices that come and go.
type links struct{ wg sync.WaitGroup }

// watchLinks calls changed whenever a device of this network namespace comes, changes
// or goes, until ctx ends. What is missed, the next pass finds.
func watchLinks(ctx context.Context, log *slog.Logger, changed func()) (*links, error) {
	const groupLink = 1
	s, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch devices: %w", err)
	}
	// A bounded wait is how the end of ctx is noticed.
	err = syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 500_000})
	if err == nil {
		err = syscall.Bind(s, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groupLink})
	}
	if err != nil {
		syscall.Close(s)
		return nil, fmt.Errorf("watch devices: %w", err)
	}
	l := &links{}
	l.wg.Go(func() {
		defer syscall.Close(s)
		buf := make([]byte, netlinkBuffer)
		for ctx.Err() == nil {
			_, _, err := syscall.Recvfrom(s, buf, 0)
			switch err {
			case nil, syscall.ENOBUFS: // some were missed: look all the same
				changed()
			case syscall.EAGAIN, syscall.EINTR:
			default:
				log.Error("devices are not watched any more; taps are found by the next pass", "error", err)
				return
			}
		}
	})
	return l, nil
}

func (l *links) wait() { l.wg.Wait() }
