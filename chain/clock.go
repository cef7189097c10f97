package chain

import (
	"sync"
	"time"
)

// clock is the host's monotone time: it starts at the wall time of the store's
// opening, or at the newest sealed time where that is later, and advances with
// the boot clock from there. It never steps back, whatever the wall clock does.
type clock struct {
	now   func() time.Time
	boot  func() time.Duration
	base  int64 // monotone time at start
	start time.Duration

	mu   sync.Mutex
	last int64
}

func newClock(c Config, newest int64) *clock {
	return &clock{now: c.Now, boot: c.Boot, base: max(c.Now().UnixNano(), newest), start: c.Boot()}
}

// mono returns the monotone time in nanoseconds.
func (c *clock) mono() int64 {
	t := c.base + int64(c.boot()-c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, t)
	return c.last
}

// wall returns the wall time in Unix nanoseconds.
func (c *clock) wall() int64 { return c.now().UnixNano() }
