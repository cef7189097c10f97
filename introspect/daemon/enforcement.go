package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/enforce"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

// EnforcementConfig bounds and equips what policies may have done on this host.
type EnforcementConfig struct {
	// ActionsPerMinute bounds the actions that change domains, of all policies together.
	ActionsPerMinute int `hcl:"actions_per_minute,optional"` // default 0: no bound
	// MaxHeldPercent bounds the share of the running domains that may be paused or cut
	// off at a time. One always may.
	MaxHeldPercent int `hcl:"max_held_percent,optional"` // default 0: no bound
	// IsolatedNetwork is the libvirt network that detach_network with mode = "isolate"
	// moves interfaces to.
	IsolatedNetwork string `hcl:"isolated_network,optional"`
	// QuarantineAllow are the networks that the packet filter leaves to a quarantined domain.
	QuarantineAllow []string `hcl:"quarantine_allow,optional"`
	// ReleaseGroup is the approver_group of which somebody must sign the release of a
	// quarantine that wants two persons.
	ReleaseGroup string `hcl:"release_group,optional"`
	// SnapshotDir holds the memory of snapshots. Default: StateDir with -snapshots
	// behind its name.
	SnapshotDir string `hcl:"snapshot_dir,optional"`
	// SnapshotSpareMiB is what a snapshot must leave free where it writes.
	SnapshotSpareMiB int `hcl:"snapshot_spare_mib,optional"` // default 1024
	// SnapshotChain is how many images a disk may lie on.
	SnapshotChain int `hcl:"snapshot_chain,optional"` // default 16

	allow []netip.Prefix
}

func (c *Config) completeEnforcement(v *validator) {
	if c.Enforcement == nil {
		c.Enforcement = &EnforcementConfig{}
	}
	x := c.Enforcement
	def(&x.SnapshotDir, filepath.Clean(c.StateDir)+"-snapshots")
	v.path("enforcement.snapshot_dir", x.SnapshotDir)
	for name, n := range map[string]*int{"snapshot_spare_mib": &x.SnapshotSpareMiB, "snapshot_chain": &x.SnapshotChain} {
		if *n == 0 {
			*n = map[string]int{"snapshot_spare_mib": 1024, "snapshot_chain": 16}[name]
		}
		if *n < 0 || *n > 1<<20 {
			v.bad("enforcement."+name, "Number cannot be used", fmt.Sprintf("%d is no number from 1 to %d.", *n, 1<<20))
		}
	}
	if x.ActionsPerMinute < 0 || x.MaxHeldPercent < 0 || x.MaxHeldPercent > 100 {
		v.bad("enforcement", "Bound cannot be used", "actions_per_minute is a number from 0, and max_held_percent one from 0 to 100; 0 is no bound.")
	}
	for _, s := range x.QuarantineAllow {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Masked() != p {
			v.bad("enforcement.quarantine_allow", "Network cannot be used", fmt.Sprintf("%q is no network such as 192.0.2.0/24.", s))
		}
		x.allow = append(x.allow, p)
	}
	if x.ReleaseGroup != "" && c.approvers != nil && c.approvers.Group(x.ReleaseGroup) == nil {
		v.bad("enforcement.release_group", "Approvers are missing", fmt.Sprintf("There is no approver_group %q. Describe it, or name another.", x.ReleaseGroup))
	}
}

func (x *EnforcementConfig) settings() enforce.Settings {
	return enforce.Settings{ActionsPerMinute: x.ActionsPerMinute, MaxHeld: x.MaxHeldPercent, IsolatedNetwork: x.IsolatedNetwork, QuarantineAllow: x.allow,
		Snapshots: x.SnapshotDir, SnapshotSpare: uint64(x.SnapshotSpareMiB) << 20, SnapshotChain: x.SnapshotChain}
}

// capabilities are what a host with this configuration can do.
func (c *Config) capabilities() []string {
	s := c.Enforcement.settings()
	all := append(enforce.Capabilities(&s, c.Enforcement.ReleaseGroup != ""), rules.CanLimitHost)
	if c.Egress != nil {
		all = append(all, rules.CanPrevent+"egress")
		if len(c.Egress.resolvers) > 0 {
			all = append(all, rules.CanResolve)
		}
	}
	return all
}

// limit returns the limit on the whole host of the policy behind a verdict.
func (p *policies) limit(v *record.Verdict) (*enforce.Limit, error) {
	if v.Policy == "" || len(v.BundleDigest) == 0 {
		return nil, nil // a finding of the host itself
	}
	p.mu.Lock()
	e, err := p.find(v.BundleDigest)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, one := range e.Bundle().Policies {
		if m := one.Limit; one.Name == v.Policy && m != nil && m.Scope == policy.LimitHost {
			return &enforce.Limit{Max: m.Max, Per: m.Per, Audit: m.Then == policy.LimitAudit}, nil
		}
	}
	return nil, nil
}

// second verifies that a second person agrees to a release, and to no other.
func (d *Daemon) second(id domain.UUID, holds []enforce.Hold, statement []byte, signatures [][]byte) (*enforce.Agreed, error) {
	group := d.cfg.Enforcement.ReleaseGroup
	if group == "" {
		return nil, fmt.Errorf("this host knows of nobody: set release_group in the block enforcement: %w", record.ErrReject)
	}
	if len(statement) == 0 {
		return nil, fmt.Errorf("sign the release, or have it signed, by somebody of group %q: %w", group, record.ErrReject)
	}
	s, signers, digest, err := d.approvals.Release(statement, signatures)
	if err != nil {
		return nil, err
	}
	names := holdNames(holds)
	switch {
	case s.Host != d.cfg.HostID || s.VM != id.String():
		err = fmt.Errorf("it is for VM %s on host %q", s.VM, s.Host)
	case s.Group != group:
		err = fmt.Errorf("it is of group %q, and this host wants %q", s.Group, group)
	case !slices.Equal(s.Holds, names):
		err = fmt.Errorf("it is for other verdicts than those that hold the domain now")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	return &enforce.Agreed{Statement: statement, Signatures: signatures, Signers: signers, ApproversSHA256: digest}, nil
}

func holdNames(holds []enforce.Hold) []string {
	var all []string
	for _, h := range holds {
		all = append(all, approval.HoldName(h.Log, h.Verdict, h.Index))
	}
	slices.Sort(all)
	return all
}

// release ends what holds a domain. The asker may hang up: what was begun is sealed.
func (d *Daemon) release(ctx context.Context, nameOrUUID, requester string, q client.ReleaseRequest) (*client.Released, error) {
	m, err := d.registry.Find(nameOrUUID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	r := enforce.Release{Action: q.Action, Requester: requester, Reason: q.Reason, DryRun: q.DryRun, Statement: []byte(q.Statement)}
	if len(q.Signatures) > 0 {
		var text []byte
		for _, s := range q.Signatures {
			text = append(append(text, s...), '\n')
		}
		if r.Signatures, err = approval.ParseSignatures(text); err != nil {
			return nil, err
		}
	}
	done, err := d.enforcer.Release(ctx, m.UUID, r)
	if err != nil {
		return nil, err
	}
	out := &client.Released{UUID: m.UUID.String(), Name: m.Name, Host: d.cfg.HostID, Group: d.cfg.Enforcement.ReleaseGroup, Holds: clientHolds(done.Holds), StateBefore: done.Before, StateAfter: done.After,
		Detail: done.Detail, DryRun: q.DryRun}
	for _, n := range done.Links {
		out.Interfaces = append(out.Interfaces, client.Interface{Key: n.Key, Device: n.Device, Live: n.LiveLink, Persistent: n.ConfigLink})
	}
	return out, nil
}

func clientHolds(all []enforce.Hold) []client.Hold {
	out := []client.Hold{}
	for _, h := range all {
		c := client.Hold{Action: h.Action, Policy: h.Policy, Log: h.Log, Verdict: h.Verdict, Index: h.Index, Second: h.Second,
			Since: time.Unix(0, h.Since).UTC().Format(time.RFC3339)}
		if h.Until > 0 {
			c.Until = time.Unix(0, h.Until).UTC().Format(time.RFC3339)
		}
		out = append(out, c)
	}
	return out
}
