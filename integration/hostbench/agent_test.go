package hostbench

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// agent speaks the guest's side of one channel.
type agent struct {
	domain  [16]byte
	epoch   [16]byte // announced by the host; frames that were made ahead name it too
	key     ed25519.PrivateKey
	session uint64

	number uint64
	prev   record.Hash
	next   uint64 // sequence

	conn net.Conn
	in   *wire.Reader
	out  *wire.Writer
}

func newAgent(domain [16]byte, epoch [16]byte, session uint64) (*agent, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return &agent{domain: domain, epoch: epoch, key: key, session: session}, err
}

// frame makes the next frame of the given events.
func (a *agent) frame(events []event) ([]byte, error) {
	a.number++
	f := &wire.Frame{Seed: record.Seed{byte(a.number), byte(a.number >> 8), byte(a.number >> 16), byte(a.session)}}
	s := wire.Statement{Domain: a.domain, Epoch: a.epoch, Session: a.session, Frame: a.number, Prev: a.prev, First: a.next, Count: uint32(len(events))}
	hashes := make([]record.Hash, 0, len(events))
	for _, e := range events {
		h := record.Header{Class: e.class, Lane: 3, Session: a.session, Sequence: a.next, LaneSequence: a.next, Time: a.next * 1000}
		salt := f.Seed.Salt(a.next)
		hashes = append(hashes, record.RecordHash(h, record.Commit(&salt, e.payload)))
		f.Records = append(f.Records, wire.Record{Header: h, Payload: e.payload})
		a.next++
	}
	s.Root = record.Root(hashes)
	s.Lanes = []wire.Lane{{Number: 3, First: s.First, Next: a.next}}
	f.Statement = s.AppendBinary(nil)
	f.Signature = wire.SignStatement(a.key, f.Statement)
	a.prev = wire.FrameHash(f.Statement)
	return f.AppendBinary(nil), nil
}

// accept takes the host's connection and answers its hello. A connection that
// the host gives up meanwhile is followed by the next.
func (a *agent) accept(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		a.conn, a.in, a.out = c, wire.NewReader(c), wire.NewWriter(c)
		err = a.greet()
		if err == nil {
			return nil
		}
		_ = c.Close()
		if !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

func (a *agent) greet() error {
	raw, err := a.await(wire.TypeHello)
	if err != nil {
		return err
	}
	h, err := wire.ParseHello(raw)
	if err != nil {
		return err
	}
	if h.Epoch != a.epoch {
		return fmt.Errorf("the host announces epoch %x, frames were made for %x", h.Epoch, a.epoch)
	}
	id := wire.Ident{Version: wire.Version, AgentVersion: "hostbench", Session: a.session, Epoch: h.Epoch, Nonce: h.Nonce}
	copy(id.Key[:], a.key.Public().(ed25519.PublicKey))
	if err := a.out.Write(wire.TypeIdent, id.Sign(a.key, raw)); err != nil {
		return err
	}
	b, err := a.await(wire.TypeWelcome)
	if err != nil {
		return err
	}
	w, err := wire.ParseWelcome(b)
	if err == nil && w.Refused {
		err = fmt.Errorf("the host refuses: %s", w.Reason)
	}
	return err
}

// await returns the next message of a type; heartbeats are answered by nobody.
func (a *agent) await(t wire.Type) ([]byte, error) {
	for {
		e, err := a.in.Read()
		if err != nil {
			return nil, err
		}
		if e.Type == t {
			return e.Body, nil
		}
		if e.Type != wire.TypeHeartbeat && e.Type != wire.TypeHello {
			return nil, fmt.Errorf("got %s, want %s", e.Type, t)
		}
	}
}

// send writes a frame.
func (a *agent) send(frame []byte) error { return a.out.Write(wire.TypeFrame, frame) }

// acked waits for the ack of one frame.
func (a *agent) acked() error {
	b, err := a.await(wire.TypeAck)
	if err != nil {
		return err
	}
	ack, err := wire.ParseAck(b)
	if err == nil && ack.Refused {
		err = fmt.Errorf("frame %d is refused: %s", ack.Frame, ack.Reason)
	}
	return err
}

// stream sends frames with as many in flight as the protocol allows, and
// returns when the last is acknowledged.
func (a *agent) stream(frames [][]byte) error {
	failed := make(chan error, 1)
	tokens := make(chan struct{}, wire.WindowFrames)
	go func() {
		for range frames {
			if err := a.acked(); err != nil {
				failed <- err
				return
			}
			<-tokens
		}
		failed <- nil
	}()
	for _, f := range frames {
		select {
		case tokens <- struct{}{}:
		case err := <-failed:
			return errors.Join(err, errors.New("the host's acks have ended early"))
		}
		if err := a.send(f); err != nil {
			return err
		}
	}
	return <-failed
}

// round sends one frame and returns how long its ack took: until it was durable.
func (a *agent) round(frame []byte) (time.Duration, error) {
	began := time.Now()
	if err := a.send(frame); err != nil {
		return 0, err
	}
	err := a.acked()
	return time.Since(began), err
}

// event is one record of a guest, encoded.
type event struct {
	class   record.Class
	payload []byte
}

// mix returns n events in the proportions of a working guest: programs that
// start and end, files, connections. Words vary, as they do in life.
func mix(from, n int) ([]event, error) {
	out := make([]event, 0, n)
	for i := from; i < from+n; i++ {
		p := &record.Process{Pid: uint32(1000 + i%30000), Ppid: 7, Start: uint64(i), Name: []byte("curl"), Executable: []byte("/usr/bin/curl"), WorkingDirectory: []byte("/home/user"),
			Credentials: &record.Credentials{Uid: 1000, Gid: 1000}}
		parent := &record.Process{Pid: 7, Name: []byte("bash"), Executable: []byte("/usr/bin/bash")}
		e, c := &record.Event{Process: p, Parent: parent}, record.ClassProcessExec
		switch i % 5 {
		case 0:
			p.Args = [][]byte{[]byte("curl"), []byte("-s"), fmt.Appendf(nil, "https://example.test/%d/index.html", i%5000)}
		case 1, 2:
			c, e.File = record.ClassFileModify, &record.File{Path: fmt.Appendf(nil, "/home/user/work/notes-%d.txt", i%20000), Inode: uint64(i % 20000), Size: 4096}
		case 3:
			c, e.Network = record.ClassNetworkConnect, &record.Network{Family: 4, Protocol: "tcp", SourceIp: []byte{192, 0, 2, 9}, SourcePort: uint32(32768 + i%28000),
				DestinationIp: []byte{192, 0, 2, byte(i % 250)}, DestinationPort: 443, Direction: "egress"}
		default:
			c, e.Exit = record.ClassProcessExit, &record.Exit{}
		}
		b, err := record.Encode(e)
		if err != nil {
			return nil, err
		}
		out = append(out, event{c, b})
	}
	return out, nil
}
