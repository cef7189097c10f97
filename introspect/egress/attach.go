package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
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

// tcxLink is a pinned link.
type tcxLink struct{ link.Link }

// Detach takes the program away and the pin with it.
func (l tcxLink) Detach() error {
	return errors.Join(l.Unpin(), l.Link.Close())
}
