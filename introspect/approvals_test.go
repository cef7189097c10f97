package introspect

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

const approvalBundle = `
bundle {
  name     = "test"
  version  = "1"
  language = 1
}
policy "paused" {
  on   = ["vm.pause"]
  mode = "enforce"
  approval {
    group = "g"
  }
}
`

// TestApprovalGoesOn rolls the shard of a log on which an approval is active: it goes
// on in the next one with the uses made so far, also where the judge was not running.
func TestApprovalGoesOn(t *testing.T) {
	p := newPipeWith(t, approvalBundle)
	p.facts = virt.Snapshot{Domain: domain.Domain{UUID: vm, Name: "vm", State: domain.Running, ID: 10}, ConfigXML: "<domain/>", QEMU: virt.Process{Pid: 10, Start: 10}}
	p.see("vm.start", "start", "booted", 10, domain.Running)
	now := time.Now()
	s := &approval.Statement{Type: approval.Type, ID: "CHG-1", Host: "test.host", Group: "g", Policies: []string{"paused"}, VMs: []string{vm.String()},
		NotBefore: approval.At(now), NotAfter: approval.At(now.Add(time.Hour)), MaxUses: 2, RequestedBy: "bob", Reason: "r", Issued: approval.At(now), Nonce: fmt.Sprintf("%032x", 1)}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	err = p.registry.sealFor(t.Context(), s.VMs, true, chain.MetaWrite{Key: approvalPrefix + "CHG-1", Value: []byte("{}")}, func() (chain.Entry, error) {
		return p.store.Draft(record.OriginOperator, record.ClassApprovalLoaded, &record.Approval{Statement: b, Signers: []string{"alice"}, Require: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	p.see("vm.pause", "pause", "user", 0, 0)
	if v := p.waitFor(record.ClassApprovalUsed, 1).(*record.Verdict); v.Approval.Uses != 1 {
		t.Fatalf("%v", v)
	}
	first := p.registry.Machines()[0].Log
	p.registry.cfg.ShardEntries = 4
	if err := p.registry.rollShards(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.registry.cfg.ShardEntries = DefaultShardEntries
	c := p.waitFor(record.ClassPolicyCarried, 1).(*record.PolicyCarried)
	if len(c.Approvals) != 1 || c.Approvals[0].Id != "CHG-1" || c.Approvals[0].Uses != 1 || c.Approvals[0].Shard != 1 || c.Origin != first.Origin() {
		t.Errorf("%v", c)
	}
	p.restart()
	p.see("vm.pause", "pause", "user", 0, 0)
	if v := p.waitFor(record.ClassApprovalUsed, 2).(*record.Verdict); v.Approval.Uses != 2 {
		t.Errorf("%v", v)
	}
	p.see("vm.pause", "pause", "user", 0, 0)
	if v := p.waitFor(record.ClassPolicyVerdict, 1).(*record.Verdict); v.Approval == nil || v.Approval.State != "exceeded" {
		t.Errorf("%v", v)
	}
}

// waitFor waits until n entries of a class stand in VM logs, and returns the last.
func (p *pipe) waitFor(class record.Class, n int) record.Message {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	f := p.store.Tail(chain.Position{})
	defer f.Close()
	for {
		it, err := f.Next(ctx)
		if err != nil {
			p.t.Fatalf("%d more of %s: %v", n, class, err)
		}
		if it.Leaf.Header.Class != class || it.Log.Name().IsHost() {
			continue
		}
		if n--; n == 0 {
			m, err := it.Decode()
			if err != nil {
				p.t.Fatal(err)
			}
			return m
		}
	}
}

// TestAdmitOneBundle has another bundle come in force while an approval is admitted: it
// is held against one of them, and not against the places of the one in the other.
func TestAdmitOneBundle(t *testing.T) {
	g := &policy.Approval{Group: "g", Require: 1}
	bundles := [][]*policy.Policy{{{Name: "other"}, {Name: "paused", Approval: g}}, {{Name: "other"}}}
	asked := 0
	a := &Approvals{cfg: ApprovalsConfig{HostID: "h", Policies: func() []*policy.Policy { asked++; return bundles[min(asked, len(bundles))-1] }}}
	s := &approval.Statement{ID: "CHG-1", Host: "h", Group: "g", Policies: []string{"paused"}}
	if err := a.admit(&approval.Verified{Statement: s, Signers: []string{"alice"}}, time.Now()); err != nil {
		t.Error(err)
	}
}
