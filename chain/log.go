package chain

import (
	"crypto/ed25519"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Log is one transparency log of a store: the host log or the log of one
// incarnation of a domain. It is safe for concurrent use.
type Log struct {
	store    *Store
	id       LogID
	origin   string
	name     proof.Origin
	vkey     string        // of the host log; VM-log keys are replaced
	verifier note.Verifier // likewise
	signer   note.Signer   // likewise

	state     atomic.Pointer[logState]  // durable; replaced by the committer
	published atomic.Pointer[Published] // newest published checkpoint
	packed    atomic.Uint64             // the packer has come past all bundles before this one

	erasingMu sync.Mutex                 // one change of erasing at a time
	erasing   atomic.Pointer[[]*erasure] // sealed, and their rows not all changed
	hours     hourRuns
	pruned    atomic.Pointer[pruned] // nil: nothing
	kept      retained
	closed    atomic.Uint64 // entry that closed it; 0: open
	dropped   atomic.Pointer[dropped]

	// Owned by the committer.
	work     logState                    // newest sealed, where begun: it runs ahead of state
	begun    bool                        // something was sealed in this run
	sequence uint64                      // of the next entry that the host makes in this run
	touched  bool                        // in the commit being made
	pending  uint64                      // first index of this log in the commit being made
	run      int                         // its run in that commit
	dropping bool                        // an entry of the host log drops it, durable or in that commit
	seeds    [keyErasable + 1]bundleSeed // a seed has one key, like what it opens

	fences fences // set once, before anybody else sees the log

	verdicts, abroad verdictsOf // on its own records and on those of earlier shards; guarded by Store.eraseMu

	// Guarded by Store.packMu.
	unpackable bool // a bundle could not be packed, and that was told

	// Guarded by Store.checkpointMu.
	quoted quote // where the host log quotes this log
}

// logState is one state of a log. A published one never changes.
type logState struct {
	tree
	last record.Hash
	mono int64
	wall int64
}

// sealedState is the log behind everything that was sealed, durable or not. It is
// the committer's.
func (l *Log) sealedState() *logState {
	if l.begun {
		return &l.work
	}
	return l.state.Load()
}

func (l *logState) clone() *logState {
	return &logState{tree: l.tree.clone(), last: l.last, mono: l.mono, wall: l.wall}
}

// Published is a signed checkpoint that anybody may be shown.
type Published struct {
	proof.Checkpoint
	Note []byte // the signed note; must not be changed
	// Cosigned says that witnesses have added their signatures to Note.
	Cosigned bool

	key ed25519.PublicKey // that signed Note
}

// Origin returns the log's name, the first line of its checkpoints.
func (l *Log) Origin() string { return l.origin }

// Name returns the parsed origin.
func (l *Log) Name() proof.Origin { return l.name }

// ID returns the log's number in this store.
func (l *Log) ID() LogID { return l.id }

// VerifierKey returns the key which verifies this log's newest published
// checkpoint. That of a VM log changes with the key epochs of the host.
func (l *Log) VerifierKey() string {
	if l.name.IsHost() {
		return l.vkey
	}
	vkey, err := proof.VerifierKey(l.origin, l.publicKey())
	if err != nil {
		panic("chain: " + err.Error()) // the origin and the key are well formed
	}
	return vkey
}

// Verifier returns the verifier of this log's newest published checkpoint.
func (l *Log) Verifier() note.Verifier {
	if l.name.IsHost() {
		return l.verifier
	}
	v, err := proof.NewVerifier(l.origin, l.publicKey())
	if err != nil {
		panic("chain: " + err.Error()) // the origin and the key are well formed
	}
	return v
}

// publicKey returns the key of a VM log's published checkpoint, or the one that
// will sign its first.
func (l *Log) publicKey() ed25519.PublicKey {
	if p := l.published.Load(); p != nil {
		return p.key
	}
	return l.store.cfg.Keys.VMPublic()
}

// Size returns how many durable leaves the log has.
func (l *Log) Size() uint64 { return l.state.Load().size }

// LastHash returns the leaf hash of the last durable leaf.
func (l *Log) LastHash() record.Hash { return l.state.Load().last }

// Root returns the size and the RFC 6962 root of the durable leaves. It is
// not a checkpoint: nobody has signed it.
func (l *Log) Root() (uint64, record.Hash) {
	s := l.state.Load()
	return s.size, s.root()
}

// Head returns the newest durable state.
func (l *Log) Head() Head { return l.state.Load().head() }

// Checkpoint returns the newest published checkpoint. ok is false for a log
// that is younger than its first checkpoint.
func (l *Log) Checkpoint() (p Published, ok bool) {
	c := l.published.Load()
	if c == nil {
		return Published{}, false
	}
	return *c, true
}

// LeafHash returns the leaf hash of the durable leaf at index.
func (l *Log) LeafHash(index uint64) (record.Hash, error) {
	if err := l.Gone(); err != nil {
		return record.Hash{}, err
	}
	s := l.state.Load()
	if index >= s.size {
		return record.Hash{}, fmt.Errorf("read leaf hash %d of %s: the log has %d leaves: %w", index, l.origin, s.size, record.ErrReject)
	}
	h, err := l.tileHashes(s, 0, index, 1)
	if err != nil {
		return record.Hash{}, fmt.Errorf("read leaf hash %d of %s: %w", index, l.origin, err)
	}
	return h[0], nil
}

// Head is where a log ends.
type Head struct {
	Size     uint64
	LastHash record.Hash
	Mono     int64 // of the last leaf, nanoseconds
	Wall     int64 // of the last leaf, Unix nanoseconds
}

func (l *logState) head() Head {
	return Head{Size: l.size, LastHash: l.last, Mono: l.mono, Wall: l.wall}
}
