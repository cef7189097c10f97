package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/rules/approval"
)

// approver gives the API the approvals of a daemon.
type approver struct{ d *Daemon }

func (a approver) Approve(ctx context.Context, statement, signatures []byte, submitter string) (*client.Approval, error) {
	return a.take(ctx, a.d.approvals.Submit, statement, signatures, submitter)
}

func (a approver) Revoke(ctx context.Context, statement, signatures []byte, submitter string) (*client.Approval, error) {
	return a.take(ctx, a.d.approvals.Revoke, statement, signatures, submitter)
}

func (a approver) take(ctx context.Context, take func(context.Context, []byte, [][]byte, string) (*introspect.TakenApproval, error),
	statement, signatures []byte, submitter string) (*client.Approval, error) {
	sigs, err := approval.ParseSignatures(signatures)
	if err != nil {
		return nil, err
	}
	t, err := take(ctx, statement, sigs, submitter)
	if errors.Is(err, introspect.ErrNoApproval) {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return a.describe(t, a.d.approvals.Uses, true)
}

func (a approver) List() ([]client.Approval, error) {
	taken, err := a.d.approvals.List()
	if err != nil {
		return nil, err
	}
	// The state of a VM is decoded once, however many approvals are for it.
	known := map[chain.LogID]map[string]uint64{}
	uses := func(l *chain.Log) (map[string]uint64, error) {
		if u, ok := known[l.ID()]; ok {
			return u, nil
		}
		u, err := a.d.approvals.Uses(l)
		known[l.ID()] = u
		return u, err
	}
	all := make([]client.Approval, 0, len(taken))
	for _, t := range taken {
		one, err := a.describe(t, uses, false)
		if err != nil {
			return nil, err
		}
		all = append(all, *one)
	}
	return all, nil
}

func (a approver) Show(id string) (*client.Approval, error) {
	t, err := a.d.approvals.Get(id)
	if errors.Is(err, introspect.ErrNoApproval) {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return a.describe(t, a.d.approvals.Uses, true)
}

// describe tells of an approval. uses reads how often those of a VM were used; of one that
// has ended nothing is read unless all of it is wanted.
func (a approver) describe(t *introspect.TakenApproval, uses func(*chain.Log) (map[string]uint64, error), whole bool) (*client.Approval, error) {
	s := t.Parsed
	out := &client.Approval{ID: s.ID, Group: s.Group, State: t.State(time.Now()), Policies: s.Policies, NotBefore: s.NotBefore.String(), NotAfter: s.NotAfter.String(),
		MaxUses: s.MaxUses, RequestedBy: s.RequestedBy, Reason: s.Reason, Signers: t.Signers, Submitter: t.Submitter, Taken: approval.At(time.Unix(0, t.Taken)).String()}
	for _, uuid := range s.VMs {
		vm := client.ApprovalVM{UUID: uuid}
		if id, err := domain.ParseUUID(uuid); err == nil {
			vm.Name = a.d.registry.Name(id)
		}
		if m, err := a.d.registry.Find(uuid); err == nil {
			vm.Log = m.Log.Origin()
			if whole || out.State == "valid" {
				used, err := uses(m.Log)
				if err != nil {
					return nil, err
				}
				if n, ok := used[s.ID]; ok {
					vm.Uses = &n
				}
			}
		}
		out.VMs = append(out.VMs, vm)
	}
	if r := t.Revoked; r != nil {
		out.Revoked = &client.Revoked{At: approval.At(time.Unix(0, r.At)).String(), Reason: r.Reason, Signers: r.Signers, Submitter: r.Submitter}
	}
	if whole {
		out.Submission = &client.Submission{Statement: string(t.Statement), Signatures: []string{}}
		for _, sig := range t.Signatures {
			out.Submission.Signatures = append(out.Submission.Signatures, string(approval.Armor(sig)))
		}
	}
	return out, nil
}
