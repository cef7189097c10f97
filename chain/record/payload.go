package record

import (
	"fmt"
	"slices"
)

// MaxPayload is the largest payload an author may write, in bytes.
const MaxPayload = 32 << 10

// Message is a payload: one of the messages of record.proto.
type Message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// NewPayload returns an empty payload for records of class c. Classes without
// a message of their own are observations and carry an Event.
func NewPayload(c Class) Message {
	switch c {
	case ClassGenesis:
		return &Genesis{}
	case ClassErased:
		return &Erased{}
	case ClassPruned:
		return &Pruned{}
	case ClassDropped:
		return &Dropped{}
	case ClassClosed:
		return &Closed{}
	case ClassVMCheckpoint:
		return &VMCheckpoint{}
	case ClassKeyCertificate:
		return &KeyCertificate{}
	case ClassWitnessShortfall, ClassWitnessRestored, ClassWitnessDisputed:
		return &WitnessState{}
	case ClassAccessDisclosed:
		return &Disclosed{}
	case ClassVMEpoch:
		return &Epoch{}
	case ClassVMHandover, ClassAgentArrived:
		return &Handover{}
	case ClassVMGap, ClassHostGap:
		return &Gap{}
	case ClassAgentEnrolled:
		return &Enrolled{}
	case ClassAgentFrame:
		return &Frame{}
	case ClassAgentDropped:
		return &Lost{}
	case ClassAgentHooks:
		return &Hooks{}
	case ClassAgentSequenceGap, ClassAgentHeartbeatLost, ClassAgentHeartbeatBack, ClassAgentSignatureInvalid,
		ClassAgentRefused, ClassAgentConnected, ClassAgentDisconnected, ClassAgentRollback, ClassAgentThrottled,
		ClassAgentRewound, ClassAgentForked, ClassAgentStale, ClassAgentCloned, ClassAgentRestarted, ClassAgentKeyChanged,
		ClassAgentCoverageLow, ClassAgentCoverageLost, ClassAgentClockJump, ClassAgentAbsent:
		return &AgentState{}
	case ClassAgentStopped:
		return &AgentStopped{}
	case ClassAgentCommand:
		return &AgentCommand{}
	case ClassAgentResult:
		return &AgentResult{}
	case ClassApprovalLoaded:
		return &Approval{}
	case ClassApprovalRevoked:
		return &Revocation{}
	case ClassApprovalApprovers:
		return &Approvers{}
	case ClassPolicyVerdict, ClassPolicyError, ClassPolicyExceptionExpired, ClassPolicyMismatch, ClassPolicyLimitReached, ClassApprovalUsed, ClassApprovalUsedLate, ClassApprovalExpired:
		return &Verdict{}
	case ClassPolicyOutcome:
		return &Outcome{}
	case ClassPolicyAlertFailed, ClassPolicyAlertDelivered:
		return &AlertResult{}
	case ClassPolicyCarried:
		return &PolicyCarried{}
	case ClassPolicyActing, ClassPolicyReapplied, ClassPolicyReleased:
		return &Held{}
	case ClassPolicySnapshot:
		return &Snapshotted{}
	case ClassPolicySnapshotRemoved:
		return &SnapshotRemoved{}
	case ClassPolicyLoaded:
		return &BundleActivation{}
	case ClassHostStart, ClassHostStop, ClassHostConfiguration:
		return &Daemon{}
	case ClassHostBackup:
		return &Backup{}
	case ClassHostRestore:
		return &Restore{}
	case ClassDamage:
		return &Damage{}
	}
	return &Event{}
}

// Decode parses the payload of a record of class c. It allocates at most a
// small multiple of len(payload). An error wraps ErrReject and comes with a
// nil Message.
func Decode(c Class, payload []byte) (Message, error) {
	if len(payload) > MaxPayload && c.FromGuest() {
		return nil, fmt.Errorf("decode %s payload: %d bytes, limit %d: %w", c, len(payload), MaxPayload, ErrReject)
	}
	m := NewPayload(c)
	if err := m.UnmarshalVT(payload); err != nil {
		return nil, fmt.Errorf("decode %s payload: %w: %w", c, err, ErrReject)
	}
	return m, nil
}

// AppendEncode appends what Encode returns to b, without allocating where b has
// room.
func AppendEncode(b []byte, m Message) ([]byte, error) {
	n := m.SizeVT()
	from := len(b)
	b = slices.Grow(b, n)[:from+n]
	if _, err := m.MarshalToSizedBufferVT(b[from:]); err != nil {
		return b[:from], fmt.Errorf("encode payload: %w", err)
	}
	return b, nil
}

// Encode returns the bytes of m that an author commits to.
func Encode(m Message) ([]byte, error) {
	b, err := m.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	return b, nil
}
