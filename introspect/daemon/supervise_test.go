package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPulse holds who counts as stuck: whoever has work and does not move, but nobody
// behind a ledger that stands, and nobody for time in which the daemon itself stood.
func TestPulse(t *testing.T) {
	type state struct {
		done    uint64
		waiting bool
	}
	const tick = 10 * time.Second
	busy, idle := state{7, true}, state{7, false}
	moving := func(i int) state { return state{uint64(i), true} }
	for name, c := range map[string]struct {
		ledger, judge func(i int) state
		gap           map[int]time.Duration // before the look with this number
		want          string
		at            int // first look that finds it
	}{
		"all moves":            {moving, moving, nil, "", 0},
		"nothing to do":        {func(int) state { return idle }, func(int) state { return idle }, nil, "", 0},
		"judge stands":         {moving, func(int) state { return busy }, nil, "judge", 12},
		"disk stalls":          {func(int) state { return busy }, func(int) state { return busy }, nil, "ledger", 30},
		"disk comes back":      {func(i int) state { return state{uint64(i / 25), true} }, moving, nil, "", 0},
		"disk goes in jerks":   {func(i int) state { return state{uint64(i / 4), true} }, func(int) state { return busy }, nil, "", 0},
		"judge goes in jerks":  {moving, func(i int) state { return state{uint64(i / 11), true} }, nil, "", 0},
		"host was suspended":   {moving, func(i int) state { return state{uint64(i / 9), true} }, map[int]time.Duration{5: time.Hour, 20: time.Hour}, "", 0},
		"suspended, and stuck": {moving, func(int) state { return busy }, map[int]time.Duration{5: time.Hour}, "judge", 11},
		"clock goes back":      {moving, func(int) state { return busy }, map[int]time.Duration{5: -time.Hour}, "judge", 13},
	} {
		t.Run(name, func(t *testing.T) {
			i := 0
			read := func(f func(int) state) func() (uint64, bool) {
				return func() (uint64, bool) { s := f(i); return s.done, s.waiting }
			}
			p := newPulse(tick, []sign{{"ledger", ledgerStall, read(c.ledger)}, {"judge", partStall, read(c.judge)}})
			now := time.Unix(1_000_000, 0)
			got, at := "", 0
			for ; i < 60 && got == ""; i++ {
				now = now.Add(tick + c.gap[i])
				got, _ = p.look(now)
				at = i
			}
			if got != c.want || got != "" && at != c.at {
				t.Errorf("%q is stuck at look %d, want %q at %d", got, at, c.want, c.at)
			}
		})
	}
}

// notifySocket is systemd's end.
func notifySocket(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return path, func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("systemd hears nothing: %v", err)
		}
		return string(b[:n])
	}
}

func environment(m map[string]string) func(string) string {
	return func(k string) string { return m[k] }
}

// TestWatchdogStarves walks through a daemon's life as systemd hears it: pings stop while
// a part is stuck and name it, go on when it moves again, and are kept up through a stop.
func TestWatchdogStarves(t *testing.T) {
	path, next := notifySocket(t)
	v, err := OpenSupervisor(environment(map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if v.every != 10*time.Second {
		t.Errorf("a ping every %s, want three in 30s", v.every)
	}
	v.Ready()
	if got := next(); !strings.HasPrefix(got, "READY=1") {
		t.Errorf("first is %q", got)
	}
	var mu sync.Mutex
	done := uint64(0)
	stands := false
	p := newPulse(v.every, []sign{{"ledger", ledgerStall, func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if !stands {
			done++
		}
		return done, true
	}}})
	ctx, cancel := context.WithCancel(t.Context())
	tick, stopping := make(chan time.Time), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { v.watch(ctx, tick, stopping, p, func() string { return "fine" }) })
	now := time.Unix(1, 0)
	look := func() string {
		now = now.Add(v.every)
		tick <- now
		return next()
	}
	if got := look(); got != "WATCHDOG=1\nSTATUS=fine" {
		t.Errorf("a ping is %q", got)
	}
	mu.Lock()
	stands = true
	mu.Unlock()
	pings := 0
	got := look()
	for ; strings.Contains(got, "WATCHDOG=1"); got = look() {
		if pings++; pings > 100 {
			t.Fatal("the watchdog is fed though the ledger stands")
		}
	}
	if pings != int(ledgerStall/v.every)-1 || got != fmt.Sprintf("STATUS=STUCK: ledger has work and has not moved for %s", ledgerStall) {
		t.Errorf("after %d more pings it says %q", pings, got)
	}
	mu.Lock()
	stands = false
	mu.Unlock()
	if got := look(); got != "WATCHDOG=1\nSTATUS=fine" {
		t.Errorf("it moves again, and says %q", got)
	}
	close(stopping)
	if got := next(); !strings.HasPrefix(got, "STOPPING=1") {
		t.Errorf("a stop is %q", got)
	}
	if got := look(); got != "WATCHDOG=1" {
		t.Errorf("while it stops it says %q", got)
	}
	cancel()
	wg.Wait()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestSupervisorEnvironment holds what of the environment is taken, and that what cannot
// be honoured is no quiet start without a watchdog (I10).
func TestSupervisorEnvironment(t *testing.T) {
	path, _ := notifySocket(t)
	for name, c := range map[string]struct {
		env    map[string]string
		every  time.Duration
		tells  bool
		refuse string
	}{
		"none":            {nil, 0, false, ""},
		"no watchdog":     {map[string]string{"NOTIFY_SOCKET": path}, 0, true, ""},
		"of another":      {map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0, true, ""},
		"for anybody":     {map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"}, time.Second, true, ""},
		"no socket there": {map[string]string{"NOTIFY_SOCKET": path + "x"}, 0, false, "no such file"},
		"not a path":      {map[string]string{"NOTIFY_SOCKET": "vsock:2:1"}, 0, false, "neither a path"},
		"not a number":    {map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1min"}, 0, false, "microseconds"},
		"zero":            {map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "0"}, 0, false, "microseconds"},
		"too long":        {map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "9223372036854775807"}, 0, false, "microseconds"},
	} {
		v, err := OpenSupervisor(environment(c.env), quiet)
		if c.refuse != "" {
			if err == nil || !strings.Contains(err.Error(), c.refuse) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || v.every != c.every || (v.conn != nil) != c.tells {
			t.Errorf("%s: pings every %s, tells %v (%v)", name, v.every, v.conn != nil, err)
			continue
		}
		if err := v.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
