package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/chain/record"
)

// attach puts a program on a device, before any other that decides, or has the one
// that stands there from an earlier process run it from now on. Which way it stands
// is told by what is pinned: a link, or none with clsact.
func attach(dev Device, p *ebpf.Program, name, dir string, ingress, legacy bool) (attachment, error) {
	path := filepath.Join(dir, name)
	l, err := link.LoadPinnedLink(path, nil)
	switch {
	case err == nil:
		if info, ierr := l.Info(); ierr == nil && info.TCX() != nil && int(info.TCX().Ifindex) == dev.Index {
			if err := l.Update(p); err != nil {
				return nil, errors.Join(fmt.Errorf("replace program on %s: %w", dev.Name, err), l.Close())
			}
			return tcxLink{l}, nil
		}
		// The device that it belonged to is gone; the number was given anew.
		_ = l.Close()
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the pin of a device that is gone: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("adopt guard of %s: %w", dev.Name, err)
	}
	if !legacy {
		where := ebpf.AttachTCXEgress
		if ingress {
			where = ebpf.AttachTCXIngress
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: p, Attach: where, Anchor: link.Head()})
		if err == nil {
			// A crash between the two takes the program away again with this process:
			// the next start finds nothing pinned, and attaches.
			if err := l.Pin(path); err != nil {
				return nil, errors.Join(fmt.Errorf("pin guard of %s: %w", dev.Name, err), l.Close())
			}
			return tcxLink{l}, nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("attach to %s: %w", dev.Name, err)
		}
	}
	f := &filter{dev: dev, ingress: ingress}
	if err := f.Update(p); err != nil {
		return nil, err
	}
	return f, nil
}

// isTap refuses devices of other kinds, which an interface of type ethernet may name:
// what a guest sends goes the other way through a macvtap, where nothing of it would
// be judged.
func isTap(name string) error {
	const siocEthtool, getDriver = 0x8946, 3 // linux/sockios.h, linux/ethtool.h
	var info struct {
		command                       uint32
		driver, version, firmware, at [32]byte
		_                             [64]byte
	}
	var req struct {
		name [16]byte
		data unsafe.Pointer
		_    [16]byte
	}
	info.command, req.data = getDriver, unsafe.Pointer(&info)
	copy(req.name[:15], name)
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer syscall.Close(s)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), siocEthtool, uintptr(unsafe.Pointer(&req))); e != 0 && e != syscall.EOPNOTSUPP {
		return fmt.Errorf("ask for its driver: %w", e)
	}
	if kind := text(info.driver[:]) + " " + text(info.at[:]); kind != "tun tap" {
		return fmt.Errorf("it is no tap device but of driver %q, and what the domain sends cannot be judged there; use a network, a bridge or a tap: %w", kind, record.ErrReject)
	}
	return nil
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// tcxLink is a pinned link.
type tcxLink struct{ link.Link }

// Detach takes the program away and the pin with it.
func (l tcxLink) Detach() error {
	return errors.Join(l.Unpin(), l.Link.Close())
}
