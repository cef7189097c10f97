package virt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/introspect/domain"
)

// Facts is what a sweep knows of one domain: its configurations in normal form,
// and what libvirt keeps beside them. It is compared with what was sealed last.
type Facts struct {
	// Run is the QEMU process that Live is of. Another run begins another Live.
	Run    Process `json:"run"`
	Live   Normal  `json:"live"`
	Config Normal  `json:"config"`
	// File is what libvirt's own file of the domain says where that is not what
	// libvirt says: edited by hand, it takes effect unseen when libvirtd starts anew.
	File *Normal `json:"file,omitempty"`
	// Groups are further facts by kind and name. A group that could not be read is
	// missing, and what was known of it stays.
	Groups map[string]map[string]string `json:"groups,omitempty"`
	Unread []string                     `json:"unread,omitempty"`
}

// Groups of facts.
const (
	GroupSnapshots   = "snapshot"
	GroupCheckpoints = "checkpoint"
	GroupAutostart   = "autostart"
	GroupFilters     = "filter"
	GroupSaved       = "managed-save"
	GroupFile        = "file" // there when libvirt's file could be read
)

// Bounds of what is read beside the configuration.
const (
	maxListed  = 256 // snapshots, checkpoints
	maxFilters = 64
)

// FactsOf makes facts of a snapshot, which holds the configurations only.
func FactsOf(s *Snapshot) *Facts {
	return &Facts{Run: s.QEMU, Live: Normalize(s.LiveXML), Config: Normalize(s.ConfigXML)}
}

// raw is what libvirt says, before it is made into facts. Most sweeps find it
// as it was.
type raw struct {
	run                Process
	live, config, file string
	groups             map[string]map[string]string
	unread             []string
}

func (r *raw) sum() [32]byte {
	d := sha256.New()
	fmt.Fprintf(d, "%v %d %d %d\n%s%s%s%q\n", r.run, len(r.live), len(r.config), len(r.file), r.live, r.config, r.file, r.unread)
	fmt.Fprintf(d, "%v", r.groups) // fmt prints maps in order
	return [32]byte(d.Sum(nil))
}

func (r *raw) facts() *Facts {
	f := &Facts{Run: r.run, Live: Normalize(r.live), Config: Normalize(r.config), Groups: r.groups, Unread: r.unread}
	if n := Normalize(r.file); r.file != "" && r.config != "" && n.Digest != f.Config.Digest {
		f.File = &n
	}
	return f
}

// look reads what is to be compared. None of it takes a domain's job lock in
// libvirt, so it answers while the domain migrates.
func (h *Host) look(dom *libvirt.Domain) (*raw, error) {
	d, _, err := describe(dom)
	if err != nil {
		return nil, err
	}
	r := &raw{groups: map[string]map[string]string{}}
	note := func(what string, err error) bool {
		if err != nil && len(r.unread) < 16 {
			r.unread = append(r.unread, what+": "+bounded(err.Error()))
		}
		return err == nil
	}
	if d.State.Active() {
		if r.live, err = dom.GetXMLDesc(0); err != nil {
			return nil, err
		}
		r.run, err = h.QEMU(d.Name)
		note("QEMU process", err)
	}
	if d.Persistent {
		if r.config, err = dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE); err != nil {
			return nil, err
		}
		if r.file, err = h.configFile(d.Name); note("file of the configuration", err) {
			r.groups[GroupFile] = map[string]string{}
		}
		if on, err := dom.GetAutostart(); note("autostart", err) {
			r.groups[GroupAutostart] = map[string]string{"autostart": strconv.FormatBool(on)}
		}
		if g, err := h.managedSave(dom, d.Name); note("managed save", err) {
			r.groups[GroupSaved] = g
		}
	}
	if g, err := snapshots(dom); note("snapshots", err) {
		r.groups[GroupSnapshots] = g
	}
	if g, err := checkpoints(dom); note("checkpoints", err) {
		r.groups[GroupCheckpoints] = g
	}
	return r, nil
}

// configFile is what libvirt has stored of a domain on disk. A path that is
// no plain file is refused: whoever may replace it is the host's root.
func (h *Host) configFile(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("libvirt has no domain named %q", name)
	}
	f, err := os.OpenFile(filepath.Join(h.cfg.ConfigDir, name+".xml"), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxXMLBytes+1))
	return string(b), err
}

// managedSave tells of the saved memory that the next start takes up.
func (h *Host) managedSave(dom *libvirt.Domain, name string) (map[string]string, error) {
	has, err := dom.HasManagedSaveImage(0)
	if err != nil || !has {
		return map[string]string{}, err
	}
	text, err := dom.ManagedSaveGetXMLDesc(0)
	if err != nil {
		return nil, err
	}
	n := Normalize(text)
	says := "configuration sha256:" + hex.EncodeToString(n.Digest[:])
	f := LookAt(filepath.Join(h.cfg.SaveDir, name+".save"))
	if f.Error == "" {
		says += fmt.Sprintf(", %d bytes, inode %d, modified %s", f.Size, f.Inode, f.ModTime.UTC().Format(time.RFC3339Nano))
	}
	return map[string]string{"managed-save": says}, nil
}

func snapshots(dom *libvirt.Domain) (map[string]string, error) {
	list, err := dom.ListAllSnapshots(0)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i := range list {
		s := &list[i]
		name, nerr := s.GetName()
		if text, xerr := s.GetXMLDesc(0); nerr == nil && xerr == nil && len(out) < maxListed {
			out[name] = describeSnapshot(text)
		} else if len(out) < maxListed {
			err = fmt.Errorf("read snapshot %q: %v %v", name, nerr, xerr)
		}
		_ = s.Free()
	}
	if len(list) > maxListed {
		out["(more)"] = strconv.Itoa(len(list)-maxListed) + " more"
	}
	return out, err
}

// describeSnapshot says what a snapshot holds. Its own copy of the domain's
// configuration stands for itself by its digest.
func describeSnapshot(text string) string {
	var s libvirtxml.DomainSnapshot
	if err := s.Unmarshal(text); err != nil {
		sum := sha256.Sum256([]byte(text))
		return "unreadable, sha256:" + hex.EncodeToString(sum[:])
	}
	kind := "disk-only"
	if s.Memory != nil && s.Memory.Snapshot != "" && s.Memory.Snapshot != "no" {
		kind = s.Memory.Snapshot + " memory"
		if s.Memory.File != "" {
			kind += " in " + s.Memory.File
		}
	}
	parts := []string{kind, "state " + s.State, "created " + s.CreationTime}
	if s.Parent != nil {
		parts = append(parts, "parent "+s.Parent.Name)
	}
	if s.Disks != nil {
		for _, d := range s.Disks.Disks {
			p := d.Name + " " + d.Snapshot
			if d.Source != nil {
				p += " " + sourcePath(d.Source)
			}
			parts = append(parts, strings.TrimSpace(p))
		}
	}
	return bounded(strings.Join(parts, ", "))
}

func checkpoints(dom *libvirt.Domain) (map[string]string, error) {
	list, err := dom.ListAllCheckpoints(0)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i := range list {
		c := &list[i]
		name, nerr := c.GetName()
		if text, xerr := c.GetXMLDesc(libvirt.DOMAIN_CHECKPOINT_XML_NO_DOMAIN); nerr == nil && xerr == nil && len(out) < maxListed {
			n := Normalize(text)
			out[name] = "sha256:" + hex.EncodeToString(n.Digest[:])
		} else if len(out) < maxListed {
			err = fmt.Errorf("read checkpoint %q: %v %v", name, nerr, xerr)
		}
		_ = c.Free()
	}
	return out, err
}

// filters reads the definitions of the packet filters that a domain's
// interfaces name, and those that they name in turn.
func filters(c *libvirt.Connect, r *raw) (map[string]string, error) {
	var names []string
	for _, text := range []string{r.live, r.config} {
		if strings.Contains(text, "<filterref") {
			names = appendFilters(names, text)
		}
	}
	out := map[string]string{}
	for i := 0; i < len(names) && i < maxFilters; i++ {
		f, err := c.LookupNWFilterByName(names[i])
		if err != nil {
			return nil, fmt.Errorf("find filter %s: %w", names[i], err)
		}
		text, err := f.GetXMLDesc(0)
		_ = f.Free()
		if err != nil {
			return nil, fmt.Errorf("read filter %s: %w", names[i], err)
		}
		n := Normalize(text)
		out[names[i]] = "sha256:" + hex.EncodeToString(n.Digest[:])
		names = appendFilters(names, text)
	}
	return out, nil
}

// appendFilters adds the filters that an XML text refers to.
func appendFilters(names []string, text string) []string {
	root, err := parseXML(text)
	if err != nil {
		return names
	}
	var walk func(*node)
	walk = func(e *node) {
		if f := e.attr("filter"); e.name == "filterref" && f != "" && !slices.Contains(names, f) {
			names = append(names, f)
		}
		for _, k := range e.kids {
			walk(k)
		}
	}
	walk(root)
	return names
}

// readFacts reads what a sweep compares, with the deadline of snapshots.
func (h *Host) readFacts(ctx context.Context, id domain.UUID) (*raw, domain.Domain, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.SnapshotTimeout)
	defer cancel()
	type seen struct {
		r *raw
		d domain.Domain
	}
	s, err := withConn(ctx, h, id, false, func(c *libvirt.Connect) (seen, error) {
		dom, err := c.LookupDomainByUUID(id[:])
		if err != nil {
			return seen{}, err
		}
		defer dom.Free()
		r, err := h.look(dom)
		if err != nil {
			return seen{}, err
		}
		d, _, err := describe(dom)
		if err != nil {
			return seen{}, err
		}
		if g, ferr := filters(c, r); ferr == nil {
			r.groups[GroupFilters] = g
		} else {
			r.unread = append(r.unread, bounded(ferr.Error()))
		}
		return seen{r, d}, nil
	})
	return s.r, s.d, err
}

// digest is that of all facts in their normal form.
func (f *Facts) digest() [32]byte {
	d := sha256.New()
	fmt.Fprintf(d, "%v %x %x %v %q", f.Run, f.Live.Digest, f.Config.Digest, f.Groups, f.Unread)
	if f.File != nil {
		d.Write(f.File.Digest[:])
	}
	return [32]byte(d.Sum(nil))
}

// Merge is what is known after a look: what it could not read stays as it was.
func (f *Facts) Merge(now *Facts) *Facts {
	m := *now
	m.Groups = map[string]map[string]string{}
	for name, g := range f.Groups {
		m.Groups[name] = g
	}
	for name, g := range now.Groups {
		m.Groups[name] = g
	}
	if _, ok := now.Groups[GroupFile]; !ok {
		m.File = f.File
	}
	return &m
}

// Uses says whether a configuration names a thing of the host: a network or a
// pool by name, a secret by UUID.
func (f *Facts) Uses(kind, name string) bool {
	suffixes := map[string][]string{
		"network": {"/source/@network"}, "pool": {"/source/@pool"}, "secret": {"/secret/@uuid", "/encryption/@secret"}}[kind]
	for _, n := range []*Normal{&f.Live, &f.Config} {
		for _, l := range n.Lines {
			if l.Value == name && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(l.Path, s) }) {
				return true
			}
		}
	}
	return false
}
