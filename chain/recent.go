package chain

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/provostd/provost/chain/record"
)

// recentBytes bounds what is remembered of the newest commits. A follower that
// falls behind it reads the rows.
const recentBytes = 32 << 20

// recentEntryCost is what an entry costs of it besides its payload.
const recentEntryCost = record.LeafSize + 32 + 32 + 24 + 8

// recent remembers the newest durable commits, so that those who follow the
// ledger need not read back, decrypt and parse what was sealed a moment ago. It is
// safe for concurrent use.
//
// It never outlives an erasure: that empties it in the step of the committer in
// which readers stop to be shown what it names, and no commit made before is still
// on its way then.
type recent struct {
	mu      sync.RWMutex
	first   uint64 // commit of the first in commits
	commits []*recentCommit
	bytes   int
	limit   int
	epoch   atomic.Uint64 // grows with each clear; written under mu
}

// recentCommit is one commit. It never changes once it is remembered.
type recentCommit struct {
	spans []span
	runs  []recentRun // of the spans, in their order
	bytes int
	epoch uint64 // of recent
}

// recentRun is the entries of one log in one commit.
type recentRun struct {
	leaves  []byte // record.LeafSize each
	entries []recentEntry
}

// recentEntry is an entry without its leaf. The payload is whose batch it was in:
// nobody changes it any more.
type recentEntry struct {
	hash    record.Hash
	secret  [32]byte // salt or seed
	seeded  bool
	payload []byte
}

// add takes one entry in.
func (r *recentRun) add(leaf []byte, hash record.Hash, e *Entry) {
	r.leaves = append(r.leaves, leaf...)
	n := recentEntry{hash: hash, secret: e.Salt, payload: e.Payload}
	if e.Salt == (record.Salt{}) {
		n.secret, n.seeded = e.Seed, true
	}
	r.entries = append(r.entries, n)
}

// item makes entry i of a run of a log.
func (r *recentRun) item(l *Log, i int) (Item, error) {
	raw := r.leaves[i*record.LeafSize : (i+1)*record.LeafSize : (i+1)*record.LeafSize]
	leaf, err := record.ParseLeaf(raw)
	if err != nil {
		return Item{}, corrupt("an entry of %s that was sealed in this run: %v", l.origin, err)
	}
	e := r.entries[i]
	if e.payload == nil {
		e.payload = []byte{} // there is one, and it is empty
	}
	return Item{Log: l, Index: leaf.Index, Leaf: leaf, LeafBytes: raw, LeafHash: e.hash, Payload: e.payload, secret: e.secret, seeded: e.seeded}, nil
}

// add remembers commit n, which is durable, and forgets old ones for it.
func (c *recent) add(n uint64, spans []span, runs []recentRun) {
	rc := &recentCommit{spans: spans, runs: runs, epoch: c.epoch.Load()}
	for i := range runs {
		rc.bytes += len(runs[i].entries) * recentEntryCost
		for j := range runs[i].entries {
			rc.bytes += len(runs[i].entries[j].payload)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.commits) == 0 {
		c.first = n
	}
	c.commits = append(c.commits, rc)
	c.bytes += rc.bytes
	drop := 0
	for c.bytes > c.limit { // its own size may be more than all
		c.bytes -= c.commits[drop].bytes
		drop++
	}
	if drop > 0 {
		c.first += uint64(drop)
		c.commits = slices.Delete(c.commits, 0, drop)
	}
}

// at returns a commit, nil where it is not remembered. It may be read while it
// holds, also when it was forgotten for newer ones.
func (c *recent) at(n uint64) *recentCommit {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if n < c.first || n-c.first >= uint64(len(c.commits)) {
		return nil
	}
	return c.commits[n-c.first]
}

// clear forgets everything, also for those who read it.
func (c *recent) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch.Add(1)
	c.commits, c.bytes = nil, 0
}

// holds reports whether a commit may still be read.
func (c *recent) holds(rc *recentCommit) bool { return rc.epoch == c.epoch.Load() }
