package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// notePolicies notes the policy bundle that an entry names whose payload is given.
func (e *exporter) notePolicies(i *Item) {
	switch record.NewPayload(i.Leaf.Header.Class).(type) {
	case *record.BundleActivation, *record.Verdict:
	default:
		return
	}
	m, err := i.Decode()
	if err != nil {
		return // the verification says so
	}
	if digest, ok := proof.BundleOf(&i.Leaf, m); ok {
		e.bundles[digest] = true
	}
}

// policies returns the texts of the policy bundles that were noted, each once, as far as
// the bundle of evidence has room for them. What lacks is named there, with the reason.
func (e *exporter) policies(ctx context.Context) (all []proof.PolicyText, err error) {
	if e.sel.Policies == nil {
		return nil, nil
	}
	order := slices.SortedFunc(maps.Keys(e.bundles), func(a, b record.Hash) int { return bytes.Compare(a[:], b[:]) })
	for _, digest := range order {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p := proof.PolicyText{Digest: digest}
		if p.Files, p.Lacks, err = e.sel.Policies(ctx, digest); err != nil {
			return nil, fmt.Errorf("text of policy bundle %s: %w", digest, err)
		}
		switch size := textSize(p.Files); {
		case p.Lacks != "":
			p.Files = nil
		case len(p.Files) == 0 || record.BundleDigest(p.Files) != digest:
			p.Files, p.Lacks = nil, proof.LacksKept // what is kept is something else
		case len(p.Files) > proof.MaxPolicyFiles || size > e.room:
			p.Files, p.Lacks = nil, proof.LacksRoom
		default:
			e.room -= size
		}
		all = append(all, p)
	}
	return all, nil
}

// textSize returns the bytes of files, with what their members take beside them.
func textSize(files map[string][]byte) (n int64) {
	const member = 512 // headers, its name twice and once in the manifest
	for name, data := range files {
		n += int64(member + 3*len(name) + len(data))
	}
	return n
}

// maxArchiveEvidence is below mirror.MaxEvidence, by what the members of a zip file take.
const maxArchiveEvidence = mirror.MaxEvidence / 4 * 3

// archiveEvidence writes the evidence of the entry that closed a log, and of those that
// brought policies in force, with their texts. Where those are too many, or cannot be
// read, it does without them: an archive is not for them.
func (s *Store) archiveEvidence(ctx context.Context, l *Log, closed uint64, o ArchiveOptions, w *bytes.Buffer) error {
	if o.Policies != nil && !o.Withhold {
		chosen, err := l.activations(ctx)
		if err != nil {
			return err
		}
		err = Export(ctx, s, l, Selection{Indexes: append(chosen, closed), Policies: o.Policies, MaxBytes: maxArchiveEvidence}, w)
		if err == nil || !errors.Is(err, record.ErrReject) && !errors.Is(err, ErrUnreadable) {
			return err
		}
		w.Reset()
	}
	return Export(ctx, s, l, Selection{Indexes: []uint64{closed}, Withhold: o.Withhold}, w)
}

// activations returns the entries of a log that bring policies in force, as far as they
// can be read.
func (l *Log) activations(ctx context.Context) (all []uint64, err error) {
	for i, size := uint64(0), l.Size(); i < size; i++ {
		if i%tileWidth == 0 {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if l.goneBundle(i/tileWidth) != nil {
				i += tileWidth - 1
				continue
			}
		}
		leaf, err := l.readHeader(i)
		if errors.Is(err, ErrUnreadable) {
			continue // the archive says so of the entry itself
		}
		if err != nil {
			return nil, err
		}
		if leaf.Header.Class == record.ClassPolicyLoaded && leaf.Origin == record.OriginHost {
			all = append(all, i)
		}
	}
	return all, nil
}
