package matrix

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(
		Row{ID: 95, Name: "five datagrams to one address", Do: func(e *Env) error { return datagrams(e, unix.AF_INET, false) },
			Check: func(c *Checker) { checkDatagrams(c, 4, string(loopback4[:])) }},
		Row{ID: 96, Name: "five datagrams to one address, IPv6", Do: func(e *Env) error { return datagrams(e, unix.AF_INET6, false) },
			Check: func(c *Checker) { checkDatagrams(c, 6, string(loopback6[:])) }},
		Row{ID: 97, Name: "datagrams through a connected socket", Do: func(e *Env) error { return datagrams(e, unix.AF_INET, true) },
			Check: func(c *Checker) {
				c.One(record.ClassNetworkConnect, to(4, string(loopback4[:]), c.Number("port")), Is("network.protocol", "udp"), Is("network.type", "dgram"), Is("result", 0), Is("result_known", true))
				checkDatagrams(c, 4, string(loopback4[:]))
			}},
		Row{ID: 98, Name: "IPv4 datagrams through a socket of IPv6", Do: func(e *Env) error {
			in, port, err := receiver(unix.AF_INET)
			if err != nil {
				return err
			}
			e.Fact("port", port)
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			a := &unix.SockaddrInet6{Port: port, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
			for range 5 {
				if err := unix.Sendto(fd, []byte("seven b"), 0, a); err != nil {
					return err
				}
			}
			return errors.Join(unix.Close(fd), unix.Close(in))
		}, Check: func(c *Checker) { checkDatagrams(c, 4, string(loopback4[:])) }},
		Row{ID: 99, Name: "raw ICMP", Do: ping, Check: func(c *Checker) {
			icmp := []Field{Is("network.protocol", "icmp"), Is("network.type", "raw"), Is("network.number", unix.IPPROTO_ICMP)}
			c.One(record.ClassNetworkRaw, icmp)
			c.One(record.ClassNetworkSend, icmp, to(4, string(loopback4[:]), 0))
			c.One(record.ClassNetworkFlow, icmp, to(4, string(loopback4[:]), 0), Is("network.packets", 3))
		}},
		Row{ID: 107, Name: "datagrams to two addresses, by two sockets", Do: func(e *Env) error {
			return errors.Join(datagrams(e, unix.AF_INET, false), datagrams(e, unix.AF_INET, false))
		}, Check: func(c *Checker) {
			c.N(2, record.ClassNetworkSend, Is("network.protocol", "udp"))
			c.N(2, record.ClassNetworkFlow, Is("network.protocol", "udp"), Is("network.packets", 5))
		}},
		Row{ID: 108, Name: "a storm of datagrams", Do: func(e *Env) error {
			in, port, err := receiver(unix.AF_INET)
			if err != nil {
				return err
			}
			e.Fact("port", port)
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			n := 0
			for range e.Storm * 20 {
				if unix.Sendto(fd, []byte("x"), 0, address(unix.AF_INET, port)) == nil {
					n++
				}
			}
			e.Fact("sent", n)
			return errors.Join(unix.Close(fd), unix.Close(in))
		}, Check: func(c *Checker) {
			c.One(record.ClassNetworkSend, to(4, string(loopback4[:]), c.Number("port")))
			var packets, bytes uint64
			for _, s := range c.Some(record.ClassNetworkFlow, to(4, string(loopback4[:]), c.Number("port"))) {
				packets += s.Event().Network.GetPackets()
				bytes += s.Event().Network.GetBytes()
			}
			if lost := c.Lost(record.ClassNetworkFlow); packets+lost != uint64(c.Number("sent")) || bytes != packets {
				c.Errorf("%d packets and %d bytes are told and %d are lost of %d of one byte", packets, bytes, lost, c.Number("sent"))
			}
		}},
	)
}

func receiver(family int) (fd, port int, err error) {
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if err := unix.Bind(fd, address(family, 0)); err != nil {
		return fd, 0, err
	}
	port, err = portOf(fd)
	return fd, port, err
}

// datagrams sends five of seven bytes each.
func datagrams(e *Env, family int, connect bool) error {
	in, port, err := receiver(family)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if connect {
		if err := unix.Connect(fd, address(family, port)); err != nil {
			return err
		}
	}
	for range 5 {
		if connect {
			_, err = unix.Write(fd, []byte("seven b"))
		} else {
			err = unix.Sendto(fd, []byte("seven b"), 0, address(family, port))
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return errors.Join(unix.Close(fd), unix.Close(in))
}

func checkDatagrams(c *Checker, family int, ip string) {
	udp := []Field{Is("network.protocol", "udp"), Is("network.type", "dgram"), Is("network.number", unix.IPPROTO_UDP), Is("network.direction", "egress"),
		NonZero("network.source_port"), NonZero("network.namespace")}
	send := c.One(record.ClassNetworkSend, udp, to(family, ip, c.Number("port")), Has("network.flags", record.NetworkFirst))
	flow := c.One(record.ClassNetworkFlow, udp, to(family, ip, c.Number("port")), Is("network.packets", 5), Is("network.bytes", 35), Is("count", 5))
	c.Order(send, flow)
	if flow.Until == 0 {
		c.Errorf("the sum does not say when it ends: %v", flow)
	}
}

func ping(e *Env) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	for range 3 {
		if err := unix.Sendto(fd, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, address(unix.AF_INET, 0)); err != nil {
			return fmt.Errorf("send an echo request: %w", err)
		}
	}
	return unix.Close(fd)
}
