package chain

import (
	"sort"
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
	commits []recentCommit
	runs    map[LogID][]*recentRun // of commits, in their order
	bytes   int
	limit   int
	clears  atomic.Uint64 // written under mu
}

type recentCommit struct {
	spans []span
	bytes int
}

// recentRun is the entries of one log in one commit. It never changes once it is
// remembered.
type recentRun struct {
	first   uint64
	leaves  []byte // record.LeafSize each
	entries []recentEntry
}

// recentEntry is an entry without its leaf. The payload is that of the batch it was
// in: nobody changes it any more.
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
	if n.payload == nil {
		n.payload = []byte{} // there is one, and it is empty
	}
	r.entries = append(r.entries, n)
}

// item makes an entry of a run of a log.
func (r *recentRun) item(l *Log, index uint64) (Item, error) {
	i := int(index - r.first)
	raw := r.leaves[i*record.LeafSize : (i+1)*record.LeafSize : (i+1)*record.LeafSize]
	leaf, err := record.ParseLeaf(raw)
	if err != nil || leaf.Index != index {
		return Item{}, corrupt("entry %d of %s, which was sealed in this run: %v", index, l.origin, err)
	}
	e := &r.entries[i]
	return Item{Log: l, Index: index, Leaf: leaf, LeafBytes: raw, LeafHash: e.hash, Payload: e.payload, secret: e.secret, seeded: e.seeded}, nil
}

// add remembers commit n, which is durable, and forgets old ones for it. The runs
// are those of its spans.
func (c *recent) add(n uint64, spans []span, runs []*recentRun) {
	rc := recentCommit{spans: spans}
	for _, r := range runs {
		rc.bytes += len(r.entries) * recentEntryCost
		for i := range r.entries {
			rc.bytes += len(r.entries[i].payload)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.commits) == 0 {
		c.first, c.runs = n, map[LogID][]*recentRun{}
	}
	c.commits = append(c.commits, rc)
	c.bytes += rc.bytes
	for i, sp := range spans {
		runs[i].first = sp.first
		c.runs[sp.log] = append(c.runs[sp.log], runs[i])
	}
	drop := 0
	for ; c.bytes > c.limit; drop++ { // it alone may be more than all
		old := &c.commits[drop]
		c.bytes -= old.bytes
		for _, sp := range old.spans {
			c.runs[sp.log][0] = nil
			if left := c.runs[sp.log][1:]; len(left) > 0 {
				c.runs[sp.log] = left
			} else {
				delete(c.runs, sp.log)
			}
		}
	}
	if drop > 0 {
		c.first += uint64(drop)
		clear(c.commits[:drop]) // the array lives on
		c.commits = c.commits[drop:]
	}
}

// spans returns what a commit holds; ok is false where it is not remembered.
func (c *recent) spans(n uint64) (spans []span, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if n < c.first || n-c.first >= uint64(len(c.commits)) {
		return nil, false
	}
	return c.commits[n-c.first].spans, true
}

// run returns the run that holds an entry, nil where it is not remembered.
func (c *recent) run(id LogID, index uint64) *recentRun {
	c.mu.RLock()
	defer c.mu.RUnlock()
	runs := c.runs[id]
	i := sort.Search(len(runs), func(i int) bool { return runs[i].first+uint64(len(runs[i].entries)) > index })
	if i == len(runs) || runs[i].first > index {
		return nil
	}
	return runs[i]
}

// clear forgets everything.
func (c *recent) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clears.Add(1)
	c.commits, c.runs, c.bytes = nil, nil, 0
}

// lookRecent is Look for an entry that is remembered; ok is false where it is not,
// or where a reader may not be shown it as it was sealed.
func (l *Log) lookRecent(index uint64) (item Item, ok bool, err error) {
	clears := l.store.recent.clears.Load()
	r := l.store.recent.run(l.id, index)
	if r == nil || l.Gone() != nil {
		return Item{}, false, nil
	}
	if item, err = r.item(l, index); err != nil {
		return Item{}, false, err
	}
	// In this order: an erasure masks what it names, then empties what is remembered,
	// and masks no more when the rows are changed. A reader that was asleep for all of
	// that sees that it was emptied.
	ok = l.mask(&item) == nil && l.store.recent.clears.Load() == clears
	return item, ok, nil
}
