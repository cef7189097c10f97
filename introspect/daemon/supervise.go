package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Supervisor tells systemd, or whoever else speaks its notification protocol, how the
// daemon is. The zero value tells nobody.
type Supervisor struct {
	conn  *net.UnixConn
	every time.Duration // between two pings of the watchdog; 0: it does not watch
	log   *slog.Logger
}

// statusEvery is how often the state is told where no watchdog wants more.
const statusEvery = 30 * time.Second

// OpenSupervisor returns the supervisor that the environment names. One that is named
// and cannot be reached is an error: it would end a daemon that it does not hear.
func OpenSupervisor(getenv func(string) string, log *slog.Logger) (*Supervisor, error) {
	v := &Supervisor{log: log}
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return v, nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("notify systemd: NOTIFY_SOCKET is %q, neither a path nor an abstract socket: unset it where no systemd runs this", path)
	}
	var err error
	if v.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		return nil, fmt.Errorf("notify systemd: %w", err)
	}
	if text := getenv("WATCHDOG_USEC"); text != "" && forUs(getenv("WATCHDOG_PID")) {
		usec, err := strconv.ParseInt(text, 10, 64)
		if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
			_ = v.conn.Close()
			return nil, fmt.Errorf("notify systemd: WATCHDOG_USEC is %q, not a number of microseconds up to a day: set WatchdogSec= in the unit", text)
		}
		v.every = time.Duration(usec) * time.Microsecond / 3
	}
	return v, nil
}

// forUs reports whether the watchdog watches this process, not one that started it.
func forUs(pid string) bool { return pid == "" || pid == strconv.Itoa(os.Getpid()) }

// tell sends one datagram. Systemd reads them at once; should it not, nobody waits: the
// next one says the same.
func (v *Supervisor) tell(lines ...string) {
	if v.conn == nil {
		return
	}
	err := v.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = v.conn.Write([]byte(strings.Join(lines, "\n")))
	}
	if err != nil {
		v.log.Warn("systemd not notified", "error", err)
	}
}

// Ready says that the daemon listens.
func (v *Supervisor) Ready() { v.tell("READY=1", "STATUS=started") }

// Watch says every now and then how d is, and pings the watchdog as long as everything
// moves: until stopping ends, which is told, and then, whatever moves, until ctx ends: a
// stop has a time of its own. A part that does not move is named in the log and in the
// status, and the watchdog is not pinged: it ends the daemon, which leaves the stacks of
// all goroutines in the journal, and starts it anew.
func (v *Supervisor) Watch(ctx context.Context, stopping <-chan struct{}, d *Daemon) {
	if v.conn == nil {
		return
	}
	every := v.every
	if every == 0 {
		every = statusEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	v.watch(ctx, tick.C, stopping, newPulse(every, d.signs()), d.state)
}

func (v *Supervisor) watch(ctx context.Context, tick <-chan time.Time, stopping <-chan struct{}, p *pulse, state func() string) {
	stops := false
	stuck := ""
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case <-stopping:
			stops, stopping = true, nil
			v.tell("STOPPING=1", "STATUS=stopping")
			continue
		case now = <-tick:
		}
		if stops {
			v.ping()
			continue
		}
		name, stood := p.look(now)
		if name != "" {
			v.log.ErrorContext(ctx, "a part of the daemon does not move", "part", name, "for", stood, "watchdog", v.every > 0)
			v.tell(fmt.Sprintf("STATUS=STUCK: %s has work and has not moved for %s", name, stood.Round(time.Second)))
		} else {
			if stuck != "" {
				v.log.InfoContext(ctx, "the part moves again", "part", stuck)
			}
			v.ping("STATUS=" + state())
		}
		stuck = name
	}
}

// ping tells the watchdog that all is well, and more.
func (v *Supervisor) ping(more ...string) {
	if v.every > 0 {
		more = append([]string{"WATCHDOG=1"}, more...)
	}
	if len(more) > 0 {
		v.tell(more...)
	}
}

// Close ends the connection.
func (v *Supervisor) Close() error {
	if v.conn == nil {
		return nil
	}
	if err := v.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
