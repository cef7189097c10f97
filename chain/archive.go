package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// ArchiveOptions say what an archive holds.
type ArchiveOptions struct {
	// Withhold leaves out the payloads that verification does not need. Of the others
	// the genesis is there, which says what domain the log is of.
	Withhold bool
	// Begin is told how many entries the archive will have, before the first byte is
	// written. Its error ends the archive. Nil: nobody is told.
	Begin func(size uint64) error
	// Policies gives the texts of policy bundles, as in a Selection.
	Policies func(ctx context.Context, digest record.Hash) (files map[string][]byte, lacks string, err error)
}

// Archived is an archive that was written whole.
type Archived struct {
	Size   uint64 // entries
	Root   record.Hash
	Note   []byte // the signed checkpoint
	Opened uint64 // payloads in it
}

// Archive writes the archive of a closed log, as package chain/mirror has it: its
// checkpoint, tiles, entries and payloads, with the evidence of the host log that
// it is this log's. It makes a checkpoint of everything first, so it needs Run to be
// running. Memory does not grow with the log, but for about 200 bytes for each of its
// bundles. Nothing is pruned meanwhile; what is erased meanwhile may be in it. Entries that
// are fenced off lack in it, and what the host log says of them comes along; one whose
// payload key is lost is an error.
func (s *Store) Archive(ctx context.Context, l *Log, w io.Writer, o ArchiveOptions) (*Archived, error) {
	a, err := s.archive(ctx, l, w, o)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", l.origin, err)
	}
	return a, nil
}

func (s *Store) archive(ctx context.Context, l *Log, w io.Writer, o ArchiveOptions) (*Archived, error) {
	index, closed := l.Closed()
	if !closed {
		return nil, fmt.Errorf("the log is open: only a log that is closed is archived: %w", record.ErrReject)
	}
	s.retainMu.Lock()
	defer s.retainMu.Unlock()
	var evidence bytes.Buffer
	if err := s.archiveEvidence(ctx, l, index, o, &evidence); err != nil {
		return nil, err
	}
	// What the evidence is for: the checkpoint that the bundle holds.
	b, err := proof.ReadBundle(bytes.NewReader(evidence.Bytes()), int64(evidence.Len()), proof.Limits{})
	if err != nil {
		return nil, err
	}
	p, err := proof.ParseCheckpoint(b.VMCheckpoint)
	if err != nil {
		return nil, err
	}
	done := &Archived{Size: p.Size, Root: p.Root, Note: b.VMCheckpoint}
	if o.Begin != nil {
		if err := o.Begin(p.Size); err != nil {
			return nil, err
		}
	}
	damages, err := s.damages(ctx, l, b.HostCheckpoint)
	if err != nil {
		return nil, err
	}
	m := mirror.Manifest{Host: s.host.origin, Origin: l.origin, Size: p.Size, Withheld: o.Withhold}
	for _, d := range damages {
		m.Damage = append(m.Damage, d.index)
	}
	z, err := mirror.NewArchiveWriter(w, m, evidence.Bytes())
	if err != nil {
		return nil, err
	}
	for i := range damages {
		if err := z.AddDamage(damages[i].index, &damages[i].Sealed); err != nil {
			return nil, err
		}
	}
	if err := z.Add("checkpoint", done.Note); err != nil {
		return nil, err
	}
	a := &archiver{l: l, z: z, size: p.Size, open: func(leaf *record.Leaf) bool {
		open := !o.Withhold || leaf.Index == 0 || OpensItself(leaf)
		if open {
			done.Opened++
		}
		return open
	}}
	if err := a.tiles(ctx); err != nil {
		return nil, err
	}
	return done, z.Close()
}

// archiver writes the resources of one log at one size.
type archiver struct {
	l    *Log
	z    *mirror.ArchiveWriter
	size uint64
	open func(*record.Leaf) bool
}

// tiles adds all tiles of all levels, with the entries that those of level 0 are of.
func (a *archiver) tiles(ctx context.Context) error {
	for level := uint8(0); a.size>>(tileHeight*level) > 0; level++ {
		have := a.size >> (tileHeight * level)
		for n := uint64(0); n*tileWidth < have; n++ {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			width := int(min(tileWidth, have-n*tileWidth))
			if a.l.goneTile(level, n) == nil {
				data, err := a.l.Tile(level, n, width)
				if err != nil {
					return err
				}
				if err := a.z.Add(mirror.Path(fmt.Sprint(level), n, width), data); err != nil {
					return err
				}
			}
			if level > 0 || a.l.goneBundle(n) != nil {
				continue
			}
			if err := a.bundle(ctx, n, width); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *archiver) bundle(ctx context.Context, n uint64, width int) error {
	data, err := a.l.Bundle(n, width)
	if errors.Is(err, ErrUnreadable) {
		data, err = a.l.bundleOfRest(ctx, n, width)
	}
	if err != nil {
		return err
	}
	if err := a.z.AddCompressed(mirror.Path("entries", n, width), data); err != nil {
		return err
	}
	if data, err = a.l.openings(ctx, n, width, a.open, true); err != nil {
		return err
	}
	return a.z.AddOpenings(n, width, data)
}
