package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// maxLineage bounds what is asked for one by one, and so the length of the request.
const maxLineage = 300

// lineageClasses tell of the epochs of a domain.
var lineageClasses = []record.Class{record.ClassGenesis, record.ClassVMEpoch, record.ClassVMFork, record.ClassVMHandover, record.ClassClosed,
	record.ClassAgentArrived, record.ClassAgentRewound, record.ClassAgentForked, record.ClassAgentCloned}

// chooseLineage chooses the entries of a log that tell of its epochs, and those that
// they name.
func chooseLineage(ctx context.Context, c *client.Client, q *client.ExportQuery) error {
	if q.Log == "" {
		chain, err := c.Chain(ctx, q.Domain)
		if err != nil {
			return err
		}
		if len(chain.Links) == 0 {
			return fmt.Errorf("domain %q has no log", q.Domain)
		}
		q.Log = chain.Links[len(chain.Links)-1].Log.Origin
	}
	chosen := map[uint64]bool{}
	want := client.StreamQuery{Log: q.Log}
	for _, class := range lineageClasses {
		want.Classes = append(want.Classes, class.String())
	}
	for e, err := range c.Stream(ctx, want) {
		if err != nil {
			return err
		}
		leaf, m, err := e.Open()
		if err != nil && !errors.Is(err, client.ErrWithheld) {
			return fmt.Errorf("entry %d of %s: %w", leaf.Index, q.Log, err)
		}
		chosen[leaf.Index] = true
		for _, i := range named(m, q.Log) {
			chosen[i] = true
		}
		if leaf.Header.Class != record.ClassAgentArrived {
			continue
		}
		first, ok, err := firstFrame(ctx, c, q.Log, e.ID)
		if err != nil {
			return err
		}
		if ok {
			chosen[first] = true
		}
	}
	if len(chosen) > maxLineage {
		return fmt.Errorf("%d entries of %s tell of its epochs, more than %d: export parts of it with --entries", len(chosen), q.Log, maxLineage)
	}
	q.Indexes = slices.Sorted(maps.Keys(chosen))
	return nil
}

// named returns the leaves of a log that an entry names.
func named(m record.Message, log string) (all []uint64) {
	switch m := m.(type) {
	case *record.Epoch:
		if m.ParentOrigin == log {
			all = append(all, m.ParentIndex)
		}
		if len(m.Abandoned) > 0 {
			all = append(all, m.AbandonedIndex)
		}
	case *record.Handover:
		if m.Origin == log {
			all = append(all, m.Index)
		}
	}
	return all
}

// firstFrame returns the first statement of an agent behind an entry.
func firstFrame(ctx context.Context, c *client.Client, log, after string) (index uint64, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	for e, err := range c.Stream(ctx, client.StreamQuery{Log: log, Classes: []string{record.ClassAgentFrame.String()}, After: after, NoPayload: true}) {
		if err != nil {
			return 0, false, err
		}
		leaf, err := record.ParseLeaf(e.Leaf)
		return leaf.Index, err == nil, err
	}
	return 0, false, nil
}
