package main

import (
	"log/slog"
	"net"
	"os"
)

// notifyReady tells systemd that the daemon listens (Type=notify). Without
// systemd there is nobody to tell.
func notifyReady(log *slog.Logger) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		log.Warn("systemd not notified", "error", err)
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		log.Warn("systemd not notified", "error", err)
	}
}
