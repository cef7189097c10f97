package egress

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	bpfegress "github.com/provostd/provost/bpf/egress"
	"github.com/provostd/provost/introspect/domain"
)

// Device is one tap of a domain.
type Device struct {
	Domain domain.UUID
	Name   string // of the device on the host: vnet0
	Index  int    // the kernel's number of it; a tap that is made again has another one
	// MAC is the address that libvirt gave the interface. CheckMAC denies frames
	// from others.
	MAC      net.HardwareAddr
	CheckMAC bool
}

// tap is the guard of one device. Its methods are called with the guard's lock.
type tap struct {
	dev     Device
	dir     string // of pins
	objects objects
	in, out attachment
	table   *Table
	inner   *ebpf.MapSpec // of prefixes
	innerP  *ebpf.MapSpec // of ports
	events  *ringbuf.Reader
}

// objects are the maps and programs of one tap.
type objects struct {
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
}

// attachment is how a program stands on a device.
type attachment interface {
	// Update has another program run from now on, without a gap.
	Update(p *ebpf.Program) error
	// Close gives up what this process holds; the program stays.
	Close() error
	// Detach takes the program away.
	Detach() error
}

// objectDigest names the object in the names of pins, so that a daemon with other
// programs does not take the maps of these for its own.
func objectDigest(object []byte) string {
	sum := sha256.Sum256(object)
	return hex.EncodeToString(sum[:8])
}

// loadSpec reads the committed object. What only carries debug information gets no
// room in the kernel.
func loadSpec() (*ebpf.CollectionSpec, error) {
	spec, err := bpfegress.LoadEgress()
	if err != nil {
		return nil, fmt.Errorf("read BPF object: %w", err)
	}
	delete(spec.Maps, ".bss")
	spec.Variables = nil
	return spec, nil
}

// create loads maps and programs anew, with the maps of shared instead of own ones.
func create(spec *ebpf.CollectionSpec, shared map[string]*ebpf.Map) (objects, error) {
	c, err := ebpf.NewCollectionWithOptions(spec.Copy(), ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return objects{}, fmt.Errorf("load programs: %w", err)
	}
	return objects{c.Maps, c.Programs}, nil
}

// pin keeps the objects beyond this process. The program that is run last is
// pinned last: a directory without it is incomplete, and made again.
func (o *objects) pin(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove incomplete pins: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of pins: %w", err)
	}
	for name, m := range o.maps {
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for _, name := range []string{bpfegress.EgressProgToGuest, bpfegress.EgressProgFromGuest} {
		if err := o.programs[name].Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	return nil
}

// adopt takes what an earlier process pinned; fs.ErrNotExist where it is not whole.
func adopt(spec *ebpf.CollectionSpec, dir string) (_ objects, err error) {
	o := objects{map[string]*ebpf.Map{}, map[string]*ebpf.Program{}}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	for name := range spec.Programs {
		if o.programs[name], err = ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil); err != nil {
			delete(o.programs, name)
			return objects{}, fmt.Errorf("adopt program %s: %w", name, err)
		}
	}
	for name := range spec.Maps {
		if o.maps[name], err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
			delete(o.maps, name)
			return objects{}, fmt.Errorf("adopt map %s: %w", name, err)
		}
	}
	return o, nil
}

func (o *objects) close() {
	for _, m := range o.maps {
		_ = m.Close()
	}
	for _, p := range o.programs {
		_ = p.Close()
	}
}

func (o *objects) put(name string, k, v any) error {
	if err := o.maps[name].Put(k, v); err != nil {
		return fmt.Errorf("write map %s: %w", name, err)
	}
	return nil
}

// apply brings a table in force: it is written beside the one that is, and then the
// word that says which changes. A crash before that leaves what was, one behind it
// what is new.
func (t *tap) apply(table *Table, revision uint64) error {
	var now uint32
	if err := t.objects.maps[bpfegress.EgressMapHead].Lookup(uint32(0), &now); err != nil {
		return fmt.Errorf("read which table is in force: %w", err)
	}
	next := 1 - now&1
	prefixes, err := t.fill(table)
	if err != nil {
		return err
	}
	defer prefixes.Close()
	ports, err := ebpf.NewMap(t.innerP)
	if err != nil {
		return fmt.Errorf("make table of ports: %w", err)
	}
	defer ports.Close()
	for k, v := range table.ports {
		if err := ports.Put(k, v); err != nil {
			return fmt.Errorf("write port %d of %s: %w", k.Port, table.prefixes[k.Number], err)
		}
	}
	c := bpfegress.EgressConfig{Enforce: table.enforce, Audit: table.audit, Revision: revision}
	if t.dev.CheckMAC && len(t.dev.MAC) == 6 {
		c.CheckMac = 1
		copy(c.Mac[:], t.dev.MAC)
	}
	for _, step := range []struct {
		name string
		k, v any
	}{
		{bpfegress.EgressMapPrefixes, next, prefixes},
		{bpfegress.EgressMapPorts, next, ports},
		{bpfegress.EgressMapConfigs, next, c},
		{bpfegress.EgressMapHead, uint32(0), next},
		// Replacing what no program reads waits for those that still run with the
		// old word: only then may its side be written again.
		{bpfegress.EgressMapPrefixes, uint32(2), prefixes},
	} {
		if err := t.objects.put(step.name, step.k, step.v); err != nil {
			return err
		}
	}
	t.table = table
	return nil
}

func (t *tap) fill(table *Table) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(t.inner)
	if err != nil {
		return nil, fmt.Errorf("make table of prefixes: %w", err)
	}
	for i, p := range table.prefixes {
		if err := m.Put(key(p), table.rules[i]); err != nil {
			return nil, errors.Join(fmt.Errorf("write prefix %s: %w", p, err), m.Close())
		}
	}
	return m, nil
}

// cut has the tap let through nothing but what allow names. While it is cut
// already, the list never holds more than the old and the new one have in common
// before it holds the new one.
func (t *tap) cut(allow []netip.Prefix) error {
	return cutObjects(&t.objects, allow)
}

func cutObjects(o *objects, allow []netip.Prefix) error {
	list := o.maps[bpfegress.EgressMapCutList]
	want := map[bpfegress.EgressPrefix]bool{}
	for _, p := range allow {
		want[key(p)] = true
	}
	have, err := keys(list)
	if err != nil {
		return fmt.Errorf("read who is not cut off: %w", err)
	}
	for _, k := range have {
		if !want[k] {
			if err := list.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("cut off: %w", err)
			}
		}
	}
	// From here on the domain is cut off; what it may reach all the same follows.
	if err := o.put(bpfegress.EgressMapCut, uint32(0), uint32(1)); err != nil {
		return err
	}
	for k := range want {
		if err := o.put(bpfegress.EgressMapCutList, k, uint8(1)); err != nil {
			return err
		}
	}
	return nil
}

func keys(m *ebpf.Map) ([]bpfegress.EgressPrefix, error) {
	var all []bpfegress.EgressPrefix
	var k bpfegress.EgressPrefix
	var v uint8
	it := m.Iterate()
	for it.Next(&k, &v) {
		all = append(all, k)
	}
	return all, it.Err()
}

// setCut cuts off or not.
func (t *tap) setCut(s cutState) error {
	if s.on {
		return t.cut(s.allow)
	}
	return t.uncut()
}

func (t *tap) uncut() error {
	return t.objects.put(bpfegress.EgressMapCut, uint32(0), uint32(0))
}

// isCut reports whether the objects cut their domain off, and from all but whom.
func (o *objects) isCut() (bool, []netip.Prefix, error) {
	var on uint32
	if err := o.maps[bpfegress.EgressMapCut].Lookup(uint32(0), &on); err != nil {
		return false, nil, fmt.Errorf("read whether the domain is cut off: %w", err)
	}
	all, err := keys(o.maps[bpfegress.EgressMapCutList])
	if err != nil {
		return false, nil, fmt.Errorf("read who is not cut off: %w", err)
	}
	var allow []netip.Prefix
	for _, k := range all {
		a := netip.AddrFrom16(k.Address)
		bits := int(k.Bits)
		if a.Is4In6() && bits >= 96 {
			a, bits = a.Unmap(), bits-96
		}
		allow = append(allow, netip.PrefixFrom(a, bits))
	}
	return on != 0, allow, nil
}

// resolve has answers of these resolvers told.
func (t *tap) resolve(addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := t.objects.put(bpfegress.EgressMapResolvers, a.As16(), uint8(1)); err != nil {
			return err
		}
	}
	return nil
}

// counters sums the counters of all processors.
func (t *tap) counters() ([]uint64, error) {
	sums := make([]uint64, bpfegress.EgressCounterCOUNTERS)
	for i := range sums {
		var each []uint64
		if err := t.objects.maps[bpfegress.EgressMapCounters].Lookup(uint32(i), &each); err != nil {
			return nil, fmt.Errorf("read counters of %s: %w", t.dev.Name, err)
		}
		for _, n := range each {
			sums[i] += n
		}
	}
	return sums, nil
}

// close gives up what this process holds of the tap. Its reader ends.
func (t *tap) close() {
	if t.events != nil {
		_ = t.events.Close()
	}
	for _, a := range []attachment{t.in, t.out} {
		if a != nil {
			_ = a.Close()
		}
	}
	t.objects.close()
}

// pinned lists the devices that have a directory of pins.
func pinned(root string) ([]int, error) {
	all, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list guards: %w", err)
	}
	var indexes []int
	for _, e := range all {
		if i, err := strconv.Atoi(e.Name()); err == nil && i > 0 {
			indexes = append(indexes, i)
		}
	}
	return indexes, nil
}
