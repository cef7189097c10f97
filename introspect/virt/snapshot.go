package virt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// SnapshotRequest asks for a snapshot of a domain. A request of the same name finds the
// snapshot that it has made before.
type SnapshotRequest struct {
	Name   string // part of the names of files: letters, digits and - _
	Memory bool
	Dir    string // of the file with the memory
	// Spare is what must be left free where files are written, in bytes, beside them.
	Spare uint64
	// MaxChain bounds the images that a disk may lie on.
	MaxChain int
}

// SnapshotFile is a file of a snapshot.
type SnapshotFile struct {
	Role   string `json:"role"`             // memory; disk: an image that is only read from now on
	Target string `json:"target,omitempty"` // of the disk
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	// Overlay is the image that is written to in place of a disk's.
	Overlay string `json:"overlay,omitempty"`
	// Inode is that of the file which the snapshot has made: the memory, the overlay.
	Inode uint64 `json:"inode,omitempty"`
}

// SnapshotResult says what was done.
type SnapshotResult struct {
	Variant       string   // of snapshotVariants
	Notes         []string // what was tried before it, and what was left out, and why
	Files         []SnapshotFile
	Existed       bool // it was there already
	Before, After Status
}

// The variants of a snapshot, in the order in which they are tried where memory is
// wanted. Without memory only the last one is.
const (
	VariantLive   = "memory and disks, live"
	VariantPaused = "memory and disks, paused meanwhile"
	VariantDump   = "disks, and memory apart"
	VariantDisks  = "disks only"
)

// overlayMark stands in the names of the images that snapshots of ours have made.
const overlayMark = ".provost-"

// Snapshot takes an external snapshot: the images of the disks are only read from now
// on, and the domain goes on in new ones beside them. Libvirt keeps no metadata of it,
// which would forbid migration. A snapshot that fails leaves the domain on the images it
// was on; that is read back, and what was left of files is removed.
func (h *Host) Snapshot(ctx context.Context, id domain.UUID, req SnapshotRequest, limit time.Duration) (*SnapshotResult, error) {
	// A call that missed its deadline goes on. Another one beside it would take the files
	// that it writes for what a failure has left.
	if _, busy := h.snapshots.LoadOrStore(id, true); busy {
		return nil, fmt.Errorf("snapshot of domain %s: one is being taken still: %w: %w", id, record.ErrRetry, ErrBusy)
	}
	r, err := do(ctx, h.calls, id, true, limit, func() (*SnapshotResult, error) {
		defer h.snapshots.Delete(id)
		l, conn, err := h.borrow()
		if err != nil {
			return nil, err
		}
		defer h.giveBack(l, conn)
		dom, err := conn.LookupDomainByUUID(id[:])
		if err != nil {
			return nil, err
		}
		defer dom.Free()
		return snapshot(ctx, dom, &req)
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot of domain %s: %w", id, err)
	}
	return r, nil
}

// shot is one snapshot being taken.
type shot struct {
	dom    *libvirt.Domain
	req    *SnapshotRequest
	disks  []shotDisk // all of the domain's
	memory string     // file
	r      SnapshotResult
}

type shotDisk struct {
	target, path, overlay, format string
	why                           string // it is left out; "" where it is not
	depth                         int
}

func snapshot(ctx context.Context, dom *libvirt.Domain, req *SnapshotRequest) (*SnapshotResult, error) {
	s := &shot{dom: dom, req: req, memory: filepath.Join(req.Dir, req.Name+".memory")}
	var err error
	if s.r.Before, err = status(dom); err != nil {
		return nil, err
	}
	if !s.r.Before.State.Active() {
		return nil, fmt.Errorf("%w: %w: it is %s (%s)", record.ErrReject, ErrInactive, s.r.Before.State, s.r.Before.Reason)
	}
	// One that an earlier run of the daemon has asked for may be under way as well.
	if job, err := dom.GetJobInfo(); err != nil {
		return nil, err
	} else if job.Type != libvirt.DOMAIN_JOB_NONE {
		return nil, fmt.Errorf("libvirt does something else with it that takes long: %w: %w", record.ErrRetry, ErrBusy)
	}
	if s.disks, err = s.look(); err != nil {
		return nil, err
	}
	if done, err := s.existing(); done || err != nil {
		return &s.r, err
	}
	if err := s.room(); err != nil {
		return nil, err
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	s.r.After, err = status(dom)
	return &s.r, err
}

// look reads the disks of the running domain, and where each would go on.
func (s *shot) look() ([]shotDisk, error) {
	def, err := definition(s.dom, 0)
	if err != nil {
		return nil, err
	}
	var all []shotDisk
	for i := range def.Devices.Disks {
		x := &def.Devices.Disks[i]
		d := shotDisk{}
		if x.Target != nil {
			d.target = x.Target.Dev
		}
		if x.Driver != nil {
			d.format = x.Driver.Type
		}
		if x.Source != nil {
			d.path = sourcePath(x.Source)
		}
		for b := x.BackingStore; b != nil && b.Source != nil && sourcePath(b.Source) != ""; b = b.BackingStore {
			d.depth++
		}
		switch {
		case x.Device != "" && x.Device != "disk":
			d.why = "a " + x.Device
		case x.ReadOnly != nil:
			d.why = "only read"
		case x.Shareable != nil:
			d.why = "shared with other domains"
		case x.Source == nil || x.Source.File == nil:
			d.why = "no file"
		}
		if d.why == "" {
			base, _, _ := strings.Cut(filepath.Base(d.path), overlayMark)
			d.overlay = filepath.Join(filepath.Dir(d.path), base+overlayMark+s.req.Name)
		}
		all = append(all, d)
	}
	return all, nil
}

// existing recognises a snapshot that an earlier attempt has made: its images are those
// that the domain runs on, or lies on.
func (s *shot) existing() (bool, error) {
	def, err := definition(s.dom, 0)
	if err != nil {
		return false, err
	}
	for i := range def.Devices.Disks {
		x := &def.Devices.Disks[i]
		if x.Source == nil {
			continue
		}
		above, at, next := sourcePath(x.Source), x.Source, x.BackingStore
		for at != nil {
			if next == nil || next.Source == nil {
				break
			}
			if strings.HasSuffix(above, overlayMark+s.req.Name) {
				s.r.Existed = true
				s.file("disk", x.Target.Dev, sourcePath(next.Source), above)
				break
			}
			at, above, next = next.Source, sourcePath(next.Source), next.BackingStore
		}
	}
	if !s.r.Existed {
		return false, nil
	}
	s.r.Variant = VariantDisks
	if st, err := os.Stat(s.memory); err == nil && st.Size() > 0 {
		s.r.Variant = VariantLive
		s.file("memory", "", s.memory, "")
	}
	s.r.Notes = append(s.r.Notes, "it was taken by an attempt that was cut short")
	s.r.After = s.r.Before
	return true, nil
}

// file adds a file to what was made.
func (s *shot) file(role, target, path, overlay string) {
	f := SnapshotFile{Role: role, Target: target, Path: path, Overlay: overlay}
	if st, err := os.Stat(path); err == nil {
		f.Size = st.Size()
	}
	made := path
	if overlay != "" {
		made = overlay
	}
	f.Inode, _ = inode(made) // 0 is nobody's: such a file is never removed
	s.r.Files = append(s.r.Files, f)
}

// room refuses what would fill a disk: a domain whose disk is full is paused by QEMU.
func (s *shot) room() error {
	taken := 0
	for _, d := range s.disks {
		if d.why != "" {
			s.r.Notes = append(s.r.Notes, fmt.Sprintf("disk %s is left out: %s", d.target, d.why))
			continue
		}
		taken++
		if d.depth+1 >= s.req.MaxChain {
			return fmt.Errorf("disk %s lies on %d images and may on %d: have the policy keep fewer, or merge some with virsh blockcommit: %w", d.target, d.depth+1, s.req.MaxChain, record.ErrReject)
		}
		// What is removed behind a failure must have been made by it.
		if _, err := os.Lstat(d.overlay); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("disk %s: %s is there already, or cannot be looked at (%v): %w", d.target, d.overlay, err, record.ErrReject)
		}
		if err := free(filepath.Dir(d.path), s.req.Spare); err != nil {
			return fmt.Errorf("disk %s: %w", d.target, err)
		}
	}
	if taken == 0 && !s.req.Memory {
		return fmt.Errorf("no disk of it can be taken (%s): %w", strings.Join(s.r.Notes, "; "), record.ErrReject)
	}
	if !s.req.Memory {
		return nil
	}
	info, err := s.dom.GetInfo()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.req.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory for memory: %w: %w", err, record.ErrReject)
	}
	return free(s.req.Dir, info.MaxMem<<10+s.req.Spare)
}

// free wants room in a file system.
func free(dir string, want uint64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look for room in %s: %w: %w", dir, err, record.ErrReject)
	}
	if have := st.Bavail * uint64(st.Bsize); have < want {
		return fmt.Errorf("%s has %d MiB free, and %d MiB are wanted: %w", dir, have>>20, want>>20, record.ErrReject)
	}
	return nil
}

// take tries the variants in their order. What libvirt or QEMU cannot do leads to the
// next one; what may go away is tried again by the caller.
func (s *shot) take(ctx context.Context) error {
	variants := []string{VariantDisks}
	if s.req.Memory {
		variants = []string{VariantLive, VariantPaused, VariantDump, VariantDisks}
	}
	var last error
	for _, v := range variants {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", record.ErrRetry, ctx.Err())
		}
		err := s.try(v)
		if err == nil {
			s.r.Variant = v
			return nil
		}
		if cerr := s.unchanged(!passingError(err)); cerr != nil {
			return fmt.Errorf("%s: %w; %w", v, err, cerr)
		}
		if passingError(err) {
			return err
		}
		s.r.Notes, last = append(s.r.Notes, v+": "+err.Error()), err
	}
	return fmt.Errorf("nothing of what can be tried worked (%s): %w: %w", strings.Join(s.r.Notes, "; "), record.ErrReject, last)
}

// passingError tells what may go away by itself from what this domain cannot do.
func passingError(err error) bool {
	var le libvirt.Error
	return errors.As(err, &le) && slices.Contains([]libvirt.ErrorNumber{libvirt.ERR_OPERATION_TIMEOUT, libvirt.ERR_RPC, libvirt.ERR_NO_CONNECT, libvirt.ERR_NO_DOMAIN}, le.Code)
}

func (s *shot) try(variant string) error {
	flags := libvirt.DOMAIN_SNAPSHOT_CREATE_NO_METADATA | libvirt.DOMAIN_SNAPSHOT_CREATE_ATOMIC
	memory := ""
	switch variant {
	case VariantLive:
		flags |= libvirt.DOMAIN_SNAPSHOT_CREATE_LIVE
		memory = s.memory
	case VariantPaused:
		memory = s.memory
	case VariantDump:
		if err := s.dom.CoreDumpWithFormat(s.memory, libvirt.DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.DUMP_MEMORY_ONLY|libvirt.DUMP_LIVE); err != nil {
			return err
		}
		flags |= libvirt.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
	case VariantDisks:
		flags |= libvirt.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
	}
	disks := 0
	for _, d := range s.disks {
		if d.why == "" {
			disks++
		}
	}
	if disks > 0 || memory != "" {
		text, err := s.xml(memory)
		if err != nil {
			return err
		}
		snap, err := s.dom.CreateSnapshotXML(text, flags)
		if err != nil {
			return err
		}
		_ = snap.Free()
	} else if variant == VariantDisks {
		return errors.New("no disk can be taken")
	}
	return s.verify(memory != "" || variant == VariantDump)
}

func (s *shot) xml(memory string) (string, error) {
	x := libvirtxml.DomainSnapshot{Name: s.req.Name, Disks: &libvirtxml.DomainSnapshotDisks{}}
	x.Memory = &libvirtxml.DomainSnapshotMemory{Snapshot: "no"}
	if memory != "" {
		x.Memory = &libvirtxml.DomainSnapshotMemory{Snapshot: "external", File: memory}
	}
	for _, d := range s.disks {
		one := libvirtxml.DomainSnapshotDisk{Name: d.target, Snapshot: "no"}
		if d.why == "" {
			one.Snapshot = "external"
			one.Driver = &libvirtxml.DomainDiskDriver{Type: "qcow2"}
			one.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: d.overlay}}
		}
		x.Disks.Disks = append(x.Disks.Disks, one)
	}
	b, err := xml.Marshal(&x)
	return string(b), err
}

// verify reads back what libvirt says that it has done.
func (s *shot) verify(memory bool) error {
	now, err := s.look()
	if err != nil {
		return err
	}
	for _, d := range s.disks {
		if d.why != "" {
			continue
		}
		i := slices.IndexFunc(now, func(n shotDisk) bool { return n.target == d.target })
		if i < 0 || now[i].path != d.overlay {
			return fmt.Errorf("libvirt says yes, and disk %s is not on %s", d.target, d.overlay)
		}
	}
	if memory {
		if st, err := os.Stat(s.memory); err != nil || st.Size() == 0 {
			return fmt.Errorf("libvirt says yes, and there is no memory in %s", s.memory)
		}
		s.file("memory", "", s.memory, "")
	}
	for _, d := range s.disks {
		if d.why == "" {
			s.file("disk", d.target, d.path, d.overlay)
		}
	}
	return nil
}

// unchanged makes sure that a snapshot which failed has left the domain on its images,
// and removes the files that it has left. Where it is not known whether it has failed, or somebody
// else's is under way, nothing is removed: the domain may be about to go on in those files.
func (s *shot) unchanged(remove bool) error {
	now, err := s.look()
	if err != nil {
		return fmt.Errorf("and what it has left cannot be read: %w", err)
	}
	for _, d := range s.disks {
		i := slices.IndexFunc(now, func(n shotDisk) bool { return n.target == d.target })
		if i < 0 || now[i].path != d.path {
			return fmt.Errorf("and disk %s is not on %s any more; look at virsh domblklist: %w", d.target, d.path, record.ErrReject)
		}
	}
	if s.r.Files = nil; !remove {
		return nil
	}
	left := []string{s.memory}
	for _, d := range s.disks {
		if d.why == "" {
			left = append(left, d.overlay)
		}
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.r.Notes = append(s.r.Notes, "not removed: "+err.Error())
		}
	}
	return nil
}
