package virt

import "sync/atomic"

// Stats counts what the adapter does. All fields may be read at any time. Counters only grow;
// gauges are named so.
type Stats struct {
	Connected      atomic.Int64  // gauge: 1 while events are heard
	Connections    atomic.Uint64 // connections made
	ConnectErrors  atomic.Uint64 // attempts that failed
	Gaps           atomic.Uint64 // times the connection was lost
	Events         atomic.Uint64 // events received
	Counted        atomic.Uint64 // events that were counted and not told one by one
	MonitorSkipped atomic.Uint64 // events of QEMU which libvirt tells as well
	CallbackPanics atomic.Uint64 // events lost to a fault while copying them
	LoopPanics     atomic.Uint64 // events lost to a fault in libvirt's binding
	LoopTurns      atomic.Uint64 // turns of the event loop done
	LoopErrors     atomic.Uint64 // turns of the event loop that failed
	QueueLength    atomic.Int64  // gauge: observations not yet taken by the sink
	Delivered      atomic.Uint64 // observations taken by the sink
	SinkRetries    atomic.Uint64 // times the sink asked to be tried again
	Sweeps         atomic.Uint64 // looks at a domain
	SweepErrors    atomic.Uint64 // looks that found nothing out
	AuditErrors    atomic.Uint64 // times the audit log could not be read
	AuditStrangers atomic.Uint64 // claims about domains that libvirt does not have
	SnapshotErrors atomic.Uint64 // observations delivered without the facts they should carry
	Calls          atomic.Uint64 // calls to libvirt
	CallTimeouts   atomic.Uint64 // calls given up at their deadline
	CallsRunning   atomic.Int64  // gauge: calls that have not come back, given up or not

	kinds [16]atomic.Uint64
}

var countedKinds = []Kind{KindLifecycle, KindReboot, KindDevice, KindNotice, KindHost, KindSweep, KindConnected, KindGapBegin, KindResync}

func (s *Stats) count(k Kind) {
	for i, c := range countedKinds {
		if c == k {
			s.kinds[i].Add(1)
		}
	}
}

// ByKind is the number of observations of each kind.
func (s *Stats) ByKind() map[Kind]uint64 {
	m := make(map[Kind]uint64, len(countedKinds))
	for i, k := range countedKinds {
		m[k] = s.kinds[i].Load()
	}
	return m
}
