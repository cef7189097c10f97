package probe

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/bpf"
	"github.com/provostd/provost/chain/record"
)

// kind says what a type of event is sealed as, and how it is read.
type kind struct {
	class  record.Class
	decode func(*decoder, []byte) (*record.Event, error)
}

// kinds has all types of events; each part of the probe brings its own.
var kinds = func() (all [types]kind) {
	for _, part := range []map[bpf.ProbeEventType]kind{processKinds, credsKinds, authKinds, fileKinds, networkKinds, sumKinds, memoryKinds, kernelKinds, tamperKinds} {
		for t, k := range part {
			all[t] = k
		}
	}
	return all
}()

func classOf(t uint8) record.Class {
	if int(t) < len(kinds) {
		return kinds[t].class
	}
	return 0
}

// maxDirectory bounds the working directory, so that the longest exec fits into
// a payload.
const maxDirectory = 2048

// errShort says that a sample ends before its fields do.
var errShort = errors.New("sample is too short")

// as reads a fixed layout from the front of a sample. Layouts are those of the
// object this process loaded, in the machine's own byte order.
func as[T any](b []byte) (T, error) {
	var v T
	if len(b) < int(unsafe.Sizeof(v)) {
		return v, errShort
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v, nil
}

// strings hands out the strings behind a layout in order.
type tail struct {
	b   []byte
	err error
}

func tailOf[T any](b []byte) tail {
	var v T
	return tail{b: b[unsafe.Sizeof(v):]}
}

func (t *tail) next(n uint16) []byte {
	if t.err != nil || int(n) > len(t.b) {
		t.err = errShort
		return nil
	}
	v := t.b[:n]
	t.b = t.b[n:]
	return v
}

// decoder makes events of samples, with what the table knows of their
// processes. It must be given the samples in the order of their times.
type decoder struct {
	pins   *pins         // processes that sums will be told of
	names  *addressNames // by DNS
	asked  *questions    // of DNS
	table  *table
	groups *groups
	// class is that of the event decoded last, where its kind does not say.
	class record.Class
	// origin is where the content of the file of the event decoded last comes
	// from, of those classes that digests are made of.
	origin origin
	// gains: what executions gain is told by the programs.
	gains bool
}

func newDecoder(t *table, g *groups) decoder {
	return decoder{table: t, groups: g, pins: newPins(), names: newAddressNames(), asked: newQuestions()}
}

func lane(h *bpf.ProbeEventHead) uint32 { return uint32(h.Ring)<<16 | uint32(h.Cpu) }

// decode returns the event of one sample. Strings in it alias the sample.
func (d *decoder) decode(h *bpf.ProbeEventHead, b []byte) (*record.Event, error) {
	if int(h.Type) >= len(kinds) || kinds[h.Type].decode == nil {
		return nil, fmt.Errorf("sample of unknown type %d", h.Type)
	}
	d.class = kinds[h.Type].class
	e, err := kinds[h.Type].decode(d, b)
	if err != nil {
		return nil, err
	}
	f := bpf.ProbeEventFlag(h.Flags)
	for _, x := range eventFlags {
		if f&x.bit != 0 {
			e.Flags |= x.flag
		}
	}
	if f&bpf.ProbeEventFlagFL_RESULT != 0 {
		e.ResultKnown, e.Result = true, h.Arg
	}
	return e, nil
}

// eventFlags are the flags that mean the same for all types.
var eventFlags = []struct {
	bit  bpf.ProbeEventFlag
	flag uint32
}{
	{bpf.ProbeEventFlagFL_COMPAT, record.EventCompat},
	{bpf.ProbeEventFlagFL_IO_WORKER, record.EventIOWorker},
	{bpf.ProbeEventFlagFL_REFUSED, record.EventRefused},
}

// note takes in what the programs tell the agent alone.
func (d *decoder) note(h *bpf.ProbeEventHead, b []byte) error {
	switch bpf.ProbeEventType(h.Type) {
	case bpf.ProbeEventTypeEV_COMM:
		x, err := as[bpf.ProbeEventComm](b)
		if err != nil {
			return err
		}
		d.renamed(&x)
		return nil
	case bpf.ProbeEventTypeEV_CGROUP:
		x, err := as[bpf.ProbeEventCgroup](b)
		if err != nil {
			return err
		}
		if x.H.Arg == 1 {
			d.known(&x.H).cgroup = x.Id
			return nil
		}
		t := tailOf[bpf.ProbeEventCgroup](b)
		d.groups.made(x.Id, bytes.Clone(cstring(t.next(x.PathLen))))
		return t.err
	}
	return fmt.Errorf("note of unknown type %d", h.Type)
}

// actor begins an event that the process of the head caused.
func (d *decoder) actor(h *bpf.ProbeEventHead) *record.Event {
	return d.about(d.known(h), h.Tid, h.Euid, h.Mntns)
}

// about begins an event that p is the subject of.
func (d *decoder) about(p *process, tid, euid, mntns uint32) *record.Event {
	s := p.subject(tid, euid, mntns)
	g := d.groups.find(p.cgroup)
	s.ContainerId = g.container
	if p.old != nil {
		// The first that is told of a process that ran before the agent did.
		p.old.tell(s)
		p.old = nil
		s.Cgroup = g.path
	}
	e := &record.Event{Process: s}
	p.kin(e)
	return e
}

// known is the process of a head.
func (d *decoder) known(h *bpf.ProbeEventHead) *process { return d.table.find(h.Tgid, h.Start) }

func bytesOf(c *[16]int8) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c)) }

// device turns the kernel's own number into that of stat(2).
func device(dev uint32) uint64 {
	if dev == 0 {
		return 0
	}
	return unix.Mkdev(dev>>20, dev&0xfffff)
}
