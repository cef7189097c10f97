package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/chain/spool"
)

// Options of Verify.
type Options struct {
	// Frame verifies the signature of a frame statement with an Ed25519 public
	// key and decodes it, as guestagent/attest does. Without it a log with entries of a
	// guest does not verify.
	Frame func(statement, signature, key []byte) (proof.Frame, error)
	// Policy says which witnesses must have cosigned the checkpoint of the log
	// that the key is of. Without it cosignatures are not looked at.
	Policy *proof.Policy
	// OneLog says that src is the place of the one log that the key is of. Without it
	// a host log that stands there by itself does not verify, since whoever serves it
	// could have left the VM logs out.
	OneLog bool
	// Logs names the VM logs to read. Default: all that the host log quotes.
	Logs []string
	// WithoutPayloads accepts VM logs, and with OneLog a host log, of which the source
	// has no opening bundles at all: then what stands in payloads is not claimed.
	WithoutPayloads bool
	// Seen is a signed checkpoint of the same log, from an earlier verification:
	// the log must contain it.
	Seen []byte
	// Spool keeps the quotes of checkpoints meanwhile. Default: memory.
	Spool Spool
	// Workers is how many bundles are fetched and hashed at a time. Default: as
	// many as there are processors.
	Workers int
	// Window asks whether anything else happened in a time than what the VM logs
	// tell. Both its ends must be set.
	Window Window
	// Entry is called with every entry of every VM log, in the order of each log, one
	// log behind the other. What it is given is proved once Verify succeeds, and not
	// before. An error ends the verification and is returned. With it payloads are
	// held in memory for as long as their bundle is on its way. Default: nobody is told.
	Entry func(e Entry) error
	// Evidence is told the evidence bundle of an archive, once it is verified and ahead of
	// the first entry. Default: nobody is told.
	Evidence func(b *proof.Bundle) error
	// Progress is called behind each bundle. Default: nobody is told.
	Progress func(origin string, done, total uint64)
}

// Entry is one entry of a VM log.
type Entry struct {
	Origin  string // of the log
	Leaf    record.Leaf
	Hash    record.Hash // of the leaf
	Payload []byte      // nil where it is not given; not to be kept
}

// maxCheckpoint bounds a checkpoint with its cosignatures, in bytes.
const maxCheckpoint = 64 << 10

// verification is one Verify under way.
type verification struct {
	src     Source
	opts    Options
	workers int
	r       *Report

	host   proof.Origin
	keys   proof.KeyChain
	logs   []*quoted // in the order of their first quotes
	byName map[string]*quoted
	spool  *spool.Spool
	done   map[string]*logCheck

	damaged damage // complete once VM logs are read

	vouched *evidence // nil: the key given is the log's own
	told    int       // of the failures: gaps that the host log tells of

	linked, undisclosed, abroad, unquoted, uncompared int // logs, for the report
}

// Verify reads and checks the log that vkey is the verifier key of. Where that is a
// host log and src holds more than this one log, it goes on with the VM logs that it
// quotes. It fails closed: unless all of it is right the error is an
// *InvalidError, and the report names what was found. Any other error says that
// src could not be read.
func Verify(ctx context.Context, src Source, vkey string, opts Options) (*Report, error) {
	return verify(ctx, src, vkey, opts, nil)
}

// verify is Verify, where vouched is nil; else for the key and the checkpoint of a VM
// log that evidence of its host log vouches for.
func verify(ctx context.Context, src Source, vkey string, opts Options, vouched *evidence) (*Report, error) {
	vkey = strings.TrimSpace(vkey)
	verifier, err := proof.ParseVerifierKey(vkey)
	if err != nil {
		return nil, fmt.Errorf("verify mirror: %w", err)
	}
	v := &verification{src: src, opts: opts, vouched: vouched, workers: opts.Workers, spool: spool.New(opts.Spool, quoteSize), r: &Report{Logs: []LogReport{}}, byName: map[string]*quoted{}, done: map[string]*logCheck{}}
	if v.workers <= 0 {
		v.workers = runtime.GOMAXPROCS(0)
	}
	origin := verifier.Name()
	prefix, text, err := v.locate(ctx, origin)
	if err != nil {
		return nil, err
	}
	if text == nil {
		v.r.fail(KindLog, origin, nil, "it is not there: neither logs/%s/checkpoint nor %s/checkpoint nor checkpoint is", origin, origin)
		return v.conclude(nil, false)
	}
	c := v.newCheck(origin, prefix)
	head, err := proof.OpenCheckpoint(text, verifier)
	if err != nil {
		c.fail(KindSignature, nil, "its checkpoint: %v", err)
		return v.conclude(nil, false)
	}
	c.size, c.claims = head.Size, []claim{{head.Size, head.Root, KindEntry, "its signed checkpoint"}}
	if vouched != nil {
		vouched.check(c, text)
		v.damaged = vouched.damaged
	}
	if c.ours && head.Size == 0 {
		// Whoever had one signed and cosigned in the beginning could show it for ever.
		c.fail(KindSize, nil, "its checkpoint is of an empty log, and every log begins with its genesis: the log was cut off, or an old checkpoint is replayed")
	}
	v.quorum(c, vkey, text)
	if v.seen(c, verifier, head); v.r.failed() {
		return v.conclude(nil, false) // an honest log would be no better
	}
	c.whole = c.name.IsHost() && c.ours && prefix != "" && !opts.OneLog
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	whole := c.whole
	if !whole {
		v.alone(c)
	} else {
		if err := v.vmLogs(ctx, strings.TrimSuffix(prefix, origin+"/")); err != nil {
			return nil, err
		}
	}
	v.r.Checkpoint = string(text)
	return v.conclude(c, whole)
}

// alone holds against what was asked for that no VM log is looked at.
func (v *verification) alone(c *logCheck) {
	for _, want := range v.opts.Logs {
		v.r.fail(KindLog, want, nil, "it was asked for, and this is the place of one log")
	}
	if !v.opts.OneLog && c.ours && c.name.IsHost() && (len(v.logs) > 0 || c.bare.Load()) {
		c.fail(KindLog, nil, "it quotes %d VM logs, and this is the place of one log: give the place that all logs stand below, or say that one log is meant", len(v.logs))
	}
}

// locate finds where a log stands. text is nil where it is nowhere.
func (v *verification) locate(ctx context.Context, origin string) (prefix string, text []byte, err error) {
	places := []string{"logs/" + origin + "/", origin + "/", ""}
	if !fs.ValidPath(origin) {
		places = places[2:] // the name of a foreign log may be anything
	}
	for _, prefix := range places {
		text, err := v.src.Fetch(ctx, prefix+"checkpoint", maxCheckpoint)
		switch {
		case err == nil:
			return prefix, text, nil
		case !errors.Is(err, fs.ErrNotExist) && !unusable(err):
			return "", nil, fmt.Errorf("verify %s: %w", origin, err)
		}
	}
	return "", nil, nil
}

// newCheck makes the check of a log and its place in the report.
func (v *verification) newCheck(origin, prefix string) *logCheck {
	v.r.Logs = append(v.r.Logs, LogReport{Origin: origin})
	c := &logCheck{v: v, origin: origin, prefix: prefix, r: &LogReport{Origin: origin}}
	name, err := proof.ParseOrigin(origin)
	c.name, c.ours = name, err == nil
	switch {
	case !c.ours:
	case name.IsHost():
		v.host, v.keys.HostID = name, name.HostID
		c.message = v.hostEntry
	default:
		c.agents, c.coverage = &agents{parents: map[string][]byte{}}, v.newCoverage()
	}
	v.done[origin] = c
	return c
}

// quorum holds the checkpoint against the policy.
func (v *verification) quorum(c *logCheck, vkey string, text []byte) {
	p := v.opts.Policy
	if p == nil {
		v.r.Unclaimed = append(v.r.Unclaimed, "That nobody was shown another history: no policy was given that asks for cosignatures of witnesses.")
		return
	}
	if v.vouched != nil {
		v.r.Cosigned = v.vouched.report.Cosigned // of the host log's checkpoint, which was held against it
		return
	}
	if len(p.Logs) > 0 {
		// The keys themselves are compared: their hashes have 32 bits only.
		if key, ok := p.LogKey(c.origin); !ok || key != vkey {
			c.fail(KindSignature, nil, "the policy does not trust this log under the key given")
		}
	}
	found, err := p.Check(text)
	if err != nil {
		c.fail(KindQuorum, nil, "its checkpoint of %d entries: %v", c.size, err)
	}
	for _, s := range found {
		v.r.Cosigned = append(v.r.Cosigned, proof.ReportCosignature{Witness: s.Witness, Key: s.ID, Time: s.Time})
	}
}

// seen takes the checkpoint of an earlier verification for a claim on the log.
func (v *verification) seen(c *logCheck, verifier proof.Verifier, head proof.Checkpoint) {
	if v.opts.Seen == nil {
		return
	}
	old, err := proof.OpenCheckpoint(v.opts.Seen, verifier)
	switch {
	case err != nil:
		c.fail(KindSignature, nil, "the checkpoint seen before: %v", err)
	case old.Size == 0 && c.ours:
		c.fail(KindSize, nil, "the checkpoint seen before is of an empty log, against which nothing can be held: take a newer one, or none")
	case old.Size > head.Size:
		c.fail(KindSize, nil, "its checkpoint has %d entries, one with %d was seen before: it was rolled back, or an old checkpoint is replayed", head.Size, old.Size)
	case old.Size == head.Size && old.Root != head.Root:
		c.fail(KindFork, nil, "its checkpoint of %d entries has root %s, one with root %s was seen before: there are two histories of it", head.Size, head.Root, old.Root)
	case old.Size < head.Size && old.Size > 0:
		c.claims = slices.Insert(c.claims, 0, claim{old.Size, old.Root, KindFork, "the signed checkpoint seen before"})
	}
}

// hostEntry takes a payload of the host log.
func (v *verification) hostEntry(c *logCheck, index uint64, o *opened) {
	switch m := o.message.(type) {
	case *record.KeyCertificate:
		if err := v.keys.Add(index, m); err != nil {
			c.fail(KindSignature, &index, "%v", err)
			return
		}
		c.known.set([][]byte{m.PublicKey})
	case *record.VMCheckpoint:
		v.quote(c, index, m, o)
	case *record.Dropped:
		v.drop(c, index, m)
	case *record.Damage:
		v.damaged.add(index, m)
	}
}

// quote takes a VM log's checkpoint that the host log quotes.
func (v *verification) quote(c *logCheck, index uint64, m *record.VMCheckpoint, o *opened) {
	c.r.Quotes++
	name, err := proof.ParseOrigin(m.Origin)
	if err != nil || name.IsHost() || name.HostID != v.host.HostID {
		c.fail(KindLog, &index, "it quotes a checkpoint of %q, which is no VM log of this host", m.Origin)
		return
	}
	key, ok := v.keys.At(index)
	if !ok {
		c.fail(KindSignature, &index, "it quotes a checkpoint of %s before any key is certified", m.Origin)
		return
	}
	p := o.note
	if !bytes.Equal(key.Key, o.key) {
		if p, err = openNote(m, key.Key); err != nil {
			c.fail(KindSignature, &index, "the checkpoint of %s that it quotes is not signed with the key in force, that of entry %d: %v", m.Origin, key.Index, err)
			return
		}
	}
	q := v.byName[m.Origin]
	if q == nil {
		q = &quoted{origin: m.Origin}
		v.byName[m.Origin] = q
		v.logs = append(v.logs, q)
	}
	switch {
	case p.Size == 0:
		c.fail(KindSize, &index, "it quotes %s at no entries; a VM log has its genesis", m.Origin)
		return
	case q.count > 0 && p.Size < q.last.size:
		c.fail(KindSize, &index, "it quotes %s at %d entries, entry %d has quoted it at %d: the VM log went back", m.Origin, p.Size, q.last.index, q.last.size)
		return
	case q.gone != nil && p.Size > q.last.size:
		c.fail(KindSize, &index, "it quotes %s at %d entries, entry %d has dropped it at %d", m.Origin, p.Size, q.gone.Index, q.last.size)
		return
	case q.count > 0 && p.Size == q.last.size && p.Root != q.last.root:
		c.fail(KindFork, &index, "it quotes %s at %d entries with root %s, entry %d has quoted it with root %s: there are two histories of it", m.Origin, p.Size, p.Root, q.last.index, q.last.root)
		return
	}
	q.key = key.Key
	if err := q.add(quote{size: p.Size, index: index, root: p.Root}, v.spool); err != nil {
		c.err = err
	}
}

// vmLogs checks the VM logs that the host log quotes.
func (v *verification) vmLogs(ctx context.Context, top string) error {
	for _, want := range v.opts.Logs {
		if v.byName[want] == nil {
			v.r.fail(KindLog, want, nil, "the host log quotes no checkpoint of it")
		}
	}
	v.damaged.sort()
	for _, q := range v.logs {
		if len(v.opts.Logs) > 0 && !slices.Contains(v.opts.Logs, q.origin) {
			v.unquoted++
			continue
		}
		if err := v.vmLog(ctx, top, q); err != nil {
			return err
		}
	}
	for _, q := range v.logs {
		if c := v.done[q.origin]; c != nil {
			if err := v.link(ctx, top, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// vmLog checks one VM log.
func (v *verification) vmLog(ctx context.Context, top string, q *quoted) error {
	if gone, err := v.notGiven(ctx, top, q); gone || err != nil {
		if gone && len(v.opts.Logs) > 0 { // by name: that it is gone is no answer
			v.r.fail(KindLog, q.origin, nil, "it was asked for, and it is not there: entry %d of the host log says that it was dropped; verify its archive", q.gone.Index)
		}
		return err
	}
	c := v.newCheck(q.origin, top+q.origin+"/")
	text, err := v.src.Fetch(ctx, c.prefix+"checkpoint", maxCheckpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist), unusable(err):
		c.fail(KindLog, nil, "it is missing: entry %d of the host log quotes its checkpoint of %d entries, and there is no %scheckpoint", q.last.index, q.last.size, c.prefix)
		return nil
	case err != nil:
		return fmt.Errorf("verify %s: %w", q.origin, err)
	}
	head, ok := v.vmHead(c, q, text)
	if !ok {
		return nil
	}
	c.size, c.claims = head.Size, []claim{{head.Size, head.Root, KindEntry, "its signed checkpoint"}}
	c.quotes = &quoteReader{v.spool.Read(&q.all)}
	return c.check(ctx)
}

// vmHead opens a VM log's own checkpoint. It is the one quoted last, or a newer
// one, which only the newest key may have signed: what an older key signed was
// quoted before that key was replaced.
func (v *verification) vmHead(c *logCheck, q *quoted, text []byte) (proof.Checkpoint, bool) {
	unsigned, err := proof.ParseCheckpoint(text)
	if err != nil {
		c.fail(KindSignature, nil, "its checkpoint: %v", err)
		return proof.Checkpoint{}, false
	}
	newest := v.keys.Keys()[len(v.keys.Keys())-1]
	keys := [][]byte{newest.Key}
	if unsigned.Size <= q.last.size {
		keys = append(keys, q.key)
	}
	var head proof.Checkpoint
	for _, key := range keys {
		verifier, verr := proof.NewVerifier(c.origin, key)
		if verr != nil {
			err = verr
			continue
		}
		if head, err = proof.OpenCheckpoint(text, verifier); err == nil {
			break
		}
	}
	if unsigned.Size < q.last.size {
		// Whoever signed it, it is not the newest one.
		c.fail(KindSize, nil, "its checkpoint has %d entries, entry %d of the host log quotes it at %d: entries were cut off, or an old checkpoint is replayed", unsigned.Size, q.last.index, q.last.size)
		return proof.Checkpoint{}, false
	}
	if err != nil {
		c.fail(KindSignature, nil, "its checkpoint of %d entries is not signed with the key in force, that of entry %d of the host log: %v", unsigned.Size, newest.Index, err)
		return proof.Checkpoint{}, false
	}
	return head, true
}

// link checks that a log's genesis quotes the log before it.
func (v *verification) link(ctx context.Context, top string, c *logCheck) error {
	g, zero := c.genesis, uint64(0)
	first := c.name.Incarnation == 1 && c.name.Shard == proof.FirstShard
	if g == nil {
		if !first && !c.bare.Load() {
			v.undisclosed++
		}
		return nil
	}
	if g.PreviousOrigin == "" {
		if !first {
			c.fail(KindGap, &zero, "the genesis names no log before this one")
		}
		return nil
	}
	name, err := proof.ParseOrigin(g.PreviousOrigin)
	if err != nil || name.IsHost() || g.PreviousOrigin == c.origin {
		c.fail(KindLog, &zero, "the genesis names %q as the log before this one", g.PreviousOrigin)
		return nil
	}
	q := v.byName[g.PreviousOrigin]
	switch {
	case name.HostID != v.host.HostID:
		v.abroad++
		return nil
	case q == nil:
		c.fail(KindGap, &zero, "the log before this one, %s, is not quoted in the host log", g.PreviousOrigin)
		return nil
	case len(g.PreviousCheckpoint) == 0:
		c.fail(KindGap, &zero, "the genesis does not quote the last checkpoint of %s", g.PreviousOrigin)
		return nil
	}
	p, err := v.openAny(g.PreviousOrigin, g.PreviousCheckpoint)
	if err != nil {
		c.fail(KindSignature, &zero, "the checkpoint of %s that the genesis quotes: %v", g.PreviousOrigin, err)
		return nil
	}
	before := v.done[g.PreviousOrigin]
	switch {
	case p.Size == 0:
		c.fail(KindGap, &zero, "the genesis quotes %s at no entries; a VM log has its genesis", g.PreviousOrigin)
		return nil
	case p.Size == q.last.size && p.Root == q.last.root:
	case p.Size == q.last.size:
		c.fail(KindFork, &zero, "the genesis quotes %s at %d entries with root %s, entry %d of the host log with root %s: there are two histories of it", g.PreviousOrigin, p.Size, p.Root, q.last.index, q.last.root)
		return nil
	case q.gone != nil && before == nil && p.Size < q.last.size:
		return v.linkGone(c, q, p)
	case before == nil || p.Size > before.tree.size:
		c.fail(KindSize, &zero, "the genesis quotes %s at %d entries, entry %d of the host log at %d: that log was cut off behind its end", g.PreviousOrigin, p.Size, q.last.index, q.last.size)
		return nil
	default: // between two quotes: the tree is read once more, whole as it is there
		again := &logCheck{v: v, origin: g.PreviousOrigin, prefix: top + g.PreviousOrigin + "/", r: &LogReport{}, size: before.size,
			claims: []claim{{p.Size, p.Root, KindFork, "the checkpoint that the genesis of " + c.origin + " quotes"}}}
		if err := again.check(ctx); err != nil {
			return err
		}
	}
	v.linked++
	return nil
}

// openAny opens a checkpoint of a VM log that one of the certified keys signed.
func (v *verification) openAny(origin string, text []byte) (p proof.Checkpoint, err error) {
	for _, k := range slices.Backward(v.keys.Keys()) {
		verifier, verr := proof.NewVerifier(origin, k.Key)
		if verr != nil {
			return p, verr
		}
		if p, err = proof.OpenCheckpoint(text, verifier); err == nil {
			return p, nil
		}
	}
	return p, err
}
