package proof

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Limits bound what ReadBundle takes from an archive. Zero values mean the
// defaults given.
type Limits struct {
	Bytes   int64 // of the whole archive; default 1 GiB
	Members int   // default 500,000
	Member  int64 // bytes of one member; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 1 << 30
	}
	if l.Members == 0 {
		l.Members = 500_000
	}
	if l.Member == 0 {
		l.Member = 64 << 20
	}
	return l
}

// check refuses members that make an archive above the limits.
func (l Limits) check(files []member) error {
	const advice = "choose fewer entries or a smaller range"
	if len(files) > l.Members {
		return fmt.Errorf("%d members, limit %d; %s: %w", len(files), l.Members, advice, record.ErrReject)
	}
	for _, f := range files {
		if int64(len(f.data)) > l.Member {
			return fmt.Errorf("member %q has %d bytes, limit %d; %s: %w", f.name, len(f.data), l.Member, advice, record.ErrReject)
		}
	}
	if n := archiveSize(files); n > l.Bytes {
		return fmt.Errorf("%d bytes, limit %d; %s: %w", n, l.Bytes, advice, record.ErrReject)
	}
	return nil
}

// archiveSize returns how many bytes writeArchive writes, below 4 GiB.
func archiveSize(files []member) int64 {
	const (
		local, central, end = 30, 46, 22 // a member's two headers, and the directory's end
		end64               = 56 + 20    // the end of a directory with many members
		many                = 1<<16 - 1
	)
	n := int64(end)
	if len(files) >= many {
		n += end64
	}
	for _, f := range files {
		n += int64(local + central + 2*len(f.name) + len(f.data))
	}
	return n
}

// WriteBundle writes b as a zip archive whose bytes follow from its content:
// members are stored, sorted by name and carry no time. A bundle which
// ReadBundle would refuse for its size is an error that wraps
// record.ErrReject, and nothing of it is written.
func WriteBundle(w io.Writer, b *Bundle) error { return writeBundle(w, b, Limits{}) }

func writeBundle(w io.Writer, b *Bundle, limits Limits) error {
	files, err := b.members()
	if err != nil {
		return err
	}
	if err := limits.withDefaults().check(files); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := writeArchive(w, files); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

func writeArchive(w io.Writer, files []member) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		crc := crc32.ChecksumIEEE(f.data)
		// Raw, so that sizes stand in the header and no descriptor follows.
		h := &zip.FileHeader{Name: f.name, Method: zip.Store, CRC32: crc, CompressedSize64: uint64(len(f.data)), UncompressedSize64: uint64(len(f.data))}
		m, err := z.CreateRaw(h)
		if err != nil {
			return fmt.Errorf("add %s: %w", f.name, err)
		}
		if _, err := m.Write(f.data); err != nil {
			return fmt.Errorf("add %s: %w", f.name, err)
		}
	}
	return z.Close()
}

// ReadBundle reads an archive that WriteBundle has written. Faults that leave
// it readable, such as a wrong checksum or a missing member, are kept and
// reported by Verify together with all others; an archive or a manifest that
// cannot be read is an error that wraps record.ErrReject.
func ReadBundle(r io.ReaderAt, size int64, limits Limits) (*Bundle, error) {
	limits = limits.withDefaults()
	if size > limits.Bytes {
		return nil, fmt.Errorf("read bundle: %d bytes, limit %d: %w", size, limits.Bytes, record.ErrReject)
	}
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("read bundle: it is no zip archive, or its directory is damaged: %w: %w", record.ErrReject, err)
	}
	if len(z.File) > limits.Members {
		return nil, fmt.Errorf("read bundle: %d members, limit %d: %w", len(z.File), limits.Members, record.ErrReject)
	}
	b := &Bundle{}
	files, order, err := b.readMembers(z, limits)
	if err != nil {
		return nil, err
	}
	if err := b.fill(files); err != nil {
		return nil, err
	}
	for name := range files {
		b.fault(name, "is not named in the manifest")
	}
	if len(b.faults) == 0 {
		b.checkCanonical(r, size, order)
	}
	return b, nil
}

// fault notes something that Verify has to report.
func (b *Bundle) fault(file, format string, args ...any) {
	b.faults = append(b.faults, Failure{File: file, Problem: fmt.Sprintf(format, args...)})
}

// readMembers reads the stored bytes of every member, whatever its checksum
// says: a tampered member is looked at like any other, so that the report can
// say what is wrong with the entry in it.
func (b *Bundle) readMembers(z *zip.Reader, limits Limits) (map[string][]byte, []member, error) {
	files := make(map[string][]byte, len(z.File))
	order := make([]member, 0, len(z.File))
	total := int64(0)
	for _, f := range z.File {
		if _, twice := files[f.Name]; twice {
			b.fault(f.Name, "is in the archive twice")
			continue
		}
		if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
			b.fault(f.Name, "is compressed: members of a bundle are stored as they are")
			continue
		}
		if f.CompressedSize64 > uint64(limits.Member) || total+int64(f.CompressedSize64) > limits.Bytes {
			return nil, nil, fmt.Errorf("read bundle: member %q has %d bytes, more than the limits allow: %w", f.Name, f.CompressedSize64, record.ErrReject)
		}
		total += int64(f.CompressedSize64)
		data, err := readRaw(f)
		if err != nil {
			b.fault(f.Name, "cannot be read: %v", err)
			continue
		}
		if crc32.ChecksumIEEE(data) != f.CRC32 {
			b.fault(f.Name, "its bytes do not match its checksum: it was changed after it was written")
		}
		files[f.Name] = data
		order = append(order, member{f.Name, data})
	}
	return files, order, nil
}

func readRaw(f *zip.File) ([]byte, error) {
	r, err := f.OpenRaw()
	if err != nil {
		return nil, err
	}
	// Grows with what is there: the size in the directory is a claim.
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, io.LimitReader(r, int64(f.CompressedSize64))); err != nil {
		return nil, err
	}
	if uint64(buf.Len()) != f.CompressedSize64 {
		return nil, fmt.Errorf("%d bytes, the directory says %d", buf.Len(), f.CompressedSize64)
	}
	return buf.Bytes(), nil
}

// fill takes the files that the manifest names out of files.
func (b *Bundle) fill(files map[string][]byte) error {
	text, ok := files[manifestFile]
	if !ok {
		return fmt.Errorf("read bundle: %s is missing or unreadable: %w", manifestFile, record.ErrReject)
	}
	m, err := parseManifest(text)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	take := func(name string) []byte {
		data, ok := files[name]
		if !ok {
			b.fault(name, "is missing")
		}
		delete(files, name)
		return data
	}
	sealed := func(base string, open bool) (s Sealed) {
		s.Leaf, s.Proof = take(base+".leaf"), take(base+".tlog-proof")
		if spicy := take(base + ".leaf.spicy"); !bytes.Equal(spicy, Spicy(s.Proof)) {
			b.fault(base+".leaf.spicy", "is not the twin of %s.tlog-proof", base)
		}
		if open {
			s.Opening = take(base + ".payload")
		}
		return s
	}
	take(manifestFile)
	b.version, b.HostOrigin, b.VMOrigin, b.Range = m.Version, m.Host, m.VM, m.Range
	b.HostCheckpoint, b.VMCheckpoint = take(hostCheckpointFile), take(vmCheckpointFile)
	b.HostKey, b.VMKey = strings.TrimSuffix(string(take(hostKeyFile)), "\n"), strings.TrimSuffix(string(take(vmKeyFile)), "\n")
	b.Quote, b.Certificate = sealed(quoteBase, true), sealed(certificateBase, true)
	for i := range m.Keys {
		b.Certificates = append(b.Certificates, sealed(fmt.Sprintf(earlierKeys, i), true))
	}
	for _, e := range m.Entries {
		place, err := e.Frame.place()
		if err != nil {
			b.faults = append(b.faults, Failure{File: manifestFile, Log: m.VM, Index: &e.Index, Problem: err.Error()})
		}
		b.Entries = append(b.Entries, Entry{Index: e.Index, Role: e.Role, Frame: place, Sealed: sealed(e.File, e.Open)})
	}
	b.fillPolicies(&m, take)
	if got := take(readmeFile); !bytes.Equal(got, readme(b)) {
		b.fault(readmeFile, "is not the one that belongs to this bundle")
	}
	if got := take(scriptFile); !bytes.Equal(got, scripts[m.Version]) {
		b.fault(scriptFile, "is not the one that belongs to this bundle")
	}
	// The same content in other words would not come out again as it went in.
	if again, err := json.MarshalIndent(m, "", "  "); err != nil || !bytes.Equal(append(again, '\n'), text) {
		b.fault(manifestFile, "is not written as this format writes it")
	}
	return nil
}

// checkCanonical compares the archive byte for byte with what WriteBundle
// makes of its members: times, comments and padding can hide nothing.
func (b *Bundle) checkCanonical(r io.ReaderAt, size int64, order []member) {
	c := &comparer{r: io.NewSectionReader(r, 0, size)}
	err := writeArchive(c, order)
	if err == nil && c.n != size {
		err = fmt.Errorf("it is longer than its members make it")
	}
	if err != nil {
		b.fault("", "the archive itself was changed: %v", err)
	}
	for i := 1; i < len(order); i++ {
		if order[i-1].name >= order[i].name {
			b.fault(order[i].name, "stands out of order in the archive")
		}
	}
}

// comparer is a writer that fails at the first byte which is not r's.
type comparer struct {
	r   io.Reader
	n   int64
	buf [32 << 10]byte
}

func (c *comparer) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		have := c.buf[:min(len(c.buf), len(p)-done)]
		n, err := io.ReadFull(c.r, have)
		if err != nil || !bytes.Equal(have[:n], p[done:done+n]) {
			return done, fmt.Errorf("it differs from its members near byte %d", c.n)
		}
		c.n += int64(n)
		done += n
	}
	return len(p), nil
}
