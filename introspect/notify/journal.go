package notify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where systemd-journald takes entries.
const JournalSocket = "/run/systemd/journal/socket"

// JournalMessageID tells alerts from all other entries of a journal:
// journalctl MESSAGE_ID=...
const JournalMessageID = "1b5c0f2f3a9d4f6cb1a7c9be6f0e8d42"

// Journal writes alerts to systemd-journald by its native protocol, with a
// field for each fact.
type Journal struct{ socket string }

// NewJournal returns a sender; an empty socket is JournalSocket.
func NewJournal(socket string) *Journal {
	if socket == "" {
		socket = JournalSocket
	}
	return &Journal{socket}
}

// priorities are those of syslog, by severity.
var priorities = map[string]int{"critical": 2, "high": 3, "medium": 4, "low": 5, "informational": 6}

func priority(a *Alert) int {
	if p, ok := priorities[a.Severity]; ok {
		return p
	}
	return 3
}

// line is an alert for people, on one line.
func line(a *Alert) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ALERT %s %s", a.Severity, a.Policy)
	if a.DomainName != "" {
		fmt.Fprintf(&b, " on %s", a.DomainName)
	}
	for _, s := range []string{a.Title, a.Message} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	return b.String()
}

// fact is a named value.
type fact struct{ name, value string }

// facts are the fields of an alert for logs that have fields.
func facts(a *Alert) []fact {
	all := []fact{{"id", a.ID}, {"policy", a.Policy}, {"severity", a.Severity}, {"title", a.Title}, {"message", a.Message},
		{"domain_uuid", a.DomainUUID}, {"domain_name", a.DomainName}, {"log", a.Log}, {"verdict_hash", a.VerdictHash},
		{"cause_class", a.CauseClass}, {"attack", strings.Join(a.Attack, ",")}, {"escalation", a.Escalation}, {"error", a.Error}}
	if a.Log != "" {
		all = append(all, fact{"verdict", strconv.FormatUint(a.Verdict, 10)}, fact{"cause", strconv.FormatUint(a.Cause, 10)})
	}
	if a.Test {
		all = append(all, fact{"test", "true"})
	}
	kept := all[:0]
	for _, f := range all {
		if f.value != "" {
			kept = append(kept, f)
		}
	}
	return kept
}

// Send writes one alert. The journal acknowledges nothing: an entry that its
// socket took is in its hands.
func (j *Journal) Send(ctx context.Context, a *Alert) (string, error) {
	var b []byte
	b = field(b, "MESSAGE", line(a))
	b = field(b, "MESSAGE_ID", JournalMessageID)
	b = field(b, "PRIORITY", strconv.Itoa(priority(a)))
	b = field(b, "SYSLOG_IDENTIFIER", "provostd")
	for _, f := range facts(a) {
		b = field(b, "PROVOST_"+strings.ToUpper(f.name), f.value)
	}
	if err := j.write(ctx, b); err != nil {
		return "", fmt.Errorf("write to the journal at %s: %w", j.socket, err)
	}
	return "written to the journal, which acknowledges nothing", nil
}

// field appends a field in the protocol's binary-safe form: name, line feed, 8
// bytes length little-endian, value, line feed.
func field(b []byte, name, value string) []byte {
	b = append(append(b, name...), '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// write sends an entry as a datagram, or where it is too large for one as a
// sealed file in memory.
func (j *Journal) write(ctx context.Context, b []byte) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unixgram", j.socket)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // what was written is the kernel's
	at, _ := ctx.Deadline()
	if err := c.SetDeadline(at); err != nil {
		return err
	}
	_, err = c.Write(b)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		return passFile(c.(*net.UnixConn), b, at)
	}
	return err
}

func passFile(c *net.UnixConn, b []byte, deadline time.Time) error {
	fd, err := unix.MemfdCreate("provost-alert", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "provost-alert")
	defer func() { _ = f.Close() }() // the receiver has its own
	if _, err := f.Write(b); err != nil {
		return err
	}
	// journald takes sealed files only: nobody changes them while it reads.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return fmt.Errorf("seal a file in memory: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	rights := unix.UnixRights(int(f.Fd()))
	var sent error
	err = raw.Write(func(s uintptr) bool {
		sent = unix.Sendmsg(int(s), nil, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}
