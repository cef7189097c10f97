package matrix

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

func init() {
	register(Row{ID: 109, Name: "connect and accept over vsock", Needs: []string{"vsock_loopback"},
		GuestOnly: "this kernel may have no loopback of vsock, and vsock knows no namespaces", Do: talkVsock, Check: checkVsock})
}

const vsockPort = 7053

func talkVsock(e *Env) error {
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: vsockPort}), unix.Listen(l, 3))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: vsockPort}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	from, err := unix.Getsockname(c)
	if err != nil {
		return err
	}
	e.Fact("from", from.(*unix.SockaddrVM).Port)
	a, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	return errors.Join(err, unix.Close(a), unix.Close(c), unix.Close(l))
}

func checkVsock(c *Checker) {
	vsock := []Field{Is("network.family", 0), Is("network.protocol", "vsock"), Is("network.type", "stream"), NonZero("network.namespace")}
	here := []Field{Is("network.source_port", vsockPort), Is("network.source_cid", uint32(unix.VMADDR_CID_ANY)), Is("network.destination_port", 0)}
	bind := c.One(record.ClassNetworkBind, vsock, here)
	listen := c.One(record.ClassNetworkListen, vsock, here, Is("network.backlog", 3))
	connect := c.One(record.ClassNetworkConnect, vsock, Is("network.direction", "egress"), Is("network.destination_cid", unix.VMADDR_CID_LOCAL), Is("network.destination_port", vsockPort))
	accept := c.One(record.ClassNetworkAccept, vsock, Is("network.direction", "ingress"), Is("network.source_cid", unix.VMADDR_CID_LOCAL),
		Is("network.source_port", c.Number("from")), Is("network.destination_port", vsockPort), Is("network.destination_cid", unix.VMADDR_CID_LOCAL), Is("result_known", true))
	// What LSM tells of other families than IP are attempts; the end of a call knows its result.
	for _, e := range []*record.Event{bind, listen, connect} {
		if e.ResultKnown != c.Tracepoint() || e.Result != 0 {
			c.Errorf("result %d (known: %v) in mode %s", e.Result, e.ResultKnown, c.Books.hooks.Mode)
		}
	}
	if c.Tracepoint() && connect.Network.GetSourcePort() != uint32(c.Number("from")) {
		c.Errorf("connect from port %d, want %d", connect.Network.GetSourcePort(), c.Number("from"))
	}
	c.Order(bind, listen, connect, accept)
}
