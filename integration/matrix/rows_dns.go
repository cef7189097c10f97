package matrix

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 101, Name: "connect to an abstract unix socket", Do: connectAbstract, Check: func(c *Checker) {
			c.One(record.ClassNetworkUnix, Is("network.protocol", "unix"), Is("network.path", c.Bytes("name")), Is("network.type", "stream"))
		}},
		Row{ID: 210, Name: "ask DNS, and connect to the answer", Do: func(e *Env) error { return resolve(e, true, 9) }, Check: func(c *Checker) {
			ask := c.One(record.ClassDNSQuery, Is("dns.question", "www.provost.example"), Is("dns.type", 1), Is("dns.id", 7), Is("network.destination_port", 53),
				Is("network.destination_ip", string(loopback4[:])), Is("process.pid", c.Number("self")))
			answer := c.One(record.ClassDNSAnswer, Is("dns.question", "www.provost.example"), Is("dns.code", 0), Is("dns.answer", true), Is("network.source_port", 53),
				Is("process.pid", c.Number("self")), Is("dns.names[0]", "host.provost.example"), Is("dns.addresses[0]", "\x7f\x00\x00\x09"))
			connect := c.One(record.ClassNetworkConnect, to(4, "\x7f\x00\x00\x09", c.Number("port")), Is("network.name", "www.provost.example"))
			c.Order(ask, answer, connect)
		}},
		Row{ID: 211, Name: "send to port 53 what is not DNS", Do: func(e *Env) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return errors.Join(unix.Sendto(fd, []byte("hello"), 0, address(unix.AF_INET, 53)), unix.Close(fd))
		}, Check: func(c *Checker) {
			c.One(record.ClassDNSQuery, Is("reason", "malformed"), Is("network.destination_port", 53), Is("network.bytes", 5))
		}},
		Row{ID: 212, Name: "an address that no answer named", Do: func(e *Env) error { return resolve(e, false, 8) }, Check: func(c *Checker) {
			c.N(1, record.ClassDNSAnswer)
			c.One(record.ClassNetworkConnect, to(4, "\x7f\x00\x00\x08", c.Number("port")), Is("network.name", ""))
		}},
	)
}

func connectAbstract(e *Env) error {
	name := "\x00act\x00\xff\n "
	e.Fact("name", []byte(name))
	in, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	a := &unix.SockaddrUnix{Name: "@" + name[1:]}
	if err := errors.Join(unix.Bind(in, a), unix.Listen(in, 1)); err != nil {
		return err
	}
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Connect(out, a), unix.Close(out), unix.Close(in))
}

// resolve asks a server of its own for an address, and connects to the one in
// the answer; or, where the answer is to lie, adds that one under another name.
func resolve(e *Env, honest bool, last byte) error {
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, address(unix.AF_INET, 53)); err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	question := []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03WwW\x07provost\x07example\x00\x00\x01\x00\x01")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, question, 0, address(unix.AF_INET, 53)); err != nil {
		return err
	}
	buf := make([]byte, 512)
	n, from, err := unix.Recvfrom(server, buf, 0)
	if err != nil {
		return err
	}
	answer := append([]byte{}, buf[:n]...)
	answer[2], answer[3], answer[7] = 0x81, 0x80, 2
	answer = append(answer, "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x07\x04host\xc0\x10"...)
	owner := byte(len(answer) - 7) // host.provost.example
	if !honest {
		owner = 0x10 // provost.example, which leads nowhere
	}
	answer = append(answer, "\xc0"+string([]byte{owner})+"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00"+string([]byte{last})...)
	if err := unix.Sendto(server, answer, 0, from); err != nil {
		return err
	}
	if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
		return err
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{}), unix.Listen(l, 1)); err != nil {
		return err
	}
	port, err := portOf(l)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, last}, Port: port})
	return errors.Join(err, unix.Close(c), unix.Close(l), unix.Close(fd), unix.Close(server))
}
