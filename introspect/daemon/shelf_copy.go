package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// Names below a backup's directory, as below that of a shelf.
const (
	copiedBundles = "bundles"
	copiedActive  = "active.json"
)

// copyTo copies what is kept to an empty directory: which bundle is in force first, since
// what that names is kept before. It leaves no trace where nothing was ever kept. A bundle
// comes by its name when it is whole, and is never changed, so none is copied in part.
func (s *shelf) copyTo(ctx context.Context, dir string) error {
	a, known, err := s.active()
	if err != nil {
		return err
	}
	to := &shelf{dir: dir}
	if known {
		if err := to.setActive(a); err != nil {
			return err
		}
	}
	kept, err := s.kept()
	if err != nil || len(kept) == 0 {
		return err
	}
	if err := os.Mkdir(to.bundles(), 0o700); err != nil {
		return fmt.Errorf("copy policies: %w", err)
	}
	for _, digest := range kept {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		in, err := to.incoming()
		if err != nil {
			return err
		}
		if err := in.addTree(s.place(digest)); err != nil {
			in.discard()
			return err
		}
		if err := in.keepAs(digest); err != nil {
			in.discard()
			return err
		}
		in.discard()
	}
	return nil
}

// kept returns the digests of the bundles that are kept, in order. Other names are of
// nobody's.
func (s *shelf) kept() ([]string, error) {
	entries, err := os.ReadDir(s.bundles())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the policies that are kept: %w", err)
	}
	var all []string
	for _, e := range entries {
		if raw, err := hex.DecodeString(e.Name()); err == nil && len(raw) == len(policy.Digest{}) && e.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all, nil
}

// addTree adds the files of a directory. Whatever else is in it was not put there by a shelf.
func (in *incoming) addTree(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("copy policies: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("copy policies: %s in %s is no plain file: %w", name, dir, record.ErrReject)
		}
		f, err := root.Open(name)
		if err != nil {
			return fmt.Errorf("copy policies: %w", err)
		}
		defer func() { _ = f.Close() }()
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("copy policies: %w", err)
		}
		return in.add(name, f, st.Size())
	})
}

// RestoredPolicies says what came of the policies of a backup.
type RestoredPolicies struct {
	Bundles int      // that were put in their places
	There   int      // that were kept here already
	Damaged []string // digests of those that are not what they should be, with the reason
}

// restorePolicies keeps the bundles of a backup that are not kept here, each held against
// its digest, and says which is in force where that is not known here. It comes ahead of
// the ledger: a crash between the two leaves bundles more than are needed, and the restore
// is made again. What is damaged is told, and keeps no ledger from being restored.
func restorePolicies(cfg *Config, dir string) (*RestoredPolicies, error) {
	m, err := chain.OpenBackup(dir)
	if err != nil {
		return nil, err
	}
	if m.HostID != cfg.HostID {
		return &RestoredPolicies{}, nil // the ledger is refused, which says why
	}
	s, err := openShelf(cfg.policiesDir())
	if err != nil {
		return nil, err
	}
	bundles := map[string][]string{} // names of files, by digest
	for _, name := range m.BesideNames() {
		if rest, ok := strings.CutPrefix(name, copiedBundles+"/"); ok {
			digest, file, _ := strings.Cut(rest, "/")
			bundles[digest] = append(bundles[digest], file)
		}
	}
	out := &RestoredPolicies{}
	for _, digest := range slices.Sorted(maps.Keys(bundles)) {
		if s.has(digest) {
			out.There++
			continue
		}
		err := s.restore(m, dir, digest, bundles[digest])
		switch {
		case errors.Is(err, record.ErrReject) || errors.Is(err, fs.ErrNotExist):
			out.Damaged = append(out.Damaged, fmt.Sprintf("%s: %v", digest, err))
		case err != nil:
			return nil, err
		default:
			out.Bundles++
		}
	}
	if !slices.Contains(m.BesideNames(), copiedActive) {
		return out, nil
	}
	return out, s.restoreActive(m, dir)
}

// restore keeps one bundle of a backup.
func (s *shelf) restore(m *chain.Manifest, dir, digest string, files []string) error {
	if raw, err := hex.DecodeString(digest); err != nil || len(raw) != len(policy.Digest{}) {
		return fmt.Errorf("its name is no digest: %w", record.ErrReject)
	}
	in, err := s.incoming()
	if err != nil {
		return err
	}
	defer in.discard()
	for _, file := range files {
		data, err := m.ReadBeside(dir, path.Join(copiedBundles, digest, file))
		if err != nil {
			return err
		}
		if err := in.add(file, bytes.NewReader(data), int64(len(data))); err != nil {
			return err
		}
	}
	b, diags := policy.Load(in.dir)
	if diags.HasErrors() {
		return fmt.Errorf("it does not load: %w: %w", diags, record.ErrReject)
	}
	if b.Digest.String() != digest {
		return fmt.Errorf("it was changed, its digest is %s: %w", b.Digest, record.ErrReject)
	}
	return in.keepAs(digest)
}

// restoreActive says which bundle is in force as a backup has it, where nothing does here.
func (s *shelf) restoreActive(m *chain.Manifest, dir string) error {
	if _, known, err := s.active(); known || err != nil {
		return err
	}
	text, err := m.ReadBeside(dir, copiedActive)
	if err != nil {
		return err
	}
	a, err := parseActive(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("read which policies were in force: %s: %w", filepath.Join(dir, copiedActive), err)
	}
	if a.Active != none.Digest.String() && !s.has(a.Active) {
		return nil // it is damaged, which is told: the start takes the policies of the configuration
	}
	return s.setActive(a)
}

// PolicyTexts says of which policy bundles the ledger and the directory of those that are
// kept do not agree.
type PolicyTexts struct {
	Lacking []chain.NamedBundle // that entries name, and whose text is not kept
	Unnamed []string            // digests of those that are kept and that no entry here names
}

// CheckPolicyTexts looks for the text of each bundle that a check of the ledger has found.
func CheckPolicyTexts(cfg *Config, r *chain.Report) (*PolicyTexts, error) {
	s := &shelf{dir: cfg.policiesDir()}
	out, named := &PolicyTexts{}, map[string]bool{}
	for _, b := range r.Policies {
		named[b.Digest.String()] = true
		if !s.has(b.Digest.String()) {
			out.Lacking = append(out.Lacking, b)
		}
	}
	a, _, err := s.active()
	if err != nil {
		return nil, err
	}
	for _, digest := range append([]string{a.Active, a.Directory}, a.Previous...) {
		named[digest] = true // a start, or a rollback, takes it
	}
	kept, err := s.kept()
	if err != nil {
		return nil, err
	}
	for _, digest := range kept {
		if !named[digest] {
			out.Unnamed = append(out.Unnamed, digest)
		}
	}
	return out, nil
}
