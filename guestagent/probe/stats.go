package probe

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

const (
	types   = int(bpf.ProbeEventTypeEV_TYPES)
	reasons = int(bpf.ProbeDropReasonDROP_REASONS)
)

var lossReasons = [reasons]record.LossReason{
	bpf.ProbeDropReasonDROP_RING:   record.LossReason_LOSS_REASON_RING_FULL,
	bpf.ProbeDropReasonDROP_NESTED: record.LossReason_LOSS_REASON_NESTED,
	bpf.ProbeDropReasonDROP_FAULT:  record.LossReason_LOSS_REASON_FAULT,
	bpf.ProbeDropReasonDROP_MAP:    record.LossReason_LOSS_REASON_MAP_FULL,
}

// stats reads the kernel's counters, which lie in shared memory: no system
// call, so it can be done on every round.
type stats struct {
	memory *ebpf.Memory
	cpus   int
	buf    []byte
	told   [][2][types][reasons]uint64
	seen   []uint64 // sum of drops of each CPU
	unsure bool     // events were dropped that tell which processes there are
}

func newStats(m *ebpf.Map) (*stats, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, fmt.Errorf("map counters: %w", err)
	}
	n := int(m.MaxEntries())
	return &stats{memory: memory, cpus: n, buf: make([]byte, unsafe.Sizeof(bpf.ProbeCpuStats{})),
		told: make([][2][types][reasons]uint64, n), seen: make([]uint64, n)}, nil
}

func (s *stats) read(cpu int) (bpf.ProbeCpuStats, error) {
	if _, err := s.memory.ReadAt(s.buf, int64(cpu*len(s.buf))); err != nil {
		return bpf.ProbeCpuStats{}, fmt.Errorf("read counters of CPU %d: %w", cpu, err)
	}
	return as[bpf.ProbeCpuStats](s.buf)
}

// own sums the agent's own events by type.
func (s *stats) own() ([types]uint64, error) {
	var sum [types]uint64
	for cpu := range s.cpus {
		c, err := s.read(cpu)
		if err != nil {
			return sum, err
		}
		for t, n := range c.Own {
			sum[t] += n
		}
	}
	return sum, nil
}

// tell gives the sink what was dropped since the last time.
func (s *stats) tell(sink Sink) error {
	for cpu := range s.cpus {
		c, err := s.read(cpu)
		if err != nil {
			return err
		}
		if c.Dropped == s.seen[cpu] {
			continue
		}
		s.seen[cpu] = c.Dropped
		for ring := range c.Drops {
			for t := range c.Drops[ring] {
				for r, n := range c.Drops[ring][t] {
					before := s.told[cpu][ring][t][r]
					if n == before {
						continue
					}
					s.told[cpu][ring][t][r] = n
					if t := bpf.ProbeEventType(t); t == bpf.ProbeEventTypeEV_FORK || t == bpf.ProbeEventTypeEV_EXIT || t == bpf.ProbeEventTypeEV_EXEC {
						s.unsure = true
					}
					sink.Lose(uint32(ring)<<16|uint32(cpu), classOf(uint8(t)), lossReasons[r], n-before)
				}
			}
		}
	}
	return nil
}

// droppedOf returns how many drops of a lane have been told.
func (s *stats) droppedOf(lane uint32) (sum uint64) {
	for t := range s.told[lane&0xffff][lane>>16&1] {
		for _, n := range s.told[lane&0xffff][lane>>16&1][t] {
			sum += n
		}
	}
	return sum
}

// counted returns how many events each lane has counted so far.
func (s *stats) counted() (map[uint32]uint64, error) {
	m := map[uint32]uint64{}
	for cpu := range s.cpus {
		c, err := s.read(cpu)
		if err != nil {
			return nil, err
		}
		for ring, n := range c.Seq {
			if n > 0 {
				m[uint32(ring)<<16|uint32(cpu)] = n
			}
		}
	}
	return m, nil
}
