package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// kernel is what this process holds in the kernel. Its links must stay
// reachable: one that is collected detaches its hook, silently.
type kernel struct {
	spec     *ebpf.CollectionSpec
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
	failed   map[string]error // programs that this kernel refused
	links    map[string]link.Link
}

// newKernel makes the maps. lru says that nothing deletes the entries of
// written files (see src/syscall.h).
func newKernel(lru bool) (*kernel, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift memory lock limit: %w", err)
	}
	spec, err := bpf.LoadProbe()
	if err != nil {
		return nil, fmt.Errorf("read probe object: %w", err)
	}
	// Variables of the object only carry type information.
	for name := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			delete(spec.Maps, name)
		}
	}
	spec.Variables = nil
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	spec.Maps["stats"].MaxEntries = uint32(cpus)
	if lru {
		spec.Maps["wr"].Type = ebpf.LRUHash
	}
	k := &kernel{spec: spec, maps: map[string]*ebpf.Map{}, programs: map[string]*ebpf.Program{},
		failed: map[string]error{}, links: map[string]link.Link{}}
	for name, m := range spec.Maps {
		if k.maps[name], err = ebpf.NewMap(m); err != nil {
			k.Close()
			return nil, fmt.Errorf("make map %s: %w", name, err)
		}
	}
	conf := bpf.ProbeConfig{Self: uint32(os.Getpid())}
	if err := k.maps["conf"].Put(uint32(0), &conf); err != nil {
		k.Close()
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return k, nil
}

// load brings one program into the kernel, once. What is refused stays
// refused.
func (k *kernel) load(name string) error {
	if _, ok := k.programs[name]; ok {
		return nil
	}
	if err, ok := k.failed[name]; ok {
		return err
	}
	one := &ebpf.CollectionSpec{
		Maps: k.spec.Maps, Types: k.spec.Types, ByteOrder: k.spec.ByteOrder,
		Programs: map[string]*ebpf.ProgramSpec{name: k.spec.Programs[name]},
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: k.maps})
	if err != nil {
		err = fmt.Errorf("load program %s: %w", name, err)
		k.failed[name] = err
		return err
	}
	k.programs[name] = c.DetachProgram(name)
	c.Close()
	return nil
}

func (k *kernel) attach(name string) error {
	if err := k.load(name); err != nil {
		return err
	}
	if k.links[name] != nil {
		return nil
	}
	p := k.programs[name]
	var l link.Link
	var err error
	if p.Type() == ebpf.LSM {
		l, err = link.AttachLSM(link.LSMOptions{Program: p})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	}
	if err != nil {
		err = fmt.Errorf("attach program %s: %w", name, err)
		k.failed[name] = err
		return err
	}
	k.links[name] = l
	return nil
}

// Close detaches everything.
func (k *kernel) Close() error {
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	for _, p := range k.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range k.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// cover attaches what a class needs and says how it is covered.
func (k *kernel) cover(c cover) (*record.Hook, error) {
	h := &record.Hook{Class: uint32(c.class)}
	var used []program
	var refused []string
	fail := func(err error) (*record.Hook, error) {
		h.Error = brief(err)
		return h, err
	}
	for _, p := range c.needs {
		if err := k.attach(p.name); err != nil {
			return fail(err)
		}
		used = append(used, p)
	}
	for _, group := range c.anyOf {
		var err error
		for _, p := range group {
			if err = k.attach(p.name); err == nil {
				used = append(used, p)
				break
			}
			refused = append(refused, p.hook+": "+brief(err))
		}
		if err != nil {
			return fail(err)
		}
	}
	for _, p := range c.extra {
		if err := k.attach(p.name); err != nil {
			refused = append(refused, p.hook+": "+brief(err))
			continue
		}
		used = append(used, p)
	}
	h.Name = joined(used)
	if c.limit != "" {
		refused = append([]string{c.limit}, refused...)
	}
	h.Error = strings.Join(refused, "; ")
	return h, nil
}

// brief cuts an error to what fits into a hooks record; verifier logs do not.
func brief(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	if len(s) > 200 {
		s = s[:200]
	}
	return string(bytes.ToValidUTF8([]byte(s), []byte("?")))
}
