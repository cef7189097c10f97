package guest

import (
	"context"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// TestNextShard lets a domain go on in another shard: its agent connects again with
// an acknowledgement from the shard before, which is no rollback, and its next
// frame follows there. What is of neither shard is a rollback still.
func TestNextShard(t *testing.T) {
	b := newBench(t, nil)
	p := b.accept()
	p.greet(nil)
	f1 := b.frame(1, record.Hash{}, 0, 2, nil)
	ack := p.send(f1)
	b.sessions.Remove(b.dom.UUID)
	name := b.log.Name()
	name.Shard++
	next, err := b.store.CreateLog(context.Background(), name.String(), &record.Genesis{DomainName: "vm", Cause: "shard", PreviousOrigin: b.log.Origin()})
	b.must(err)
	progress, ok, err := b.store.Meta(ProgressKey(b.log))
	if err != nil || !ok {
		t.Fatalf("no progress: %v", err)
	}
	e, err := b.store.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: "continues"})
	b.must(err)
	_, err = b.store.Append(context.Background(), chain.Batch{Log: next, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{{Key: ProgressKey(next), Value: progress}}})
	b.must(err)
	before := b.log
	b.log, b.dom.Log = next, next
	d := b.dom
	b.sessions.Set(&d)

	p = b.accept()
	p.greet(func(id *wire.Ident) {
		id.Frame, id.FrameHash = 1, wire.FrameHash(f1.Statement)
		id.AckedFrame, id.AckedIndex, id.AckedHash = ack.Frame, ack.Index, ack.Hash
	})
	f2 := b.frame(2, wire.FrameHash(f1.Statement), 2, 1, nil)
	if a := p.send(f2); a.Refused {
		t.Fatalf("the next frame is refused: %s", a.Reason)
	}
	got := b.sealed()
	if n := len(got[record.ClassAgentRollback]); n != 0 {
		t.Errorf("%d rollbacks are sealed", n)
	}
	if len(got[record.ClassAgentEnrolled]) != 1 || len(got[record.ClassProcessExec]) != 1 || before.Name().Shard != proof.FirstShard {
		t.Errorf("sealed in the shard: %d enrolments, %d records", len(got[record.ClassAgentEnrolled]), len(got[record.ClassProcessExec]))
	}
	p.conn.Close()
	b.accept().greet(func(id *wire.Ident) {
		id.Frame, id.FrameHash = 2, wire.FrameHash(f2.Statement)
		id.AckedFrame, id.AckedIndex, id.AckedHash = ack.Frame, ack.Index, record.Hash{9}
	})
	b.await(record.ClassAgentRollback, 1)
}
