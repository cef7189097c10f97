package mirror_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// shards is a domain in two shards, of which the first is closed; with late, an outcome
// came behind its end.
func shards(h *host, late bool) (first, second *chain.Log) {
	first = h.log(1, 1, nil)
	h.agent(first, 1, nil).frame(300)
	name := proof.Origin{HostID: hostID, Domain: domain(1), Incarnation: 1, Shard: 2}.String()
	h.must(h.CloseLog(h.t.Context(), first, "size", name))
	p, _ := first.Checkpoint()
	second, err := h.CreateLog(h.t.Context(), name, &record.Genesis{Cause: "shard", PreviousOrigin: first.Origin(), PreviousCheckpoint: p.Note})
	h.must(err)
	h.agent(second, 2, nil).frame(3)
	if late {
		e, err := h.Draft(record.OriginPolicy, record.ClassPolicyOutcome, &record.Outcome{Kind: "pause", Result: "done"})
		h.must(err)
		h.append(first, e)
	}
	h.checkpoint(second)
	h.checkpoint(first)
	return first, second
}

func (h *host) drop(l *chain.Log) uint64 {
	h.t.Helper()
	p, _ := l.Checkpoint()
	index, err := h.Drop(h.t.Context(), l, chain.DropOptions{Reason: "old", Requester: "ann", Note: p.Note, SHA256: [32]byte{7}, Bytes: 4711})
	h.must(err)
	return index
}

// TestDroppedLog: a log that was dropped is no fault, and is named with the entry that
// says so. What continues it is still proved to. A copy of before verifies whole.
func TestDroppedLog(t *testing.T) {
	for _, late := range []bool{false, true} {
		h := newHost(t, newKeys(t))
		first, second := shards(h, late)
		before := h.mirrored()
		index := h.drop(first)
		h.checkpoint(second)
		m, key := h.mirrored(), h.HostLog().VerifierKey()
		r, err := verify(t, m, key, mirror.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Dropped) != 1 || r.Dropped[0].Origin != first.Origin() || r.Dropped[0].Index != index || r.Dropped[0].Size != first.Size() || r.Dropped[0].Requester != "ann" || !strings.HasPrefix(r.Dropped[0].SHA256, "0700") {
			t.Errorf("dropped: %+v", r.Dropped)
		}
		proved, unclaimed := strings.Join(r.Proved, "\n"), strings.Join(r.Unclaimed, "\n")
		if !strings.Contains(proved, "The genesis of 1 logs quotes the log before it") || !strings.Contains(proved, "1 VM logs with") {
			t.Errorf("proved: %s", proved)
		}
		if !strings.Contains(unclaimed, first.Origin()+", which was dropped, as entry") || !strings.Contains(unclaimed, "archive of 4711 bytes with SHA-256 0700") {
			t.Errorf("not claimed: %s", unclaimed)
		}
		r, err = verify(t, m, key, mirror.Options{Logs: []string{first.Origin()}})
		named(t, r, err, mirror.KindLog, first.Origin(), "it was asked for, and it is not there")
		for name, f := range before { // whoever has copied it before has it still
			if strings.HasPrefix(name, "logs/"+first.Origin()+"/") {
				m[name] = f
			}
		}
		if r, err := verify(t, m, key, mirror.Options{}); err != nil || len(r.Dropped) != 0 || r.Entries <= first.Size() {
			t.Errorf("with a copy of before: %+v, %v", r, err)
		}
		// Nor does a copy that was changed hide behind it.
		leaf(m.at(t, first, "tile/entries/000").Data, 3)[40] ^= 1
		if _, err := verify(t, m, key, mirror.Options{}); !errors.Is(err, record.ErrReject) {
			t.Errorf("a changed copy: %v", err)
		}
	}
}

// TestDroppedLies: what a host says of dropping is held against what it has quoted.
func TestDroppedLies(t *testing.T) {
	for _, c := range []struct {
		name, want string
		lie        func(h *host, first, second *chain.Log) *record.Dropped
	}{
		{"never quoted", "no entry before quotes", func(h *host, first, _ *chain.Log) *record.Dropped {
			p, _ := first.Checkpoint()
			return &record.Dropped{Origin: proof.VMOrigin(hostID, domain(9), 1), Size: p.Size, Note: p.Note}
		}},
		{"another log's checkpoint", "that it drops", func(h *host, first, second *chain.Log) *record.Dropped {
			p, _ := second.Checkpoint()
			return &record.Dropped{Origin: first.Origin(), Size: p.Size, Note: p.Note}
		}},
		{"another size", "it drops", func(h *host, first, _ *chain.Log) *record.Dropped {
			p, _ := first.Checkpoint()
			return &record.Dropped{Origin: first.Origin(), Size: p.Size - 1, Note: p.Note}
		}},
		{"an earlier checkpoint", "quotes it at", func(h *host, first, second *chain.Log) *record.Dropped {
			p, _ := second.Checkpoint()
			h.append(second, h.draft(record.ClassVMChange, &record.Event{Reason: "more"}))
			h.checkpoint(second)
			return &record.Dropped{Origin: second.Origin(), Size: p.Size, Note: p.Note}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, newKeys(t))
			first, second := shards(h, false)
			h.append(h.HostLog(), h.draft(record.ClassDropped, c.lie(h, first, second)))
			h.checkpoint(h.HostLog())
			r, err := verify(t, h.mirrored(), h.HostLog().VerifierKey(), mirror.Options{})
			if !errors.Is(err, record.ErrReject) {
				t.Fatalf("accepted: %v", err)
			}
			var b strings.Builder
			if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), c.want) {
				t.Errorf("want %q: %s", c.want, b.String())
			}
		})
	}
	// A log goes on that was dropped, and one is gone that was not.
	h := newHost(t, newKeys(t))
	first, second := shards(h, false)
	p, _ := second.Checkpoint()
	h.append(h.HostLog(), h.draft(record.ClassDropped, &record.Dropped{Origin: second.Origin(), Size: p.Size, Note: p.Note}))
	h.append(second, h.draft(record.ClassVMChange, &record.Event{Reason: "more"}))
	h.checkpoint(second)
	m := h.mirrored()
	for name := range m {
		if strings.HasPrefix(name, "logs/"+first.Origin()+"/") {
			delete(m, name)
		}
	}
	r, _ := verify(t, m, h.HostLog().VerifierKey(), mirror.Options{})
	var b strings.Builder
	if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), "has dropped it at") || !strings.Contains(b.String(), first.Origin()+": it is missing") {
		t.Errorf("%s", b.String())
	}
}
