package notify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Syslog sends alerts as RFC 5424 has it: in datagrams (UDP or a unix socket),
// or over TCP and TLS with octet counting (RFC 6587, RFC 5425). No syslog
// acknowledges: what a socket took is all that can be known.
type Syslog struct {
	network, address string
	facility         int
	tls              *tls.Config
}

// facilities are those of RFC 5424 that make sense here.
var facilities = map[string]int{"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "audit": 13,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23}

// structuredID names our structured data. 32473 is the enterprise number that
// RFC 5612 keeps for those who have none.
const structuredID = "provost@32473"

// maxDatagram bounds a message that is one datagram; RFC 5424 has receivers
// take 2048 bytes and lets them take more.
const maxDatagram = 8 << 10

// NewSyslog returns a sender. address is unix:///dev/log, udp://HOST:PORT,
// tcp://HOST:PORT or tls://HOST:PORT; an empty facility is auth.
func NewSyslog(address, facility string, t TLSConfig) (*Syslog, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("the address cannot be read: %w: %w", err, record.ErrReject)
	}
	s := &Syslog{network: u.Scheme, address: u.Host}
	switch u.Scheme {
	case "unix":
		if s.address = u.Path; u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, fmt.Errorf("address %q: want unix:///PATH: %w", address, record.ErrReject)
		}
	case "udp", "tcp", "tls":
		if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Path != "" {
			return nil, fmt.Errorf("address %q: want %s://HOST:PORT: %w", address, u.Scheme, record.ErrReject)
		}
	default:
		return nil, fmt.Errorf("address %q: want unix:///dev/log, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT: %w", address, record.ErrReject)
	}
	if facility == "" {
		facility = "auth"
	}
	var ok bool
	if s.facility, ok = facilities[facility]; !ok {
		return nil, fmt.Errorf("facility %q is not known: want auth, authpriv, audit, daemon, user or local0 to local7: %w", facility, record.ErrReject)
	}
	if s.tls, err = t.client(); err != nil {
		return nil, err
	}
	return s, nil
}

// message is one message of RFC 5424.
func (s *Syslog) message(a *Alert) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s provostd %d alert [%s", s.facility*8+priority(a), a.Time.Format("2006-01-02T15:04:05.000000Z07:00"), a.Host, os.Getpid(), structuredID)
	for _, f := range facts(a) {
		if f.name != "message" && f.name != "title" { // they are the text
			b.WriteString(" " + f.name + `="` + structured.Replace(f.value) + `"`)
		}
	}
	b.WriteString("] \xef\xbb\xbf" + line(a)) // the mark says that it is UTF-8
	return []byte(b.String())
}

var structured = strings.NewReplacer(`"`, `\"`, `\`, `\\`, `]`, `\]`)

// Send sends one alert.
func (s *Syslog) Send(ctx context.Context, a *Alert) (string, error) {
	m := s.message(a)
	if s.network == "udp" && len(m) > maxDatagram {
		m = []byte(strings.ToValidUTF8(string(m[:maxDatagram]), ""))
	}
	c, err := s.dial(ctx)
	if err != nil {
		return "", err
	}
	if c.LocalAddr().Network() == "tcp" || c.LocalAddr().Network() == "unix" {
		m = append([]byte(strconv.Itoa(len(m))+" "), m...)
	}
	at, _ := ctx.Deadline()
	err = c.SetDeadline(at)
	if err == nil {
		_, err = c.Write(m)
	}
	if e := c.Close(); err == nil {
		err = e
	}
	if err != nil {
		return "", err
	}
	return "written to syslog (" + s.network + "), which acknowledges nothing", nil
}

// dial opens a connection for one message: a receiver that went away is noticed
// by the next message, and not some messages later.
func (s *Syslog) dial(ctx context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: 10 * time.Second}
	switch s.network {
	case "unix":
		c, err := d.DialContext(ctx, "unixgram", s.address)
		if err != nil {
			return d.DialContext(ctx, "unix", s.address)
		}
		return c, nil
	case "tls":
		return (&tls.Dialer{NetDialer: d, Config: s.tls}).DialContext(ctx, "tcp", s.address)
	}
	return d.DialContext(ctx, s.network, s.address)
}
