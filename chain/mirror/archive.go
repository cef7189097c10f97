package mirror

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Format of the archive of a shard. Part of the format.
const (
	archiveFormat   = "provost-shard"
	archiveVersion  = 1
	damagedVersion  = 2            // of one with gaps that the host log tells of
	archiveManifest = "shard.json" // the first member
	archiveEvidence = "evidence.zip"
	archiveDamage   = "damage/%08d" // by the index in the host log
)

const (
	// MaxArchive bounds the entries of one archive.
	MaxArchive = 1 << 25
	// MaxArchiveDamage bounds the entries of the host log in it that tell of damage.
	MaxArchiveDamage = 4096
	// MaxEvidence bounds the evidence bundle in an archive, in bytes.
	MaxEvidence = 64 << 20
)

const (
	// maxDirectory bounds what is read to find the members of an archive: they have
	// at most 70 bytes each in its directory, and there are three for each bundle.
	maxDirectory = 32 << 20
	maxManifest  = 4<<10 + MaxArchiveDamage*32 // an index has 20 digits at most
)

// Manifest says what an archive is. It proves nothing.
type Manifest struct {
	Format   string `json:"format"`
	Version  int    `json:"version"`
	Host     string `json:"host_origin"`
	Origin   string `json:"origin"`
	Size     uint64 `json:"size"`
	Withheld bool   `json:"payloads_withheld"` // but for those that verification needs
	// Damage are entries of the host log which tell that entries of this one are fenced
	// off, in order. Where there are any, those may lack.
	Damage []uint64 `json:"damage,omitempty"`
}

// ArchiveWriter writes the archive of a shard: a zip file in the layout of
// torchwood's TileArchiveFS, whose bytes follow from what is added.
type ArchiveWriter struct{ z *zip.Writer }

// NewArchiveWriter begins an archive with its manifest and the evidence of the host
// log for its checkpoint: a bundle as proof.WriteBundle writes it.
func NewArchiveWriter(w io.Writer, m Manifest, evidence []byte) (*ArchiveWriter, error) {
	if m.Size > MaxArchive {
		return nil, fmt.Errorf("write archive of %s: %d entries, and an archive holds %d at most: %w", m.Origin, m.Size, MaxArchive, record.ErrReject)
	}
	if len(evidence) > MaxEvidence {
		return nil, fmt.Errorf("write archive of %s: its evidence has %d bytes, limit %d: %w", m.Origin, len(evidence), MaxEvidence, record.ErrReject)
	}
	if m.Format, m.Version = archiveFormat, archiveVersion; len(m.Damage) > 0 {
		m.Version = damagedVersion
	}
	text, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return nil, err
	}
	a := &ArchiveWriter{zip.NewWriter(w)}
	if err := a.Add(archiveManifest, append(text, '\n')); err != nil {
		return nil, err
	}
	return a, a.Add(archiveEvidence, evidence)
}

// AddDamage adds an entry of the host log that the manifest has under Damage, with its
// proof under the checkpoint of the evidence.
func (a *ArchiveWriter) AddDamage(index uint64, s *proof.Sealed) error {
	base := fmt.Sprintf(archiveDamage, index)
	return errors.Join(a.Add(base+".leaf", s.Leaf), a.Add(base+".payload", s.Opening), a.Add(base+".tlog-proof", s.Proof))
}

// Add adds a resource of the log as it is: hashes and signatures do not compress.
func (a *ArchiveWriter) Add(name string, data []byte) error { return a.add(name, data, zip.Store) }

// AddCompressed adds a resource of the log compressed.
func (a *ArchiveWriter) AddCompressed(name string, data []byte) error {
	return a.add(name, data, zip.Deflate)
}

func (a *ArchiveWriter) add(name string, data []byte, method uint16) error {
	w, err := a.z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	return nil
}

// AddOpenings adds an opening bundle. One that a verifier would not take is an error
// that wraps record.ErrReject.
func (a *ArchiveWriter) AddOpenings(n uint64, width int, data []byte) error {
	if len(data) > openingBytes {
		return fmt.Errorf("the payloads of entries %d to %d have %d bytes together, and an archive holds %d of so many entries: withhold payloads: %w",
			n*bundleWidth, n*bundleWidth+uint64(width)-1, len(data), openingBytes, record.ErrReject)
	}
	return a.AddCompressed(Path("openings", n, width), data)
}

// Close ends the archive. It does not close what it was written to.
func (a *ArchiveWriter) Close() error { return a.z.Close() }

// IsArchive reports whether a file begins as the archive of a shard does, and as no
// evidence bundle does.
func IsArchive(r io.ReaderAt) bool {
	head := make([]byte, 30+len(archiveManifest)) // a local header of zip, then its name
	_, err := r.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && bytes.HasPrefix(head, []byte("PK\x03\x04")) && string(head[30:]) == archiveManifest
}

// Archive is the archive of a shard. It is a Source of its log.
type Archive struct {
	Manifest
	z *zip.Reader
}

var _ Source = (*Archive)(nil)

// OpenArchive reads what an archive holds. One that cannot be read is an error that
// wraps record.ErrReject.
func OpenArchive(r io.ReaderAt, size int64) (*Archive, error) {
	bad := func(err error) (*Archive, error) {
		return nil, fmt.Errorf("open archive: it is no archive of a shard, or it is damaged: %w: %w", err, record.ErrReject)
	}
	bound := &bounded{r: r, left: maxDirectory}
	z, err := zip.NewReader(bound, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // members are asked for by their names
		return bad(err)
	}
	bound.left = -1
	a := &Archive{z: z}
	text, err := a.Fetch(context.Background(), archiveManifest, maxManifest)
	if err != nil {
		return bad(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a.Manifest); err != nil {
		return bad(err)
	}
	if a.Format != archiveFormat || a.Version != archiveVersion && a.Version != damagedVersion {
		return bad(fmt.Errorf("format %q version %d, want %s %d or %d", a.Format, a.Version, archiveFormat, archiveVersion, damagedVersion))
	}
	if n := len(a.Damage); (n > 0) != (a.Version == damagedVersion) || n > MaxArchiveDamage {
		return bad(fmt.Errorf("%d entries tell of damage in version %d, limit %d", n, a.Version, MaxArchiveDamage))
	}
	return a, nil
}

// bounded bounds how much is read, until left is negative: the directory of an
// archive can claim any number of members.
type bounded struct {
	r    io.ReaderAt
	left int64
}

func (b *bounded) ReadAt(p []byte, at int64) (int, error) {
	if b.left >= 0 {
		if b.left -= int64(len(p)); b.left < 0 {
			b.left = 0
			return 0, fmt.Errorf("its directory is larger than %d bytes", maxDirectory)
		}
	}
	return b.r.ReadAt(p, at)
}

// Fetch implements Source.
func (a *Archive) Fetch(_ context.Context, path string, limit int) ([]byte, error) {
	if !fs.ValidPath(path) {
		return nil, fmt.Errorf("read %q: it is no path: %w", path, fs.ErrNotExist)
	}
	f, err := a.z.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w: %w", path, err, ErrDamaged, record.ErrReject)
	}
	defer func() { _ = f.Close() }() // it was only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no file: %w", path, fs.ErrNotExist)
	}
	// It grows with what is there: the size that the archive states is a claim.
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case len(b) > limit:
		return nil, fmt.Errorf("read %s: more than %d bytes: %w: %w", path, limit, ErrTooLarge, record.ErrReject)
	case err != nil:
		var disk *fs.PathError
		if errors.As(err, &disk) {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return nil, fmt.Errorf("read %s: %w: %w: %w", path, err, ErrDamaged, record.ErrReject)
	}
	return b, nil
}

// evidence is what the host log says of the checkpoint of a VM log.
type evidence struct {
	manifest   Manifest
	checkpoint []byte
	report     *proof.Report
	damaged    damage
}

// VerifyArchive verifies the archive of a shard with the verifier key of its host log:
// that the host log quotes its checkpoint, under a certified key, and then every entry as
// Verify does. Of opts Frame, Policy, Workers, Entry, Evidence and Progress count. An empty key is taken from
// the policy. Errors are those of Verify.
func VerifyArchive(ctx context.Context, a *Archive, hostKey string, opts Options) (*Report, error) {
	r := &Report{Logs: []LogReport{}}
	invalid := func(err error) (*Report, error) {
		r.fail(KindEntry, a.Origin, nil, "%s: %v", archiveEvidence, err)
		return r, &InvalidError{r}
	}
	text, err := a.Fetch(ctx, archiveEvidence, MaxEvidence)
	if errors.Is(err, fs.ErrNotExist) || unusable(err) {
		return invalid(err)
	}
	if err != nil {
		return nil, fmt.Errorf("verify archive: %w", err)
	}
	b, err := proof.ReadBundle(bytes.NewReader(text), int64(len(text)), proof.Limits{})
	if err != nil {
		return invalid(err)
	}
	if hostKey == "" && opts.Policy != nil {
		// Which log it says it is from decides only which trusted key it must hold against.
		hostKey, _ = opts.Policy.LogKey(b.HostOrigin)
	}
	if hostKey == "" {
		return nil, fmt.Errorf("verify archive: no key of host log %s is known: %w", record.Printable([]byte(b.HostOrigin)), record.ErrReject)
	}
	report, err := proof.Verify(b, hostKey, proof.Options{Frame: opts.Frame, Policy: opts.Policy})
	var wrong *proof.InvalidError
	if errors.As(err, &wrong) {
		for _, f := range wrong.Report.Failures {
			r.fail(KindEntry, b.VMOrigin, f.Index, "%s: %s", archiveEvidence, f)
		}
		return r, &InvalidError{r}
	}
	if err != nil {
		return nil, err
	}
	e := &evidence{manifest: a.Manifest, checkpoint: b.VMCheckpoint, report: report}
	if err := e.readDamage(ctx, a, b, hostKey); err != nil {
		if errors.Is(err, record.ErrReject) {
			r.fail(KindEntry, b.HostOrigin, nil, "%v", err)
			return r, &InvalidError{r}
		}
		return nil, fmt.Errorf("verify archive: %w", err)
	}
	if opts.Evidence != nil {
		if err := opts.Evidence(b); err != nil {
			return nil, err
		}
	}
	opts = Options{Frame: opts.Frame, Policy: opts.Policy, OneLog: true, Window: opts.Window, Workers: opts.Workers, Entry: opts.Entry, Progress: opts.Progress}
	return verify(ctx, a, b.VMKey, opts, e)
}

// check holds the checkpoint of the archive, and what it says of itself, against the
// evidence.
func (e *evidence) check(c *logCheck, checkpoint []byte) {
	if !bytes.Equal(checkpoint, e.checkpoint) {
		c.fail(KindFork, nil, "its checkpoint is not the one that the host log quotes, at %d entries with root %s", e.report.VMSize, e.report.VMRoot)
	}
	if m := e.manifest; m.Host != e.report.HostOrigin || m.Origin != c.origin || m.Size != c.size {
		c.fail(KindLog, nil, "%s says that it is %s of host log %s at %d entries; it is %s of %s at %d", archiveManifest, m.Origin, m.Host, m.Size, c.origin, e.report.HostOrigin, c.size)
	}
}

// proved says what the host log vouches for.
func (e *evidence) proved(say func(string, ...any)) {
	r := e.report
	say("It certifies the key of log %s, and quotes its checkpoint of %d entries with root %s.", r.VMOrigin, r.VMSize, r.VMRoot)
	for _, c := range r.Entries {
		if c.Class == record.ClassClosed.String() && c.Origin == record.OriginHost.String() {
			say("That log was closed by its entry %d.", c.Index)
		}
	}
}
