package daemon

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// shelf keeps the files of policy bundles:
//
//	bundles/<digest>/   each bundle that was in force, never changed
//	incoming-*/         one that is being received; what a crash leaves of it goes
//	                    with the next start
//	active.json         which one is in force, and which were before
type shelf struct{ dir string }

// active is what active.json says. Digests are hexadecimal.
type active struct {
	Active string `json:"active"`
	// Directory is the digest of what the configured directory held when it was
	// read last.
	Directory string `json:"directory"`
	// Previous are the bundles that were in force before, the last one first.
	Previous []string `json:"previous"`
}

// maxPrevious bounds how far back a rollback leads.
const maxPrevious = 32

// to returns what follows when a bundle comes in force.
func (a active) to(digest string) active {
	if a.Active != "" && a.Active != digest {
		a.Previous = append([]string{a.Active}, a.Previous...)
		a.Previous = a.Previous[:min(len(a.Previous), maxPrevious)]
	}
	a.Active = digest
	return a
}

// PolicyBundles is the directory of the bundles that are kept.
func (c *Config) PolicyBundles() string { return (&shelf{dir: c.policiesDir()}).bundles() }

func (c *Config) policiesDir() string { return filepath.Join(c.StateDir, "policies") }

func openShelf(dir string) (*shelf, error) {
	s := &shelf{dir: dir}
	if err := os.MkdirAll(s.bundles(), 0o700); err != nil {
		return nil, fmt.Errorf("keep policies: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "incoming-*"))
	for _, d := range left {
		err = errors.Join(err, os.RemoveAll(d))
	}
	if err = errors.Join(err, syncDir(dir)); err != nil {
		return nil, fmt.Errorf("keep policies: %w", err)
	}
	return s, nil
}

func (s *shelf) bundles() string            { return filepath.Join(s.dir, "bundles") }
func (s *shelf) activeFile() string         { return filepath.Join(s.dir, "active.json") }
func (s *shelf) place(digest string) string { return filepath.Join(s.bundles(), digest) }

// maxActive bounds active.json, in bytes.
const maxActive = 64 << 10

// active reads which bundle is in force; known is false where none ever was.
func (s *shelf) active() (a active, known bool, err error) {
	f, err := os.Open(s.activeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("read which policies are in force: %w", err)
	}
	defer f.Close()
	if a, err = parseActive(f); err != nil {
		return a, false, fmt.Errorf("read which policies are in force: %s: %w; remove it to go on with the policies of the configuration: %w", s.activeFile(), err, record.ErrReject)
	}
	return a, true, nil
}

func parseActive(r io.Reader) (a active, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxActive))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	for _, d := range append([]string{a.Active, a.Directory}, a.Previous...) {
		if raw, e := hex.DecodeString(d); err == nil && (e != nil || len(raw) != len(policy.Digest{})) {
			err = fmt.Errorf("%q is no digest: %w", d, record.ErrReject)
		}
	}
	if err != nil {
		return active{}, err
	}
	return a, nil
}

// setActive says durably which bundle is in force. A crash leaves the old file or
// the new one.
func (s *shelf) setActive(a active) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("say which policies are in force: %w", err)
	}
	next := s.activeFile() + ".next"
	err = writeFile(next, append(b, '\n'))
	if err == nil {
		err = errors.Join(os.Rename(next, s.activeFile()), syncDir(s.dir))
	}
	if err != nil {
		return fmt.Errorf("say which policies are in force: %w", err)
	}
	return nil
}

func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// load reads a bundle that is kept, and holds it against its digest.
func (s *shelf) load(digest string) (*policy.Bundle, error) {
	if digest == none.Digest.String() {
		return none, nil
	}
	b, diags := policy.Load(s.place(digest))
	if diags.HasErrors() {
		return nil, fmt.Errorf("the policy bundle %s is not kept in %s, or does not load: %w: %w", digest, s.place(digest), diags, record.ErrReject)
	}
	if b.Digest.String() != digest {
		return nil, fmt.Errorf("the policy bundle in %s was changed: its digest is %s: %w", s.place(digest), b.Digest, record.ErrReject)
	}
	return b, nil
}

// text returns the files of a bundle that is kept.
func (s *shelf) text(digest policy.Digest) (map[string][]byte, error) {
	b, err := s.load(digest.String())
	if err != nil {
		return nil, err
	}
	return b.Files, nil
}

// keep stores the files of a loaded bundle, durably.
func (s *shelf) keep(b *policy.Bundle) error {
	if b.Digest == none.Digest || s.has(b.Digest.String()) {
		return nil
	}
	in, err := s.incoming()
	if err != nil {
		return err
	}
	defer in.discard()
	for name, data := range b.Files {
		if err := in.add(name, strings.NewReader(string(data)), int64(len(data))); err != nil {
			return err
		}
	}
	return in.keepAs(b.Digest.String())
}

// has reports whether a bundle is kept whole.
func (s *shelf) has(digest string) bool {
	_, err := s.load(digest)
	return err == nil
}

// incoming is a bundle that is being received.
type incoming struct {
	shelf *shelf
	dir   string
	root  *os.Root
	files int
	bytes int64
	dirs  map[string]bool
}

func (s *shelf) incoming() (*incoming, error) {
	dir, err := os.MkdirTemp(s.dir, "incoming-")
	if err != nil {
		return nil, fmt.Errorf("receive policies: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("receive policies: %w", errors.Join(err, os.RemoveAll(dir)))
	}
	return &incoming{shelf: s, dir: dir, root: root, dirs: map[string]bool{".": true}}, nil
}

// Bounds of what is received.
const (
	maxReceived      = 96 << 20             // bytes of all files
	maxReceivedFiles = proof.MaxPolicyFiles // policies and their tests
)

// add writes one file of the bundle. Names cannot lead out of it.
func (in *incoming) add(name string, r io.Reader, size int64) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("receive policies: file %q: %s: %w", name, fmt.Sprintf(format, args...), record.ErrReject)
	}
	in.files++
	in.bytes += size
	switch {
	case !proof.ValidPolicyFile(name):
		return bad("its name is none of a file in a bundle")
	case in.files > maxReceivedFiles:
		return bad("it is one more than the %d that a bundle may have", maxReceivedFiles)
	case size < 0 || size > policy.MaxListSize || in.bytes > maxReceived:
		return bad("with it the bundle has %d bytes; a file may have %d, all together %d", in.bytes, policy.MaxListSize, maxReceived)
	}
	for d := path.Dir(name); !in.dirs[d]; d = path.Dir(d) {
		if err := in.root.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("receive policies: %w", err)
		}
		in.dirs[d] = true
	}
	f, err := in.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return bad("it comes twice")
	}
	if err != nil {
		return fmt.Errorf("receive policies: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(r, size))
	if err == nil && n != size {
		err = bad("%d of its %d bytes have come", n, size)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("receive policies: %w", err)
	}
	return nil
}

// keepAs makes what was received a bundle that is kept. A crash before the renaming
// leaves what the next start takes away.
func (in *incoming) keepAs(digest string) error {
	var err error
	for d := range in.dirs {
		err = errors.Join(err, syncDir(filepath.Join(in.dir, filepath.FromSlash(d))))
	}
	place := in.shelf.place(digest)
	if err == nil {
		err = os.RemoveAll(place) // damaged: has said so
	}
	if err == nil {
		err = errors.Join(os.Rename(in.dir, place), syncDir(in.shelf.bundles()))
	}
	if err != nil {
		return fmt.Errorf("keep policies: %w", err)
	}
	return nil
}

// discard takes away what was not kept, best effort: the next start does it else.
func (in *incoming) discard() {
	_ = in.root.Close()
	_ = os.RemoveAll(in.dir)
}
