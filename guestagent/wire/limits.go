package wire

import "time"

// Limits of the protocol. The host holds every guest to them; they bound what
// one domain can make it allocate (invariant I8).
const (
	// Version is the one protocol version this code speaks.
	Version = 1
	// MaxBody is the largest body of an envelope, in bytes.
	MaxBody = 1 << 20
	// MaxRecords is the largest number of records in a frame.
	MaxRecords = 2048
	// MaxLanes is the largest number of lanes in a statement.
	MaxLanes = 2048
	// MaxDrops is the largest number of drop counts of one lane.
	MaxDrops = 256
	// MaxText is the largest string of a handshake or an ack, in bytes.
	MaxText = 1024
	// MaxHooks is the largest hooks record, in bytes.
	MaxHooks = 32 << 10
	// WindowFrames and WindowBytes bound what an agent may have sent and not
	// yet seen acknowledged; the host announces them in Welcome.
	WindowFrames = 64
	WindowBytes  = 4 << 20
	// HeartbeatEvery is the default interval of heartbeats in each direction.
	HeartbeatEvery = 2 * time.Second
)

// PortName is the name of the virtio-serial port.
const PortName = "org.provost.0"
