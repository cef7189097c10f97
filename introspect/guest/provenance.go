package guest

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"sync"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

const progressPrefix = "agent/"

// Progress is how far an agent has been sealed in a log.
type Progress struct {
	Key       []byte
	Session   uint64
	Frame     uint64 // newest
	FrameHash record.Hash
	Sequence  uint64 // behind it
}

// ProgressIn returns how far the newest session of a log has been sealed. Session 0:
// no agent was heard there.
func ProgressIn(store *chain.Store, l *chain.Log) (Progress, error) {
	b, _, err := store.Meta(ProgressKey(l))
	if err != nil {
		return Progress{}, fmt.Errorf("read progress of the agent: %w", err)
	}
	p, err := parseProgress(b)
	return Progress{p.Key, p.Session, p.Frame, p.FrameHash, p.Sequence}, err
}

// provenance looks at a session that is new to this log: where its memory has run
// before, and whether its key is another domain's. next are its books; they go on
// behind the last frame that the agent knows to be sealed elsewhere.
func (s *session) provenance(d *Domain, id *wire.Ident, next *progress) ([]chain.Entry, error) {
	var entries []chain.Entry
	if other, ok := s.owners.claim(id.Key, s.prog.Key, d.UUID); !ok {
		e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentCloned, &record.AgentState{
			Session: id.Session, Frame: id.Frame, PeerPid: uint32(d.QEMU.Pid), Evidence: id.Key[:],
			Reason: fmt.Sprintf("the key of this agent is that of domain %s: its memory was copied", other)})
		if err != nil {
			return nil, fmt.Errorf("seal copied key: %w", err)
		}
		entries = append(entries, e)
	}
	if !s.arrives(d, id) {
		return entries, nil
	}
	next.arrive(id, d.ParentEpoch)
	e, err := s.cfg.Store.Draft(record.OriginHost, record.ClassAgentArrived, &record.Handover{
		What: "arrived", Origin: d.From, Epoch: d.ParentEpoch[:], Index: id.AckedIndex, Hash: id.AckedHash[:],
		Key: id.Key[:], Session: id.Session, Frame: id.AckedFrame})
	if err != nil {
		return nil, fmt.Errorf("seal arrival: %w", err)
	}
	return append(entries, e), nil
}

// arrives reports whether an agent is the first one of an epoch whose memory comes from
// another log, and says what that log has acknowledged.
func (s *session) arrives(d *Domain, id *wire.Ident) bool {
	return d.From != "" && s.prog.Epoch != d.Epoch && s.prog.Session != id.Session && id.AckedFrame > 0 && !id.AckedHash.IsZero()
}

// arrive goes on with a session that was sealed in another log up to the agent's
// newest acknowledgement, in the given epoch. That log is not here: what the agent
// says of it is sealed, for those to compare who have both.
func (p *progress) arrive(id *wire.Ident, epoch [16]byte) {
	p.Frame, p.SignedEpoch, p.Branched, p.Rebased = id.AckedFrame, epoch, true, true
	if id.Frame == id.AckedFrame {
		p.FrameHash = id.FrameHash
	}
	p.ArrivedIndex, p.ArrivedHash = id.AckedIndex, id.AckedHash
}

// arrivedWith reports whether the newest acknowledgement of an agent is still the one
// that it came with.
func (p *progress) arrivedWith(id *wire.Ident) bool {
	return id.Session == p.Session && !p.ArrivedHash.IsZero() && id.AckedIndex == p.ArrivedIndex && id.AckedHash == p.ArrivedHash
}

// owners says which domain each agent's key was enrolled for last. It holds one key
// for each log, and its methods may be called from several goroutines.
type owners struct {
	mu   sync.Mutex // guards keys
	keys map[[ed25519.PublicKeySize]byte]domain.UUID
}

// readOwners reads them from the books of all agents.
func readOwners(store *chain.Store) (*owners, error) {
	o := &owners{keys: map[[ed25519.PublicKeySize]byte]domain.UUID{}}
	for row, err := range store.MetaPrefix(progressPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read keys of agents: %w", err)
		}
		l, ok := store.LogByOrigin(strings.TrimPrefix(row.Key, progressPrefix))
		if !ok {
			continue
		}
		p, err := parseProgress(row.Value)
		if err != nil {
			return nil, err
		}
		if id, err := domain.ParseUUID(l.Name().Domain); err == nil && len(p.Key) == ed25519.PublicKeySize {
			o.keys[[ed25519.PublicKeySize]byte(p.Key)] = id
		}
	}
	return o, nil
}

// claim takes a key for a domain in place of the one that it had, if any. ok is false
// where the key is that of another domain, which keeps it.
func (o *owners) claim(key [ed25519.PublicKeySize]byte, retired []byte, id domain.UUID) (other domain.UUID, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if have, known := o.keys[key]; known && have != id {
		return have, false
	}
	if len(retired) == ed25519.PublicKeySize && o.keys[[ed25519.PublicKeySize]byte(retired)] == id {
		delete(o.keys, [ed25519.PublicKeySize]byte(retired))
	}
	o.keys[key] = id
	return id, true
}
