package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/record"
)

// SaveWith makes a position, a state and meta rows of the follower's own
// durable together, without sealing anything. The rows must not be written by
// anybody else: this write does not wait for the batches in the queue.
func (f *Follower) SaveWith(ctx context.Context, p Position, state []byte, meta []MetaWrite) error {
	if f.name == "" {
		return fmt.Errorf("save position: the follower has no name: %w", record.ErrReject)
	}
	if err := errors.Join(context.Cause(ctx), f.store.Err()); err != nil {
		return fmt.Errorf("save position of %q: %w", f.name, err)
	}
	b := f.store.db.NewBatch()
	defer b.Close()
	err := b.Set(keyFollower(f.name), followerRow(p, state), nil)
	for _, m := range meta {
		key := keyMeta(metaUser, []byte(m.Key))
		if m.Value == nil {
			err = errors.Join(err, b.Delete(key, nil))
		} else {
			err = errors.Join(err, b.Set(key, m.Value, nil))
		}
	}
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err != nil {
		return f.store.fail(fmt.Errorf("save position of %q: %w", f.name, err))
	}
	f.Saved(p, state)
	return nil
}
