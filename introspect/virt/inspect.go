package virt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/introspect/domain"
)

// List returns all domains, running or not.
func (h *Host) List(ctx context.Context) ([]domain.Domain, error) {
	list, err := withConn(ctx, h, domain.UUID{}, false, func(c *libvirt.Connect) ([]domain.Domain, error) {
		doms, err := c.ListAllDomains(0)
		if err != nil {
			return nil, err
		}
		out := make([]domain.Domain, 0, len(doms))
		for i := range doms {
			d, _, derr := describe(&doms[i])
			_ = doms[i].Free()
			if derr == nil {
				out = append(out, d)
			} else if !errors.Is(classify(derr), ErrNotFound) { // gone since the list was made
				err = errors.Join(err, derr)
			}
		}
		return out, err
	})
	if err != nil {
		return nil, fmt.Errorf("list domains: %w", err)
	}
	return list, nil
}

// describe reads the plain facts of a domain. A domain that starts at this moment may show as running
// with ID -1; its event follows.
func describe(dom *libvirt.Domain) (domain.Domain, Status, error) {
	d := borrowed(dom)
	state, code, err := dom.GetState()
	if err != nil {
		return domain.Domain{}, Status{}, err
	}
	st := describeState(domain.State(state), code)
	d.State = st.State
	if !d.State.Active() {
		d.ID = -1
	}
	d.Persistent, err = dom.IsPersistent()
	return d, st, err
}

// Inspect reads the facts of one domain now. It takes no job lock in libvirt, so it answers also
// while the domain migrates or shuts down.
func (h *Host) Inspect(ctx context.Context, id domain.UUID) (Snapshot, error) {
	s, err := withDomain(ctx, h, id, false, h.inspect)
	if err != nil {
		return Snapshot{}, fmt.Errorf("inspect domain %s: %w", id, err)
	}
	return s, nil
}

func (h *Host) inspect(dom *libvirt.Domain) (Snapshot, error) {
	s := Snapshot{Time: h.cfg.Now()}
	var err error
	if s.Domain, s.Status, err = describe(dom); err != nil {
		return Snapshot{}, err
	}
	note := func(what string, err error) {
		if err != nil {
			s.Errors = append(s.Errors, what+": "+err.Error())
		}
	}
	if s.Domain.Persistent {
		s.ConfigXML, err = dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
		note("persistent configuration", err)
	}
	active := s.Domain.State.Active()
	if active {
		s.LiveXML, err = dom.GetXMLDesc(0)
		note("live configuration", err)
		s.QEMU, err = h.QEMU(s.Domain.Name)
		note("QEMU process", err)
	}
	text := s.LiveXML
	if text == "" {
		text = s.ConfigXML
	}
	var def libvirtxml.Domain
	if text != "" {
		note("configuration", def.Unmarshal(text))
		s.Disks = disks(&def, active)
		s.takeMachine(&def)
		if def.GenID != nil {
			s.GenerationID = def.GenID.Value
		}
		if active {
			s.Mark, err = parseMark(&def)
			note("marker of the epoch", err)
		}
		ch := findChannel(&def)
		s.Enrolled = ch != nil
		if active && ch != nil {
			s.ChannelPath = channelPath(ch)
		}
	}
	if active && s.ConfigXML != "" {
		var conf libvirtxml.Domain
		err := conf.Unmarshal(s.ConfigXML)
		note("persistent configuration", err)
		s.Enrolled = err == nil && findChannel(&conf) != nil
	}
	s.LiveXML, err = Conceal(s.LiveXML)
	note("live configuration", err)
	s.ConfigXML, err = Conceal(s.ConfigXML)
	note("persistent configuration", err)
	return s, nil
}

// QEMUPidFile is the file where libvirt keeps the pid of a domain's QEMU.
func (h *Host) QEMUPidFile(name string) string {
	return filepath.Join(h.cfg.RunDir, name+".pid")
}

// QEMU is the process of a running domain, from libvirt's pid file (I3).
func (h *Host) QEMU(name string) (Process, error) {
	if name == "" || strings.ContainsRune(name, '/') {
		return Process{}, fmt.Errorf("find QEMU of domain %q: libvirt has no such names", name)
	}
	data, err := os.ReadFile(h.QEMUPidFile(name))
	if err != nil {
		return Process{}, fmt.Errorf("find QEMU: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return Process{}, fmt.Errorf("find QEMU: %s holds %q, which is no pid", h.QEMUPidFile(name), clip(string(data)))
	}
	start, err := processStart(pid)
	if err != nil {
		return Process{}, fmt.Errorf("find QEMU: %w", err)
	}
	return Process{Pid: pid, Start: start}, nil
}

// processStart is the start time of a process in clock ticks since boot.
func processStart(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// The name in parentheses is the process's own choice; what follows the last one is the kernel's.
	s := string(data)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("read start time of process %d: short stat line", pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

func disks(def *libvirtxml.Domain, active bool) []Disk {
	if def.Devices == nil {
		return nil
	}
	var out []Disk
	for _, x := range def.Devices.Disks {
		d := Disk{Device: x.Device, ReadOnly: x.ReadOnly != nil}
		if x.Target != nil {
			d.Target = x.Target.Dev
		}
		if x.Driver != nil {
			d.Format = x.Driver.Type
		}
		d.Partial = !active && d.Format != "raw"
		if x.Source != nil {
			d.Chain = append(d.Chain, LookAt(sourcePath(x.Source)))
		}
		for b := x.BackingStore; b != nil && b.Source != nil && sourcePath(b.Source) != ""; b = b.BackingStore {
			d.Chain = append(d.Chain, LookAt(sourcePath(b.Source)))
		}
		out = append(out, d)
	}
	return out
}

// takeMachine takes over what the domain is made of beside its disks.
func (s *Snapshot) takeMachine(def *libvirtxml.Domain) {
	if def.CPU != nil {
		if text, err := def.CPU.Marshal(); err == nil {
			s.CPUXML = text
		} else {
			s.Errors = append(s.Errors, "processor: "+err.Error())
		}
	}
	if def.OS == nil {
		return
	}
	if def.OS.Type != nil {
		s.Machine, s.Architecture = def.OS.Type.Machine, def.OS.Type.Arch
	}
	add := func(role, path string) {
		if path != "" {
			s.Boot = append(s.Boot, BootFile{role, LookAt(path)})
		}
	}
	if def.OS.Loader != nil {
		add("firmware", def.OS.Loader.Path)
	}
	if n := def.OS.NVRam; n != nil {
		path := n.NVRam
		if n.Source != nil {
			path = sourcePath(n.Source)
		}
		add("nvram", path)
	}
	add("kernel", def.OS.Kernel)
	add("initrd", def.OS.Initrd)
	add("dtb", def.OS.DTB)
}

// sourcePath is a file's path, or a name with a scheme for what is no file.
func sourcePath(s *libvirtxml.DomainDiskSource) string {
	switch {
	case s.File != nil:
		return s.File.File
	case s.Block != nil:
		return s.Block.Dev
	case s.Network != nil:
		return s.Network.Protocol + "://" + s.Network.Name
	case s.Volume != nil:
		return "volume://" + s.Volume.Pool + "/" + s.Volume.Volume
	default:
		return ""
	}
}

// LookAt reads the numbers that a file system keeps of a file.
func LookAt(path string) DiskFile {
	f := DiskFile{Path: path}
	if !filepath.IsAbs(path) {
		if path != "" {
			f.Error = "not a file of this host"
		}
		return f
	}
	st, err := os.Stat(path)
	if err != nil {
		f.Error = err.Error()
		return f
	}
	f.Size, f.ModTime = st.Size(), st.ModTime()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		f.Inode, f.Device, f.ChangeTime = sys.Ino, sys.Dev, time.Unix(sys.Ctim.Unix())
	}
	return f
}

// digest is the SHA-256 of a text in hexadecimal, empty for an empty text.
func digest(s string) string {
	if s == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
