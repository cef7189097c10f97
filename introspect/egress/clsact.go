package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/provostd/provost/chain/record"
)

// filter is a program in a clsact queue of a device, for kernels before 6.6. It
// stays until the device goes or somebody takes it away.
type filter struct {
	dev     Device
	ingress bool
}

// Numbers of the kernel's traffic control (linux/pkt_sched.h, pkt_cls.h). Part of
// its interface.
const (
	handleClsact  = 0xffff0000
	parentClsact  = 0xfffffff1
	minorIngress  = 0xfff2
	minorEgress   = 0xfff3
	filterPrio    = 1 // before all others
	filterHandle  = 0x70767374
	protocolAll   = 0x0003
	attrKind      = 1
	attrOptions   = 2
	attrBPFFd     = 6
	attrBPFName   = 7
	attrBPFFlags  = 8
	flagDirect    = 1
	nestedAttr    = 1 << 15
	sizeOfTcmsg   = 20
	netlinkBuffer = 64 << 10
)

// Update makes the queue if there is none, and the filter, or has the one there run
// another program: the kernel exchanges them in one step.
func (f *filter) Update(p *ebpf.Program) error {
	q := f.message(handleClsact, parentClsact, 0)
	q = attribute(q, attrKind, []byte("clsact\x00"))
	err := request(syscall.RTM_NEWQDISC, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, q)
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("make clsact queue on %s: %w", f.dev.Name, err)
	}
	// A queue of kind ingress stands in the same place and has one side only: there
	// the second program would replace the first.
	if err := request(syscall.RTM_GETQDISC, 0, q); err != nil {
		return fmt.Errorf("attach filter to %s: its queue for incoming frames is not of kind clsact (%w): libvirt makes one of kind ingress for <bandwidth><outbound>, which on kernels before 6.6 takes the place of the filter; limit the bandwidth elsewhere: %w", f.dev.Name, err, record.ErrReject)
	}
	m := f.message(filterHandle, f.parent(), f.info())
	m = attribute(m, attrKind, []byte("bpf\x00"))
	var o []byte
	o = attribute(o, attrBPFFd, binary.NativeEndian.AppendUint32(nil, uint32(p.FD())))
	o = attribute(o, attrBPFName, []byte("provost\x00"))
	o = attribute(o, attrBPFFlags, binary.NativeEndian.AppendUint32(nil, flagDirect))
	m = attribute(m, attrOptions|nestedAttr, o)
	if err := request(syscall.RTM_NEWTFILTER, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE, m); err != nil {
		return fmt.Errorf("attach filter to %s: %w", f.dev.Name, err)
	}
	return nil
}

// stands asks the kernel for the filter.
func (f *filter) stands() error {
	return request(syscall.RTM_GETTFILTER, 0, attribute(f.message(filterHandle, f.parent(), f.info()), attrKind, []byte("bpf\x00")))
}

// Close leaves the filter where it is.
func (f *filter) Close() error { return nil }

// Detach takes the filter away; the queue may be in others' use.
func (f *filter) Detach() error {
	m := attribute(f.message(filterHandle, f.parent(), f.info()), attrKind, []byte("bpf\x00"))
	err := request(syscall.RTM_DELTFILTER, 0, m)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("detach filter from %s: %w", f.dev.Name, err)
	}
	return nil
}

func (f *filter) parent() uint32 {
	if f.ingress {
		return handleClsact | minorIngress
	}
	return handleClsact | minorEgress
}

// info is priority and protocol of a filter, the latter in network order.
func (f *filter) info() uint32 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], protocolAll)
	return filterPrio<<16 | uint32(binary.NativeEndian.Uint16(b[:]))
}

func (f *filter) message(handle, parent, info uint32) []byte {
	b := make([]byte, sizeOfTcmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(f.dev.Index))
	binary.NativeEndian.PutUint32(b[8:], handle)
	binary.NativeEndian.PutUint32(b[12:], parent)
	binary.NativeEndian.PutUint32(b[16:], info)
	return b
}

func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// request sends one message to the kernel's routing socket and returns its answer.
func request(kind, flags uint16, body []byte) error {
	s, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer syscall.Close(s)
	if err := syscall.SetsockoptTimeval(s, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5}); err != nil {
		return fmt.Errorf("bound netlink socket: %w", err)
	}
	m := make([]byte, 0, syscall.NLMSG_HDRLEN+len(body))
	m = binary.NativeEndian.AppendUint32(m, uint32(syscall.NLMSG_HDRLEN+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	m = binary.NativeEndian.AppendUint32(m, 1)
	m = binary.NativeEndian.AppendUint32(m, 0)
	m = append(m, body...)
	if err := syscall.Sendto(s, m, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask the kernel: %w", err)
	}
	buf := make([]byte, netlinkBuffer)
	for {
		n, _, err := syscall.Recvfrom(s, buf, 0)
		if err != nil {
			return fmt.Errorf("hear from the kernel: %w", err)
		}
		all, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, a := range all {
			if a.Header.Type == syscall.NLMSG_ERROR && len(a.Data) >= 4 {
				if e := int32(binary.NativeEndian.Uint32(a.Data)); e != 0 {
					return syscall.Errno(-e)
				}
				return nil
			}
		}
	}
}
