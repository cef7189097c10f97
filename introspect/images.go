package introspect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

const (
	imagesPrefix = "images/"     // rows: what is to be hashed for a log, and what was
	hashPrefix   = "image-hash/" // rows: digests by path
	maxHashed    = 256           // of one log
	maxPath      = 4096          // no file has a longer one
)

// hashFile is a file whose digest belongs into a log.
type hashFile struct {
	Role   string `json:"role"`
	Target string `json:"target,omitempty"`
	Depth  uint32 `json:"depth,omitempty"`
	Path   string `json:"path"`
	Done   bool   `json:"done,omitempty"`
}

// imageList is the row of one log.
type imageList struct {
	Images  []hashFile `json:"images"`
	unsaved bool       // goes with the next batch of the log
}

func (r *Registry) readImages() error {
	for row, err := range r.store.MetaPrefix(imagesPrefix) {
		if err != nil {
			return fmt.Errorf("read the list of images from the ledger: %w", err)
		}
		l := &imageList{}
		if err := json.Unmarshal(row.Value, l); err != nil {
			r.log.Warn("a list of images is lost, it is made anew", "log", row.Key, "error", err)
			continue
		}
		r.images[row.Key[len(imagesPrefix):]] = l
	}
	return nil
}

// imagesOf are the files of a domain that nobody should write while it uses
// them, and its NVRAM, which is hashed once as it was found.
func imagesOf(disks []*record.Disk, boot []*record.Image) []hashFile {
	var all []hashFile
	file := func(path string) bool { return strings.HasPrefix(path, "/") && len(path) < maxPath }
	for _, d := range disks {
		if d.ReadOnly && file(d.Path) {
			all = append(all, hashFile{Role: "disk", Target: d.Target, Depth: d.Depth, Path: d.Path})
		}
	}
	for _, b := range boot {
		if file(b.Path) {
			all = append(all, hashFile{Role: b.Role, Path: b.Path})
		}
	}
	return all
}

// wantImages adds the files of a snapshot to what is to be hashed for the log.
// libvirt names the backing files of a domain that runs only, so a start may add some.
// The caller appends the row it returns, if any, to a batch of the log.
func (r *Registry) wantImages(m *machine, s *virt.Snapshot) ([]chain.MetaWrite, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	origin := m.log.Origin()
	l := r.images[origin]
	if l == nil {
		l = &imageList{}
		r.images[origin] = l
	}
	if s != nil {
		for _, i := range imagesOf(disks(s.Disks), bootImages(s.Boot)) {
			same := func(j hashFile) bool { return j.Path == i.Path && j.Role == i.Role }
			if len(l.Images) < maxHashed && !slices.ContainsFunc(l.Images, same) {
				l.Images, l.unsaved = append(l.Images, i), true
			}
		}
	}
	if !l.unsaved {
		return nil, nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode the list of images: %w", err)
	}
	return []chain.MetaWrite{{Key: imagesPrefix + origin, Value: b}}, nil
}

func (r *Registry) savedImages(origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.images[origin]; l != nil {
		l.unsaved = false
	}
}

// nextImage returns the next file to be hashed, and how many there are.
func (r *Registry) nextImage() (m *machine, next hashFile, pending int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.SortedFunc(maps.Keys(r.machines), func(a, b domain.UUID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		x := r.machines[id]
		if x.Ended {
			continue
		}
		if l := r.images[x.log.Origin()]; l != nil {
			for _, i := range l.Images {
				if i.Done {
					continue
				}
				if pending++; m == nil {
					m, next = x, i
				}
			}
		}
	}
	return m, next, pending
}

// cachedHash is a digest that was read earlier.
type cachedHash struct {
	Path   string    `json:"path"`
	Size   int64     `json:"size"`
	Device uint64    `json:"device"`
	Inode  uint64    `json:"inode"`
	Mtime  time.Time `json:"mtime"`
	Ctime  time.Time `json:"ctime"`
	SHA256 string    `json:"sha256"`
	Read   time.Time `json:"read"`
}

func hashKey(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hashPrefix + hex.EncodeToString(sum[:])
}

// cached returns the digest of a file that is as it was when it was read, by
// all the numbers that its file system keeps of it.
func (r *Registry) cached(f *virt.DiskFile) (*cachedHash, error) {
	row, ok, err := r.store.Meta(hashKey(f.Path))
	if err != nil || !ok {
		return nil, err
	}
	c := &cachedHash{}
	if err := json.Unmarshal(row, c); err != nil {
		return nil, nil // it is read again
	}
	if c.Path != f.Path || c.Size != f.Size || c.Device != f.Device || c.Inode != f.Inode || !c.Mtime.Equal(f.ModTime) || !c.Ctime.Equal(f.ChangeTime) {
		return nil, nil
	}
	return c, nil
}

// sealImage seals what came of a file. The row of the list goes with it, so a file is
// never told twice and never forgotten.
func (r *Registry) sealImage(ctx context.Context, m *machine, i hashFile, h *hashed) error {
	r.observing.Lock()
	defer r.observing.Unlock()
	now := r.get(m.UUID)
	if now == nil || now.Ended || now.log != m.log {
		return nil // its log has ended meanwhile; the next one has a list of its own
	}
	if _, closed := m.log.Closed(); closed {
		return fmt.Errorf("seal the digest of %s: its log goes on in another shard soon: %w", i.Path, record.ErrRetry)
	}
	genesis, err := m.log.LeafHash(0)
	if err != nil {
		return fmt.Errorf("seal the digest of an image: %w", err)
	}
	x := imageRecord(i.Role, &h.file)
	x.Target, x.Depth, x.Sha256, x.Error, x.GenesisHash, x.Cached = i.Target, i.Depth, h.sha256, h.problem, genesis[:], h.cached
	if !h.read.IsZero() {
		x.Read = h.read.UnixNano()
	}
	status := "read"
	if h.problem != "" {
		status = "unread"
	}
	e, err := r.store.Draft(record.OriginHost, record.ClassVMImageDigest, &record.Event{Reason: "image", Vm: &record.VM{
		Uuid: m.UUID.String(), Name: now.Name, State: now.State.String(), LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: int64(now.LibvirtID),
		Source: "image", Hypervisor: &record.Hypervisor{Word: "image", Device: i.Target, Path: i.Path, Status: status, Image: x}}})
	if err != nil {
		return err
	}
	rows, err := r.doneRows(m.log.Origin(), i, h)
	if err != nil {
		return err
	}
	if _, err := r.store.Append(ctx, chain.Batch{Log: m.log, Entries: []chain.Entry{e}, Meta: rows}); err != nil {
		r.notDone(m.log.Origin(), i)
		return fmt.Errorf("seal the digest of %s: %w", i.Path, err)
	}
	return nil
}

// notDone takes back what doneRows has noted: the file is told later. The caller holds
// observing, so no other row has gone out meanwhile.
func (r *Registry) notDone(origin string, i hashFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.images[origin].Images {
		if x := &r.images[origin].Images[n]; x.Path == i.Path && x.Role == i.Role {
			x.Done = false
		}
	}
}

// doneRows marks a file as done, and keeps its digest for other domains and later runs.
func (r *Registry) doneRows(origin string, i hashFile, h *hashed) ([]chain.MetaWrite, error) {
	r.mu.Lock()
	l := r.images[origin]
	for n := range l.Images {
		if l.Images[n].Path == i.Path && l.Images[n].Role == i.Role {
			l.Images[n].Done = true
		}
	}
	b, err := json.Marshal(l)
	r.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("encode the list of images: %w", err)
	}
	rows := []chain.MetaWrite{{Key: imagesPrefix + origin, Value: b}}
	if h.problem != "" || h.cached {
		return rows, nil
	}
	c, err := json.Marshal(&cachedHash{Path: i.Path, Size: h.file.Size, Device: h.file.Device, Inode: h.file.Inode, Mtime: h.file.ModTime,
		Ctime: h.file.ChangeTime, SHA256: hex.EncodeToString(h.sha256), Read: h.read})
	if err != nil {
		return nil, fmt.Errorf("encode the digest of an image: %w", err)
	}
	return append(rows, chain.MetaWrite{Key: hashKey(i.Path), Value: c}), nil
}

func imageRecord(role string, f *virt.DiskFile) *record.Image {
	x := &record.Image{Role: role, Path: f.Path, Size: uint64(max(f.Size, 0)), Device: f.Device, Inode: f.Inode, Error: f.Error}
	if !f.ModTime.IsZero() {
		x.Mtime, x.Ctime = f.ModTime.UnixNano(), f.ChangeTime.UnixNano()
	}
	return x
}

func bootImages(files []virt.BootFile) []*record.Image {
	var all []*record.Image
	for i := range files {
		all = append(all, imageRecord(files[i].Role, &files[i].DiskFile))
	}
	return all
}

// Bounds of what a genesis says: an entry that does not fit would be refused, and whoever
// may describe one domain could keep all others from being heard.
const (
	maxGenesisFiles = 512
	maxGenesisText  = 1024 // of a path, or of why it cannot be looked at
	maxGenesisWord  = 256
)

// genesisFacts fills in what libvirt tells of a domain. What is too large is named by its size.
func genesisFacts(g *record.Genesis, s *virt.Snapshot) {
	unread := slices.Clone(s.Errors)
	text := func(what, xml string, limit int) []byte {
		if len(xml) > limit {
			unread = append(unread, fmt.Sprintf("%s: %d bytes, more than %d", what, len(xml), limit))
			return nil
		}
		return []byte(xml)
	}
	live := text("live configuration", s.LiveXML, virt.MaxXMLBytes)
	if g.DomainXml = text("persistent configuration", s.ConfigXML, virt.MaxXMLBytes); s.ConfigXML == "" {
		g.DomainXml = live
	} else {
		g.LiveXml = live
	}
	g.Disks, g.Boot = disks(s.Disks), bootImages(s.Boot)
	if n := len(g.Disks); n > maxGenesisFiles {
		g.Disks = g.Disks[:maxGenesisFiles]
		unread = append(unread, fmt.Sprintf("disks: %d more files", n-maxGenesisFiles))
	}
	for _, d := range g.Disks {
		d.Target, d.Format = shorten(d.Target, maxGenesisWord), shorten(d.Format, maxGenesisWord)
		d.Path, d.Error = shorten(d.Path, maxGenesisText), shorten(d.Error, maxGenesisText)
	}
	for _, b := range g.Boot {
		b.Path, b.Error = shorten(b.Path, maxGenesisText), shorten(b.Error, maxGenesisText)
	}
	g.Machine, g.Architecture = shorten(s.Machine, maxGenesisWord), shorten(s.Architecture, maxGenesisWord)
	g.CpuXml = text("processor", s.CPUXML, virt.MaxXMLBytes/16)
	for i := range unread {
		unread[i] = shorten(unread[i], maxGenesisText)
	}
	g.Unread = unread
}

// shorten cuts a text of which nobody needs more.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// ImageStats tells how far the hashing of images is. All fields may be read at any time.
func (r *Registry) ImageStats() *ImageStats { return &r.imageStats }

// RunImages hashes the files that domains only read, one at a time, slowly and
// behind all other reading, and seals the digests. It ends with ctx, or when the ledger
// fails. A file that no read comes back from, as on a dead network file system, holds
// up those behind it until it does, and is left behind at the end.
func (r *Registry) RunImages(ctx context.Context) error {
	tick := time.NewTicker(imagesEvery)
	defer tick.Stop()
	for {
		m, i, pending := r.nextImage()
		r.imageStats.Pending.Store(int64(pending))
		if m == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			continue
		}
		h, err := r.hash(ctx, i.Path)
		if ctx.Err() != nil {
			return nil // it is begun anew after the next start
		}
		if err != nil {
			return err
		}
		if err := r.sealImage(ctx, m, i, h); err != nil && ctx.Err() == nil {
			if !errors.Is(err, record.ErrRetry) {
				return err
			}
			r.log.WarnContext(ctx, "the digest of an image cannot be sealed now", "path", i.Path, "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}
