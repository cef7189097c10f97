package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// An archive may lack entries that the host's ledger has fenced off as damaged: their
// leaf hashes stand in tiles of level 0, and the archive has the entries of the host log
// that tell of it. Such a gap stays a gap, and nothing else of the log is given up for it.

// maxDamageText bounds the payload of an entry that tells of damage.
const maxDamageText = 64 << 10

// readDamage verifies what the archive has of the host log on damaged entries.
func (e *evidence) readDamage(ctx context.Context, a *Archive, b *proof.Bundle, hostKey string) error {
	if len(a.Damage) == 0 {
		return nil
	}
	host, err := proof.ParseVerifierKey(strings.TrimSpace(hostKey))
	if err != nil {
		return err
	}
	for i, index := range a.Damage {
		if i > 0 && a.Damage[i-1] >= index {
			return fmt.Errorf("%s: damage is not told in the order of the host log: %w", archiveManifest, record.ErrReject)
		}
		var parts [3][]byte
		for i, suffix := range []string{".leaf", ".payload", ".tlog-proof"} {
			name := fmt.Sprintf(archiveDamage, index) + suffix
			parts[i], err = a.Fetch(ctx, name, maxDamageText)
			if errors.Is(err, fs.ErrNotExist) || unusable(err) {
				return fmt.Errorf("entry %d of the host log, which is to tell of damage: %w: %w", index, err, record.ErrReject)
			}
			if err != nil {
				return err
			}
		}
		p, err := proof.ParseInclusion(parts[2])
		if err == nil && (p.Index != index || !bytes.Equal(p.Note, b.HostCheckpoint)) {
			err = fmt.Errorf("its proof is of entry %d, or under another checkpoint than that of %s: %w", p.Index, archiveEvidence, record.ErrReject)
		}
		if err == nil {
			_, err = p.Verify(parts[0], host)
		}
		var m *record.Damage
		if err == nil {
			m, err = openDamage(parts[0], parts[1], e.report.VMOrigin)
		}
		if err != nil {
			return fmt.Errorf("entry %d of the host log, which is to tell of damage: %w", index, err)
		}
		e.damaged.add(index, m)
	}
	e.damaged.sort()
	return nil
}

// openDamage opens an entry of the host log that tells of damage in a log.
func openDamage(leaf, opening []byte, origin string) (*record.Damage, error) {
	l, err := record.ParseLeaf(leaf)
	if err != nil {
		return nil, err
	}
	var salt record.Salt
	if len(opening) < len(salt) {
		return nil, fmt.Errorf("its payload has %d bytes: %w", len(opening), record.ErrReject)
	}
	copy(salt[:], opening)
	if record.Commit(&salt, opening[len(salt):]) != l.Commitment {
		return nil, fmt.Errorf("salt and payload are not what its leaf commits to: %w", record.ErrReject)
	}
	message, err := record.Decode(l.Header.Class, opening[len(salt):])
	if err != nil {
		return nil, err
	}
	if m, ok := message.(*record.Damage); ok && l.Origin == record.OriginHost && m.Origin == origin && m.Done == "fenced" {
		return m, nil
	}
	return nil, fmt.Errorf("it is a %s, and fences nothing of %s: %w", l.Header.Class, origin, record.ErrReject)
}

// lost is what a log lacks that its source may lack.
type lost struct {
	count  uint64 // entries, or payloads of them that verification needs
	until  uint64 // the gap that was told last ends before this entry
	frames uint64 // that no known key verifies, behind such a gap
	frame  uint64 // the first of them
	ranges []proof.Range
}

// mayLack reports whether leaves of the source may be left out.
func (c *logCheck) mayLack() bool { return c.v.vouched != nil && len(c.v.vouched.manifest.Damage) > 0 }

// lack takes an entry that is not given, or of which the payload is not that verification
// needs. What it said nobody knows: a key may have been enrolled in it, a frame begun.
func (c *logCheck) lack(index uint64, what string) {
	p := &c.lost
	p.count++
	c.pruned.fresh = true
	if c.coverage != nil {
		c.coverage.AddUnreadable(index, what)
	}
	if c.agents != nil {
		c.agents.cut()
		c.agents.bereft = true
	}
	// Where there are too many the last one grows over what does not lack.
	if n := len(p.ranges); n > 0 && (p.ranges[n-1].Last+1 == index || n == maxDamaged) {
		p.ranges[n-1].Last = index
	} else {
		p.ranges = append(p.ranges, proof.Range{First: index, Last: index})
	}
	if index < p.until {
		return
	}
	if f, ok := c.v.damaged.within(c.origin, index, index); ok {
		p.until = f.last + 1
		c.told(index, "%s; %s", what, f)
		return
	}
	c.fail(KindGap, &index, "%s", what)
}

// told adds a failure that the host log has told of.
func (c *logCheck) told(index uint64, format string, args ...any) {
	c.v.told++
	c.fail(KindGap, &index, format, args...)
}

// endLost tells of frames that nobody can verify for what lacks before them.
func (c *logCheck) endLost() {
	if p := &c.lost; p.frames > 0 {
		c.told(p.frame, "no known key verifies this frame, and %d in all: their key may have been enrolled in what is fenced off before them", p.frames)
	}
}

// hashesOf reads the leaf hashes of a bundle from its tile. The root over them is held
// against what was signed, as that of given leaves is.
func (c *logCheck) hashesOf(ctx context.Context, b *bundle) ([]byte, error) {
	path := c.prefix + Path("0", b.n, b.width)
	data, err := c.v.src.Fetch(ctx, path, b.width*len(record.Hash{}))
	if errors.Is(err, fs.ErrNotExist) || unusable(err) || err == nil && len(data) != b.width*len(record.Hash{}) {
		return nil, &missing{problem: fmt.Sprintf("of entries %d to %d some are left out, and %s does not have their hashes", b.first(), b.first()+uint64(b.width)-1, path)}
	}
	return data, err
}
