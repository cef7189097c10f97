package guestagent

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// ErrAway is what a Port's Read returns while the host is not connected to its
// end. The port stays open and is read again after a pause.
var ErrAway = errors.New("host is not connected")

// Port is the guest's end of the channel. Close makes Read and Write return.
// Any other error than ErrAway means that the port has to be opened anew.
type Port interface {
	io.ReadWriteCloser
}

// Source makes records until ctx ends, and gives them to the agent. It then
// delivers what it still holds and returns.
type Source func(ctx context.Context, a *Agent) error

// Config says what an Agent is made of. Open, Hooks and Source are required.
type Config struct {
	// Open opens the port. It is called again, after a pause, whenever it
	// fails and whenever the port it gave has failed.
	Open func() (Port, error)
	// Source makes the records.
	Source Source
	// Hooks says what the source covers. It is the first record of the session.
	Hooks *record.Hooks
	// Version is the agent's, as told in the handshake.
	Version string
	// BootID is the guest's /proc/sys/kernel/random/boot_id.
	BootID [16]byte
	// QueueBytes bounds the records that wait for a frame. Zero: 8 MiB.
	// Frames that wait for an acknowledgement come on top, bounded by the
	// host's window and by MaxWindowBytes.
	QueueBytes int
	// SpoolBytes bounds what may be put aside on a disk when the queue fills,
	// encrypted with a key that lives as long as this run. Zero: nothing is.
	// At least spool.MinBytes.
	SpoolBytes int64
	// SpoolDirectory is where. It is made when it is first needed.
	SpoolDirectory string
	// FrameBytes bounds a frame. Zero: 256 KiB. A frame holds at least one record.
	FrameBytes int
	// Grace is how long Run goes on sending after ctx has ended. Zero: 1 s.
	Grace time.Duration
	// Account is how much of the grace time is kept for the account of what the
	// host did not take. Zero: three tenths of Grace.
	Account time.Duration
	// Retry is the pause before the port is read or opened again; it grows to
	// 16 times as much while the port cannot be opened. Zero: 50 ms.
	Retry time.Duration
	// Protector keeps the agent from being silenced. Nil: nothing does, and
	// who asks it to end is obeyed.
	Protector Protector
	// Kill kills a process, known by its number and its start, and returns once it
	// has ended; an error wraps os.ErrProcessDone where it had before. Nil: the host
	// may not have processes killed here.
	Kill func(pid uint32, start uint64) error
	// GoingDown reports whether the machine is being shut down, so that a
	// request to end is no attack. Nil: it never is.
	GoingDown func() bool
	// Boot reads CLOCK_BOOTTIME in nanoseconds. Zero: the system's.
	Boot func() uint64
	// Rand draws key, session and seeds. Zero: crypto/rand.
	Rand io.Reader
	// Log takes what an operator of the guest may want to know. Zero: nowhere.
	Log *slog.Logger
}

const (
	defaultQueueBytes = 8 << 20
	defaultFrameBytes = 256 << 10
	// MaxWindowBytes bounds the frames kept for resending, whatever window
	// the host announces.
	MaxWindowBytes = 2 * wire.WindowBytes
	// maxWindowFrames does the same for their number.
	maxWindowFrames = 4 * wire.WindowFrames
	// holePatience is how long a hole in a lane may wait for its record or
	// for the count of its loss before the agent owns up to it as unexplained.
	holePatience = 2 * time.Second
	// minHeartbeat bounds how often a host can make the agent speak.
	minHeartbeat = 100 * time.Millisecond
)

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Open == nil {
		errs = append(errs, errors.New("no Open is set"))
	}
	if c.Source == nil {
		errs = append(errs, errors.New("no Source is set"))
	}
	if c.Hooks == nil {
		errs = append(errs, errors.New("no Hooks are set"))
	}
	if c.QueueBytes < 0 || c.FrameBytes < 0 || c.FrameBytes > wire.MaxBody {
		errs = append(errs, errors.New("QueueBytes or FrameBytes is out of range"))
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = defaultQueueBytes
	}
	if c.FrameBytes == 0 {
		c.FrameBytes = defaultFrameBytes
	}
	if c.Grace == 0 {
		c.Grace = time.Second
	}
	if c.Account == 0 {
		c.Account = c.Grace * 3 / 10
	}
	if c.Retry == 0 {
		c.Retry = 50 * time.Millisecond
	}
	if c.Boot == nil {
		c.Boot = bootTime
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

func bootTime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // every kernel this runs on has it
	}
	return uint64(ts.Nano())
}
