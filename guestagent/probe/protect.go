package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/bpf"
)

// protect tells the programs which objects are this process's own, and then to
// refuse what is done to them and to it.
func (p *Probe) protect() error {
	if err := p.k.own(); err != nil {
		return err
	}
	if !p.cfg.Protect {
		return nil
	}
	return p.k.configure(unsafe.Offsetof(bpf.ProbeConfig{}.Protect), 1)
}

// Protecting reports whether acts against this process are refused now.
func (p *Probe) Protecting() bool {
	return p.cfg.Protect && !p.released.Load() && p.k.links[progGuardKill.name] != nil
}

// Release gives the protection up for good: whoever may end this process can
// from here on. It may be called from any goroutine.
func (p *Probe) Release(reason string) error {
	p.released.Store(true)
	if err := p.k.configure(unsafe.Offsetof(bpf.ProbeConfig{}.Protect), 0); err != nil {
		return fmt.Errorf("release protection: %w", err)
	}
	p.cfg.Log.InfoContext(context.Background(), "protection released", "reason", reason)
	return nil
}

// configure writes one number of the programs' configuration, which they see
// at once, and leaves the others alone: some are the programs' to write.
func (k *kernel) configure(offset uintptr, v uint32) error {
	m, err := k.maps["conf"].Memory()
	if err != nil {
		return fmt.Errorf("map configuration: %w", err)
	}
	b := binary.NativeEndian.AppendUint32(nil, v)
	if _, err := m.WriteAt(b, int64(offset)); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// own enters all programs, maps and links.
func (k *kernel) own() error {
	one := uint8(1)
	enter := func(kind bpf.ProbeOwned, id uint32) error {
		if err := k.maps["objects"].Put(bpf.ProbeOwnedKey{Kind: uint32(kind), Id: id}, one); err != nil {
			return fmt.Errorf("enter own object %d: %w", id, err)
		}
		return nil
	}
	for name, p := range k.programs {
		i, err := p.Info()
		if err != nil {
			return fmt.Errorf("examine program %s: %w", name, err)
		}
		if id, ok := i.ID(); ok {
			if err := enter(bpf.ProbeOwnedOWNED_PROGRAM, uint32(id)); err != nil {
				return err
			}
		}
	}
	for name, m := range k.maps {
		i, err := m.Info()
		if err != nil {
			return fmt.Errorf("examine map %s: %w", name, err)
		}
		if id, ok := i.ID(); ok {
			if err := enter(bpf.ProbeOwnedOWNED_MAP, uint32(id)); err != nil {
				return err
			}
		}
	}
	for name, l := range k.links {
		id, err := linkID(l)
		if err != nil {
			return fmt.Errorf("examine link of %s: %w", name, err)
		}
		if err := enter(bpf.ProbeOwnedOWNED_LINK, id); err != nil {
			return err
		}
	}
	return nil
}

func linkID(l link.Link) (uint32, error) {
	i, err := l.Info()
	if err != nil {
		return 0, err
	}
	return uint32(i.ID), nil
}
