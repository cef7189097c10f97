package probe

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// pace tells the programs until when the rings are looked into without their
// asking, so that they do not wake who is awake.
type pace struct {
	memory *ebpf.Memory
}

func newPace(m *ebpf.Map) (*pace, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, fmt.Errorf("map pace: %w", err)
	}
	return &pace{memory}, nil
}

// until promises a look before a time of CLOCK_BOOTTIME; 0 takes it back.
func (p *pace) until(t uint64) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], t)
	_, _ = p.memory.WriteAt(b[:], 0) // fails only beyond the map's 8 bytes
}
