package access

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxKeys bounds how many addresses or identities are remembered.
const maxKeys = 4096

// buckets limits how often something happens, for each key apart. It remembers
// the maxKeys keys that came last: who comes from more addresses than that gets
// a fresh bucket each time, and costs no memory.
type buckets[K comparable] struct {
	per   rate.Limit
	burst int

	mu    sync.Mutex
	order *list.List // of *bucket[K], the newest in front
	byKey map[K]*list.Element
}

type bucket[K comparable] struct {
	key   K
	limit *rate.Limiter
}

func newBuckets[K comparable](per rate.Limit, burst int) *buckets[K] {
	return &buckets[K]{per: per, burst: burst, order: list.New(), byKey: map[K]*list.Element{}}
}

func (b *buckets[K]) of(k K) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byKey[k]; ok {
		b.order.MoveToFront(e)
		return e.Value.(*bucket[K]).limit
	}
	if len(b.byKey) >= maxKeys {
		oldest := b.order.Remove(b.order.Back()).(*bucket[K])
		delete(b.byKey, oldest.key)
	}
	v := &bucket[K]{key: k, limit: rate.NewLimiter(b.per, b.burst)}
	b.byKey[k] = b.order.PushFront(v)
	return v.limit
}

// take takes n from the bucket of k. Where there are not as many, nothing is
// taken, and wait says when there are.
func (b *buckets[K]) take(k K, now time.Time, n int) (wait time.Duration, ok bool) {
	l := b.of(k)
	if l.AllowN(now, n) {
		return 0, true
	}
	return b.until(l, now, n), false
}

func (b *buckets[K]) until(l *rate.Limiter, now time.Time, n int) time.Duration {
	return time.Duration((float64(n) - l.TokensAt(now)) / float64(b.per) * float64(time.Second))
}

// origin is what is counted as one sender of the unknown: an IPv4 address, or
// the /64 that one customer has of IPv6.
func origin(a net.Addr) netip.Prefix {
	if a == nil {
		return netip.Prefix{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{} // all that have no address together
	}
	return prefixOf(ap.Addr())
}

func prefixOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
