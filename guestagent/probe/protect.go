package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/bpf"
)

// protect tells the programs which objects are this process's own, and then to
// refuse what is done to them and to it. From then on the door that was shut
// before the first object need not be.
func (p *Probe) protect() error {
	if err := p.k.own(p.sums.inner[:]...); err != nil {
		return err
	}
	if err := p.k.freeze(func(name string) bool { return slices.Contains(entered, name) }); err != nil {
		return err
	}
	if !p.cfg.Protect {
		return nil
	}
	if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), 1); err != nil {
		return err
	}
	if p.k.door == nil {
		return nil
	}
	d := p.k.door
	p.k.door = nil
	return d.Close()
}

// Protecting reports whether acts against this process are refused now.
func (p *Probe) Protecting() bool {
	return p.cfg.Protect && !p.released.Load() && p.k.links[progGuardKill.name] != nil
}

// Release gives the protection up for good: whoever may end this process can
// from here on. It may be called from any goroutine.
func (p *Probe) Release(reason string) error {
	p.released.Store(true)
	if err := p.k.order(unsafe.Offsetof(bpf.ProbeSwitches{}.Protect), 0); err != nil {
		return fmt.Errorf("release protection: %w", err)
	}
	p.cfg.Log.InfoContext(context.Background(), "protection released", "reason", reason)
	return nil
}

// order writes one of the numbers by which this process steers the programs.
// They see it at once; the others are left alone, since programs write them too.
func (k *kernel) order(offset uintptr, v uint32) error {
	m, err := k.maps["orders"].Memory()
	if err != nil {
		return fmt.Errorf("map orders: %w", err)
	}
	b := binary.NativeEndian.AppendUint32(nil, v)
	if _, err := m.WriteAt(b, int64(offset)); err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	return nil
}

// own enters all programs, maps and links; more are maps without a name.
func (k *kernel) own(more ...*ebpf.Map) error {
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
	for _, m := range append(slices.Collect(maps.Values(k.maps)), more...) {
		i, err := m.Info()
		if err != nil {
			return fmt.Errorf("examine map %s: %w", m, err)
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
