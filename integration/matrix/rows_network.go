package matrix

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

var (
	loopback4 = [4]byte{127, 0, 0, 1}
	loopback6 = [16]byte{15: 1}
)

func init() {
	register(
		Row{ID: 90, Name: "connect and accept over TCP", Do: func(e *Env) error { return talk(e, unix.AF_INET) }, Check: func(c *Checker) { checkTalk(c, 4, string(loopback4[:])) }},
		Row{ID: 91, Name: "connect to a port nobody listens at, not waiting", Do: connectRefused, Check: func(c *Checker) {
			n := c.One(record.ClassNetworkConnect, to(4, string(loopback4[:]), c.Number("port")), Is("network.protocol", "tcp"))
			if !c.Tracepoint() && (!n.ResultKnown || n.Result != uint32(unix.EINPROGRESS)) {
				c.Errorf("the result is %d (known: %v), want EINPROGRESS", n.Result, n.ResultKnown)
			}
		}},
		Row{ID: 92, Name: "connect by TCP fast open", Do: fastOpen, Check: func(c *Checker) {
			c.One(record.ClassNetworkConnect, to(4, string(loopback4[:]), c.Number("port")), Has("network.flags", record.NetworkFastOpen))
			c.One(record.ClassNetworkAccept, Is("network.destination_port", c.Number("port")))
		}},
		Row{ID: 93, Name: "connect and accept over TCP, IPv6", Do: func(e *Env) error { return talk(e, unix.AF_INET6) }, Check: func(c *Checker) { checkTalk(c, 6, string(loopback6[:])) }},
		Row{ID: 94, Name: "listen without bind", Do: func(e *Env) error {
			fd, port, err := listen(unix.AF_INET, false)
			e.Fact("port", port)
			return errors.Join(err, unix.Close(fd))
		}, Check: func(c *Checker) {
			c.One(record.ClassNetworkListen, Is("network.source_port", c.Number("port")), Is("network.backlog", 7), Is("network.protocol", "tcp"), Is("result", 0), Is("result_known", true))
			c.None(record.ClassNetworkBind)
		}},
		Row{ID: 100, Name: "packet socket", Do: func(*Env) error { return open(unix.AF_PACKET, unix.SOCK_RAW, 0x0300) }, Check: func(c *Checker) {
			c.One(record.ClassNetworkRaw, Is("network.protocol", "packet"), Is("network.type", "raw"), Is("network.number", unix.ETH_P_ALL))
		}},
		Row{ID: 102, Name: "bind to a port that is taken", Do: bindTaken, Check: func(c *Checker) {
			c.One(record.ClassNetworkBind, Is("network.source_port", c.Number("port")), Is("network.type", "stream"), Is("result", 0), Is("result_known", true))
			c.One(record.ClassNetworkBind, Is("network.source_port", c.Number("port")), Is("result", unix.EADDRINUSE), Is("result_known", true))
		}},
		Row{ID: 104, Name: "accept, and a child serves", Do: acceptAndFork, Check: func(c *Checker) {
			c.One(record.ClassNetworkAccept, Is("process.pid", c.Number("self")), Is("network.destination_port", c.Number("port")))
		}},
		Row{ID: 105, Name: "connect to a network without a route", Do: func(e *Env) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 7}, Port: 80})
			if err != unix.ENETUNREACH {
				err = fmt.Errorf("connect gave %v, want that there is no route", err)
			} else {
				err = nil
			}
			return errors.Join(err, unix.Close(fd))
		}, Tracepoint: Gap(record.ClassNetworkConnect, "attempts that end before the first packet are not seen"), Check: func(c *Checker) {
			c.One(record.ClassNetworkConnect, to(4, "\xc6\x33\x64\x07", 80), Is("result", unix.ENETUNREACH), Is("result_known", true))
		}},
		Row{ID: 106, Name: "netlink and unix sockets are no raw ones", Do: func(*Env) error {
			return errors.Join(open(unix.AF_NETLINK, unix.SOCK_RAW, 0), open(unix.AF_UNIX, unix.SOCK_RAW, 0), open(unix.AF_INET, unix.SOCK_DGRAM, 0))
		}, Check: func(c *Checker) { c.None(record.ClassNetworkRaw) }},
	)
}

// to is where something goes.
func to(family int, ip string, port int64) []Field {
	return []Field{Is("network.family", family), Is("network.destination_ip", ip), Is("network.destination_port", port)}
}

func address(family, port int) unix.Sockaddr {
	if family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Addr: loopback6, Port: port}
	}
	return &unix.SockaddrInet4{Addr: loopback4, Port: port}
}

func portOf(fd int) (int, error) {
	a, err := unix.Getsockname(fd)
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port, err
	case *unix.SockaddrInet6:
		return a.Port, err
	}
	return 0, fmt.Errorf("socket has address %v: %w", a, err)
}

func listen(family int, bind bool) (fd, port int, err error) {
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if bind {
		if err := unix.Bind(fd, address(family, 0)); err != nil {
			return fd, 0, err
		}
	}
	if err := unix.Listen(fd, 7); err != nil {
		return fd, 0, err
	}
	port, err = portOf(fd)
	return fd, port, err
}

// dial connects to a port of this machine and notes the port that it goes from.
func dial(e *Env, family, port int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, address(family, port)); err != nil {
		return fd, err
	}
	from, err := portOf(fd)
	e.Fact("from", from)
	return fd, err
}

func talk(e *Env, family int) error {
	l, port, err := listen(family, true)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	c, err := dial(e, family, port)
	if err != nil {
		return err
	}
	a, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	return errors.Join(err, unix.Close(a), unix.Close(c), unix.Close(l))
}

func checkTalk(c *Checker, family int, ip string) {
	port, from := c.Number("port"), c.Number("from")
	common := []Field{Is("network.family", family), Is("network.protocol", "tcp"), Is("network.type", "stream"), Is("network.number", unix.IPPROTO_TCP), NonZero("network.namespace")}
	done := []Field{Is("result", 0), Is("result_known", true)}
	here := []Field{Is("network.source_ip", ip), Is("network.source_port", port)}
	bind := c.One(record.ClassNetworkBind, common, done, here)
	listen := c.One(record.ClassNetworkListen, common, done, here, Is("network.backlog", 7))
	connect := c.One(record.ClassNetworkConnect, common, to(family, ip, port), Is("network.direction", "egress"), Is("network.source_ip", ip))
	if !c.Tracepoint() && int64(connect.Network.GetSourcePort()) != from {
		c.Errorf("connect from port %d, want %d", connect.Network.GetSourcePort(), from)
	}
	accept := c.One(record.ClassNetworkAccept, common, done, to(family, ip, port), Is("network.source_ip", ip), Is("network.source_port", from), Is("network.direction", "ingress"))
	c.Order(bind, listen, connect, accept)
}

func connectRefused(e *Env) error {
	// A port that was just let go of.
	l, port, err := listen(unix.AF_INET, true)
	if err := errors.Join(err, unix.Close(l)); err != nil {
		return err
	}
	e.Fact("port", port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, address(unix.AF_INET, port)); err != unix.EINPROGRESS && err != unix.ECONNREFUSED {
		return fmt.Errorf("connect gave %v", err)
	}
	return unix.Close(fd)
}

func fastOpen(e *Env) error {
	l, port, err := listen(unix.AF_INET, true)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, address(unix.AF_INET, port)); err != nil {
		return fmt.Errorf("send with fast open: %w", err)
	}
	a, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	return errors.Join(err, unix.Close(a), unix.Close(fd), unix.Close(l))
}

func open(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("make socket of family %d: %w", family, err)
	}
	return unix.Close(fd)
}

func bindTaken(e *Env) error {
	l, port, err := listen(unix.AF_INET, true)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, address(unix.AF_INET, port)); err != unix.EADDRINUSE {
		return fmt.Errorf("bind gave %v, want that the address is taken", err)
	}
	return errors.Join(unix.Close(fd), unix.Close(l))
}

func acceptAndFork(e *Env) error {
	l, port, err := listen(unix.AF_INET, true)
	if err != nil {
		return err
	}
	e.Fact("port", port)
	c, err := dial(e, unix.AF_INET, port)
	if err != nil {
		return err
	}
	a, _, err := unix.Accept(l) // a child inherits it
	if err != nil {
		return err
	}
	return errors.Join(e.Run("/proc/self/exe", "sub", "serve", fmt.Sprint(a)), unix.Close(a), unix.Close(c), unix.Close(l))
}

func init() {
	registerSub("serve", func(args []string) int {
		var fd int
		if _, err := fmt.Sscan(args[0], &fd); err != nil {
			return 2
		}
		if _, err := unix.Write(fd, []byte("served")); err != nil {
			return 1
		}
		return 0
	})
}
