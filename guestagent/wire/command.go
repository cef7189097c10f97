package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/provostd/provost/chain/record"
)

// MaxCommand bounds a command and its result, in bytes.
const MaxCommand = 32 << 10

// The contexts of the two signatures. Part of the format; the host's half of
// the first one stands in chain/keys, which alone holds the key.
const (
	commandContext = "provost/command/v1\x00"
	resultContext  = "provost/result/v1\x00"
)

// Command is a host command, signed with the key that Hello named. It is good
// for one conversation (Nonce is the Hello's, Epoch too), once (ID), and until
// Expiry.
type Command struct {
	ID        [16]byte
	Epoch     [16]byte
	Nonce     [32]byte // of the Hello that began the conversation
	Expiry    uint64   // host wall time, nanoseconds since 1970
	Body      []byte   // a Request
	Signature [ed25519.SignatureSize]byte
}

// AppendUnsigned appends what the signature covers.
func (m *Command) AppendUnsigned(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = append(b, m.Epoch[:]...)
	b = append(b, m.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Expiry)
	return appendBytes32(b, m.Body)
}

// AppendBinary appends the body of m.
func (m *Command) AppendBinary(b []byte) []byte {
	return append(m.AppendUnsigned(b), m.Signature[:]...)
}

// Verify checks the signature with the key that Hello named. A zero key
// verifies nothing.
func (m *Command) Verify(key *[ed25519.PublicKeySize]byte) error {
	if *key == [ed25519.PublicKeySize]byte{} {
		return fmt.Errorf("verify command: the host gave no command key: %w", record.ErrReject)
	}
	if !ed25519.Verify(key[:], append([]byte(commandContext), m.AppendUnsigned(nil)...), m.Signature[:]) {
		return fmt.Errorf("verify command: signature does not match: %w", record.ErrReject)
	}
	return nil
}

// ParseCommand decodes a Command body. Nothing is verified yet.
func ParseCommand(body []byte) (Command, error) {
	c := cursor{b: body}
	var m Command
	c.fixed(m.ID[:], "id")
	c.fixed(m.Epoch[:], "epoch")
	c.fixed(m.Nonce[:], "nonce")
	m.Expiry = c.u64("expiry")
	m.Body = append([]byte(nil), c.bytes32(MaxCommand, "command")...)
	c.fixed(m.Signature[:], "signature")
	if err := c.done("command"); err != nil {
		return Command{}, err
	}
	return m, nil
}

// Kind says what a Request asks for. Numbers are part of the format; an agent
// answers those that it does not know with ResultUnsupported.
type Kind uint8

const (
	// KindStop asks the agent to say that it ends, to send what it has, and to end.
	KindStop Kind = 1
	// KindKill asks it to kill a process. The arguments are a Target.
	KindKill Kind = 2
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindStop:
		return "stop"
	case KindKill:
		return "kill_process"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Request is what a Command's Body says.
type Request struct {
	Kind      Kind
	Requester string // who asked, as the host knows them
	Reason    string // theirs
	Arguments []byte // of the kind; stop has none
}

// AppendBinary appends the bytes of r.
func (r *Request) AppendBinary(b []byte) []byte {
	b = append(b, byte(r.Kind))
	b = appendText(b, r.Requester)
	b = appendText(b, r.Reason)
	return appendBytes32(b, r.Arguments)
}

// ParseRequest decodes a Command's Body.
func ParseRequest(body []byte) (Request, error) {
	c := cursor{b: body}
	r := Request{Kind: Kind(c.u8("kind")), Requester: c.text("requester"), Reason: c.text("reason")}
	if a := c.bytes32(MaxCommand, "arguments"); len(a) > 0 {
		r.Arguments = slices.Clone(a)
	}
	switch {
	case c.err != nil:
	case r.Kind == 0:
		c.err = errors.New("kind is 0")
	case !utf8.ValidString(r.Requester) || !utf8.ValidString(r.Reason):
		c.err = errors.New("requester or reason is no UTF-8")
	case r.Kind == KindStop && len(r.Arguments) > 0:
		c.err = fmt.Errorf("stop with %d bytes of arguments", len(r.Arguments))
	case r.Kind == KindKill:
		_, c.err = ParseTarget(r.Arguments)
	}
	if err := c.done("request"); err != nil {
		return Request{}, err
	}
	return r, nil
}

// Target names a process so that no other is ever meant: not one that gets its
// number later, and not one that a guest had before it was started anew.
type Target struct {
	Session uint64 // of the agent that told of it
	Pid     uint32 // in the initial pid namespace; above 1
	Start   uint64 // of the process, CLOCK_BOOTTIME nanoseconds
}

const targetBytes = 20

// AppendBinary appends the bytes of t.
func (t *Target) AppendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, t.Session)
	b = binary.BigEndian.AppendUint32(b, t.Pid)
	return binary.BigEndian.AppendUint64(b, t.Start)
}

// ParseTarget decodes the arguments of KindKill.
func ParseTarget(b []byte) (Target, error) {
	if len(b) != targetBytes {
		return Target{}, fmt.Errorf("parse target: %d bytes, want %d: %w", len(b), targetBytes, record.ErrReject)
	}
	t := Target{Session: binary.BigEndian.Uint64(b), Pid: binary.BigEndian.Uint32(b[8:]), Start: binary.BigEndian.Uint64(b[12:])}
	if t.Session == 0 || t.Pid <= 1 || t.Pid > math.MaxInt32 || t.Start == 0 {
		return Target{}, fmt.Errorf("parse target: process %d with start %d of session %x cannot be meant: %w", t.Pid, t.Start, t.Session, record.ErrReject)
	}
	return t, nil
}

// The statuses of a Result. Part of the format.
const (
	ResultDone        = 0 // carried out, or for stop: begun
	ResultUnsupported = 1 // this agent does not know the kind
	ResultRefused     = 2 // it must not be carried out; the body says why
	ResultFailed      = 3 // it was tried; the body says what went wrong
	ResultGone        = 4 // kill_process: there is no such process any more
)

// Result answers a Command, signed with the agent's key.
type Result struct {
	ID        [16]byte
	Status    uint8
	Body      []byte // UTF-8: why, where it was not done
	Signature [ed25519.SignatureSize]byte
}

func (m *Result) appendUnsigned(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = append(b, m.Status)
	return appendBytes32(b, m.Body)
}

// AppendBinary appends the body of m.
func (m *Result) AppendBinary(b []byte) []byte {
	return append(m.appendUnsigned(b), m.Signature[:]...)
}

// message is what the signature of a Result covers: the whole command
// too, so an answer to one is none to another.
func (m *Result) message(command []byte) []byte {
	sum := sha256.Sum256(command)
	return m.appendUnsigned(append([]byte(resultContext), sum[:]...))
}

// Sign completes m as the answer to the body of a Command.
func (m *Result) Sign(key ed25519.PrivateKey, command []byte) {
	m.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(key, m.message(command)))
}

// Verify checks that the holder of key answered this body of a Command.
func (m *Result) Verify(key, command []byte) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, m.message(command), m.Signature[:]) {
		return fmt.Errorf("verify result: signature does not match: %w", record.ErrReject)
	}
	return nil
}

// ParseResult decodes a Result body. Nothing is verified yet.
func ParseResult(body []byte) (Result, error) {
	c := cursor{b: body}
	var m Result
	c.fixed(m.ID[:], "id")
	m.Status = c.u8("status")
	m.Body = append([]byte(nil), c.bytes32(MaxCommand, "result")...)
	c.fixed(m.Signature[:], "signature")
	if err := c.done("result"); err != nil {
		return Result{}, err
	}
	return m, nil
}
