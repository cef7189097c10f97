package replay

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// Options of a Check.
type Options struct {
	// Bundles are those that were in force.
	Bundles []*policy.Bundle
	// Since and Until choose what is counted and compared, by the wall time under
	// which entries were sealed: Since or later, and before Until. Zero: open. Entries
	// outside are judged all the same, since policies remember.
	Since, Until time.Time
}

// Check evaluates policies again over sealed records. It is for one goroutine.
type Check struct {
	opts    Options
	bundles map[policy.Digest]*policy.Bundle
	engines map[policy.Digest]*rules.Engine
	lacks   map[policy.Digest]string // why the text of a bundle is not given, where that is known
	nothing *rules.Engine            // learns what logs say, and judges nothing
	log     *logCheck                // the one that is read
	ended   map[string]*ended        // logs that go on in another shard, by origin, until that comes
	r       *Report
}

// NewCheck begins a check.
func NewCheck(opts Options) (*Check, error) {
	nothing, err := rules.New(&policy.Bundle{Name: "none"}, rules.Options{Recorded: true})
	if err != nil {
		return nil, err
	}
	c := &Check{opts: opts, nothing: nothing, bundles: map[policy.Digest]*policy.Bundle{}, engines: map[policy.Digest]*rules.Engine{}, lacks: map[policy.Digest]string{}, ended: map[string]*ended{}, r: &Report{Logs: []*LogReport{}, Missing: []string{}}}
	for _, b := range opts.Bundles {
		c.bundles[b.Digest] = b
	}
	return c, nil
}

// Give adds a bundle that was in force, where none with its digest was given.
func (c *Check) Give(b *policy.Bundle) {
	if c.bundles[b.Digest] == nil {
		c.bundles[b.Digest] = b
	}
}

// Lacks notes why the text of a bundle is not given.
func (c *Check) Lacks(digest policy.Digest, why string) { c.lacks[digest] = why }

// Entry takes the next entry of a log; those of one log come together, in order, and
// the shards of an incarnation one behind the other: what policies remember goes on.
// payload is nil where it is not given. An error says that the check cannot go on.
func (c *Check) Entry(origin string, leaf record.Leaf, hash record.Hash, payload []byte) error {
	if c.log == nil || c.log.r.Origin != origin {
		c.end()
		c.log = newLogCheck(c, origin)
	}
	return c.log.entry(leaf, hash, payload)
}

// Report ends the check.
func (c *Check) Report() *Report {
	c.end()
	c.r.conclude()
	return c.r
}

func (c *Check) end() {
	if c.log != nil {
		c.log.end()
		if e := c.log.onward(); e != nil {
			c.ended[c.log.r.Origin] = e
		}
		c.r.Logs = append(c.r.Logs, c.log.r)
		c.log = nil
	}
}

// within reports whether an entry is one that is asked for.
func (c *Check) within(wall int64) bool {
	return (c.opts.Since.IsZero() || wall >= c.opts.Since.UnixNano()) && (c.opts.Until.IsZero() || wall < c.opts.Until.UnixNano())
}

// engine returns what judges behind an activation, or why that is not known.
func (c *Check) engine(a *record.BundleActivation) (*rules.Engine, error) {
	if len(a.Digest) != len(policy.Digest{}) {
		return nil, fmt.Errorf("the digest of the bundle has %d bytes: %w", len(a.Digest), record.ErrReject)
	}
	d := policy.Digest(a.Digest)
	if d == (policy.Digest{}) && len(a.Policies) == 0 {
		return c.nothing, nil
	}
	e := c.engines[d]
	if e == nil {
		b := c.bundles[d]
		if b == nil {
			if text := d.String(); !slices.Contains(c.r.Missing, text) {
				c.r.Missing = append(c.r.Missing, text)
			}
			return nil, fmt.Errorf("not re-evaluable, no text: %s: %w", cmp.Or(c.lacks[d], "bundle "+d.String()+" is not given"), record.ErrReject)
		}
		var err error
		if e, err = rules.New(b, rules.Options{Recorded: true}); err != nil {
			return nil, err
		}
		c.engines[d] = e
	}
	return e.For(a)
}
