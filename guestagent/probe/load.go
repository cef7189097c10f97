package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// kernel is what this process holds in the kernel. Its links must stay
// reachable: one that is collected detaches its hook, silently.
type kernel struct {
	spec *ebpf.CollectionSpec
	// types are those of the running kernel. Without keeping them they would be
	// read again, several megabytes, for each program.
	types       *btf.Cache
	maps        map[string]*ebpf.Map
	programs    map[string]*ebpf.Program
	failed      map[string]error // programs that this kernel refused
	links       map[string]link.Link
	onFunctions bool              // some hang on function tracing
	jumps       map[string]bool   // programs in a table of jumps
	calls       map[uint32]string // which program has the end of a system call
	door        *door             // nil: anybody may ask for what is loaded
	tracing     *os.File          // the switch of function tracing; nil: not used, or none
	wasBlind    bool              // it was off
	cgroup      int               // directory of the root control group, -1: not open
	groups      int               // the same, open for looking up others
	tasks       *link.Iter        // the listing of processes; nil: not made yet
}

// newKernel makes the maps for a mode. In mode lsm nobody else can reach for
// them from their beginning on, where the configuration protects.
func newKernel(cfg Config, mode Mode) (*kernel, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift memory lock limit: %w", err)
	}
	spec, err := object()
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
	if mode == ModeTracepoint {
		spec.Maps["wr"].Type = ebpf.LRUHash // nothing deletes its entries, see src/syscall.h
	}
	if cfg.written > 0 {
		spec.Maps["wr"].MaxEntries = cfg.written
	}
	k := &kernel{spec: spec, types: btf.NewCache(), maps: map[string]*ebpf.Map{}, programs: map[string]*ebpf.Program{},
		failed: map[string]error{}, links: map[string]link.Link{}, jumps: map[string]bool{}, calls: map[uint32]string{}, cgroup: -1, groups: -1}
	if mode == ModeLSM {
		if err := k.prepare(cfg.Protect); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	create := func(name string) error {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, err)
		}
		k.maps[name] = m
		return nil
	}
	if err := create("conf"); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	if err := k.configure(bpf.ProbeConfig{Self: uint32(os.Getpid()), Classes: cfg.Options.bits(), Allocate: cfg.Allocate, Budget: cfg.Budget}); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	for name := range spec.Maps {
		if name == "conf" {
			continue
		}
		if err := create(name); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	if err := k.freeze(func(name string) bool { return !slices.Contains(writable, name) && !slices.Contains(entered, name) }); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

var (
	// writable are the maps that this process writes as long as it runs.
	writable = []string{"orders", "pace", "crit", "bulk", "sums"}
	// entered are those that it fills while it attaches.
	entered = []string{"exit_calls", "objects"}
)

// configure writes what must not change, and makes sure that it is what the
// programs will read: nothing keeps others from writing until the map is frozen.
func (k *kernel) configure(c bpf.ProbeConfig) error {
	m := k.maps["conf"]
	var is bpf.ProbeConfig
	if err := m.Put(uint32(0), &c); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := freeze(m); err != nil {
		return fmt.Errorf("freeze configuration: %w", err)
	}
	if err := m.Lookup(uint32(0), &is); err != nil {
		return fmt.Errorf("read configuration back: %w", err)
	}
	if is != c {
		return errors.New("another process has written the programs' configuration while they were loaded: look for it in the kernel.bpf events of before, and start the agent again")
	}
	return nil
}

// freeze makes maps such that only the programs can write them from now on,
// whoever gets hold of a descriptor.
func (k *kernel) freeze(which func(name string) bool) error {
	for name, m := range k.maps {
		if !which(name) || name == "conf" { // which is, already
			continue
		}
		if err := freeze(m); err != nil {
			return fmt.Errorf("freeze map %s: %w", name, err)
		}
	}
	return nil
}

// freeze tries again for a second while another process writes, which is over in
// a moment. One that has the map mapped for writing makes the agent give up.
func freeze(m *ebpf.Map) (err error) {
	for range 200 {
		if err = m.Freeze(); !errors.Is(err, unix.EBUSY) {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
	return err
}

// object is the one for this kernel.
func object() (*ebpf.CollectionSpec, error) { return bpf.Programs(oldKernel()) }

// oldKernel says whether the kernel is one before 5.12, whose programs have no
// atomic operation that gives a value back.
func oldKernel() bool {
	// Loading a small program is the only sure way to find out. The library
	// encodes what such an instruction does only if it stands in the constant too.
	fetch := asm.FetchAdd.Mem(asm.RFP, asm.R0, asm.DWord, -8)
	fetch.Constant = int64(asm.FetchAdd >> 8)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 1),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			fetch,
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return true
	}
	p.Close()
	return false
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
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: k.maps, Cache: k.types})
	if err != nil {
		err = fmt.Errorf("load program %s: %w", name, err)
		k.failed[name] = err
		return err
	}
	k.programs[name] = c.DetachProgram(name)
	c.Close()
	return nil
}

func (k *kernel) attached(p program) bool { return k.links[p.name] != nil || k.jumps[p.name] }

// detach undoes attach, but for the dispatcher of system calls: without a
// program to enter it does nothing.
func (k *kernel) detach(p program) error {
	var errs []error
	if l := k.links[p.name]; l != nil {
		errs = append(errs, l.Close())
		delete(k.links, p.name)
	}
	if k.jumps[p.name] {
		for _, nr := range p.calls {
			if k.calls[nr] == p.name {
				errs = append(errs, k.maps["exit_calls"].Delete(nr))
				delete(k.calls, nr)
			}
		}
		delete(k.jumps, p.name)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach program %s: %w", p.name, err)
	}
	return nil
}

// attach makes a program run, once.
func (k *kernel) attach(p program) error {
	if err := k.load(p.name); err != nil {
		return err
	}
	if k.attached(p) {
		return nil
	}
	var err error
	if len(p.calls) > 0 {
		err = k.jump(p)
	} else {
		err = k.link(p.name)
	}
	if err != nil {
		err = fmt.Errorf("attach program %s: %w", p.name, err)
		k.failed[p.name] = err
	}
	return err
}

func (k *kernel) link(name string) error {
	p := k.programs[name]
	var l link.Link
	var err error
	switch {
	case p.Type() == ebpf.LSM:
		l, err = link.AttachLSM(link.LSMOptions{Program: p})
	case onCgroup(p.Type()):
		l, err = k.linkCgroup(name)
	default:
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	}
	if err == nil {
		k.links[name] = l
		k.onFunctions = k.onFunctions || onFunction(k.spec.Programs[name])
	}
	return err
}

// jump enters a program into the table that the program at the end of every
// system call looks into.
func (k *kernel) jump(p program) error {
	for _, nr := range p.calls {
		if other, ok := k.calls[nr]; ok {
			return fmt.Errorf("enter for system call %d: %s has it", nr, other)
		}
		k.calls[nr] = p.name
		if err := k.maps["exit_calls"].Put(nr, k.programs[p.name]); err != nil {
			return fmt.Errorf("enter for system call %d: %w", nr, err)
		}
	}
	k.jumps[p.name] = true
	return k.attach(progExits)
}

// Close detaches everything.
func (k *kernel) Close() error {
	var errs []error
	if k.onFunctions {
		// What cannot be turned on is detached all the same: it would be at
		// the end of the process.
		_, err := traceable(k.tracing)
		errs = append(errs, err)
	}
	if k.tracing != nil {
		errs = append(errs, k.tracing.Close())
	}
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	if k.door != nil {
		errs = append(errs, k.door.Close())
	}
	for _, p := range k.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range k.maps {
		errs = append(errs, m.Close())
	}
	if k.tasks != nil {
		errs = append(errs, k.tasks.Close())
	}
	for _, fd := range []int{k.cgroup, k.groups} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// cover attaches what a class needs and says how it is covered.
func (k *kernel) cover(c cover) (*record.Hook, error) {
	h := &record.Hook{Class: uint32(c.class)}
	var used []program
	var refused []string
	var fresh []program // attached for this class: what it is not covered by must not tell of it
	attach := func(p program) error {
		before := k.attached(p)
		err := k.attach(p)
		if err == nil && !before {
			fresh = append(fresh, p)
		}
		return err
	}
	fail := func(err error) (*record.Hook, error) {
		h.Error = brief(err)
		for _, p := range fresh {
			err = errors.Join(err, k.detach(p))
		}
		return h, err
	}
	for _, p := range c.needs {
		if err := attach(p); err != nil {
			return fail(err)
		}
		used = append(used, p)
	}
	for _, group := range c.anyOf {
		var err error
		for _, p := range group {
			if err = attach(p); err == nil {
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
		if err := attach(p); err != nil {
			refused = append(refused, p.hook+": "+brief(err))
			continue
		}
		used = append(used, p)
	}
	h.Name = joined(used)
	h.Error = strings.Join(slices.Concat(limits(c, used), refused), "; ")
	return h, nil
}

// limits are what a class covered by these programs does not tell.
func limits(c cover, used []program) []string {
	var all []string
	if c.limit != "" {
		all = append(all, c.limit)
	}
	for _, p := range used {
		if p.lacks != "" && !slices.Contains(all, p.lacks) {
			all = append(all, p.lacks)
		}
	}
	return all
}

// brief cuts an error to what fits into a hooks record; verifier logs do not.
func brief(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	if len(s) > 200 {
		s = s[:200]
	}
	return string(bytes.ToValidUTF8([]byte(s), []byte("?")))
}
