package egress

import (
	"testing"

	"github.com/cilium/ebpf"

	bpfegress "github.com/provostd/provost/bpf/egress"
)

// BenchmarkFrame is what one packet of a flow that is known costs at the tap.
func BenchmarkFrame(b *testing.B) {
	spec, err := loadSpec()
	if err != nil {
		b.Fatal(err)
	}
	o, err := create(spec, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(o.close)
	t := &tap{objects: o, inner: spec.Maps[bpfegress.EgressMapPrefixes].InnerMap, innerP: spec.Maps[bpfegress.EgressMapPorts].InnerMap}
	tab, err := Compile([]Policy{external()})
	if err != nil {
		b.Fatal(err)
	}
	if err := t.apply(tab, 1); err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string][]byte{"allowed": tcp4(allowed4, 80), "denied": tcp4(denied4, 80), "ipv6": tcp6(allowed6, 80)} {
		b.Run(name, func(b *testing.B) {
			if _, err := o.programs[bpfegress.EgressProgFromGuest].Run(&ebpf.RunOptions{Data: f, Repeat: uint32(b.N)}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkCut is what it takes until a guarded tap passes nothing, and to end that.
func BenchmarkCut(b *testing.B) {
	spec, err := loadSpec()
	if err != nil {
		b.Fatal(err)
	}
	o, err := create(spec, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(o.close)
	t := &tap{objects: o}
	for b.Loop() {
		if err := t.cut(nil); err != nil {
			b.Fatal(err)
		}
		if err := t.uncut(); err != nil {
			b.Fatal(err)
		}
	}
}
