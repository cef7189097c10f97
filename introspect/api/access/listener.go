package access

import (
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
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := origin(c.RemoteAddr())
		if !b.enter(from) {
			b.stats.Refused.Add(1)
			c.Close()
			continue
		}
		b.stats.Connections.Add(1)
		return &boundConn{Conn: c, leave: sync.OnceFunc(func() {
			b.leave(from)
			b.stats.Connections.Add(-1)
		})}, nil
	}
}

func (b *bounded) enter(from netip.Prefix) bool {
	if !b.limits.Unlimited {
		if _, ok := b.rate.take(from, b.now(), 1); !ok {
			return false
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total >= b.limits.Max || !b.limits.Unlimited && b.open[from] >= b.limits.PerAddress {
		return false
	}
	b.total++
	b.open[from]++
	return true
}

func (b *bounded) leave(from netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total--
	if b.open[from]--; b.open[from] == 0 {
		delete(b.open, from)
	}
}

// boundConn gives its place back when it is closed.
type boundConn struct {
	net.Conn
	leave func()
}

func (c *boundConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// NetConn returns the connection below.
func (c *boundConn) NetConn() net.Conn { return c.Conn }
