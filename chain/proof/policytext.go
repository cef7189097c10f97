package proof

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// PolicyText is the text of a policy bundle that entries of the evidence name, or the
// reason why it is not there. With it the verdicts can be computed again.
type PolicyText struct {
	Digest record.Hash
	Files  map[string][]byte // by name; nil where they lack
	Lacks  string            // why: one of the constants
}

// Why the text of a bundle is not in the evidence. Part of the format.
const (
	LacksWithheld = "withheld"  // whoever exported may not give it, or would not
	LacksKept     = "not kept"  // the host has it no more
	LacksRoom     = "too large" // for one bundle of evidence
)

// policyDir is where members with texts of policies lie.
const policyDir = "policies"

// Limits of the texts.
const (
	// MaxPolicyFiles bounds the files of one policy bundle in evidence.
	MaxPolicyFiles = 2_000
	maxPolicyName  = 512
	maxPolicyDepth = 4
)

// ValidPolicyFile reports whether a file of a policy bundle may have a name: none leads
// out of the directory that evidence, or a bundle, is unpacked to.
func ValidPolicyFile(name string) bool {
	return fs.ValidPath(name) && name != "." && len(name) <= maxPolicyName && strings.Count(name, "/") < maxPolicyDepth && !strings.ContainsAny(name, "\\\x00")
}

// manifestPolicy is what the manifest says of one text.
type manifestPolicy struct {
	Digest string   `json:"digest"`
	Files  []string `json:"files,omitempty"`
	Lacks  string   `json:"lacks,omitempty"`
}

// member returns the name of a file of a policy bundle in the archive.
func (p *manifestPolicy) member(file string) string {
	return policyDir + "/" + p.Digest + "/" + file
}

// manifestOf returns what the manifest says of a text, and its members.
func manifestOf(p *PolicyText) (manifestPolicy, []member, error) {
	m := manifestPolicy{Digest: p.Digest.String(), Lacks: p.Lacks}
	var files []member
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		if !ValidPolicyFile(name) {
			return m, nil, fmt.Errorf("write bundle: policy bundle %s has a file %q, which no archive can hold: %w", m.Digest, name, record.ErrReject)
		}
		m.Files = append(m.Files, name)
		files = append(files, member{m.member(name), p.Files[name]})
	}
	return m, files, nil
}

// checkPolicies checks what a manifest says of policies.
func (m *manifest) checkPolicies() error {
	if len(m.Policies) > 0 && m.Version < 4 {
		return fmt.Errorf("version %d has no policies", m.Version)
	}
	for i, p := range m.Policies {
		if h, err := record.ParseHash(p.Digest); err != nil || h.String() != p.Digest {
			return fmt.Errorf("%q is no digest of a policy bundle", p.Digest)
		}
		if i > 0 && m.Policies[i-1].Digest >= p.Digest {
			return fmt.Errorf("policy bundle %s does not come after %s", p.Digest, m.Policies[i-1].Digest)
		}
		switch {
		case len(p.Files) > MaxPolicyFiles:
			return fmt.Errorf("policy bundle %s has %d files, limit %d", p.Digest, len(p.Files), MaxPolicyFiles)
		case len(p.Files) == 0 && p.Lacks != LacksWithheld && p.Lacks != LacksKept && p.Lacks != LacksRoom, len(p.Files) > 0 && p.Lacks != "":
			return fmt.Errorf("policy bundle %s has %d files and lacks %q", p.Digest, len(p.Files), p.Lacks)
		}
		for j, name := range p.Files {
			if !ValidPolicyFile(name) || j > 0 && p.Files[j-1] >= name {
				return fmt.Errorf("policy bundle %s has a file %q, which is out of order or can be none of a bundle", p.Digest, name)
			}
		}
	}
	return nil
}

// fillPolicies takes the texts that the manifest names.
func (b *Bundle) fillPolicies(m *manifest, take func(string) []byte) {
	for i := range m.Policies {
		p := &m.Policies[i]
		digest, _ := record.ParseHash(p.Digest) // it was parsed
		t := PolicyText{Digest: digest, Lacks: p.Lacks}
		for _, name := range p.Files {
			if t.Files == nil {
				t.Files = map[string][]byte{}
			}
			t.Files[name] = take(p.member(name))
		}
		b.Policies = append(b.Policies, t)
	}
}

// policies checks that each text is what its digest says, and that the log names it:
// nobody can add other policies to evidence, or change those that were in force.
func (v *verification) policies() {
	named := map[record.Hash]bool{}
	for _, o := range v.entries {
		if d, ok := BundleOf(&o.leaf, o.message); ok {
			named[d] = true
		}
	}
	for i := range v.b.Policies {
		p := &v.b.Policies[i]
		dir := policyDir + "/" + p.Digest.String()
		if !named[p.Digest] {
			v.fail(dir, v.b.VMOrigin, nil, "no entry of the evidence names this policy bundle")
		}
		if p.Lacks != "" {
			continue
		}
		if got := record.BundleDigest(p.Files); got != p.Digest {
			v.fail(dir, v.b.VMOrigin, nil, "the text of this policy bundle was changed: its digest is %s", got)
		}
	}
}

// BundleOf returns the digest of the policy bundle that a sealed entry names: the one it
// brings in force, or the one that gave the verdict. message is nil where the payload is
// not given.
func BundleOf(leaf *record.Leaf, message record.Message) (digest record.Hash, ok bool) {
	var b []byte
	switch m := message.(type) {
	case *record.BundleActivation:
		if leaf.Origin == record.OriginHost {
			b = m.Digest
		}
	case *record.Verdict:
		if leaf.Origin == record.OriginPolicy {
			b = m.BundleDigest
		}
	}
	if len(b) != len(digest) {
		return digest, false
	}
	digest = record.Hash(b)
	return digest, !digest.IsZero() // zero: none is in force
}

// concludePolicies says which texts are there.
func (v *verification) concludePolicies(say func(string, ...any)) {
	there := 0
	for i := range v.b.Policies {
		p := &v.b.Policies[i]
		v.r.Policies = append(v.r.Policies, ReportPolicy{Digest: p.Digest.String(), Files: len(p.Files), Lacks: p.Lacks})
		if p.Lacks == "" {
			there++
		}
	}
	if there > 0 {
		say("The texts of %d policy bundles that the log names are there, as their digests say.", there)
	}
	for i := range v.b.Policies {
		if p := &v.b.Policies[i]; p.Lacks != "" {
			say("The text of policy bundle %s is not in the evidence: %s.", p.Digest, LackText(p.Lacks))
		}
	}
}

// ReadPolicies reads from the manifest of a bundle which texts of policies it has. It
// verifies nothing.
func ReadPolicies(r io.ReaderAt, size int64, limits Limits) ([]ReportPolicy, error) {
	limits = limits.withDefaults()
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("read bundle: it is no zip archive, or its directory is damaged: %w: %w", record.ErrReject, err)
	}
	for _, f := range z.File {
		if f.Name != manifestFile || f.Method != zip.Store || f.CompressedSize64 > uint64(limits.Member) {
			continue
		}
		text, err := readRaw(f)
		if err != nil {
			return nil, fmt.Errorf("read bundle: %s: %w", manifestFile, err)
		}
		m, err := parseManifest(text)
		if err != nil {
			return nil, fmt.Errorf("read bundle: %w", err)
		}
		all := make([]ReportPolicy, 0, len(m.Policies))
		for _, p := range m.Policies {
			all = append(all, ReportPolicy{Digest: p.Digest, Files: len(p.Files), Lacks: p.Lacks})
		}
		return all, nil
	}
	return nil, fmt.Errorf("read bundle: %s is missing or unreadable: %w", manifestFile, record.ErrReject)
}

// LackText says in words why the text of a policy bundle is not there.
func LackText(lacks string) string {
	switch lacks {
	case LacksWithheld:
		return "it was withheld by whoever exported"
	case LacksKept:
		return "the host had it no more"
	case LacksRoom:
		return "it was too large for the evidence"
	}
	return lacks
}
