package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/provostd/provost/chain/record"
)

// Status is the daemon in a few figures.
type Status struct {
	Version      string   `json:"version"`
	Host         string   `json:"host"`
	Pid          int      `json:"pid"`
	Started      string   `json:"started"` // RFC 3339
	Libvirt      Libvirt  `json:"libvirt"`
	Bundle       *Bundle  `json:"bundle,omitempty"`
	HostLog      Log      `json:"host_log"`
	Domains      []Domain `json:"domains"`
	VerifierKey  string   `json:"verifier_key"` // of the host log
	Backlog      uint64   `json:"backlog"`      // commits the policies have not judged yet
	Enforcements int      `json:"enforcements_in_flight"`
	// Witnesses is left out where none is configured.
	Witnesses *Witnesses `json:"witnesses,omitempty"`
}

// KeyEpoch is a key of the VM logs.
type KeyEpoch struct {
	Number uint64 `json:"number"` // from 0
	Key    string `json:"key"`    // Ed25519 public key, hexadecimal
	Index  uint64 `json:"index"`  // of its certificate in the host log
}

// Backup is a copy of the ledger that is whole and on disk.
type Backup struct {
	Dir         string `json:"dir"`
	PayloadKeys string `json:"payload_keys,omitempty"` // directory they were copied to
	Logs        int    `json:"logs"`
	Entries     uint64 `json:"entries"`
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
	Size        uint64 `json:"size"` // of the host log
	Root        string `json:"root"` // at that size
	// Linked says that it shares files with the ledger, on the same disk.
	Linked bool `json:"linked"`
}

// AlertChannel is a way in which the host tells people of alerts. Times are RFC
// 3339; the counts are of this run of the daemon.
type AlertChannel struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Waiting   int    `json:"waiting"`
	Oldest    string `json:"oldest,omitempty"`  // when the alert was queued that waits longest
	Last      string `json:"last,omitempty"`    // newest attempt
	Problem   string `json:"problem,omitempty"` // of that; none: it succeeded
	Delivered uint64 `json:"delivered"`
	GivenUp   uint64 `json:"given_up"`
	Failures  uint64 `json:"failures"` // attempts that failed
	Refused   uint64 `json:"refused"`  // found no room in the queue
}

// AlertTest is what became of a test alert.
type AlertTest struct {
	Channel   string `json:"channel"`
	Delivered bool   `json:"delivered"`
	Detail    string `json:"detail"` // what the receiver answered, or why it is not delivered
}

// Witnesses says who cosigns the host log.
type Witnesses struct {
	Missing   string    `json:"missing,omitempty"` // what the quorum lacks; empty: it is reached
	Cosigned  uint64    `json:"cosigned"`          // entries of the newest checkpoint that reached it
	Witnesses []Witness `json:"witnesses"`
}

// Witness is one of them.
type Witness struct {
	Name     string `json:"name"`
	Key      string `json:"key"`               // name and hash of its verifier key
	Size     uint64 `json:"size"`              // that it cosigned last
	Time     int64  `json:"time,omitempty"`    // of that, Unix seconds on its clock
	Problem  string `json:"problem,omitempty"` // why it did not the last time
	Disputed bool   `json:"disputed,omitempty"`
}

// Libvirt is the state of the connection to libvirt.
type Libvirt struct {
	URI       string `json:"uri"`
	Connected bool   `json:"connected"`
}

// Bundle is the policy bundle in force.
type Bundle struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Digest   string `json:"digest"`
	Policies int    `json:"policies"`
	Mode     string `json:"mode"` // the host's
}

// Log is one transparency log.
type Log struct {
	ID          string `json:"id"` // in paths: LogID of the origin
	Origin      string `json:"origin"`
	Domain      string `json:"domain,omitempty"` // UUID; none for the host log
	Incarnation uint64 `json:"incarnation,omitempty"`
	Shard       uint32 `json:"shard"`
	Size        uint64 `json:"size"`              // sealed entries
	Minimum     uint64 `json:"minimum,omitempty"` // entries before it were pruned
	// Closed is the entry that closed it. Behind it stand at most verdicts on what
	// is before it, their outcomes, erasures and prunings.
	Closed *uint64 `json:"closed,omitempty"`
	// Dropped is the entry of the host log which says that it is kept no longer.
	Dropped     *uint64 `json:"dropped,omitempty"`
	Published   uint64  `json:"published"` // of them under the newest checkpoint
	Cosigned    bool    `json:"cosigned"`  // by witnesses, the newest checkpoint
	VerifierKey string  `json:"verifier_key"`
	URL         string  `json:"url"` // path below the tiles listener
	// Checkpoint is the newest signed note. Lists of logs do without.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// LogID returns the id of a log in paths: its origin with tildes for slashes,
// which no origin holds. It needs no escaping.
func LogID(origin string) string { return strings.ReplaceAll(origin, "/", "~") }

// OriginOf returns the origin that an id stands for.
func OriginOf(id string) string { return strings.ReplaceAll(id, "~", "/") }

// InclusionProof shows that a leaf is in the tree of a log at a size. Hashes
// are hexadecimal.
type InclusionProof struct {
	Log      string   `json:"log"`
	Index    uint64   `json:"index"`
	Size     uint64   `json:"size"`
	LeafHash string   `json:"leaf_hash"`
	Root     string   `json:"root"`
	Path     []string `json:"path"` // from the leaf up
	// Checkpoint is the signed note of this size, where it is the newest one.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// ConsistencyProof shows that the tree of size From is the beginning of that of
// size To.
type ConsistencyProof struct {
	Log        string   `json:"log"`
	From       uint64   `json:"from"`
	To         uint64   `json:"to"`
	FromRoot   string   `json:"from_root"`
	ToRoot     string   `json:"to_root"`
	Path       []string `json:"path"`
	Checkpoint string   `json:"checkpoint,omitempty"` // of size To, where it is the newest one
}

// Chain is all logs of a domain, from the first one on.
type Chain struct {
	Domain string `json:"domain"` // UUID
	Name   string `json:"name"`
	Whole  bool   `json:"whole"` // no link is broken
	Links  []Link `json:"links"`
}

// Link is how one log of a domain hangs on the one before it.
type Link struct {
	Log      Log     `json:"log"`
	Cause    string  `json:"cause"`             // of the log
	Begun    string  `json:"begun,omitempty"`   // RFC 3339, host wall time; none of a log that was dropped
	Genesis  string  `json:"genesis,omitempty"` // leaf hash of entry 0; likewise
	Previous *Quoted `json:"previous,omitempty"`
	State    string  `json:"state"` // first, whole, elsewhere, broken or dropped
	Problem  string  `json:"problem,omitempty"`
}

// Quoted is the checkpoint that a genesis quotes.
type Quoted struct {
	Log  string `json:"log"`
	Size uint64 `json:"size"`
	Root string `json:"root"`
}

// Window is what a VM log tells of a time. Times are RFC 3339, in the host's
// monotone time: its wall time when the ledger was opened, and never set since.
type Window struct {
	Log    string `json:"log"`
	Since  string `json:"since"`
	Until  string `json:"until"`
	First  uint64 `json:"first"`  // entry, of those that tell: it may be before that time
	Last   uint64 `json:"last"`   // likewise behind it
	Within uint64 `json:"within"` // entries sealed in the time itself
	// Covered says that there are no gaps: nothing else happened that is watched.
	Covered bool        `json:"covered"`
	Gaps    []WindowGap `json:"gaps"`
	More    int         `json:"more,omitempty"` // gaps that are not listed
}

// WindowGap is a time in which something may have happened that no entry tells.
type WindowGap struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Entry uint64 `json:"entry"` // that ends it, or tells of it; 0: none
	Why   string `json:"why"`
}

// StateGone is the State of a domain of which only logs are left.
const StateGone = "gone"

// StreamEnd is the data of a stream's last event.
type StreamEnd struct {
	Code   string `json:"code"`
	Reason string `json:"reason"` // in words
}

// Codes of a StreamEnd.
const (
	EndDone     = "done"     // all is given that was asked for
	EndLifetime = "lifetime" // a stream has its time: go on with the last id
	EndStopping = "stopping" // of the daemon
	EndFailed   = "failed"   // the daemon could not go on
)

// Content types of answers that are no JSON of their own kind.
const (
	ProblemType = "application/problem+json"
	EventStream = "text/event-stream"
)

// Domain is one libvirt domain as Provost knows it.
type Domain struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name"`
	State       string `json:"state"`
	Enrolled    bool   `json:"enrolled"` // its XML has our channel
	Agent       string `json:"agent"`    // state of the channel
	Silent      bool   `json:"silent"`
	Incarnation uint64 `json:"incarnation"`
	Epoch       string `json:"epoch,omitempty"`
	Log         *Log   `json:"log,omitempty"`
	Holds       []Hold `json:"holds,omitempty"` // what policies have done to it that lasts
}

// Enrollment says what enrolling a domain did.
type Enrollment struct {
	UUID       string   `json:"uuid"`
	Name       string   `json:"name"`
	Persistent bool     `json:"persistent"` // added to the persistent configuration now
	Live       bool     `json:"live"`       // plugged into the running domain now
	Done       []string `json:"done"`       // what was changed, in words; empty: nothing was needed
}

// AgentAnswer is what a guest agent made of a command.
type AgentAnswer struct {
	UUID    string `json:"uuid"`
	Name    string `json:"name"`
	Command string `json:"command"` // id, hexadecimal; in the log with what came of it
	Session string `json:"session"` // of the agent, hexadecimal
	Status  string `json:"status"`  // done, unsupported, refused, failed, no answer
	Detail  string `json:"detail,omitempty"`
}

// AnswerDone is the Status of a command that was carried out.
const AnswerDone = "done"

// Entry is one sealed record on its way to a reader, in the bytes that were
// sealed.
type Entry struct {
	Log     string `json:"log"`
	Domain  string `json:"domain,omitempty"`
	Leaf    []byte `json:"leaf"`
	Payload []byte `json:"payload,omitempty"`
	Salt    []byte `json:"salt,omitempty"` // with the payload it makes the leaf's commitment
	// ErasedBy is set where the payload was erased: the index of the entry of
	// this log that says why.
	ErasedBy *uint64 `json:"erased_by,omitempty"`
	// Unreadable says why the entry cannot be read any more: the key of its
	// payload is lost, or its rows were damaged. Leaf may lack then; Index is
	// where it stands in the log.
	Unreadable string  `json:"unreadable,omitempty"`
	Index      *uint64 `json:"index,omitempty"`
	// ID is where a stream goes on behind this entry. Only streams set it.
	ID string `json:"-"`
}

// ErrUnreadable is the error of Open for an entry that the daemon cannot read;
// its leaf is given where it is known.
var ErrUnreadable = errors.New("unreadable")

// ErrErased is the error of Open for an entry whose payload was erased; its leaf
// is given all the same.
var ErrErased = errors.New("erased")

// ErrWithheld is the error of Open for an entry that was given without its
// payload; its leaf is given all the same.
var ErrWithheld = errors.New("the payload is withheld")

// Open decodes an entry, whose payload must be the one that its leaf commits to.
// That the leaf is in the log, and that nothing is left out, is the server's word:
// InclusionProof.Check proves the one of an entry, and a verified bundle both.
func (e *Entry) Open() (record.Leaf, record.Message, error) {
	if e.Unreadable != "" {
		l, err := record.ParseLeaf(e.Leaf)
		if err != nil && e.Index != nil {
			l = record.Leaf{Index: *e.Index}
		}
		return l, nil, fmt.Errorf("%s: %w", e.Unreadable, ErrUnreadable)
	}
	l, err := record.ParseLeaf(e.Leaf)
	if err != nil {
		return record.Leaf{}, nil, fmt.Errorf("open entry of %s: %w", e.Log, err)
	}
	if e.ErasedBy != nil {
		return l, nil, fmt.Errorf("the payload was erased, entry %d says why: %w", *e.ErasedBy, ErrErased)
	}
	if len(e.Payload) == 0 && len(e.Salt) == 0 {
		return l, nil, fmt.Errorf("open entry %d of %s: %w", l.Index, e.Log, ErrWithheld)
	}
	if len(e.Salt) != len(record.Salt{}) || record.Commit((*record.Salt)(e.Salt), e.Payload) != l.Commitment {
		return l, nil, fmt.Errorf("open entry %d of %s: the payload is not the one that its leaf commits to: %w", l.Index, e.Log, record.ErrReject)
	}
	m, err := record.Decode(l.Header.Class, e.Payload)
	if err != nil {
		return record.Leaf{}, nil, fmt.Errorf("open entry %d of %s: %w", l.Index, e.Log, err)
	}
	return l, m, nil
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
	// Unreadable is set where the answer needs entries that cannot be read any more.
	Unreadable *Unreadable `json:"unreadable,omitempty"`
}

// Unreadable names entries of a log that cannot be read any more: the key of
// their payloads is lost, or they were damaged and are fenced off.
type Unreadable struct {
	Log    string `json:"log"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Reason string `json:"reason"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string {
	if p.Hint != "" {
		return p.Detail + "; " + p.Hint
	}
	return p.Detail
}

// Erasure is what was erased of each log.
type Erasure struct {
	Logs []ErasedLog `json:"logs"`
}

// ErasedLog is what was erased of one log.
type ErasedLog struct {
	Log      string `json:"log"`
	Entry    uint64 `json:"entry"` // that tells of it
	Records  uint64 `json:"records"`
	Verdicts uint64 `json:"verdicts"` // that quoted them
}
