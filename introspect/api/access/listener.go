package access

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Connections bounds what a listener takes. Zero means the default.
type Connections struct {
	Max        int // open at once; default 256
	PerAddress int // of those, from one address; default a quarter of Max, at least 1
	// PerSecond is how often one address may connect, sustained; ten times that
	// at once. Handshakes cost more than what they ask for. Default 20.
	PerSecond float64
	// Unlimited has no bounds by address: a unix socket has none.
	Unlimited bool
	// Yield has a new connection, where as many are open as may be, take the place
	// of the one that has been longest without a request of somebody known:
	// strangers with many addresses cannot hold all places. It needs WithConn and
	// a Guard.
	Yield bool
}

// Bound returns a listener that closes what comes beyond its bounds, without a
// word: an answer would cost a handshake. now is the clock.
func Bound(l net.Listener, c Connections, stats *Stats, now func() time.Time) net.Listener {
	if c.Max <= 0 {
		c.Max = 256
	}
	if c.PerAddress <= 0 {
		c.PerAddress = max(1, c.Max/4)
	}
	if c.PerSecond <= 0 {
		c.PerSecond = 20
	}
	return &bounded{Listener: l, limits: c, stats: stats, now: now, open: map[netip.Prefix]int{},
		rate: newBuckets[netip.Prefix](rate.Limit(c.PerSecond), int(10*c.PerSecond))}
}

type bounded struct {
	net.Listener
	limits Connections
	stats  *Stats
	now    func() time.Time
	rate   *buckets[netip.Prefix]

	mu    sync.Mutex
	total int
	open  map[netip.Prefix]int // by address; no larger than total
	idle  list.List            // of *boundConn that serve nobody known, the one longest so in front
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		one := &boundConn{Conn: c, b: b, from: origin(c.RemoteAddr())}
		instead, ok := b.enter(one)
		if !ok {
			b.stats.Refused.Add(1)
			c.Close()
			continue
		}
		b.stats.Connections.Add(1)
		if instead != nil {
			b.stats.Refused.Add(1)
			instead.Close() // its server finds it closed when it next reads
		}
		return one, nil
	}
}

// enter gives a connection a place, maybe that of another one, which is to be
// closed.
func (b *bounded) enter(c *boundConn) (instead *boundConn, ok bool) {
	if !b.limits.Unlimited {
		if _, ok := b.rate.take(c.from, b.now(), 1); !ok {
			return nil, false
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.limits.Unlimited && b.open[c.from] >= b.limits.PerAddress {
		return nil, false
	}
	if b.total >= b.limits.Max {
		if !b.limits.Yield || b.idle.Len() == 0 {
			return nil, false
		}
		instead = b.idle.Front().Value.(*boundConn)
		b.drop(instead)
	}
	c.open = true
	b.total++
	b.open[c.from]++
	c.place = b.idle.PushBack(c)
	return instead, true
}

// drop takes a connection's place away, once.
func (b *bounded) drop(c *boundConn) {
	if !c.open {
		return
	}
	c.open = false
	b.total--
	if b.open[c.from]--; b.open[c.from] == 0 {
		delete(b.open, c.from)
	}
	b.rest(c, false)
}

// rest notes whether a connection serves nobody known.
func (b *bounded) rest(c *boundConn, idle bool) {
	switch {
	case idle && c.open && c.place == nil:
		c.place = b.idle.PushBack(c)
	case !idle && c.place != nil:
		b.idle.Remove(c.place)
		c.place = nil
	}
}

// boundConn gives its place back when it is closed.
type boundConn struct {
	net.Conn
	b    *bounded
	from netip.Prefix
	once sync.Once

	// Guarded by the mutex of b.
	open  bool          // it has a place
	place *list.Element // in idle; nil: it serves somebody
}

func (c *boundConn) Close() error {
	c.once.Do(func() {
		c.b.mu.Lock()
		c.b.drop(c)
		c.b.mu.Unlock()
		c.b.stats.Connections.Add(-1)
	})
	return c.Conn.Close()
}

// NetConn returns the connection below.
func (c *boundConn) NetConn() net.Conn { return c.Conn }

type connKey struct{}

// WithConn is the ConnContext of a server on a listener of Bound whose
// connections yield: a Guard finds there which of them it serves.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if below, ok := c.(interface{ NetConn() net.Conn }); ok { // below TLS
		if b, ok := below.NetConn().(*boundConn); ok {
			return context.WithValue(ctx, connKey{}, b)
		}
	}
	return ctx
}

// occupy keeps the connection of a request from yielding until done is called.
func occupy(ctx context.Context) (done func()) {
	c, ok := ctx.Value(connKey{}).(*boundConn)
	if !ok {
		return func() {}
	}
	mark := func(idle bool) {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.b.rest(c, idle)
	}
	mark(false)
	return func() { mark(true) }
}
