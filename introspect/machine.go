package introspect

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

// machine is what is known of one domain across restarts of the daemon. It is
// written in the same batch as the entries that changed it, so it is never
// ahead of the log nor behind it.
type machine struct {
	UUID         domain.UUID  `json:"uuid"`
	Name         string       `json:"name"`
	Incarnation  uint64       `json:"incarnation"`
	Shard        uint32       `json:"shard,omitempty"` // 0: the first
	Ended        bool         `json:"ended,omitempty"` // undefined, or gone
	Epoch        epochID      `json:"epoch"`
	Parent       epochID      `json:"parent"`
	EpochAfter   uint64       `json:"epoch_after"`        // the leaf that opened the epoch stands here or behind
	Reverted     string       `json:"reverted,omitempty"` // a revert has opened the epoch, and libvirt may tell of it once more
	From         *source      `json:"from,omitempty"`     // log that the agent's memory comes from, where it is another one
	QEMU         virt.Process `json:"qemu"`
	GenerationID string       `json:"generation_id,omitempty"`
	State        domain.State `json:"state"`
	Enrolled     bool         `json:"enrolled"`
	Channel      string       `json:"channel,omitempty"`
	Bundle       string       `json:"bundle,omitempty"` // digest of the activation sealed last
	LibvirtID    int          `json:"libvirt_id"`
	Persistent   bool         `json:"persistent"`
	ConfigDigest string       `json:"config_digest,omitempty"`
	// Unread says that facts about the domain could not be read when they were
	// due: until they are, its channel and its epoch may be unknown.
	Unread bool `json:"unread,omitempty"`

	log *chain.Log
}

// source is where memory that came with a marker ran before.
type source struct {
	Origin string  `json:"origin"`
	Epoch  epochID `json:"epoch"`
}

type epochID [16]byte

func (e epochID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, e[:]), nil }

func (e *epochID) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(e) {
		return fmt.Errorf("parse epoch %q: want 32 hexadecimal digits", b)
	}
	copy(e[:], raw)
	return nil
}

const machinePrefix = "domain/"

func machineKey(id domain.UUID) string { return machinePrefix + id.String() }

func (m *machine) write() (chain.MetaWrite, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("encode domain %s: %w", m.UUID, err)
	}
	return chain.MetaWrite{Key: machineKey(m.UUID), Value: b}, nil
}

func parseMachine(b []byte) (*machine, error) {
	m := &machine{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("decode domain row: %w: %w", err, record.ErrFatal)
	}
	return m, nil
}

// newEpoch takes m to its next epoch and returns what is sealed of it.
func (m *machine) newEpoch(cause string, o *virt.Observation, b *branch) *record.Epoch {
	var next epochID
	_, _ = rand.Read(next[:]) // never fails
	e := &record.Epoch{
		Epoch: next[:], Cause: cause, QemuPid: uint32(m.QEMU.Pid), QemuStart: m.QEMU.Start,
		GenerationId: m.GenerationID, LibvirtId: int64(o.Domain.ID), Image: b.image, ImageUses: b.uses, Presumed: b.presumed,
		ParentOrigin: b.at.Origin, ParentIndex: b.at.Index, ParentHash: b.at.hash(),
	}
	if b.parent != (epochID{}) {
		e.Parent = slices.Clone(b.parent[:])
	}
	if now := head(m.log); b.abandoned {
		e.Abandoned, e.AbandonedIndex, e.AbandonedHash = slices.Clone(m.Epoch[:]), now.Index, now.hash()
	}
	if o.Snapshot != nil {
		d := digest(o.Snapshot.LiveXML)
		e.DomainXmlSha256 = d[:]
	}
	m.Parent, m.Epoch, m.EpochAfter = b.parent, next, m.log.Size()
	return e
}

// session returns what the guest sessions must know of m, or false where there
// is no channel to serve.
func (m *machine) session() (*guest.Domain, bool) {
	if m.Ended || m.QEMU.Pid == 0 || m.Channel == "" {
		return nil, false
	}
	d := &guest.Domain{
		UUID: m.UUID, Name: m.Name, Socket: m.Channel, QEMU: guest.QEMU{Pid: m.QEMU.Pid, Start: m.QEMU.Start},
		Log: m.log, Incarnation: m.Incarnation, Epoch: m.Epoch, ParentEpoch: m.Parent, Paused: m.State != domain.Running,
	}
	if m.From != nil && m.From.Epoch == m.Parent {
		d.From = m.From.Origin
	}
	if g, err := domain.ParseUUID(m.GenerationID); err == nil {
		d.GenerationID = g
	}
	return d, true
}
