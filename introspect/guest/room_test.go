package guest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// TestFramesWaitForRoom has policies be behind: a frame waits, which is no silence of
// the agent, and what was sent before it is what the wait is for.
func TestFramesWaitForRoom(t *testing.T) {
	asked, let := make(chan (<-chan struct{})), make(chan error)
	var later atomic.Int64
	b := newBench(t, func(c *Config) {
		c.SilentAfter = 40 * time.Millisecond
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
		c.Room = func(ctx context.Context, _ *chain.Log, sealed <-chan struct{}) error {
			select {
			case asked <- sealed:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-let:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 2, nil)
	b.must(p.out.Write(wire.TypeFrame, f1.AppendBinary(nil)))
	if sealed := <-asked; sealed != nil {
		t.Error("the first frame waits for one before it")
	}
	b.sessions.mu.Lock()
	s := b.sessions.running[b.dom.UUID].session
	b.sessions.mu.Unlock()
	// An hour goes by, and the watch looks what is new.
	since := b.sessions.cfg.Now().Add(time.Hour)
	later.Store(int64(time.Hour))
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for seen := false; !seen; <-look.C {
		s.alive.mu.Lock()
		seen = !s.alive.last.Before(since)
		s.alive.mu.Unlock()
	}
	if got := b.sealed(); len(got[record.ClassProcessExec]) != 0 || !s.held.Load() || s.alive.isSilent() || len(got[record.ClassAgentHeartbeatLost]) != 0 {
		t.Errorf("while it waits: %d records sealed, silent %v", len(got[record.ClassProcessExec]), s.alive.isSilent())
	}
	let <- nil
	if a, err := wire.ParseAck(p.next(wire.TypeAck)); err != nil || a.Refused {
		t.Fatalf("ack %+v: %v", a, err)
	}
	b.must(p.out.Write(wire.TypeFrame, b.frame(2, wire.FrameHash(f1.Statement), 2, 1, nil).AppendBinary(nil)))
	<-<-asked // the first frame is sealed
	let <- nil
	if a, err := wire.ParseAck(p.next(wire.TypeAck)); err != nil || a.Refused {
		t.Fatalf("ack %+v: %v", a, err)
	}
	if n := len(b.sealed()[record.ClassProcessExec]); n != 3 || s.held.Load() {
		t.Errorf("%d records are sealed, want 3", n)
	}
}
