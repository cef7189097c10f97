package proof

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain/record"
)

const (
	proofMagic = "c2sp.org/tlog-proof@v1\n"
	// maxProofBytes bounds a tlog-proof: 63 hashes and a note.
	maxProofBytes = maxNote + 8<<10
	maxPath       = 63
)

// Inclusion is a parsed tlog-proof: the leaf's index, its audit path, and the
// signed checkpoint that the path leads to.
type Inclusion struct {
	Index uint64
	Path  []record.Hash
	Note  []byte
}

// Format returns the proof as c2sp.org/tlog-proof@v1, without extra data.
func (p *Inclusion) Format() []byte {
	path := make(tlog.RecordProof, len(p.Path))
	for i := range path {
		path[i] = tlog.Hash(p.Path[i])
	}
	return torchwood.FormatProof(int64(p.Index), path, p.Note)
}

// Spicy returns a tlog-proof in the form that `spicy -verify` reads: without
// its first line.
func Spicy(tlogProof []byte) []byte { return bytes.TrimPrefix(tlogProof, []byte(proofMagic)) }

// ParseInclusion parses a tlog-proof as Format writes it. Nothing is verified.
// An error wraps record.ErrReject and comes with a zero Inclusion.
func ParseInclusion(b []byte) (Inclusion, error) {
	bad := func(why string) (Inclusion, error) {
		return Inclusion{}, fmt.Errorf("parse tlog-proof: %s: %w", why, record.ErrReject)
	}
	if len(b) > maxProofBytes {
		return bad(fmt.Sprintf("%d bytes, limit %d", len(b), maxProofBytes))
	}
	rest, ok := strings.CutPrefix(string(b), proofMagic)
	if !ok {
		return bad("first line is not " + strings.TrimSpace(proofMagic))
	}
	line, rest, ok := strings.Cut(rest, "\n")
	number, isIndex := strings.CutPrefix(line, "index ")
	index, err := strconv.ParseUint(number, 10, 63)
	if !ok || !isIndex || err != nil || number != strconv.FormatUint(index, 10) {
		return bad("second line is not an index")
	}
	p := Inclusion{Index: index}
	for {
		if line, rest, ok = strings.Cut(rest, "\n"); !ok {
			return bad("no empty line ends the path")
		}
		if line == "" {
			break
		}
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return bad("a line of the path is not the base64 of a hash")
		}
		if p.Path = append(p.Path, record.Hash(h)); len(p.Path) > maxPath {
			return bad("the path is longer than any tree is high")
		}
	}
	p.Note = []byte(rest)
	return p, nil
}

// Verify checks that the leaf is at p.Index in the log of which v is the
// verifier, and returns the checkpoint that says so.
func (p *Inclusion) Verify(leaf []byte, v note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Note, v)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := VerifyInclusion(record.LeafHash(leaf), p.Index, p.Path, c); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// VerifyInclusion checks that the leaf hash h stands at index in the tree of c.
func VerifyInclusion(h record.Hash, index uint64, path []record.Hash, c Checkpoint) error {
	root, ok := record.RootFromPath(h, index, c.Size, path)
	if !ok {
		return fmt.Errorf("verify inclusion of leaf %d: the path does not fit a tree of %d leaves: %w", index, c.Size, record.ErrReject)
	}
	if root != c.Root {
		return fmt.Errorf("verify inclusion of leaf %d: the path leads to root %s, the checkpoint of %s at size %d has %s: %w",
			index, root, c.Origin, c.Size, c.Root, record.ErrReject)
	}
	return nil
}

// VerifyConsistency checks that the tree of older is a prefix of that of newer.
func VerifyConsistency(older, newer Checkpoint, path []record.Hash) error {
	if older.Origin != newer.Origin {
		return fmt.Errorf("verify consistency: checkpoints are of %s and of %s: %w", older.Origin, newer.Origin, record.ErrReject)
	}
	p := make(tlog.TreeProof, len(path))
	for i := range path {
		p[i] = tlog.Hash(path[i])
	}
	if older.Size == 0 || older.Size > newer.Size {
		return fmt.Errorf("verify consistency of %s from size %d to %d: sizes out of order: %w", older.Origin, older.Size, newer.Size, record.ErrReject)
	}
	if err := tlog.CheckTree(p, int64(newer.Size), tlog.Hash(newer.Root), int64(older.Size), tlog.Hash(older.Root)); err != nil {
		return fmt.Errorf("verify consistency of %s from size %d to %d: %w: %w", older.Origin, older.Size, newer.Size, record.ErrReject, err)
	}
	return nil
}
