package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// logCheck is the check of one log. Its methods are called in the order of the
// log but for read, which workers call.
type logCheck struct {
	v      *verification
	origin string
	name   proof.Origin
	ours   bool   // entries are leaves of chain/record; of a foreign log nothing is known
	whole  bool   // the logs that it quotes are verified as well
	prefix string // of its resources
	size   uint64 // of what is read
	r      *LogReport

	tree   frontier
	last   record.Hash // leaf hash of the newest leaf
	mono   int64
	wall   [2]int64 // of the first and of the newest leaf
	run    uint64   // session of the host's newest entry; 0: there was none
	next   uint64   // sequence of the next entry that the host makes in it
	claims []claim  // on roots, by size
	quotes *quoteReader

	// message takes a payload that verification looks into.
	message func(c *logCheck, index uint64, o *opened)
	agents  *agents // of a VM log
	genesis *record.Genesis

	coverage *proof.Coverage // of a VM log, where a window is asked for
	began    int64           // monotone time of its genesis; 0: that is gone
	closed   int64           // likewise of its end; 0: it goes on

	pruned prunedEntries
	lost   lost

	parent hashTile    // for workers
	known  keyList     // for workers: keys that may have signed
	bare   atomic.Bool // for workers: the source has no payloads
	err    error       // of message: the check cannot go on
}

// claim is a root that somebody has signed for a size.
type claim struct {
	size uint64
	root record.Hash
	kind Kind
	who  string // "its checkpoint"
}

// keyList is a list of keys that is replaced as a whole.
type keyList struct{ p atomic.Pointer[[][]byte] }

func (k *keyList) get() [][]byte {
	if p := k.p.Load(); p != nil {
		return *p
	}
	return nil
}

func (k *keyList) set(keys [][]byte) { k.p.Store(&keys) }

func (c *logCheck) fail(kind Kind, index *uint64, format string, args ...any) {
	c.v.r.fail(kind, c.origin, index, format, args...)
}

// check reads the log up to its size. What is wrong with it stands in the report; an
// error says that it could not be read.
func (c *logCheck) check(ctx context.Context) error {
	err := c.stream(ctx)
	var gap *missing
	if errors.As(err, &gap) {
		at := c.tree.size
		if gap.at != nil {
			at = *gap.at
		}
		c.fail(KindGap, &at, "%s", gap.problem)
		return nil
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", c.origin, err)
	}
	if c.agents != nil {
		c.agents.end(c)
	}
	c.checkPruned()
	c.endLost()
	c.window()
	c.r.Root = c.tree.root().String()
	return nil
}

// stream has workers read bundles ahead and takes them in order. At most
// 4 bundles for each worker are on their way: with all of them there the one
// who hands out waits.
func (c *logCheck) stream(ctx context.Context) error {
	if err := c.compare(); err != nil { // claims on no entries
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	queue := make(chan *bundle, 4*c.v.workers)
	work := make(chan *bundle)
	pool := sync.Pool{New: func() any { return new(bundle) }}
	group.Go(func() {
		defer close(work)
		defer close(queue)
		for n := uint64(0); n*bundleWidth < c.size; n++ {
			b := pool.Get().(*bundle)
			*b = bundle{n: n, width: int(min(bundleWidth, c.size-n*bundleWidth)), done: make(chan struct{}), hashes: b.hashes, leaves: b.leaves, opened: b.opened[:0], lost: b.lost[:0]}
			for _, to := range []chan *bundle{queue, work} {
				select {
				case to <- b:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range c.v.workers {
		group.Go(func() {
			for b := range work {
				c.read(ctx, b)
				close(b.done)
			}
		})
	}
	for {
		select {
		case b, more := <-queue:
			if !more {
				return context.Cause(ctx)
			}
			select {
			case <-b.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := c.take(b); err != nil {
				return err
			}
			pool.Put(b)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take goes on with the next bundle.
func (c *logCheck) take(b *bundle) error {
	if b.err != nil {
		var m *missing
		if errors.As(b.err, &m) {
			c.explain(m, b)
		}
		return b.err
	}
	if b.pruned {
		return c.overPruned(b)
	}
	for _, f := range b.faults {
		at := b.first() + uint64(f.at)
		c.fail(KindEntry, &at, "%s", f.problem)
	}
	if c.ours {
		if err := c.payloads(b); err != nil {
			return err
		}
		c.order(b)
		if c.err != nil {
			return c.err
		}
	}
	if err := c.grow(b); err != nil {
		return err
	}
	c.last = b.hashes[len(b.hashes)-1]
	c.r.Size = c.tree.size
	c.v.r.Entries += uint64(b.width)
	if p := c.v.opts.Progress; p != nil {
		p(c.origin, c.tree.size, c.size)
	}
	return nil
}

// payloads decides whether payloads may lack. It is the first bundle that says
// whether the source has them.
func (c *logCheck) payloads(b *bundle) error {
	c.r.Opened += uint64(b.match)
	c.r.Unopened += uint64(b.width - b.match)
	if !b.bare {
		return nil
	}
	m := &missing{}
	if b.none != nil {
		m.absent, m.gone = b.none.absent, b.none.gone
	}
	switch {
	case c.whole && c.name.IsHost():
		m.problem = fmt.Sprintf("its payloads, which say what VM logs there are, are missing: there is no %s%s; without payloads only VM logs can be verified here",
			c.prefix, Path("openings", b.n, b.width))
	case c.v.opts.WithoutPayloads && (b.n == 0 || c.bare.Load()):
		c.bare.Store(true)
		return nil
	default:
		m.problem = fmt.Sprintf("the payloads of entries %d to %d are missing: there is no %s%s, so keys and signatures in them cannot be verified",
			b.first(), b.first()+uint64(b.width)-1, c.prefix, Path("openings", b.n, b.width))
	}
	c.explain(m, b)
	return m
}

// order goes through the leaves of a bundle in their order.
func (c *logCheck) order(b *bundle) {
	rest, absent := b.opened, b.lost
	for i := range b.leaves {
		l, index := &b.leaves[i], b.first()+uint64(i)
		if len(absent) > 0 && absent[0] == i {
			absent = absent[1:]
			c.lack(index, "it is left out")
			continue
		}
		before := c.last
		if i > 0 {
			before = b.hashes[i-1]
		}
		if l.Origin == 0 {
			continue // it could not be read, and that is reported
		}
		switch {
		case index == 0 && !l.Prev.IsZero():
			c.fail(KindEntry, &index, "the first leaf names a leaf before it")
		case index > 0 && l.Prev != before && (i > 0 || !c.pruned.before(index)):
			c.fail(KindEntry, &index, "it follows a leaf with hash %s, entry %d has %s: one of the two was changed, left out or put in another place", l.Prev, index-1, before)
		}
		if l.Mono < c.mono {
			c.fail(KindEntry, &index, "the host's monotone time steps back behind entry %d", index-1)
		}
		c.mono, c.wall[1] = max(c.mono, l.Mono), l.Wall
		if index == 0 {
			c.wall[0] = l.Wall
		}
		c.numbered(l, index)
		var o *opened
		if len(rest) > 0 && rest[0].at == i {
			o, rest = &rest[0], rest[1:]
		}
		c.entry(l, index, o)
		c.cover(l, o)
		c.tell(b, i)
	}
}

// tell hands an entry of a VM log to who asked for them.
func (c *logCheck) tell(b *bundle, i int) {
	if c.v.opts.Entry == nil || c.agents == nil || c.err != nil {
		return
	}
	e := Entry{Origin: c.origin, Leaf: b.leaves[i], Hash: b.hashes[i]}
	if b.texts != nil {
		e.Payload = b.texts[i]
	}
	c.err = c.v.opts.Entry(e)
}

// numbered checks that the entries which the host makes itself in one run are
// numbered without a hole in each log.
func (c *logCheck) numbered(l *record.Leaf, index uint64) {
	if l.Origin == record.OriginGuest {
		return
	}
	if h := l.Header; h.Session == c.run && h.Sequence != c.next && !c.pruned.fresh {
		c.fail(KindGap, &index, "the host numbered it %d in its run %x, number %d comes next", h.Sequence, h.Session, c.next)
	}
	c.run, c.next, c.pruned.fresh = l.Header.Session, l.Header.Sequence+1, false
}

// entry looks at what an entry means. o is nil where its payload was not given or is
// of no interest.
func (c *logCheck) entry(l *record.Leaf, index uint64, o *opened) {
	class := l.Header.Class
	if class == record.ClassGenesis != (index == 0) {
		c.fail(KindLog, &index, "it is a %s; entry 0 is the genesis, and no other", class)
	}
	if l.Origin == record.OriginHost && tellsOfGap(class) {
		c.r.Gaps++
	}
	if class == record.ClassPruned && l.Origin == record.OriginHost {
		c.pruned.barely(c, index)
	}
	if o == nil && l.Origin == record.OriginHost && needed(class) && !c.bare.Load() {
		c.unopened(index, fmt.Sprintf("the payload of this %s was not given, without which the log cannot be verified", class))
	}
	if c.agents != nil {
		c.agents.entry(c, l, index, o)
	}
	if o == nil {
		return
	}
	if p, ok := o.message.(*record.Pruned); ok {
		c.tellsPruned(index, p)
	}
	if g, ok := o.message.(*record.Genesis); ok && index == 0 {
		c.genesis = g
		if g.Origin != c.origin || g.DomainUuid != c.name.Domain || g.Incarnation != c.name.Incarnation || g.HostId != c.name.HostID {
			c.fail(KindLog, &index, "the genesis is of %s, domain %s, incarnation %d, host %s", g.Origin, g.DomainUuid, g.Incarnation, g.HostId)
		}
	}
	if c.message != nil && c.err == nil {
		c.message(c, index, o)
	}
}

// unopened takes an entry without the payload that verification needs.
func (c *logCheck) unopened(index uint64, what string) {
	if _, told := c.v.damaged.within(c.origin, index, index); told && c.mayLack() {
		c.lack(index, what)
		return
	}
	c.fail(KindGap, &index, "%s", what)
}

// tellsOfGap reports whether an entry of a class says that something is missing.
func tellsOfGap(c record.Class) bool {
	switch c {
	case record.ClassAgentSequenceGap, record.ClassAgentRefused, record.ClassAgentSignatureInvalid, record.ClassAgentHeartbeatLost,
		record.ClassAgentDropped, record.ClassHostGap, record.ClassVMGap, record.ClassAgentForked, record.ClassAgentStale,
		record.ClassAgentKeyChanged, record.ClassAgentAbsent:
		return true
	}
	return false
}

// grow adds a bundle's leaves to the tree and holds it against every claim on
// its way.
func (c *logCheck) grow(b *bundle) error {
	end := b.first() + uint64(b.width)
	next, err := c.nextClaim()
	if err != nil {
		return err
	}
	if b.width == bundleWidth && next > end {
		c.tree.push(b.root, bundleHeight)
		return nil
	}
	for _, h := range b.hashes {
		c.tree.push(h, 0)
		for next == c.tree.size {
			if err := c.compare(); err != nil {
				return err
			}
			if next, err = c.nextClaim(); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextClaim returns the size of the next claim on the tree, or a size that no tree has.
func (c *logCheck) nextClaim() (uint64, error) {
	next := ^uint64(0)
	if len(c.claims) > 0 {
		next = c.claims[0].size
	}
	if c.quotes != nil {
		q, ok, err := c.quotes.peek()
		if err != nil {
			return 0, err
		}
		if ok {
			next = min(next, q.size)
		}
	}
	return next, nil
}

// compare holds the tree against the claims on its present size.
func (c *logCheck) compare() error {
	root := c.tree.root()
	for len(c.claims) > 0 && c.claims[0].size == c.tree.size {
		if k := c.claims[0]; k.root != root {
			c.fail(k.kind, nil, "at size %d its entries make root %s, %s has root %s", k.size, root, k.who, k.root)
		}
		c.claims = c.claims[1:]
	}
	for c.quotes != nil {
		q, ok, err := c.quotes.peek()
		if err != nil || !ok || q.size != c.tree.size {
			return err
		}
		if q.root != root {
			c.fail(KindFork, nil, "at size %d its entries make root %s, entry %d of the host log quotes a checkpoint with root %s: there are two histories of it", q.size, root, q.index, q.root)
		}
		c.r.Quotes++
		c.quotes.Skip()
	}
	return nil
}

// contains reports whether keys holds key.
func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}
