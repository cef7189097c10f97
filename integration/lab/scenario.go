package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Boot starts the domain and waits until its agent is enrolled.
func (l *Lab) Boot(ctx context.Context) (*Entry, error) {
	if err := l.Guest.Start(ctx); err != nil {
		return nil, fmt.Errorf("start domain: %w", err)
	}
	if err := l.Guest.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("boot domain: %w", err)
	}
	return l.Wait(ctx, "the agent's hooks", Of(record.ClassAgentHooks))
}

// Of matches entries of a class.
func Of(c record.Class) func(*Entry) bool {
	return func(e *Entry) bool { return e.Leaf.Header.Class == c }
}

// Exec matches the start of a program whose arguments begin with args.
func Exec(args ...string) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Event)
		if !ok || e.Leaf.Header.Class != record.ClassProcessExec || len(m.Process.GetArgs()) < len(args) {
			return false
		}
		for i, a := range args {
			if string(m.Process.Args[i]) != a {
				return false
			}
		}
		return true
	}
}

// Rename matches a file that takes over a path.
func Rename(to string) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Event)
		return ok && e.Leaf.Header.Class == record.ClassFileRename && string(m.Target.GetPath()) == to
	}
}

// File matches an event of a class on a path.
func File(c record.Class, path string) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Event)
		return ok && e.Leaf.Header.Class == c && string(m.File.GetPath()) == path
	}
}

// Connect matches a connection to a port.
func Connect(port uint32) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Event)
		return ok && e.Leaf.Header.Class == record.ClassNetworkConnect && m.Network.GetDestinationPort() == port
	}
}

// Verdict matches a verdict of a policy.
func Verdict(policy string) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Verdict)
		return ok && m.Policy == policy
	}
}

// Outcome matches the outcome of an action of a policy.
func Outcome(policy, kind string) func(*Entry) bool {
	return func(e *Entry) bool {
		m, ok := e.Msg.(*record.Outcome)
		return ok && m.Policy == policy && m.Kind == kind
	}
}

// Activity is what the scenario does in the guest: a program starts, a file is
// written and renamed over another under /etc, a connection goes out.
const Activity = `
nc -l -p 7777 >/dev/null &
/bin/busybox uname -a >/dev/null
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo 'root::0:0:root:/root:/bin/sh' >/etc/passwd.new
mv /etc/passwd.new /etc/passwd
sleep 1
echo hello | nc -w 2 127.0.0.1 7777
wait
`

// Malware starts a program with a name that the baseline policies list. It
// comes back before the program starts: the domain is paused by it.
const Malware = `
cp /bin/busybox /tmp/xmrig
(sleep 1; exec /tmp/xmrig sleep 1) >/dev/null 2>&1 &
`

// Clock relates the guest's CLOCK_BOOTTIME to the host's wall clock.
type Clock struct {
	offset time.Duration // host wall clock minus guest clock
	Error  time.Duration // at most
}

// ReadClock asks the guest for its clock and keeps the answer that came back
// fastest: it lies between the asking and the answer.
func (l *Lab) ReadClock(ctx context.Context) (Clock, error) {
	best := Clock{Error: time.Hour}
	for range 20 {
		before := time.Now()
		// Builtins only: a process started in between would make the answer late.
		out, err := l.Guest.Output(ctx, `while read -r a b ns c; do if [ "$a $b" = "now at" ]; then echo "$ns"; break; fi; done </proc/timer_list`)
		if err != nil {
			return Clock{}, fmt.Errorf("read guest clock: %w", err)
		}
		trip := time.Since(before)
		ns, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return Clock{}, fmt.Errorf("read guest clock: %w", err)
		}
		if trip/2 < best.Error {
			best = Clock{offset: time.Duration(before.Add(trip/2).UnixNano() - ns), Error: trip / 2}
		}
	}
	return best, nil
}

// Host returns when something at guest time ns happened, on the host's clock.
func (c Clock) Host(ns uint64) time.Time { return time.Unix(0, int64(ns)).Add(c.offset) }
