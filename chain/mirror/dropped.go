package mirror

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// drop takes an entry which says that a VM log is kept no longer: at the checkpoint
// that was quoted last, so that nothing of it can be left out.
func (v *verification) drop(c *logCheck, index uint64, m *record.Dropped) {
	q := v.byName[m.Origin]
	switch {
	case q == nil:
		c.fail(KindLog, &index, "it drops %q, and no entry before quotes a checkpoint of that", m.Origin)
		return
	case q.gone != nil:
		c.fail(KindLog, &index, "it drops %s, which entry %d has dropped", m.Origin, q.gone.Index)
		return
	}
	p, err := v.openAny(m.Origin, m.Note)
	switch {
	case err != nil:
		c.fail(KindSignature, &index, "the checkpoint of %s that it drops: %v", m.Origin, err)
		return
	case p.Size != m.Size || p.Size != q.last.size:
		c.fail(KindSize, &index, "it drops %s at %d entries with a checkpoint of %d, entry %d quotes it at %d", m.Origin, m.Size, p.Size, q.last.index, q.last.size)
		return
	case p.Root != q.last.root:
		c.fail(KindFork, &index, "it drops %s at %d entries with root %s, entry %d quotes it with root %s: there are two histories of it", m.Origin, p.Size, p.Root, q.last.index, q.last.root)
		return
	}
	q.gone = &DroppedLog{Origin: m.Origin, Size: p.Size, Root: p.Root.String(), Index: index, Reason: m.Reason, Requester: m.Requester, SHA256: hex.EncodeToString(m.ArchiveSha256), Bytes: m.ArchiveBytes}
}

// notGiven reports whether a log was dropped and is not there. One that is there, as in
// a copy of before, is verified like every other.
func (v *verification) notGiven(ctx context.Context, top string, q *quoted) (bool, error) {
	if q.gone == nil {
		return false, nil
	}
	_, err := v.src.Fetch(ctx, top+q.origin+"/checkpoint", maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		v.r.Dropped = append(v.r.Dropped, *q.gone)
		return true, nil
	}
	if err != nil && !unusable(err) {
		return false, fmt.Errorf("verify %s: %w", q.origin, err)
	}
	return false, nil
}

// linkGone holds what a genesis quotes of a log that was dropped against what the host
// log quoted of it.
func (v *verification) linkGone(c *logCheck, q *quoted, p proof.Checkpoint) error {
	quotes := &quoteReader{v.spool.Read(&q.all)}
	for {
		n, ok, err := quotes.peek()
		if err != nil {
			return err
		}
		switch zero := uint64(0); {
		case !ok || n.size > p.Size:
			v.uncompared++
			return nil
		case n.size == p.Size && n.root != p.Root:
			c.fail(KindFork, &zero, "the genesis quotes %s at %d entries with root %s, entry %d of the host log with root %s: there are two histories of it", q.origin, p.Size, p.Root, n.index, n.root)
			return nil
		case n.size == p.Size:
			v.linked++
			return nil
		}
		quotes.Skip()
	}
}
