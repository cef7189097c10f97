package mirror_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	b64 "encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/torchwood"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const hostID = "kvm1.example"

func domain(n int) string { return fmt.Sprintf("6a2f41a3-c54c-4f54-9d3b-0a6b6a1f%04d", n) }

// host is a real ledger, on the keys given.
type host struct {
	*chain.Store
	t    testing.TB
	keys *keys.Keys
}

func newHost(t testing.TB, k *keys.Keys) *host { return newHostAt(t, k, nil) }

// newHostAt is newHost with a clock; nil: the machine's.
func newHostAt(t testing.TB, k *keys.Keys, boot func() time.Duration) *host {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/", 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: "/store", Anchor: "/anchor", PayloadKeys: "/payload-keys", HostID: hostID, Keys: k, FS: fs, Boot: boot,
		CheckpointEvery: time.Hour, HostEvery: time.Hour, WitnessEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return &host{s, t, k}
}

func newKeys(t testing.TB) *keys.Keys {
	t.Helper()
	k, err := keys.Create(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) log(n int, incarnation uint64, before *chain.Log) *chain.Log {
	h.t.Helper()
	g := &record.Genesis{Cause: "define", DomainName: "web"}
	if before != nil {
		p, _ := before.Checkpoint()
		g.PreviousOrigin, g.PreviousCheckpoint = before.Origin(), p.Note
	}
	l, err := h.CreateLog(h.t.Context(), proof.VMOrigin(hostID, domain(n), incarnation), g)
	h.must(err)
	return l
}

func (h *host) append(l *chain.Log, entries ...chain.Entry) {
	h.t.Helper()
	_, err := h.Append(h.t.Context(), chain.Batch{Log: l, Entries: entries})
	h.must(err)
}

func (h *host) draft(c record.Class, m record.Message) chain.Entry {
	h.t.Helper()
	e, err := h.Draft(record.OriginHost, c, m)
	h.must(err)
	return e
}

func (h *host) checkpoint(l *chain.Log) {
	h.t.Helper()
	h.must(h.CheckpointNow(h.t.Context(), l))
}

// agent signs frames for one log. The real ones are the business of
// guestagent/wire, which this folder stands below.
type agent struct {
	h       *host
	l       *chain.Log
	key     ed25519.PrivateKey
	session uint64
	number  uint64
	next    uint64
}

func (h *host) agent(l *chain.Log, session uint64, retires ed25519.PublicKey) *agent {
	h.t.Helper()
	a := &agent{h: h, l: l, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(session)}, 32)), session: session}
	h.append(l, h.draft(record.ClassAgentEnrolled, &record.Enrolled{Key: a.public(), Session: session, RetiredKey: retires}))
	return a
}

func (a *agent) public() ed25519.PublicKey { return a.key.Public().(ed25519.PublicKey) }

func (a *agent) frame(n int) {
	a.h.t.Helper()
	entries := make([]chain.Entry, n, n+1)
	hashes := make([]record.Hash, n)
	for i := range entries {
		sequence := a.next + uint64(i)
		payload, err := record.Encode(&record.Event{File: &record.File{Path: fmt.Appendf(nil, "/etc/file-%d", sequence)}})
		a.h.must(err)
		salt := record.Salt{byte(sequence), byte(sequence >> 8), 1}
		e := chain.Entry{Origin: record.OriginGuest, Payload: payload, Salt: salt, Commitment: record.Commit(&salt, payload),
			Header: record.Header{Class: record.ClassFileModify, Session: a.session, Sequence: sequence, LaneSequence: sequence, Time: sequence}}
		entries[i], hashes[i] = e, record.RecordHash(e.Header, e.Commitment)
	}
	a.number++
	f := proof.Frame{Session: a.session, Number: a.number, First: a.next, Count: uint32(n), Root: record.Root(hashes)}
	uuid, err := hex.DecodeString(strings.ReplaceAll(a.l.Name().Domain, "-", ""))
	a.h.must(err)
	copy(f.Domain[:], uuid)
	statement, err := json.Marshal(f)
	a.h.must(err)
	a.next += uint64(n)
	a.h.append(a.l, append(entries, a.h.draft(record.ClassAgentFrame, &record.Frame{Statement: statement, Signature: ed25519.Sign(a.key, statement), Count: uint32(n)}))...)
}

func frame(statement, signature, key []byte) (proof.Frame, error) {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, statement, signature) {
		return proof.Frame{}, errors.New("signature does not match")
	}
	var f proof.Frame
	return f, json.Unmarshal(statement, &f)
}

// files is a mirror in memory.
type files fstest.MapFS

// mirrored reads the whole ledger off as its service gives it, with all
// payloads.
func (h *host) mirrored() files {
	h.t.Helper()
	m := files{}
	for _, l := range h.Logs() {
		p, ok := l.Checkpoint()
		if !ok || l.Gone() != nil {
			continue
		}
		m.put(l, "checkpoint", p.Note)
		for n := uint64(0); n*256 < p.Size; n++ {
			width := int(min(256, p.Size-n*256))
			b, err := l.Bundle(n, width)
			h.must(err)
			m.put(l, path("entries", n, width), b)
			b, err = l.Openings(h.t.Context(), n, width, func(*record.Leaf) bool { return true })
			h.must(err)
			m.put(l, path("openings", n, width), b)
		}
	}
	return m
}

// path is torchwood's word on where a bundle stands.
func path(kind string, n uint64, width int) string {
	p := torchwood.TilePath(tlog.Tile{H: torchwood.TileHeight, L: -1, N: int64(n), W: width})
	return strings.Replace(p, "entries", kind, 1)
}

func (m files) put(l *chain.Log, name string, data []byte) {
	m["logs/"+l.Origin()+"/"+name] = &fstest.MapFile{Data: data}
}

// clone is a copy to be tampered with.
func (m files) clone() files {
	c := files{}
	for k, f := range m {
		c[k] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
	}
	return c
}

// at returns a file of a log, the full one or the partial one.
func (m files) at(t testing.TB, l *chain.Log, name string) *fstest.MapFile {
	t.Helper()
	base := "logs/" + l.Origin() + "/" + name
	if f := m[base]; f != nil {
		return f
	}
	for k, f := range m {
		if strings.HasPrefix(k, base+".p/") {
			return f
		}
	}
	t.Fatalf("there is no %s", base)
	return nil
}

// leaf is the place of a leaf in its entry bundle.
func leaf(b []byte, i int) []byte { return b[i*(2+record.LeafSize)+2:][:record.LeafSize] }

// openings splits an opening bundle.
func openings(b []byte) (all [][]byte) {
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		all = append(all, b[4:4+n])
		b = b[4+n:]
	}
	return all
}

func join(all [][]byte) (b []byte) {
	for _, o := range all {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(o))), o...)
	}
	return b
}

func verify(t testing.TB, m files, vkey string, opts mirror.Options) (*mirror.Report, error) {
	t.Helper()
	opts.Frame = frame
	return mirror.Verify(t.Context(), mirror.Files{FS: fstest.MapFS(m)}, vkey, opts)
}

// history is what both hosts of the matrix have seen: two domains, one of them in two
// incarnations, a key that was replaced, agents that came and went.
func history(h *host) (web, again, db *chain.Log) {
	web = h.log(1, 1, nil)
	a := h.agent(web, 1, nil)
	a.frame(5)
	h.checkpoint(web)
	a.frame(300)
	h.append(web, h.draft(record.ClassVMChange, &record.Event{Reason: "change"}))
	h.checkpoint(web)
	b := h.agent(web, 2, a.public())
	b.frame(0)
	b.frame(7)
	h.checkpoint(web)
	_, err := h.RotateVMKey(h.t.Context(), "test")
	h.must(err)
	again = h.log(1, 2, web)
	h.append(again, h.draft(record.ClassVMChange, &record.Event{Reason: "later"}))
	h.checkpoint(again)
	db = h.log(2, 1, nil)
	for i := range 600 {
		h.append(db, h.draft(record.ClassVMChange, &record.Event{Reason: fmt.Sprint(i)}))
		if i%100 == 50 {
			h.checkpoint(db)
		}
	}
	h.checkpoint(db)
	h.checkpoint(h.HostLog())
	return web, again, db
}

func base64(b []byte) string { return b64.StdEncoding.EncodeToString(b) }
