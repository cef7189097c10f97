package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// Service answers about what a host has sealed, and carries out what its
// operators ask for. Every listener serves the same routes; who sends a request
// is what access.From says of its context, and decides what is to be seen. Its
// fields are not changed once it serves.
type Service struct {
	Store *chain.Store
	Index *index.Index
	Log   *slog.Logger // nil: none
	// Discloser seals that payloads are given. Without one none are.
	Discloser access.Discloser
	// Secret seals what answers give to go on with: places in the order of all
	// logs, which would tell a tenant how much happens on the host.
	Secret [32]byte
	// Status describes the daemon.
	Status func(ctx context.Context) (*client.Status, error)
	// Enroll gives a domain its channel.
	Enroll func(ctx context.Context, nameOrUUID string) (*client.Enrollment, error)
	// StopAgent has the guest agent of a domain end, for the one who asks and
	// with a reason. It returns behind the sealing of both.
	StopAgent func(ctx context.Context, nameOrUUID, requester, reason string) (*client.AgentAnswer, error)
	// Release ends what holds a domain, for the one who asks.
	Release func(ctx context.Context, nameOrUUID, requester string, q client.ReleaseRequest) (*client.Released, error)
	// Rotate replaces the key of the VM logs, for the one who asks.
	Rotate func(ctx context.Context, requester string) (*client.KeyEpoch, error)
	// Backup copies the ledger to a directory, and the keys of the payloads to
	// another one where that is not empty, for the one who asks.
	Backup func(ctx context.Context, requester, dir, payloadKeys string) (*client.Backup, error)
	// ExportShard writes the archive of a closed log to a file of the host.
	ExportShard func(ctx context.Context, l *chain.Log, file string, withhold bool) (*client.Archive, error)
	// DropShard drops a closed log of which a file of the host is the archive, for the
	// one who asks.
	DropShard func(ctx context.Context, l *chain.Log, archive, reason, requester string) (*client.Dropped, error)
	// Approvals takes signed approvals, and shows them.
	Approvals Approver
	// Policies tells which policies are in force.
	Policies func(ctx context.Context) (*client.Policies, error)
	// PolicyText returns the files of a policy bundle that is or was in force, by its
	// digest. One that is not kept is ErrNotFound.
	PolicyText func(ctx context.Context, digest record.Hash) (map[string][]byte, error)
	// ApplyPolicies brings a bundle in force, a tar archive of its files, for the one
	// who asks.
	ApplyPolicies func(ctx context.Context, requester string, bundle io.Reader, q client.ApplyQuery) (*client.Applied, error)
	// ReplayPolicies judges what logs hold since a time by a bundle, a tar archive of
	// its files, and tells how far it is.
	ReplayPolicies func(ctx context.Context, bundle io.Reader, logs []*chain.Log, since time.Time, progress func(done, total uint64)) (*client.Replayed, error)
	// RollBack brings the bundle in force that was before, for the one who asks.
	RollBack func(ctx context.Context, requester string) (*client.Applied, error)
	// Alerts lists the alert channels; the list is never nil.
	Alerts func(ctx context.Context) ([]client.AlertChannel, error)
	// TestAlert has a channel send a test alert, for the one who asks.
	TestAlert func(ctx context.Context, channel, requester string) (*client.AlertTest, error)
	// Find returns the newest log of a domain, or an error which wraps
	// ErrNotFound.
	Find func(nameOrUUID string) (*chain.Log, error)
	// Name returns the name of a domain by its UUID, or the UUID.
	Name func(uuid string) string

	streams, exports gate
	builders         *turns // to build a bundle

	private struct { // for tests
		heartbeat, lifetime, patience, write time.Duration
	}
}

// Approver takes approvals and revocations: the statement as it was signed, armoured
// signatures behind each other, and who hands them in. It returns behind the sealing.
// What is not there is ErrNotFound.
type Approver interface {
	Approve(ctx context.Context, statement, signatures []byte, submitter string) (*client.Approval, error)
	Revoke(ctx context.Context, statement, signatures []byte, submitter string) (*client.Approval, error)
	List() ([]client.Approval, error)
	Show(id string) (*client.Approval, error)
}

// ErrNotFound says that what was asked for is not there.
var ErrNotFound = errors.New("not found")

// Handler returns the routes. A request without an identity is refused.
func (s *Service) Handler() http.Handler {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&s.private.heartbeat, streamHeartbeat)
	def(&s.private.lifetime, streamLifetime)
	def(&s.private.patience, indexPatience)
	def(&s.private.write, writeTimeout)
	s.builders = newTurns(maxOwnBuilders, maxBuilders)
	return s.mux(s.routes())
}
