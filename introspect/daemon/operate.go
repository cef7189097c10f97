package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

func (d *Daemon) find(nameOrUUID string) (*chain.Log, error) {
	m, err := d.registry.Find(nameOrUUID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	return m.Log, nil
}

func (d *Daemon) name(uuid string) string {
	id, err := domain.ParseUUID(uuid)
	if err != nil {
		return uuid
	}
	if n := d.registry.Name(id); n != "" {
		return n
	}
	return uuid
}

func (d *Daemon) enroll(ctx context.Context, nameOrUUID string) (*client.Enrollment, error) {
	// A client that hangs up must not leave a domain enrolled and unsealed.
	ctx = context.WithoutCancel(ctx)
	r, err := d.host.Enroll(ctx, nameOrUUID)
	if errors.Is(err, virt.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	e := &client.Enrollment{UUID: r.Domain.UUID.String(), Name: r.Domain.Name, Persistent: r.Config, Live: r.Live}
	if r.Config {
		e.Done = append(e.Done, "channel "+virt.ChannelName+" added to the persistent configuration")
	}
	if r.Controller {
		e.Done = append(e.Done, "virtio-serial controller plugged in")
	}
	if r.Live {
		e.Done = append(e.Done, "channel plugged into the running domain")
	}
	if len(e.Done) == 0 {
		return e, nil
	}
	if err := d.registry.Operated(ctx, r.Domain.UUID, "enroll", e.Done); err != nil {
		return nil, fmt.Errorf("enrolled, but not sealed: %w", err)
	}
	return e, nil
}

// stopAgent has the agent of a domain end. The asker may hang up: what was
// asked is carried through and sealed.
func (d *Daemon) stopAgent(ctx context.Context, nameOrUUID, requester, reason string) (*client.AgentAnswer, error) {
	m, err := d.registry.Find(nameOrUUID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	if strings.TrimSpace(reason) == "" {
		return nil, fmt.Errorf("stop the agent of %s: no reason is given; it is sealed: %w", m.Name, record.ErrReject)
	}
	a, err := d.sessions.Command(ctx, m.UUID, wire.Request{Kind: wire.KindStop, Requester: requester, Reason: reason})
	if err != nil {
		return nil, fmt.Errorf("stop the agent of %s: %w", m.Name, err)
	}
	return &client.AgentAnswer{UUID: m.UUID.String(), Name: m.Name, Command: hex.EncodeToString(a.ID[:]),
		Session: fmt.Sprintf("%016x", a.Session), Status: answerStatus(a.Status), Detail: a.Detail}, nil
}

func answerStatus(s uint32) string {
	switch s {
	case wire.ResultDone:
		return client.AnswerDone
	case wire.ResultUnsupported:
		return "unsupported"
	case wire.ResultRefused:
		return "refused"
	case wire.ResultFailed:
		return "failed"
	case wire.ResultGone:
		return "gone"
	case guest.StatusNoAnswer:
		return "no answer"
	}
	return fmt.Sprintf("status %d", s)
}

func (d *Daemon) status(context.Context) (*client.Status, error) {
	s := &client.Status{
		Version: d.version, Host: d.cfg.HostID, Pid: os.Getpid(), Started: d.started.UTC().Format(time.RFC3339),
		Libvirt: client.Libvirt{URI: d.cfg.Libvirt.URI, Connected: d.host.Stats().Connected.Load() == 1},
		HostLog: api.LogInfo(d.store.HostLog()), VerifierKey: d.store.HostLog().VerifierKey(),
		Backlog: backlog(d.store, d.judge), Enforcements: d.enforcer.InFlight(),
		Witnesses: witnessStatus(d.store),
	}
	s.Bundle = d.bundleInfo(d.policies.bundle())
	agents := map[domain.UUID]string{}
	silent := map[domain.UUID]bool{}
	for _, st := range d.sessions.Status() {
		agents[st.UUID], silent[st.UUID] = st.State, st.Silent
	}
	for _, m := range d.registry.Machines() {
		one := domainStatus(&m, agents[m.UUID], silent[m.UUID])
		one.Holds = clientHolds(d.enforcer.Holds(m.UUID))
		s.Domains = append(s.Domains, one)
	}
	return s, nil
}

func domainStatus(m *introspect.Machine, agent string, silent bool) client.Domain {
	l := api.LogInfo(m.Log)
	out := client.Domain{UUID: m.UUID.String(), Name: m.Name, State: m.State.String(), Enrolled: m.Enrolled, Agent: agent,
		Silent: silent, Incarnation: m.Incarnation, Epoch: hex.EncodeToString(m.Epoch[:]), Log: &l}
	if agent == "" {
		out.Agent = "none"
	}
	return out
}
