package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/provostd/provost/rules/approval"
)

// ApproverGroupConfig names the people who may approve what policies with an
// approval block of this group would report.
type ApproverGroupConfig struct {
	Name        string              `hcl:"name,label"`
	Require     int                 `hcl:"require,optional"`      // how many must sign; default 1
	MaxDuration string              `hcl:"max_duration,optional"` // of an approval; default 24h
	Keys        []ApproverKeyConfig `hcl:"key,block"`
}

// ApproverKeyConfig is an SSH key of one person, who may have several.
type ApproverKeyConfig struct {
	Name      string `hcl:"name,label"`
	PublicKey string `hcl:"public_key"`          // a line as in authorized_keys
	NotBefore string `hcl:"not_before,optional"` // RFC 3339
	NotAfter  string `hcl:"not_after,optional"`
}

func (c *Config) completeApprovers(v *validator) {
	var groups []approval.Group
	for _, g := range c.ApproverGroups {
		ag := approval.Group{Name: g.Name, Require: g.Require}
		if g.MaxDuration != "" {
			ag.MaxDuration = v.age("approver_group.max_duration", g.MaxDuration)
		}
		for _, k := range g.Keys {
			ag.Keys = append(ag.Keys, approval.Key{Principal: k.Name, PublicKey: k.PublicKey,
				NotBefore: v.moment("approver_group.key.not_before", k.NotBefore), NotAfter: v.moment("approver_group.key.not_after", k.NotAfter)})
		}
		groups = append(groups, ag)
	}
	var err error
	if c.approvers, err = approval.NewRoots(groups); err != nil {
		v.bad("approver_group", "Approvers cannot be used", err.Error()+".")
	}
}

// age reads a duration from a minute to 366 days, also in days.
func (v *validator) age(setting, value string) time.Duration {
	if d, err := parseAge(value); err == nil {
		return d
	}
	return v.duration(setting, value, time.Minute, 366*24*time.Hour)
}

// moment reads a time; empty is none.
func (v *validator) moment(setting, value string) time.Time {
	if value == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		v.bad(setting, "Time cannot be used", fmt.Sprintf("%q is no time such as \"2027-01-31T00:00:00Z\".", value))
	}
	return t.UTC()
}

// approverReload reads the approver groups of the configuration file anew.
type approverReload struct{ d *Daemon }

// Reload seals other approvers before they count. What the file says besides is left
// for the next start.
func (r approverReload) Reload(ctx context.Context) error {
	d := r.d
	if d.cfg.path == "" {
		return nil
	}
	cfg, _, diags := ReadConfig(d.cfg.path)
	if diags.HasErrors() {
		d.log.ErrorContext(ctx, "the approvers stay as they are: the configuration cannot be read", "file", d.cfg.path, "error", diags.Error())
		return fmt.Errorf("read %s: %w", d.cfg.path, diags)
	}
	err := d.policies.changeApprovers(cfg.approvers.Groups(), func() error { return d.approvals.Replace(ctx, cfg.approvers) })
	if err != nil {
		d.log.ErrorContext(ctx, "the approvers stay as they are", "file", d.cfg.path, "error", err)
	}
	return err
}
