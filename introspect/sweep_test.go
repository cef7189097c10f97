package introspect

import (
	"testing"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// TestHeartbeats seals what domains do while libvirt is heard, and nothing while
// it is not or when a domain has ended.
func TestHeartbeats(t *testing.T) {
	p := newPipe(t)
	p.see("vm.start", "start", "booted", 7, domain.Running)
	beats := func() (all []*record.VM) {
		t.Helper()
		l, ok := p.store.LogByOrigin(proof.VMOrigin("test.host", vm.String(), 1))
		if !ok {
			t.Fatal("the domain has no log")
		}
		for item, err := range l.Read(t.Context(), 0, l.Size()) {
			if err != nil {
				t.Fatal(err)
			}
			if item.Leaf.Header.Class != record.ClassTick {
				continue
			}
			m, err := item.Decode()
			if err != nil || item.Leaf.Origin != record.OriginHost {
				t.Fatalf("entry %d of origin %s: %v", item.Index, item.Leaf.Origin, err)
			}
			all = append(all, m.(*record.Event).Vm)
		}
		return all
	}
	beat := func(want int) []*record.VM {
		t.Helper()
		if err := p.registry.beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := beats()
		if len(all) != want {
			t.Fatalf("%d heartbeats, want %d", len(all), want)
		}
		return all
	}
	beat(0) // libvirt has not been heard
	hear := func(kind virt.Kind) {
		t.Helper()
		if err := p.registry.Observe(t.Context(), virt.Observation{Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	hear(virt.KindConnected)
	if b := beat(1)[0]; b.State != "running" || b.Detail != "none" || b.Uuid != vm.String() {
		t.Errorf("the heartbeat says %v", b)
	}
	p.see("vm.pause", "pause", "user", 7, domain.Paused)
	if b := beat(2)[1]; b.State != "paused" {
		t.Errorf("of a paused domain it says %v", b)
	}
	hear(virt.KindGapBegin)
	beat(2)
	hear(virt.KindConnected)
	beat(3)
	p.see("vm.stop", "stop", "destroyed", 0, domain.Shutoff)
	p.see("vm.undefine", "undefine", "removed", 0, domain.Shutoff)
	beat(3)
	var at chain.Position
	for f := p.store.Tail(at); ; {
		item, ok, err := f.TryNext()
		if err != nil || !ok {
			break
		}
		if item.Leaf.Header.Class == record.ClassPolicyError {
			t.Errorf("policies cannot judge entry %d", item.Index)
		}
	}
}
