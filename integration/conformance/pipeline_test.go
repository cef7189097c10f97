package conformance

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/provostd/provost/guestagent"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
)

// ledger makes a store on disk whose VM log of more than four full tiles the real
// pipeline has filled: a guest agent signs frames, and a session of the host
// verifies and seals them, between entries of the host in batches of many sizes,
// under several checkpoints and two keys. Only QEMU is left out: the agent's port
// is the other end of the session's socket.
func ledger(t *testing.T) (*chain.Store, *chain.Log) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	must(t, err)
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), PayloadKeys: filepath.Join(dir, "payload-keys"), HostID: "kvm1.example", Keys: k})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, fill(t, s)
}

// fill has the real pipeline make a VM log in a store that runs.
func fill(t *testing.T, s *chain.Store) *chain.Log {
	t.Helper()
	l, err := s.CreateLog(t.Context(), proof.VMOrigin("kvm1.example", domainUUID, 1), &record.Genesis{Cause: "define", DomainName: "web"})
	must(t, err)
	for i := 0; l.Size() < 300; i++ {
		b := chain.Batch{Log: l}
		for j := range 1 + i*7%60 {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: fmt.Sprint("change ", i, " ", j)})
			must(t, err)
			b.Entries = append(b.Entries, e)
		}
		_, err := s.Append(t.Context(), b)
		must(t, err)
		must(t, s.CheckpointNow(t.Context(), l))
	}
	observed(t, s, l, 500)
	_, err = s.RotateVMKey(t.Context(), "test")
	must(t, err)
	observed(t, s, l, 500)
	must(t, s.CheckpointNow(t.Context(), l))
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// observed has a new guest agent run until n records of it are sealed.
func observed(t *testing.T, s *chain.Store, l *chain.Log, n int) {
	t.Helper()
	// Not t.TempDir: the path of a unix socket has little room.
	dir, err := os.MkdirTemp("", "vs")
	must(t, err)
	defer os.RemoveAll(dir)
	sock := filepath.Join(dir, "s")
	port, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	must(t, err)
	defer port.Close()
	uuid, err := domain.ParseUUID(domainUUID)
	must(t, err)
	start, err := guest.ProcessStart(os.Getpid())
	must(t, err)
	sessions := guest.New(guest.Config{Store: s, Log: slog.New(slog.DiscardHandler), Stats: &guest.Stats{}, RetryMin: 5 * time.Millisecond, RetryMax: 20 * time.Millisecond})
	agent, err := guestagent.New(guestagent.Config{
		Open:  func() (guestagent.Port, error) { return port.Accept() },
		Hooks: &record.Hooks{}, Version: "test", FrameBytes: 16 << 10,
		Source: func(ctx context.Context, a *guestagent.Agent) error {
			for i := range n {
				payload, err := record.Encode(&record.Event{File: &record.File{Path: fmt.Appendf(nil, "/srv/%d", i)}})
				if err != nil {
					return err
				}
				a.Observe(record.Header{Class: record.ClassFileModify, Lane: 0, LaneSequence: uint64(i)}, payload)
				if i%37 == 0 {
					a.Flush()
				}
			}
			a.Flush()
			<-ctx.Done()
			return nil
		},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	// An agent that waits for its port to be opened is let go.
	context.AfterFunc(ctx, func() { _ = port.Close() })
	ended := make(chan error, 2)
	go func() { ended <- sessions.Run(ctx) }()
	go func() { ended <- agent.Run(ctx) }()
	sessions.Set(&guest.Domain{UUID: uuid, Name: "web", Socket: sock, QEMU: guest.QEMU{Pid: os.Getpid(), Start: start}, Log: l, Incarnation: 1, Epoch: [16]byte{byte(l.Size())}})
	from, sealed := l.Size(), 0
	waitFor(t, "the agent's records", func() bool {
		for item, err := range l.Read(ctx, from, l.Size()) {
			must(t, err)
			if item.Leaf.Origin == record.OriginGuest {
				sealed++
			}
			from++
		}
		return sealed >= n
	})
	cancel()
	must(t, errors.Join(<-ended, <-ended))
}
