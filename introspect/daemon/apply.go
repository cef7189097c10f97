package daemon

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/policytest"
)

// receive unpacks a bundle that an operator sends and loads it. The bundle is nil
// where the diagnostics have errors. The caller discards what was received.
func (p *policies) receive(body io.Reader) (in *incoming, b *policy.Bundle, diags []byte, err error) {
	if in, err = p.shelf.incoming(); err != nil {
		return nil, nil, nil, err
	}
	fail := func(err error) (*incoming, *policy.Bundle, []byte, error) {
		in.discard()
		return nil, nil, nil, err
	}
	for r := tar.NewReader(body); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail(fmt.Errorf("receive policies: %w: %w", err, record.ErrReject))
		}
		if h.Typeflag != tar.TypeReg {
			return fail(fmt.Errorf("receive policies: %q is no plain file: %w", h.Name, record.ErrReject))
		}
		if err := in.add(h.Name, r, h.Size); err != nil {
			return fail(err)
		}
	}
	b, found := policy.Load(in.dir)
	if diags, err = policy.DiagnosticsJSON(found); err != nil {
		return fail(err)
	}
	return in, b, diags, nil
}

// applyPolicies brings a bundle that an operator sends in force, or says why not:
// then nothing has changed.
func (d *Daemon) applyPolicies(ctx context.Context, requester string, body io.Reader, q client.ApplyQuery) (*client.Applied, error) {
	p := d.policies
	if !p.applying.TryLock() {
		return nil, errBusy
	}
	defer p.applying.Unlock()
	in, b, diags, err := p.receive(body)
	if err != nil {
		return nil, err
	}
	defer in.discard()
	out := &client.Applied{Was: d.bundleInfo(p.bundle()), Diagnostics: diags, Domains: []client.DomainPolicies{}}
	if b == nil {
		out.Reason = "the bundle does not load"
		return out, nil
	}
	out.Bundle = d.bundleInfo(b)
	engine, err := rules.New(b, p.options())
	if err != nil {
		out.Reason = err.Error()
		return out, nil
	}
	if out.Reason, err = tested(ctx, in.dir, b, out); err != nil || out.Reason != "" {
		return out, err
	}
	if out.Reason, err = d.budget(ctx, b, q, out); err != nil || out.Reason != "" {
		return out, err
	}
	if q.DryRun {
		return out, nil // it could be applied
	}
	if !p.shelf.has(b.Digest.String()) {
		if err := in.keepAs(b.Digest.String()); err != nil {
			return nil, err
		}
	}
	_, now := p.current()
	return out, d.activate(ctx, engine, now.to(b.Digest.String()), "applied by "+requester, out)
}

// tested runs the tests that came with a bundle, and says why it must not come in
// force; "" where it may. One without tests may.
func tested(ctx context.Context, dir string, b *policy.Bundle, out *client.Applied) (string, error) {
	tests, diags := policy.LoadTests(dir, b)
	if tests == nil {
		var err error
		out.Diagnostics, err = policy.DiagnosticsJSON(diags)
		return "its tests do not load", err
	}
	r, err := policytest.Run(ctx, b, tests, policytest.Options{})
	if err != nil {
		return "", fmt.Errorf("test policies: %w", err)
	}
	out.Tests = r.Passed + r.Failed
	for _, t := range r.Tests {
		if !t.Passed {
			return fmt.Sprintf("%d of its %d tests fail, the first is %q of policy %s; provost policy test shows why", r.Failed, out.Tests, t.Name, t.Policy), nil
		}
	}
	return "", nil
}

// rollBack brings the bundle in force that was before this one.
func (d *Daemon) rollBack(ctx context.Context, requester string) (*client.Applied, error) {
	p := d.policies
	if !p.applying.TryLock() {
		return nil, errBusy
	}
	defer p.applying.Unlock()
	_, now := p.current()
	if len(now.Previous) == 0 {
		return nil, fmt.Errorf("roll back policies: no other bundle was in force before this one: %w", record.ErrReject)
	}
	b, err := p.shelf.load(now.Previous[0])
	if err != nil {
		return nil, fmt.Errorf("roll back policies: %w", err)
	}
	engine, err := rules.New(b, p.options())
	if err != nil {
		return nil, fmt.Errorf("roll back policies: %w", err)
	}
	next := active{Active: now.Previous[0], Previous: now.Previous[1:], Directory: now.Directory}
	out := &client.Applied{Was: d.bundleInfo(p.bundle()), Bundle: d.bundleInfo(b), Diagnostics: []byte("[]"), Domains: []client.DomainPolicies{}}
	return out, d.activate(ctx, engine, next, "rolled back by "+requester, out)
}

// reloadPolicies reads the configured directory anew. What it holds comes in force
// if that has changed; a bundle that was applied since stays otherwise.
func (d *Daemon) reloadPolicies(ctx context.Context) error {
	p := d.policies
	if p.from == "" {
		return nil
	}
	if !p.applying.TryLock() {
		return errBusy
	}
	defer p.applying.Unlock()
	b, err := p.configured()
	if err != nil {
		return err
	}
	_, now := p.current()
	if b.Digest.String() == now.Directory {
		return nil
	}
	engine, err := rules.New(b, p.options())
	if err != nil {
		return fmt.Errorf("reload policies: %w", err)
	}
	if err := p.shelf.keep(b); err != nil {
		return err
	}
	next := now.to(b.Digest.String())
	next.Directory = b.Digest.String()
	return d.activate(ctx, engine, next, "read from "+p.from, &client.Applied{})
}

// activate brings a bundle in force whose files are kept. The order: the host log
// says so, then active.json, then the log of each domain. A crash between leaves a
// start with the old bundle or the new one, and that start seals which it is. The
// asker may hang up: what was begun is carried through.
func (d *Daemon) activate(ctx context.Context, e *rules.Engine, next active, why string, out *client.Applied) error {
	ctx = context.WithoutCancel(ctx)
	if err := d.guards.honours(ctx, e); err != nil {
		return err
	}
	entry, err := d.sealPolicies(ctx, e, why)
	if err != nil {
		return err
	}
	if err := d.policies.shelf.setActive(next); err != nil {
		return err
	}
	d.policies.put(e, next)
	domains, err := d.registry.Activate(ctx)
	if err != nil {
		return err
	}
	d.guards.kick()
	b := e.Bundle()
	d.log.InfoContext(ctx, "policies are in force", "bundle", b.Name, "version", b.Version, "digest", b.Digest, "policies", len(b.Policies), "why", why)
	out.Applied, out.Entry = true, entry
	for i := range domains {
		out.Domains = append(out.Domains, domainPolicies(&domains[i], e))
	}
	return nil
}

// sealPolicies seals in the host log which policies are in force from now on, and
// on whose demand.
func (d *Daemon) sealPolicies(ctx context.Context, e *rules.Engine, why string) (uint64, error) {
	b := e.Bundle()
	loaded, err := d.store.Draft(record.OriginHost, record.ClassPolicyLoaded, e.Activation())
	if err != nil {
		return 0, err
	}
	told, err := d.store.Draft(record.OriginHost, record.ClassHostConfiguration, &record.Daemon{What: "configuration", Version: d.version, Session: d.store.RunID(),
		Detail: "policy bundle " + b.Name + " " + b.Version + " " + hex.EncodeToString(b.Digest[:]) + " " + policy.Safe(why)})
	if err != nil {
		return 0, err
	}
	sealed, err := d.store.Append(ctx, chain.Batch{Log: d.store.HostLog(), Entries: []chain.Entry{loaded, told}})
	if err != nil {
		return 0, fmt.Errorf("seal that policies are in force: %w", err)
	}
	return sealed.First, nil
}

// bundleInfo describes a bundle; nil stays nil.
func (d *Daemon) bundleInfo(b *policy.Bundle) *client.Bundle {
	if b == nil || b.Digest == none.Digest {
		return nil
	}
	return &client.Bundle{Name: b.Name, Version: b.Version, Digest: b.Digest.String(), Policies: len(b.Policies), Mode: d.cfg.Mode}
}

// activePolicies tells which policies are in force, and in which mode for whom.
func (d *Daemon) activePolicies(context.Context) (*client.Policies, error) {
	e, now := d.policies.current()
	out := &client.Policies{Bundle: d.bundleInfo(e.Bundle()), Previous: append([]string{}, now.Previous...), Policies: []client.ActivePolicy{}, Domains: []client.DomainPolicies{}}
	for _, p := range e.Bundle().Policies {
		one := client.ActivePolicy{Name: p.Name, Title: p.Title, Severity: p.Severity, Mode: e.Mode(p, "").String(), Actions: []string{}}
		for _, a := range p.Actions {
			one.Actions = append(one.Actions, a.Kind)
		}
		out.Policies = append(out.Policies, one)
	}
	for _, m := range d.registry.Machines() {
		out.Domains = append(out.Domains, domainPolicies(&introspect.Activated{UUID: m.UUID, Name: m.Name, Log: m.Log, Policy: e.ActivationFor(m.UUID.String())}, e))
	}
	return out, nil
}

// domainPolicies tells the modes on one domain: how many policies are in each, and
// which are in another than on the host as a whole.
func domainPolicies(a *introspect.Activated, e *rules.Engine) client.DomainPolicies {
	out := client.DomainPolicies{UUID: a.UUID.String(), Name: a.Name, Log: a.Log.Origin(), Modes: map[string]int{}, Other: map[string]string{}}
	if a.Sealed {
		out.Entry = &a.Entry
	}
	general := map[string]string{}
	for _, p := range e.Activation().Policies {
		general[p.Name] = p.Mode
	}
	for _, p := range a.Policy.Policies {
		out.Modes[p.Mode]++
		if general[p.Name] != p.Mode {
			out.Other[p.Name] = p.Mode
		}
	}
	return out
}

// policyText returns the text of a bundle that is or was in force, for who may see it.
func (d *Daemon) policyText(ctx context.Context, digest record.Hash) (map[string][]byte, error) {
	files, err := d.policies.text(digest)
	if errors.Is(err, record.ErrReject) {
		d.log.WarnContext(ctx, "the text of a policy bundle is asked for and not kept", "digest", digest, "error", err)
		return nil, fmt.Errorf("policy bundle %s is not kept on this host: %w", digest, api.ErrNotFound)
	}
	return files, err
}

// textsFor gives texts of policies to an archive.
func textsFor(text func(record.Hash) (map[string][]byte, error)) func(context.Context, record.Hash) (map[string][]byte, string, error) {
	return func(_ context.Context, digest record.Hash) (map[string][]byte, string, error) {
		files, err := text(digest)
		if errors.Is(err, record.ErrReject) {
			return nil, proof.LacksKept, nil
		}
		return files, "", err
	}
}
