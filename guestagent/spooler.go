package guestagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/spool"
)

const (
	// maxFront bounds the chunks that are read ahead for the writer.
	maxFront = 8
	// diskPause is how long a disk that failed is left alone.
	diskPause = time.Second
)

// spooler moves chunks of the queue to the disk while the queue fills, and back
// when the host takes again. Order is kept by three places: the writer takes
// from front, then waits for what is on the disk, then takes from the queue; so
// what is put aside is always the queue's oldest, behind all that was put aside
// before. Memory stays bounded: front by maxFront, the rest by the queue's
// limit, which also decides what is dropped when the disk is full or slow.
//
// Only the spooler's goroutine touches the disk: neither the source nor the
// writer ever waits for it while holding the lock.
type spooler struct {
	disk *spool.Spool // the goroutine's own
	wake chan struct{}

	// Guarded by the agent's lock.
	front  []*chunk // read back, oldest first; none is empty
	away   int      // chunks on the disk or on their way there or back
	moving *chunk   // on its way there; only read by now
	kept   []run    // of each run on the disk, oldest first; the goroutine alone changes it but for giveUp
	full   bool     // the newest attempt found no room
	paused bool     // the disk failed, see diskPause
	broken string   // what was said of that
}

// spills are lane, class and number of what the records of a chunk stand for:
// should it be damaged, that is declared lost (invariant I4).
type spills map[lossKey]uint64

// run is a chunk on the disk.
type run struct {
	spills spills
	count  int // records
}

func newSpooler(c *Config) (*spooler, error) {
	if c.SpoolBytes == 0 {
		return nil, nil
	}
	d, err := spool.New(spool.Config{Directory: c.SpoolDirectory, Bytes: c.SpoolBytes, Rand: c.Rand})
	if err != nil {
		return nil, err
	}
	return &spooler{disk: d, wake: make(chan struct{}, 1)}, nil
}

// nudge has the spooler look again. It may be nil.
func (s *spooler) nudge() {
	if s == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default: // it will
	}
}

// holds reports whether anything stands before the queue. The lock is held.
func (s *spooler) holds() bool { return s != nil && (len(s.front) > 0 || s.away > 0) }

// source returns the chunk that the next record comes from, nil for none now.
// The lock is held.
func (a *Agent) source() *chunk {
	if s := a.spool; s != nil {
		if len(s.front) > 0 {
			return s.front[0]
		}
		if s.away > 0 {
			s.nudge()
			return nil
		}
	}
	return a.queue.head()
}

// takeRecord takes the oldest record; source must have returned a chunk. The
// lock is held, and the payload is good for as long.
func (a *Agent) takeRecord() queued {
	s := a.spool
	if s == nil || len(s.front) == 0 {
		return a.queue.take()
	}
	c := s.front[0]
	r := c.take()
	if c.count == 0 {
		s.front[0] = nil
		s.front = s.front[1:]
		s.nudge()
	}
	return r
}

// fullReason says why a record finds no room. The lock is held.
func (a *Agent) fullReason() record.LossReason {
	if a.spool != nil && a.spool.full {
		return record.LossReason_LOSS_REASON_SPOOL_FULL
	}
	return record.LossReason_LOSS_REASON_QUEUE_FULL
}

// runSpool works until ctx ends.
func (a *Agent) runSpool(ctx context.Context) {
	s := a.spool
	filling := false
	for ctx.Err() == nil {
		a.mu.Lock()
		load := len(s.kept) > 0 && len(s.front) < maxFront && a.conv.welcomed
		// From a quarter on: bulk has another third before it is dropped.
		filling = a.queue.bytes > a.queue.limit/4 || filling && a.queue.bytes > a.queue.limit/8
		store := filling && !s.paused && !a.closing && len(a.queue.chunks) > 1
		var c *chunk
		if store {
			c = a.queue.detach()
			s.away++
			s.moving = c
		}
		a.mu.Unlock()
		if c != nil {
			a.store(ctx, c)
		}
		if load {
			a.load(ctx)
		}
		if !store && !load {
			a.waitSpool(ctx)
		}
	}
}

// waitSpool waits for something to do; a disk that failed is tried again.
func (a *Agent) waitSpool(ctx context.Context) {
	a.mu.Lock()
	paused := a.spool.paused
	a.mu.Unlock()
	var retry <-chan time.Time
	if paused {
		t := time.NewTimer(diskPause)
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-ctx.Done():
	case <-a.spool.wake:
	case <-retry:
		a.mu.Lock()
		a.spool.paused = false
		a.mu.Unlock()
	}
}

// store puts a chunk on the disk. One that the disk does not take goes back to
// where it came from: only the queue's limit drops records.
func (a *Agent) store(ctx context.Context, c *chunk) {
	in, n := spills{}, 0
	for at := c.copy(); at.count > 0; {
		r := at.take()
		in[lossKey{r.header.Lane, r.header.Class, record.LossReason_LOSS_REASON_SPOOL_DAMAGED}] += r.acts()
		n++
	}
	err := a.spool.disk.Put(c.bytes[c.read:])
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return // counted as lost
	}
	s := a.spool
	s.moving = nil
	if err == nil {
		if s.broken != "" {
			a.cfg.Log.InfoContext(ctx, "spool takes records again")
		}
		s.full, s.broken = false, ""
		s.kept = append(s.kept, run{in, n})
		return
	}
	s.away--
	a.queue.attach(c)
	// Full by its bound or by the disk's: until a run is read back, or later.
	s.full, s.paused = errors.Is(err, spool.ErrFull) || isDiskFull(err), true
	if text := err.Error(); text != s.broken {
		s.broken = text
		a.cfg.Log.WarnContext(ctx, "spool takes no more, records wait in memory", "error", err, "spooled_chunks", len(s.kept))
	}
	a.Flush()
}

// load brings the oldest chunk back for the writer. What the disk has spoilt
// is lost, record by record.
func (a *Agent) load(ctx context.Context) {
	b, err := a.spool.disk.Take()
	now := a.cfg.Boot()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return // counted as lost
	}
	s := a.spool
	r := s.kept[0]
	if s.kept[0] = (run{}); len(s.kept) == 1 {
		s.kept = nil
	} else {
		s.kept = s.kept[1:]
	}
	s.away--
	s.paused = false // there may be room now
	if err != nil {
		a.cfg.Log.ErrorContext(ctx, "records in the spool are lost", "records", r.count, "error", err)
		for k, m := range r.spills {
			a.losses.add(k, m, now)
		}
	} else {
		s.front = append(s.front, &chunk{bytes: b, count: r.count})
	}
	a.Flush()
}

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// closeSpool waits for the spooler to end, for at most d: a disk that hangs
// must not keep the agent from ending. Its goroutine ends with the process then.
func (a *Agent) closeSpool(ctx context.Context, done <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		if err := a.spool.disk.Close(); err != nil {
			a.cfg.Log.WarnContext(ctx, "spool", "error", err)
		}
	case <-t.C:
		a.cfg.Log.ErrorContext(ctx, "the spool's disk does not answer, ending without it")
	}
}

// String describes the spool for the log. The lock is held.
func (s *spooler) String() string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%d chunks on disk, %d read back", s.away, len(s.front))
}
