package daemon

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// policies are the bundles of a host: the one in force, and every one that ever was,
// so that what was judged can be judged again. It is safe for concurrent use.
//
// Which one is in force at a start is the last that an operator chose: the bundle in
// the configured directory, or the one that was applied. The directory counts as
// chosen anew once it holds something else than when it was read last.
type policies struct {
	shelf *shelf
	from  string // the configured directory; empty: none
	log   *slog.Logger

	applying  sync.Mutex    // one change at a time
	replaying sync.Mutex    // one replay at a time
	nothing   *rules.Engine // judges nothing

	mu      sync.Mutex // guards the rest
	opts    rules.Options
	now     active
	engine  *rules.Engine // in force
	engines map[policy.Digest]*rules.Engine
	// judging holds the engines of activations, by their digest: those of domains
	// with the same modes share one.
	judging map[[sha256.Size]byte]*rules.Engine
}

// maxEngines bounds what is kept ready of bundles that are not in force. Judges hold
// theirs themselves.
const maxEngines = 64

// none is in force where no bundle is: the history is kept all the same.
var none = &policy.Bundle{Name: "none"}

// engineOptions are what this host can do and what its configuration says about
// policies.
func engineOptions(cfg *Config) rules.Options {
	opts := rules.Options{HostMode: mode(cfg.Mode), VMModes: map[string]policy.Mode{}, Approvers: cfg.approvers.Groups(), Actions: cfg.capabilities(), Channels: cfg.channelNames()}
	for _, dom := range cfg.Domains {
		opts.VMModes[dom.id.String()] = mode(dom.Mode)
	}
	return opts
}

// CheckPolicies refuses a bundle that a daemon with this configuration would
// refuse to bring into force (I10).
func CheckPolicies(cfg *Config, b *policy.Bundle) error {
	_, err := rules.New(b, engineOptions(cfg))
	return err
}

// openPolicies finds the bundle in force and has it kept.
func openPolicies(cfg *Config, log *slog.Logger) (*policies, error) {
	p := &policies{from: cfg.Policies, log: log, opts: engineOptions(cfg), engines: map[policy.Digest]*rules.Engine{}, judging: map[[sha256.Size]byte]*rules.Engine{}}
	var err error
	if p.nothing, err = rules.New(none, rules.Options{}); err != nil {
		return nil, err
	}
	if p.shelf, err = openShelf(cfg.policiesDir()); err != nil {
		return nil, err
	}
	there, err := p.configured()
	if err != nil {
		return nil, err
	}
	last, known, err := p.shelf.active()
	if err != nil {
		return nil, err
	}
	chosen := there
	if known && last.Directory == there.Digest.String() && last.Active != last.Directory {
		if chosen, err = p.shelf.load(last.Active); err != nil {
			return nil, fmt.Errorf("%w; it was in force when the daemon ended. Put it back from a backup, or remove %s to go on with the policies of the configuration", err, p.shelf.activeFile())
		}
	}
	engine, err := rules.New(chosen, p.opts)
	if err != nil && chosen != there {
		return nil, fmt.Errorf("the bundle that was applied cannot come in force again: %w; mend the configuration, or remove %s to go on with the policies that it names", err, p.shelf.activeFile())
	}
	if err != nil {
		return nil, fmt.Errorf("build policy engine: %w", err)
	}
	if err := p.shelf.keep(there); err != nil {
		return nil, err
	}
	next := last.to(chosen.Digest.String())
	next.Directory = there.Digest.String()
	if err := p.shelf.setActive(next); err != nil {
		return nil, err
	}
	p.put(engine, next)
	return p, nil
}

// configured loads the bundle of the configured directory.
func (p *policies) configured() (*policy.Bundle, error) {
	if p.from == "" {
		return none, nil
	}
	b, diags := policy.Load(p.from)
	if diags.HasErrors() {
		return nil, &PolicyError{Dir: p.from, Diags: diags}
	}
	return b, nil
}

// put brings a bundle in force, from the next activation on.
func (p *policies) put(e *rules.Engine, a active) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.engine, p.now = e, a
	p.engines[e.Bundle().Digest] = e
}

// options are what engines are made with.
func (p *policies) options() rules.Options {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opts
}

// changeApprovers has other approver groups count, if the policies in force can be
// honoured with them. No bundle comes in force meanwhile.
func (p *policies) changeApprovers(groups map[string]int, replace func() error) error {
	p.applying.Lock()
	defer p.applying.Unlock()
	e, _ := p.current()
	if err := e.CheckApprovers(groups); err != nil {
		return err
	}
	if err := replace(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opts.Approvers = groups
	return nil
}

// bundle returns the bundle in force; nil: none.
func (p *policies) bundle() *policy.Bundle {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.engine.Bundle(); b.Digest != none.Digest {
		return b
	}
	return nil
}

// current returns the engine in force, and what was before it.
func (p *policies) current() (*rules.Engine, active) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.engine, p.now
}

// activation says which policies judge a domain from now on.
func (p *policies) activation(uuid string) *record.BundleActivation {
	e, _ := p.current()
	return e.ActivationFor(uuid)
}

// judge returns the engine of an activation, of a bundle that is in force or once
// was. Beside an error it returns the one in force.
func (p *policies) judge(a *record.BundleActivation) (*rules.Engine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := record.Encode(a)
	if err != nil {
		return p.engine, err
	}
	key := sha256.Sum256(b)
	if e := p.judging[key]; e != nil {
		return e, nil
	}
	e, err := p.find(a.Digest)
	if err == nil {
		e, err = e.For(a)
	}
	if err != nil {
		p.log.Error("entries are judged by other policies than they should be", "bundle", p.engine.Bundle().Digest, "error", err)
		return p.engine, err
	}
	if len(p.judging) >= maxEngines {
		clear(p.judging)
	}
	p.judging[key] = e
	return e, nil
}

// find returns the engine of a bundle that was in force. The caller holds mu: a
// judge that waits for a bundle of long ago delays an activation, and no entry.
func (p *policies) find(digest []byte) (*rules.Engine, error) {
	if len(digest) != len(policy.Digest{}) {
		return nil, fmt.Errorf("the digest of a bundle has %d bytes: %w", len(digest), record.ErrReject)
	}
	d := policy.Digest(digest)
	if e := p.engines[d]; e != nil {
		return e, nil
	}
	b, err := p.shelf.load(d.String())
	if err != nil {
		return nil, err
	}
	opts := p.opts
	opts.Recorded = true // what the host could honour was decided when it was activated
	e, err := rules.New(b, opts)
	if err != nil {
		return nil, err
	}
	if len(p.engines) >= maxEngines {
		clear(p.engines)
		p.engines[p.engine.Bundle().Digest] = p.engine
	}
	p.engines[d] = e
	return e, nil
}

// text returns the files of a bundle that is or was in force. It reads them anew where
// they are not at hand: engines are for judges.
func (p *policies) text(digest policy.Digest) (map[string][]byte, error) {
	p.mu.Lock()
	e := p.engines[digest]
	p.mu.Unlock()
	if e != nil {
		return e.Bundle().Files, nil
	}
	return p.shelf.text(digest)
}

// errBusy refuses a change of policies beside another.
var errBusy = fmt.Errorf("policies are being changed by somebody else: %w", record.ErrRetry)
