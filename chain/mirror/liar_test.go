package mirror_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// liar is a host that signs whatever it likes, with the real keys: what it makes is
// well-formed and signed, and only what it says is not so.
type liar struct {
	t    testing.TB
	keys *keys.Keys
	log  *book // the host log
	vms  []*book
}

// book is one log of a liar.
type book struct {
	*liar
	origin   string
	signer   func(origin string) (note.Signer, error)
	leaves   [][]byte
	openings [][]byte
	hashes   []record.Hash
	sequence uint64
	mono     int64
	note     []byte // newest checkpoint
}

func newLiar(t testing.TB) *liar {
	l := &liar{t: t, keys: newKeys(t)}
	l.log = &book{liar: l, origin: proof.HostOrigin(hostID), signer: l.keys.HostSigner}
	l.log.add(record.ClassGenesis, &record.Genesis{Origin: l.log.origin, HostId: hostID})
	return l
}

// certify enters the key of the VM logs.
func (l *liar) certify() *liar {
	l.log.add(record.ClassKeyCertificate, &record.KeyCertificate{Use: keys.UseVMLog, PublicKey: l.keys.VMPublic(), OriginPrefix: proof.VMPrefix(hostID)})
	return l
}

// vm begins a VM log. change may spoil its genesis.
func (l *liar) vm(n int, incarnation uint64, change func(g *record.Genesis)) *book {
	b := &book{liar: l, origin: proof.VMOrigin(hostID, domain(n), incarnation), signer: l.keys.VMSigner}
	g := &record.Genesis{Origin: b.origin, HostId: hostID, DomainUuid: domain(n), Incarnation: incarnation}
	if change != nil {
		change(g)
	}
	b.add(record.ClassGenesis, g)
	l.vms = append(l.vms, b)
	return b
}

func (l *liar) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// add seals an entry of the host.
func (b *book) add(c record.Class, m record.Message) {
	b.t.Helper()
	payload, err := record.Encode(m)
	b.must(err)
	b.seal(record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: c, Session: 7, Sequence: b.sequence}}, payload)
	b.sequence++
}

// seal gives a leaf its place.
func (b *book) seal(l record.Leaf, payload []byte) {
	salt := record.Salt{byte(len(b.leaves)), 9}
	l.Index, l.Mono, l.Commitment = uint64(len(b.leaves)), b.mono, record.Commit(&salt, payload)
	b.mono++
	if n := len(b.hashes); n > 0 {
		l.Prev = b.hashes[n-1]
	}
	leaf := l.AppendBinary(nil)
	b.leaves, b.hashes = append(b.leaves, leaf), append(b.hashes, record.LeafHash(leaf))
	b.openings = append(b.openings, append(salt[:], payload...))
}

// sign makes the log's checkpoint.
func (b *book) sign() *book {
	b.t.Helper()
	s, err := b.signer(b.origin)
	b.must(err)
	b.note, err = proof.Checkpoint{Origin: b.origin, Size: uint64(len(b.hashes)), Root: record.Root(b.hashes)}.Sign(s)
	b.must(err)
	return b
}

// quote enters the newest checkpoint of a VM log in the host log.
func (b *book) quote() *book {
	b.log.add(record.ClassVMCheckpoint, &record.VMCheckpoint{Origin: b.origin, Size: uint64(len(b.hashes)), Note: b.note})
	return b
}

// fork is a copy that goes its own way.
func (b *book) fork() *book {
	f := *b
	f.leaves, f.hashes, f.openings = append([][]byte(nil), b.leaves...), append([]record.Hash(nil), b.hashes...), append([][]byte(nil), b.openings...)
	return &f
}

func (b *book) change(words string) *book {
	b.t.Helper()
	b.add(record.ClassVMChange, &record.Event{Reason: words})
	return b
}

// enroll enters the key of an agent.
func (b *book) enroll(session byte, retires []byte) ed25519.PrivateKey {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{session}, 32))
	b.add(record.ClassAgentEnrolled, &record.Enrolled{Key: key.Public().(ed25519.PublicKey), Session: uint64(session), RetiredKey: retires, Epoch: bytes.Repeat([]byte{1}, 16)})
	return key
}

// frame seals two records from a sequence on and the statement over them, which
// change may spoil before it is signed.
func (b *book) frame(key ed25519.PrivateKey, session byte, number, first uint64, change func(f *proof.Frame)) {
	b.t.Helper()
	b.records(key, session, number, first, 2, change)
}

func (b *book) records(key ed25519.PrivateKey, session byte, number, first, n uint64, change func(f *proof.Frame)) {
	b.t.Helper()
	f := proof.Frame{Session: uint64(session), Number: number, First: first, Count: uint32(n)}
	var hashes []record.Hash
	for i := range n {
		b.seal(record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: uint64(session), Sequence: first + i}}, []byte{1})
		l, err := record.ParseLeaf(b.leaves[len(b.leaves)-1])
		b.must(err)
		hashes = append(hashes, l.RecordHash())
	}
	f.Root = record.Root(hashes)
	name, err := proof.ParseOrigin(b.origin)
	b.must(err)
	uuid, err := hex.DecodeString(strings.ReplaceAll(name.Domain, "-", ""))
	b.must(err)
	copy(f.Domain[:], uuid)
	count := f.Count
	if change != nil {
		change(&f)
	}
	statement, err := json.Marshal(f)
	b.must(err)
	b.add(record.ClassAgentFrame, &record.Frame{Statement: statement, Signature: ed25519.Sign(key, statement), Count: count})
}

// published is the mirror of all that the liar shows, with the payloads that open
// names.
func (l *liar) published(open func(*record.Leaf) bool) files {
	l.t.Helper()
	m := files{}
	for _, b := range append([]*book{l.log}, l.vms...) {
		put := func(name string, data []byte) {
			m["logs/"+b.origin+"/"+name] = &fstest.MapFile{Data: data}
		}
		put("checkpoint", b.note)
		var above []byte
		for n := 0; n*256 < len(b.leaves); n++ {
			first, end := n*256, min((n+1)*256, len(b.leaves))
			var entries, opened []byte
			for i := first; i < end; i++ {
				leaf, err := record.ParseLeaf(b.leaves[i])
				l.must(err)
				entries = append(binary.BigEndian.AppendUint16(entries, record.LeafSize), b.leaves[i]...)
				if !open(&leaf) {
					opened = append(opened, 0, 0, 0, 0)
					continue
				}
				opened = append(binary.BigEndian.AppendUint32(opened, uint32(len(b.openings[i]))), b.openings[i]...)
			}
			put(path("entries", uint64(n), end-first), entries)
			put(path("openings", uint64(n), end-first), opened)
			if end-first < 256 {
				continue
			}
			root := record.Root(b.hashes[first:end])
			if above = append(above, root[:]...); len(above) == 256*len(root) {
				put(path("1", uint64(n/256), 256), above)
				above = nil
			}
		}
	}
	return m
}

func everything(*record.Leaf) bool { return true }

// TestLiars has a host lie in what it signs: no byte was changed behind that, and every
// root is the signed one.
func TestLiars(t *testing.T) {
	host := proof.HostOrigin(hostID)
	one, two := proof.VMOrigin(hostID, domain(1), 1), proof.VMOrigin(hostID, domain(1), 2)
	spare := newKeys(t)
	for name, c := range map[string]struct {
		lie   func(l *liar)
		kind  mirror.Kind
		log   string
		words string
	}{
		"nothing": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			k := b.enroll(1, nil)
			b.frame(k, 1, 1, 0, nil)
			b.frame(k, 1, 2, 2, nil)
			b.add(record.ClassAgentSequenceGap, &record.AgentState{Reason: "frame 3 is missing"})
			b.frame(k, 1, 4, 9, nil)
			b.sign().quote()
		}, "", "", ""},
		"equivocate between host log and VM log": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.fork().change("for the host log").sign().quote()
			b.change("for the tenant").sign()
		}, mirror.KindFork, one, "at size 2 its entries make root "},
		"equivocate at an older size": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.fork().change("a").sign().quote()
			b.change("b").change("c").sign().quote()
		}, mirror.KindFork, one, "entry 2 of the host log quotes a checkpoint with root"},
		"two histories quoted": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.fork().change("a").sign().quote()
			b.change("b").sign().quote()
		}, mirror.KindFork, host, "entry 3 of " + host + ": it quotes " + one + " at 2 entries with root "},
		"a VM log goes back": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.fork().change("a").change("b").sign().quote()
			b.change("a").sign().quote()
		}, mirror.KindSize, host, "at 2 entries, entry 2 has quoted it at 3: the VM log went back"},
		"a VM log without a certified key": {func(l *liar) {
			l.vm(1, 1, nil).sign().quote()
		}, mirror.KindSignature, host, "before any key is certified"},
		"a key of nobody": {func(l *liar) {
			l.certify()
			b := l.vm(1, 1, nil)
			b.signer = spare.VMSigner
			b.sign().quote()
		}, mirror.KindSignature, host, "is not signed with the key in force, that of entry 1"},
		"two first keys": {func(l *liar) {
			l.certify().certify()
			l.vm(1, 1, nil).sign().quote()
		}, mirror.KindSignature, host, "it is for key number 0, want number 1"},
		"a key that nobody handed over": {func(l *liar) {
			l.certify()
			l.log.add(record.ClassKeyCertificate, &record.KeyCertificate{Use: keys.UseVMLog, PublicKey: spare.VMPublic(), OriginPrefix: proof.VMPrefix(hostID), Number: 1, PreviousKey: l.keys.VMPublic(), PreviousSignature: make([]byte, 64)})
			l.vm(1, 1, nil).sign().quote()
		}, mirror.KindSignature, host, "the key before has not signed it"},
		"quote another host's log": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.origin = strings.Replace(b.origin, "kvm1", "kvm2", 1)
			b.sign().quote()
		}, mirror.KindLog, host, "which is no VM log of this host"},
		"the genesis of another log": {func(l *liar) {
			l.certify().vm(1, 1, func(g *record.Genesis) { g.DomainUuid = domain(2) }).sign().quote()
		}, mirror.KindLog, one, "entry 0 of " + one + ": the genesis is of "},
		"a second genesis": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.add(record.ClassGenesis, &record.Genesis{})
			b.sign().quote()
		}, mirror.KindLog, one, "entry 1 of " + one + ": it is a log.genesis; entry 0 is the genesis, and no other"},
		"time steps back": {func(l *liar) {
			b := l.certify().vm(1, 1, nil).change("a")
			b.mono = 0
			b.change("b").sign().quote()
		}, mirror.KindEntry, one, "monotone time steps back behind entry 1"},
		"an entry of the host left out": {func(l *liar) {
			b := l.certify().vm(1, 1, nil).change("a")
			b.sequence++
			b.change("c").sign().quote()
		}, mirror.KindGap, one, "the host numbered it 3 in its run 7, number 2 comes next"},
		"a frame left out": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			k := b.enroll(1, nil)
			b.frame(k, 1, 1, 0, nil)
			b.frame(k, 1, 3, 4, nil)
			b.sign().quote()
		}, mirror.KindGap, one, "frame 3 of session 1 follows frame 1, and no entry between them says that frames are missing"},
		"records left out": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			k := b.enroll(1, nil)
			b.frame(k, 1, 1, 0, nil)
			b.frame(k, 1, 2, 5, nil)
			b.sign().quote()
		}, mirror.KindGap, one, "frame 2 of session 1 begins with sequence 5, 2 comes next"},
		"a record more than was signed": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(b.enroll(1, nil), 1, 1, 0, func(f *proof.Frame) { f.Count = 1 })
			b.sign().quote()
		}, mirror.KindGap, one, "the agent signed 1 records, 2 stand before it, the entry says 2"},
		"other records than were signed": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(b.enroll(1, nil), 1, 1, 0, func(f *proof.Frame) { f.Root[0] ^= 1 })
			b.sign().quote()
		}, mirror.KindEntry, one, "the records before it, from entry 2 on, are not those that the agent signed"},
		"records in other places": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(b.enroll(1, nil), 1, 1, 4, func(f *proof.Frame) { f.First = 0 })
			b.sign().quote()
		}, mirror.KindEntry, one, "the agent signed session 1 sequence 0"},
		"an agent that nobody enrolled": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(ed25519.NewKeyFromSeed(make([]byte, 32)), 1, 1, 0, nil)
			b.sign().quote()
		}, mirror.KindSignature, one, "no key of an agent is enrolled before this frame"},
		"another agent": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.enroll(1, nil)
			b.frame(ed25519.NewKeyFromSeed(make([]byte, 32)), 1, 1, 0, nil)
			b.sign().quote()
		}, mirror.KindSignature, one, "no enrolled key verifies the agent's signature on this frame"},
		"an agent that was replaced": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			k := b.enroll(1, nil)
			b.frame(k, 1, 1, 0, nil)
			b.enroll(2, k.Public().(ed25519.PublicKey))
			b.frame(k, 1, 2, 2, nil)
			b.sign().quote()
		}, mirror.KindSignature, one, "entry 8 of " + one + ": no enrolled key verifies"},
		"a frame of another domain": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(b.enroll(1, nil), 1, 1, 0, func(f *proof.Frame) { f.Domain[0] ^= 1 })
			b.sign().quote()
		}, mirror.KindSignature, one, "the agent signed it for domain"},
		"a frame of another session": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.frame(b.enroll(1, nil), 1, 1, 0, func(f *proof.Frame) { f.Session = 2 })
			b.sign().quote()
		}, mirror.KindSignature, one, "it is signed by the key of session 1 and claims session 2"},
		"a frame of another epoch": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.add(record.ClassVMEpoch, &record.Epoch{Epoch: bytes.Repeat([]byte{1}, 16)})
			b.frame(b.enroll(1, nil), 1, 1, 0, func(f *proof.Frame) { f.Epoch[0] = 9 })
			b.sign().quote()
		}, mirror.KindSignature, one, "for which its key was never enrolled"},
		"records that nobody signed": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.enroll(1, nil)
			b.seal(record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1}}, nil)
			b.change("a").sign().quote()
		}, mirror.KindSignature, one, "1 entries of the guest begin here and no signed frame stands behind them"},
		"records that nobody signed at the end": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			b.enroll(1, nil)
			b.seal(record.Leaf{Origin: record.OriginGuest, Header: record.Header{Class: record.ClassFileModify, Session: 1}}, nil)
			b.sign().quote()
		}, mirror.KindSignature, one, "no signed frame stands behind them"},
		"no log before": {func(l *liar) {
			l.certify().vm(1, 2, nil).sign().quote()
		}, mirror.KindGap, two, "the genesis names no log before this one"},
		"the log before is hidden": {func(l *liar) {
			b := l.certify().vm(1, 1, nil).sign()
			l.vms = nil
			l.vm(1, 2, func(g *record.Genesis) { g.PreviousOrigin, g.PreviousCheckpoint = b.origin, b.note }).sign().quote()
		}, mirror.KindGap, two, "the log before this one, " + one + ", is not quoted in the host log"},
		"another log before": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			f := b.fork().change("a").sign()
			b.change("b").sign().quote()
			l.vm(1, 2, func(g *record.Genesis) { g.PreviousOrigin, g.PreviousCheckpoint = f.origin, f.note }).sign().quote()
		}, mirror.KindFork, two, "the genesis quotes " + one + " at 2 entries with root "},
		"another beginning before": {func(l *liar) {
			b := l.certify().vm(1, 1, nil)
			f := b.fork().change("a").sign()
			b.change("b").change("c").sign().quote()
			l.vm(1, 2, func(g *record.Genesis) { g.PreviousOrigin, g.PreviousCheckpoint = f.origin, f.note }).sign().quote()
		}, mirror.KindFork, one, "the checkpoint that the genesis of " + two + " quotes has root"},
		"the log before is cut off": {func(l *liar) {
			b := l.certify().vm(1, 1, nil).sign().quote()
			f := b.fork().change("a").sign()
			l.vm(1, 2, func(g *record.Genesis) { g.PreviousOrigin, g.PreviousCheckpoint = f.origin, f.note }).sign().quote()
		}, mirror.KindSize, two, "that log was cut off behind its end"},
		"a log before of nobody": {func(l *liar) {
			b := l.certify().vm(1, 1, nil).sign().quote()
			l.vm(1, 2, func(g *record.Genesis) {
				g.PreviousOrigin, g.PreviousCheckpoint = b.origin, bytes.Replace(b.note, []byte("\n1\n"), []byte("\n2\n"), 1)
			}).sign().quote()
		}, mirror.KindSignature, two, "the checkpoint of " + one + " that the genesis quotes: "},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t)
			c.lie(l)
			l.log.sign()
			vkey, err := proof.VerifierKey(host, l.keys.HostPublic())
			l.must(err)
			r, err := verify(t, l.published(everything), vkey, mirror.Options{})
			if c.kind == "" {
				if err != nil || !r.Valid {
					t.Fatal(err, r.Failures)
				}
				return
			}
			named(t, r, err, c.kind, c.log, c.words)
		})
	}
}
