package guest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
)

// bench is a real store, real sessions, and a unix socket on whose other end
// the test speaks as an agent. To the sessions this process is the QEMU.
type bench struct {
	t        *testing.T
	dir      string
	store    *chain.Store
	log      *chain.Log
	sessions *Sessions
	dom      Domain
	listener *net.UnixListener
	stop     func()
	// frames signed by every agent of the test carry these
	key     ed25519.PrivateKey
	session uint64
}

const hostID = "test.host"

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), session: 0x1234}
	k, err := keys.Create(filepath.Join(b.dir, "keys"))
	b.must(err)
	cfg := chain.Config{Dir: filepath.Join(b.dir, "db"), Anchor: filepath.Join(b.dir, "anchor"), HostID: hostID, Keys: k}
	b.store, err = chain.Create(cfg)
	b.must(err)
	id, err := domain.ParseUUID("11111111-2222-4333-8444-555555555555")
	b.must(err)
	start, err := ProcessStart(os.Getpid())
	b.must(err)
	sock := filepath.Join(b.dir, "s")
	b.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	b.must(err)
	_, b.key, err = ed25519.GenerateKey(nil)
	b.must(err)
	gcfg := Config{
		Store: b.store, Log: slog.New(slog.DiscardHandler), Stats: &Stats{},
		RetryMin: 5 * time.Millisecond, RetryMax: 20 * time.Millisecond, Heartbeat: 50 * time.Millisecond,
	}
	if change != nil {
		change(&gcfg)
	}
	b.sessions = New(gcfg)
	ctx, cancel := context.WithCancel(context.Background())
	storeDone, sessionsDone := make(chan error, 1), make(chan error, 1)
	storeCtx, stopStore := context.WithCancel(context.Background())
	go func() { storeDone <- b.store.Run(storeCtx) }()
	b.log, err = b.store.CreateLog(ctx, proof.VMOrigin(hostID, id.String(), 1), &record.Genesis{DomainName: "vm", Cause: "define"})
	b.must(err)
	b.dom = Domain{UUID: id, Name: "vm", Socket: sock, QEMU: QEMU{os.Getpid(), start}, Log: b.log, Incarnation: 1, Epoch: [16]byte{1}}
	go func() { sessionsDone <- b.sessions.Run(ctx) }()
	d := b.dom
	b.sessions.Set(&d)
	b.stop = func() {
		cancel()
		b.must(<-sessionsDone)
		stopStore()
		b.must(<-storeDone)
		b.must(b.store.Close())
		b.listener.Close()
	}
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// peer is one connection of the daemon, seen by the agent.
type peer struct {
	*bench
	conn net.Conn
	in   *wire.Reader
	out  *wire.Writer
}

func (b *bench) accept() *peer {
	b.t.Helper()
	b.must(b.listener.SetDeadline(time.Now().Add(20 * time.Second)))
	c, err := b.listener.AcceptUnix()
	b.must(err)
	b.must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	b.t.Cleanup(func() { c.Close() })
	return &peer{bench: b, conn: c, in: wire.NewReader(c), out: wire.NewWriter(c)}
}

// next returns the next message of the given type; heartbeats may come between.
func (p *peer) next(t wire.Type) []byte {
	p.t.Helper()
	for {
		e, err := p.in.Read()
		p.must(err)
		if e.Type == t {
			return append([]byte(nil), e.Body...)
		}
		if e.Type != wire.TypeHeartbeat && e.Type != wire.TypeHello {
			p.t.Fatalf("got %s, want %s", e.Type, t)
		}
	}
}

// greet answers the daemon's hello as the test's agent.
func (p *peer) greet(change func(*wire.Ident)) (wire.Hello, wire.Welcome) {
	p.t.Helper()
	raw := p.next(wire.TypeHello)
	h, err := wire.ParseHello(raw)
	p.must(err)
	for h.Epoch != p.dom.Epoch { // of before a change of the epoch
		raw = p.next(wire.TypeHello)
		h, err = wire.ParseHello(raw)
		p.must(err)
	}
	id := wire.Ident{Version: wire.Version, AgentVersion: "test", Session: p.session, Epoch: h.Epoch, Nonce: h.Nonce}
	copy(id.Key[:], p.key.Public().(ed25519.PublicKey))
	if change != nil {
		change(&id)
	}
	p.must(p.out.Write(wire.TypeIdent, id.Sign(p.key, raw)))
	w, err := wire.ParseWelcome(p.next(wire.TypeWelcome))
	p.must(err)
	return h, w
}

// frame makes a signed frame of n exec events behind prev.
func (b *bench) frame(number uint64, prev record.Hash, first uint64, n int, change func(*wire.Frame, *wire.Statement)) *wire.Frame {
	f := &wire.Frame{Seed: record.Seed{byte(number), 7}}
	s := wire.Statement{Domain: b.dom.UUID, Epoch: b.dom.Epoch, Session: b.session, Frame: number, Prev: prev, First: first, Count: uint32(n)}
	var hashes []record.Hash
	for i := range n {
		payload, err := record.Encode(&record.Event{Process: &record.Process{Pid: uint32(i + 1), Executable: []byte("/bin/true")}})
		b.must(err)
		seq := first + uint64(i)
		h := record.Header{Class: record.ClassProcessExec, Lane: 3, Session: b.session, Sequence: seq, LaneSequence: seq, Time: seq}
		salt := f.Seed.Salt(seq)
		hashes = append(hashes, record.RecordHash(h, record.Commit(&salt, payload)))
		f.Records = append(f.Records, wire.Record{Header: h, Payload: payload})
	}
	s.Root = record.Root(hashes)
	s.Lanes = []wire.Lane{{Number: 3, First: first, Next: first + uint64(n)}}
	if change != nil {
		change(f, &s)
	}
	f.Statement = s.AppendBinary(nil)
	f.Signature = wire.SignStatement(b.key, f.Statement)
	return f
}

func (p *peer) send(f *wire.Frame) wire.Ack {
	p.t.Helper()
	p.must(p.out.Write(wire.TypeFrame, f.AppendBinary(nil)))
	a, err := wire.ParseAck(p.next(wire.TypeAck))
	p.must(err)
	return a
}

// sealed returns the entries of the domain's log, by class.
func (b *bench) sealed() map[record.Class][]chain.Item {
	b.t.Helper()
	all := map[record.Class][]chain.Item{}
	for i, err := range b.log.Read(context.Background(), 0, b.log.Size()) {
		b.must(err)
		all[i.Leaf.Header.Class] = append(all[i.Leaf.Header.Class], i)
	}
	return all
}

// await waits until n entries of a class are sealed.
func (b *bench) await(c record.Class, n int) []chain.Item {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f := b.store.Tail(chain.Position{})
	defer f.Close()
	var got []chain.Item
	for len(got) < n {
		i, err := f.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			b.t.Fatalf("%d entries of %s are sealed, want %d", len(got), c, n)
		}
		b.must(err)
		if i.Log == b.log && i.Leaf.Header.Class == c {
			got = append(got, i)
		}
	}
	return got
}
