package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// policyExplainCommand says why a policy did or did not match an entry.
func policyExplainCommand(a *app) func(context.Context, []string) error {
	a.asJSON()
	dial := a.daemon()
	dir := a.flags.String("bundle", "", "`DIR` of the bundle that holds the policy; default: the bundle that judged the entry, from the daemon")
	file := a.flags.String("entries", "", "`FILE` of entries as provost query --raw writes them, instead of a daemon")
	return func(ctx context.Context, args []string) error {
		log, index, err := parseEntryName(args[1])
		if err != nil {
			return err
		}
		if *file != "" && *dir == "" {
			return &usageError{"--entries asks no daemon: name the bundle with --bundle"}
		}
		x := &explainer{app: a, policy: args[0]}
		if *dir != "" { // before a daemon is asked
			if err := x.load(*dir); err != nil {
				return err
			}
		}
		var src *entrySource
		if *file != "" {
			src, err = openEntries(*file, log)
		} else {
			c := dial()
			defer c.Close()
			if src, err = daemonEntries(ctx, c, log, index); err == nil && *dir == "" {
				err = x.fetch(ctx, c, src)
			}
		}
		if err != nil {
			return err
		}
		out, err := x.explain(src, index)
		if err != nil {
			return err
		}
		if a.output == "json" {
			enc := a.encoder()
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			err = enc.Encode(out)
		} else {
			err = out.WriteText(plain{a.stdout})
		}
		if err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		return nil
	}
}

// parseEntryName reads LOG:INDEX, or INDEX alone.
func parseEntryName(s string) (log string, index uint64, err error) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		log, s = s[:i], s[i+1:]
	}
	if index, err = strconv.ParseUint(s, 10, 64); err != nil {
		return "", 0, &usageError{fmt.Sprintf("%q names no entry: write DOMAIN:INDEX or LOG:INDEX, as provost tail and query show them", s)}
	}
	return log, index, nil
}

func policyNames(b *policy.Bundle) []string {
	var all []string
	for _, p := range b.Policies {
		all = append(all, p.Name)
	}
	return all
}

// entrySource is one log, up to one entry.
type entrySource struct {
	// each gives the entries, oldest first: what says what the domain is, and
	// those after since, which policies may remember.
	each   func(since func(target record.Leaf) time.Time, yield func(rules.Entry) error) error
	recall rules.Recall
	// judgedBy returns the digest of the bundle in force ahead of the entry; zero: the log
	// names none. Nil for entries of a file.
	judgedBy func() (record.Hash, error)
}

// explainer explains what one policy makes of one entry.
type explainer struct {
	app    *app
	bundle *policy.Bundle
	policy string
}

// load takes the bundle of a directory.
func (x *explainer) load(dir string) (err error) {
	if x.bundle, err = x.app.loadBundle(dir); err != nil {
		return err
	}
	return x.has("in " + dir)
}

// fetch takes the bundle that judged the entry: the one that its log names ahead of it,
// or the one in force where it names none.
func (x *explainer) fetch(ctx context.Context, c *client.Client, src *entrySource) error {
	digest, err := src.judgedBy()
	if err != nil {
		return err
	}
	if digest.IsZero() {
		p, err := c.Policies(ctx)
		if err != nil {
			return err
		}
		if p.Bundle == nil {
			return errors.New("no policies are in force, and none judged the entry; name a bundle with --bundle")
		}
		if digest, err = record.ParseHash(p.Bundle.Digest); err != nil {
			return fmt.Errorf("read answer of provostd: %w", err)
		}
	}
	files, err := c.PolicyText(ctx, digest)
	if err != nil {
		return fmt.Errorf("get the policies that judged the entry: %w; name their directory with --bundle", err)
	}
	b, diags := policy.LoadFS(policy.Overlay(nil, files))
	if diags.HasErrors() {
		return fmt.Errorf("the policies that judged the entry, bundle %s, do not load with this version: %w", digest, diags)
	}
	x.bundle = b
	return x.has("which judged the entry, digest " + digest.String() + ",")
}

// has refuses a policy that the bundle does not have.
func (x *explainer) has(which string) error {
	if x.find() == nil {
		return &usageError{fmt.Sprintf("bundle %s %s has no policy %q; it has: %s", x.bundle.Name, which, x.policy, strings.Join(policyNames(x.bundle), ", "))}
	}
	return nil
}

func (x *explainer) find() *policy.Policy {
	for _, p := range x.bundle.Policies {
		if p.Name == x.policy {
			return p
		}
	}
	return nil
}

// explain judges what came before the entry and explains the entry itself.
func (x *explainer) explain(src *entrySource, index uint64) (*rules.Explanation, error) {
	st := &rules.State{Recall: src.recall}
	engine, err := x.engine("", nil)
	if err != nil {
		return nil, err
	}
	var out *rules.Explanation
	since := func(target record.Leaf) time.Time {
		return time.Unix(0, target.Wall).Add(-x.find().Memory()).Add(-time.Minute)
	}
	var begun time.Time // of a shard that is not the first
	err = src.each(since, func(e rules.Entry) error {
		if e.Leaf.Index > index {
			return nil
		}
		if g, ok := e.Payload.(*record.Genesis); ok && g.Cause == "shard" {
			begun = time.Unix(0, e.Leaf.Wall)
		}
		if e.Leaf.Index == index && x.find().Memory() > 0 && since(e.Leaf).Before(begun) {
			fmt.Fprintf(plain{x.app.stderr}, "the log goes on from an earlier shard, and policy %s remembers further back than it begins: what came before is not looked at, so the host may have decided otherwise\n", x.policy)
		}
		if act, ok := e.Payload.(*record.BundleActivation); ok && e.Leaf.Index < index {
			// The mode that the host allows is sealed where the bundle is.
			if engine, err = x.engine(st.VM().UUID, act); err != nil {
				return err
			}
		}
		if e.Leaf.Index < index {
			if _, err := engine.Eval(st, e.Leaf, e.Hash, e.Payload); err != nil && !errors.Is(err, rules.ErrNoPayload) {
				return err
			}
			return nil
		}
		out, err = engine.Explain(st, e.Leaf, e.Hash, e.Payload, x.policy)
		return err
	})
	if err == nil && out == nil {
		err = fmt.Errorf("there is no entry %d: %w", index, record.ErrReject)
	}
	return out, err
}

// engine judges with the modes of an activation, and with the bundle's own
// where none is known.
func (x *explainer) engine(uuid string, act *record.BundleActivation) (*rules.Engine, error) {
	o := rules.Options{Channels: policy.Channels(x.bundle)}
	if act != nil {
		if !bytes.Equal(x.bundle.Digest[:], act.Digest) {
			fmt.Fprintf(plain{x.app.stderr}, "from here on bundle %s %s judged, digest %x; this explains with %s %s, digest %x\n",
				act.Name, act.Version, act.Digest, x.bundle.Name, x.bundle.Version, x.bundle.Digest[:])
		}
		for _, p := range act.Policies {
			if mode, err := policy.ParseMode(p.Mode); err == nil && p.Name == x.policy {
				o.VMModes = map[string]policy.Mode{strings.ToLower(uuid): mode}
			}
		}
	}
	return rules.New(x.bundle, o)
}

// openEntries reads recorded entries. Without a name of a log they must all be
// of one.
func openEntries(file, log string) (*entrySource, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := rules.ReadEntries(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var logs []string
	for _, e := range all {
		if !slices.Contains(logs, e.Log) {
			logs = append(logs, e.Log)
		}
	}
	if log == "" && len(logs) > 1 {
		return nil, &usageError{fmt.Sprintf("%s holds entries of %d logs; write LOG:INDEX with one of: %s", file, len(logs), strings.Join(logs, ", "))}
	}
	all = slices.DeleteFunc(all, func(e rules.Entry) bool { return log != "" && e.Log != log })
	slices.SortStableFunc(all, func(a, b rules.Entry) int { return cmp.Compare(a.Leaf.Index, b.Leaf.Index) })
	out := &entrySource{recall: func(shard uint32, index uint64) (record.Leaf, record.Message, error) {
		if shard != 0 {
			return record.Leaf{}, nil, fmt.Errorf("entry %d of shard %d: %w", index, shard, rules.ErrNoPayload)
		}
		i, ok := slices.BinarySearchFunc(all, index, func(e rules.Entry, n uint64) int { return cmp.Compare(e.Leaf.Index, n) })
		if !ok {
			return record.Leaf{}, nil, fmt.Errorf("%s has no entry %d: %w", file, index, rules.ErrNoPayload)
		}
		return recalled(all[i])
	}}
	out.each = func(_ func(record.Leaf) time.Time, yield func(rules.Entry) error) error {
		for i, e := range all {
			if i > 0 && all[i-1].Leaf.Index == e.Leaf.Index {
				continue // recorded twice
			}
			if err := yield(e); err != nil {
				return err
			}
		}
		return nil
	}
	return out, nil
}

func recalled(e rules.Entry) (record.Leaf, record.Message, error) {
	if e.Payload == nil {
		return e.Leaf, nil, fmt.Errorf("recall entry %d: %w", e.Leaf.Index, rules.ErrNoPayload)
	}
	return e.Leaf, e.Payload, nil
}

// facts are the classes that say what a domain is and what is agreed upon it.
var facts = []string{"log.genesis", "vm.*", "approval.*", "policy.loaded"}

// daemonEntries asks a daemon for what a policy needs to judge one entry.
func daemonEntries(ctx context.Context, c *client.Client, log string, index uint64) (*entrySource, error) {
	if log == "" {
		return nil, &usageError{"say of which domain: write DOMAIN:INDEX, or LOG:INDEX for an older log"}
	}
	if !strings.Contains(log, "/") {
		d, err := c.Domain(ctx, log)
		if err != nil {
			return nil, err
		}
		if d.Log == nil {
			return nil, fmt.Errorf("domain %s has no log now; write LOG:INDEX with one of \"provost domain chain %s\"", log, log)
		}
		log = d.Log.Origin
	}
	l := &daemonLog{ctx: ctx, client: c, origin: log}
	out := &entrySource{recall: func(shard uint32, i uint64) (record.Leaf, record.Message, error) {
		if shard != 0 {
			return record.Leaf{}, nil, fmt.Errorf("entry %d of shard %d: %w", i, shard, rules.ErrNoPayload)
		}
		e, err := l.entry(i)
		if err != nil {
			return record.Leaf{}, nil, err
		}
		return recalled(e)
	}}
	out.judgedBy = func() (record.Hash, error) { return l.judgedBy(index) }
	out.each = func(since func(record.Leaf) time.Time, yield func(rules.Entry) error) error {
		target, err := l.entry(index)
		if err != nil {
			return err
		}
		return l.upTo(target, since(target.Leaf), yield)
	}
	return out, nil
}

// daemonLog is one log behind the daemon's interface.
type daemonLog struct {
	ctx    context.Context
	client *client.Client
	origin string
}

func (l *daemonLog) entry(index uint64) (rules.Entry, error) {
	e, err := l.client.Entry(l.ctx, l.origin, index, true)
	if err != nil {
		return rules.Entry{}, err
	}
	return sealed(e)
}

// query gives the entries of a query to yield until it returns false.
func (l *daemonLog) query(q client.Query, yield func(rules.Entry) (bool, error)) error {
	q.Log, q.Oldest = l.origin, true
	for e, err := range l.client.Query(l.ctx, q, nil) {
		if err != nil {
			return err
		}
		s, err := sealed(e)
		if err != nil {
			return err
		}
		if more, err := yield(s); err != nil || !more {
			return err
		}
	}
	return nil
}

// judgedBy returns the digest of the bundle that judges an entry.
func (l *daemonLog) judgedBy(index uint64) (digest record.Hash, err error) {
	target, err := l.entry(index)
	if err != nil {
		return digest, err
	}
	q := client.Query{Log: l.origin, Classes: []string{record.ClassPolicyLoaded.String()}, Until: time.Unix(0, target.Leaf.Wall)}
	for e, err := range l.client.Query(l.ctx, q, nil) { // the newest first
		if err != nil {
			return digest, err
		}
		s, err := sealed(e)
		if err != nil {
			return digest, err
		}
		if a, ok := s.Payload.(*record.BundleActivation); ok && s.Leaf.Index < index && len(a.Digest) == len(digest) {
			return record.Hash(a.Digest), nil
		}
	}
	return digest, nil
}

// upTo gives what says what the domain is, all entries since a time, and the
// target, each once and in their order.
func (l *daemonLog) upTo(target rules.Entry, since time.Time, yield func(rules.Entry) error) error {
	until := time.Unix(0, target.Leaf.Wall)
	var known []rules.Entry
	err := l.query(client.Query{Classes: facts, Until: until}, func(e rules.Entry) (bool, error) {
		known = append(known, e)
		return e.Leaf.Index < target.Leaf.Index, nil
	})
	if err != nil {
		return err
	}
	next := uint64(0) // what was given is before it
	give := func(e rules.Entry) error {
		for len(known) > 0 && known[0].Leaf.Index < e.Leaf.Index {
			if k := known[0]; k.Leaf.Index >= next {
				if err := yield(k); err != nil {
					return err
				}
			}
			known = known[1:]
		}
		next = e.Leaf.Index + 1
		return yield(e)
	}
	err = l.query(client.Query{Since: since, Until: until}, func(e rules.Entry) (bool, error) {
		if e.Leaf.Index >= target.Leaf.Index {
			return false, nil
		}
		return true, give(e)
	})
	if err != nil {
		return err
	}
	return give(target)
}

// sealed is an entry as the engine takes it.
func sealed(e *client.Entry) (rules.Entry, error) {
	leaf, payload, err := e.Open()
	if err != nil && !errors.Is(err, client.ErrErased) {
		return rules.Entry{}, err
	}
	return rules.Entry{Log: e.Log, Leaf: leaf, Hash: record.LeafHash(e.Leaf), Payload: payload}, nil
}
