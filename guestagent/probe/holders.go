package probe

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/link"

	"github.com/provostd/provost/bpf"
)

// holders finds out who besides this process holds its maps, by the kernel's
// own counts: a descriptor counts wherever it is, and so does a program.
type holders struct {
	iter  *link.Iter
	names map[uint32]string // of the maps, by number
	// uses is how often each is used by this process: its descriptor, its
	// programs, the map of maps, and the listing while it stands there.
	uses map[uint32]uint32
}

func newHolders(k *kernel, sums *sums) (*holders, error) {
	if err := k.load(progHolders.name); err != nil {
		return nil, err
	}
	h := &holders{names: map[uint32]string{}, uses: map[uint32]uint32{}}
	all := maps.Clone(k.maps)
	for i, m := range sums.inner {
		all[fmt.Sprintf("sums[%d]", i)] = m
	}
	for name, m := range all {
		i, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("examine map %s: %w", name, err)
		}
		if id, ok := i.ID(); ok {
			h.names[uint32(id)] = name
			h.uses[uint32(id)] = 2
			if m == sums.inner[0] || m == sums.inner[1] {
				h.uses[uint32(id)]++ // by turns in the map of them, from which it is let go late
			}
		}
	}
	for name, p := range k.programs {
		i, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("examine program %s: %w", name, err)
		}
		ids, _ := i.MapIDs() // every kernel that has programs of these kinds tells them
		for _, id := range ids {
			h.uses[uint32(id)]++
		}
	}
	it, err := link.AttachIter(link.IterOptions{Program: k.programs[progHolders.name]})
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", progHolders.hook, err)
	}
	k.links[progHolders.name] = it // guarded and looked after like the others
	h.iter = it
	return h, nil
}

// look lists the maps that others hold by their names, each with who it is as
// far as that is to be seen: a mapping alone, a message under way, or a program
// is nobody's. Who lists maps holds each for a moment, so it looks twice.
func (h *holders) look() (map[string]string, error) {
	held, err := h.list()
	if err != nil || len(held) == 0 {
		return nil, err
	}
	again, err := h.list()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(held, func(name, _ string) bool { _, still := again[name]; return !still })
	if len(held) > 0 {
		h.name(held)
	}
	return held, nil
}

// list makes one listing.
func (h *holders) list() (map[string]string, error) {
	r, err := h.iter.Open()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", progHolders.hook, err)
	}
	defer r.Close()
	list, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("list holders of maps: %w", err)
	}
	held := map[string]string{}
	for size := int(unsafe.Sizeof(bpf.ProbeHeld{})); len(list) >= size; list = list[size:] {
		x, err := as[bpf.ProbeHeld](list)
		if err != nil {
			return nil, err
		}
		if x.Count > 1 || x.Uses > h.uses[x.Id] {
			held[h.names[x.Id]] = ""
		}
	}
	return held, nil
}

// name looks for the processes in /proc. It is only done when there is one.
func (h *holders) name(held map[string]string) {
	tables, _ := filepath.Glob("/proc/[0-9]*/fd") // the pattern is good
	for _, table := range tables {
		pid := strings.Split(table, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		links, _ := os.ReadDir(table) // it may have ended
		for _, l := range links {
			to, _ := os.Readlink(filepath.Join(table, l.Name()))
			if to != "anon_inode:bpf-map" {
				continue
			}
			info, _ := os.ReadFile(filepath.Join("/proc", pid, "fdinfo", l.Name()))
			_, rest, _ := bytes.Cut(info, []byte("map_id:\t"))
			number, _, _ := bytes.Cut(rest, []byte("\n"))
			id, _ := strconv.ParseUint(string(number), 10, 32)
			if name, ok := h.names[uint32(id)]; ok {
				if _, ok := held[name]; ok && held[name] == "" {
					held[name] = pid
				}
			}
		}
	}
}

// describe puts what look found into words.
func describeHeld(held map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(held)) {
		by := "a program, or a process that is not to be seen"
		if pid := held[name]; pid != "" {
			by = "process " + pid
		}
		all = append(all, "map "+name+" is held by "+by)
	}
	s := strings.Join(all, ", ")
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return s
}
