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
// own counts: a descriptor counts wherever it is.
type holders struct {
	iter  *link.Iter
	names map[uint32]string // of the maps, by number
}

func newHolders(k *kernel, sums *sums) (*holders, error) {
	if err := k.load(progHolders.name); err != nil {
		return nil, err
	}
	h := &holders{names: map[uint32]string{}}
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
// far as that is to be seen: a mapping alone, or a message under way, is nobody's.
func (h *holders) look() (map[string]string, error) {
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
		held[h.names[x.Id]] = ""
	}
	if len(held) > 0 {
		h.name(held)
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
		by := "a process that is not to be seen"
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
