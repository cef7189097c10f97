package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"

	bpfegress "github.com/provostd/provost/bpf/egress"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// DefaultDir is where guards are kept beyond the daemon.
const DefaultDir = "/sys/fs/bpf/provost/egress"

// Config is what a Guard needs.
type Config struct {
	// Dir is a directory on a BPF file system; DefaultDir. It belongs to one guard
	// and one network namespace.
	Dir string
	// Resolvers are the name servers whose answers are believed.
	Resolvers []netip.Addr
	// Sink is told what the taps tell, by one goroutine for each tap; it must not
	// block for long: the kernel's buffer holds some hundred events, and counts
	// those beyond.
	Sink func(Device, *Event)
	Log  *slog.Logger

	legacy bool // attach as on kernels before 6.6
}

// Guard guards the taps of a host. Its methods may be called from several
// goroutines.
type Guard struct {
	cfg    Config
	spec   *ebpf.CollectionSpec
	digest string

	mu       sync.Mutex // guards the rest
	taps     map[int]*tap
	cuts     map[domain.UUID]cutState // what was said last; of others, what an earlier guard left
	revision uint64
	readers  sync.WaitGroup
}

// bpfFileSystem is the magic number of the file system that keeps BPF objects.
const bpfFileSystem = 0xcafe4a11

// New makes a guard. It attaches to nothing; what an earlier guard attached goes on
// as it was.
func New(cfg Config) (*Guard, error) {
	cfg.Dir = cmp.Or(cfg.Dir, DefaultDir)
	if cfg.Sink == nil {
		cfg.Sink = func(Device, *Event) {}
	}
	if len(cfg.Resolvers) > MaxResolvers {
		return nil, fmt.Errorf("open packet filter: %d resolvers are named, the limit is %d: %w", len(cfg.Resolvers), MaxResolvers, record.ErrReject)
	}
	spec, err := loadSpec()
	if err != nil {
		return nil, err
	}
	if err := checkDir(cfg.Dir); err != nil {
		return nil, err
	}
	return &Guard{cfg: cfg, spec: spec, digest: objectDigest(bpfegress.Object()), taps: map[int]*tap{}, cuts: map[domain.UUID]cutState{}}, nil
}

// MaxResolvers bounds the name servers of a host.
const MaxResolvers = 64

func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("open packet filter: %w; mount -t bpf bpf /sys/fs/bpf gives it a place", err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("open packet filter: look at %s: %w", dir, err)
	}
	if uint32(st.Type) != bpfFileSystem {
		return fmt.Errorf("open packet filter: %s is not on a BPF file system, so guards would end with the daemon; mount -t bpf bpf /sys/fs/bpf, or name another directory: %w", dir, record.ErrReject)
	}
	return nil
}

// Probe reports whether this host can guard taps: it loads the programs and takes
// them away again.
func Probe() error {
	spec, err := loadSpec()
	if err != nil {
		return err
	}
	o, err := create(spec, nil)
	if err != nil {
		return fmt.Errorf("guard tap devices: this kernel lacks what it takes, 5.10 with BTF has it: %w: %w", err, record.ErrReject)
	}
	o.close()
	return nil
}

// Attach guards a device by a table from now on, or gives a guarded one another
// table. A device of a domain that is cut off is cut off before it is attached to.
func (g *Guard) Attach(ctx context.Context, dev Device, table *Table) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ifc, err := net.InterfaceByName(dev.Name)
	if err != nil {
		return fmt.Errorf("guard %s: %w", dev.Name, err)
	}
	dev.Index = ifc.Index
	if err := isTap(dev.Name); err != nil {
		return fmt.Errorf("guard %s: %w", dev.Name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revision++
	if t := g.taps[dev.Index]; t != nil {
		// A tap that outlives its domain may be another one's now.
		if was, known := t.dev.Domain, g.cuts[dev.Domain]; was != dev.Domain {
			if err := t.setCut(known); err != nil {
				return fmt.Errorf("guard %s: %w", dev.Name, err)
			}
		}
		t.dev = dev
		if err := t.apply(table, g.revision); err != nil {
			return fmt.Errorf("guard %s: %w", dev.Name, err)
		}
		return nil
	}
	t, err := g.open(dev, table)
	if err != nil {
		return fmt.Errorf("guard %s: %w", dev.Name, err)
	}
	g.taps[dev.Index] = t
	if err := g.read(t); err != nil {
		return fmt.Errorf("guard %s: %w", dev.Name, err)
	}
	g.cfg.Log.InfoContext(ctx, "tap is guarded", "device", dev.Name, "uuid", dev.Domain.String(), "policies", len(table.policies))
	return nil
}

// open adopts or makes the guard of a device. Nothing is attached before it holds
// its table and whether its domain is cut off.
func (g *Guard) open(dev Device, table *Table) (_ *tap, err error) {
	t := &tap{dev: dev, dir: filepath.Join(g.cfg.Dir, strconv.Itoa(dev.Index)),
		inner: g.spec.Maps[bpfegress.EgressMapPrefixes].InnerMap, innerP: g.spec.Maps[bpfegress.EgressMapPorts].InnerMap}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of pins: %w", err)
	}
	own := filepath.Join(t.dir, g.digest)
	was, err := g.inForce(t.dir, dev)
	if err != nil {
		return nil, err
	}
	t.objects, err = adopt(g.spec, own)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		t.objects, err = create(g.spec, g.shared(dev.Domain))
	}
	if err != nil {
		return nil, err
	}
	if said, ok := g.cuts[dev.Domain]; ok {
		was = &said // also that it is not cut off any more
	}
	if was != nil {
		if err := t.setCut(*was); err != nil {
			return nil, err
		}
	}
	if err := t.resolve(g.cfg.Resolvers); err != nil {
		return nil, err
	}
	if err := t.apply(table, g.revision); err != nil {
		return nil, err
	}
	if fresh {
		if err := t.objects.pin(own); err != nil {
			return nil, err
		}
	}
	// A crash between the two directions leaves the first one guarded: the next
	// start finds its link and makes the other.
	for _, at := range []struct {
		to      *attachment
		name    string
		ingress bool
	}{{&t.in, bpfegress.EgressProgFromGuest, true}, {&t.out, bpfegress.EgressProgToGuest, false}} {
		if *at.to, err = attach(dev, t.objects.programs[at.name], at.name, t.dir, at.ingress, g.cfg.legacy); err != nil {
			return nil, err
		}
	}
	return t, g.forgetOthers(t.dir)
}

// shared are the maps that the taps of a domain have in common.
func (g *Guard) shared(id domain.UUID) map[string]*ebpf.Map {
	for _, t := range g.taps {
		if t.dev.Domain == id {
			return map[string]*ebpf.Map{bpfegress.EgressMapSources: t.objects.maps[bpfegress.EgressMapSources]}
		}
	}
	return nil
}

type cutState struct {
	on    bool
	allow []netip.Prefix
}

// inForce reads from what an earlier guard left of a device whether its domain is
// cut off; nil where nothing was left. What an older object left counts as well.
func (g *Guard) inForce(dir string, dev Device) (*cutState, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read what was in force: %w", err)
	}
	var found *cutState
	for _, e := range all {
		if !e.IsDir() {
			continue
		}
		var o objects
		o.maps = map[string]*ebpf.Map{}
		for _, name := range []string{bpfegress.EgressMapCut, bpfegress.EgressMapCutList} {
			m, err := ebpf.LoadPinnedMap(filepath.Join(dir, e.Name(), name), nil)
			if err != nil {
				break
			}
			o.maps[name] = m
		}
		if len(o.maps) == 2 {
			on, allow, err := o.isCut()
			if err != nil {
				o.close()
				return nil, fmt.Errorf("adopt guard of %s: %w", dev.Name, err)
			}
			if found == nil || on {
				found = &cutState{on, allow}
			}
		}
		o.close()
	}
	return found, nil
}

// forgetOthers removes the pins of other objects, which no program uses any more.
func (g *Guard) forgetOthers(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, e := range all {
		if e.IsDir() && e.Name() != g.digest {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove pins of another version: %w", err)
			}
		}
	}
	return nil
}

// Cut cuts taps of a domain off at once: nothing passes in either direction, except
// with allow, whatever the policies say. Taps that the domain gets later are cut off
// before they are attached to. It may be called again, with another list too. On an
// error, some of the taps may be cut off.
func (g *Guard) Cut(ctx context.Context, id domain.UUID, taps []string, allow []netip.Prefix) error {
	if len(allow) > MaxCutList {
		return fmt.Errorf("cut domain %s off: %d prefixes are excepted, the limit is %d: %w", id, len(allow), MaxCutList, record.ErrReject)
	}
	masked := make([]netip.Prefix, len(allow))
	for i, p := range allow {
		if !p.IsValid() {
			return fmt.Errorf("cut domain %s off: exception %d is no prefix: %w", id, i, record.ErrReject)
		}
		masked[i] = p.Masked()
	}
	g.mu.Lock()
	g.cuts[id] = cutState{true, masked}
	g.mu.Unlock()
	var problems []error
	for _, name := range taps {
		if err := g.cutTap(ctx, id, name, masked); err != nil {
			problems = append(problems, fmt.Errorf("cut %s off: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

// MaxCutList bounds the exceptions of a cut. The kernel's table has this size.
const MaxCutList = 1024

func (g *Guard) cutTap(ctx context.Context, id domain.UUID, name string, allow []netip.Prefix) error {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	g.mu.Lock()
	t := g.taps[ifc.Index]
	if t != nil {
		defer g.mu.Unlock()
		return t.cut(allow)
	}
	g.mu.Unlock()
	nothing, err := Compile(nil)
	if err != nil {
		return err
	}
	return g.Attach(ctx, Device{Domain: id, Name: name}, nothing)
}

// Uncut ends a cut; the policies decide again.
func (g *Guard) Uncut(ctx context.Context, id domain.UUID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cuts[id] = cutState{} // its taps may not be adopted yet
	var problems []error
	for _, t := range g.taps {
		if t.dev.Domain == id {
			if err := t.uncut(); err != nil {
				problems = append(problems, fmt.Errorf("end the cut of %s: %w", t.dev.Name, err))
			}
		}
	}
	return errors.Join(problems...)
}

// IsCut reports whether the taps of a domain are cut off, as the kernel has it; all
// of those guarded have to be.
func (g *Guard) IsCut(id domain.UUID) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	any := false
	for _, t := range g.taps {
		if t.dev.Domain != id {
			continue
		}
		on, _, err := t.objects.isCut()
		if err != nil || !on {
			return false, err
		}
		any = true
	}
	return any, nil
}

// toCut reports whether a domain was said to be cut off.
func (g *Guard) toCut(id domain.UUID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cuts[id].on
}

// restore looks whether filters of clsact, which whoever changes the queues of a
// device takes away with them, still stand; it makes them again, and returns the
// devices that had none.
func (g *Guard) restore() []Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	var lapsed []Device
	for _, t := range g.taps {
		missed := false
		for name, a := range map[string]attachment{bpfegress.EgressProgFromGuest: t.in, bpfegress.EgressProgToGuest: t.out} {
			f, ok := a.(*filter)
			if !ok || f.stands() == nil {
				continue
			}
			// A device that is gone has none either: the next pass forgets it.
			if err := f.Update(t.objects.programs[name]); err != nil {
				g.cfg.Log.Error("a filter was taken away, and cannot be put back", "device", t.dev.Name, "error", err)
			}
			missed = true
		}
		if missed {
			lapsed = append(lapsed, t.dev)
		}
	}
	return lapsed
}

// Devices lists what is guarded.
func (g *Guard) Devices() []Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Device
	for _, t := range g.taps {
		all = append(all, t.dev)
	}
	slices.SortFunc(all, func(a, b Device) int { return cmp.Compare(a.Index, b.Index) })
	return all
}

// Forget gives up the guards of devices that are not there any more, with their
// pins, and returns these devices.
func (g *Guard) Forget() ([]Device, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	there, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	exists := map[int]bool{}
	for _, i := range there {
		exists[i.Index] = true
	}
	var gone []Device
	for i, t := range g.taps {
		if !exists[i] {
			gone = append(gone, t.dev)
			t.close()
			delete(g.taps, i)
		}
	}
	indexes, err := pinned(g.cfg.Dir)
	if err != nil {
		return gone, err
	}
	for _, i := range indexes {
		if !exists[i] {
			if err := os.RemoveAll(filepath.Join(g.cfg.Dir, strconv.Itoa(i))); err != nil {
				return gone, fmt.Errorf("remove pins of a device that is gone: %w", err)
			}
		}
	}
	return gone, nil
}

// Detach ends the guard of a device: it is open from now on.
func (g *Guard) Detach(name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, t := range g.taps {
		if t.dev.Name != name {
			continue
		}
		err := errors.Join(t.in.Detach(), t.out.Detach())
		t.in, t.out = nil, nil
		t.close()
		delete(g.taps, i)
		return errors.Join(err, os.RemoveAll(t.dir))
	}
	return fmt.Errorf("detach from %s: it is not guarded: %w", name, record.ErrReject)
}

// Close gives up what this process holds and waits for its readers. Guards stay in
// force.
func (g *Guard) Close() error {
	g.mu.Lock()
	for i, t := range g.taps {
		t.close()
		delete(g.taps, i)
	}
	g.mu.Unlock()
	g.readers.Wait()
	return nil
}
