package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"

	"github.com/provostd/provost/introspect/daemon"
)

// hook is called by libvirt while it starts a domain, and must not call libvirt: that
// waits for it.
func hook(*flag.FlagSet) action {
	return func(ctx context.Context, cfg *daemon.Config, log *slog.Logger, _ io.Writer, args []string) error {
		return daemon.Hook(ctx, cfg, args[1], args[2], os.Stdin, log)
	}
}
