package access

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// TestConnections fills a listener.
func TestConnections(t *testing.T) {
	d := openDoor(t, settings{connections: Connections{Max: 8, PerAddress: 3, PerSecond: 1}})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	closed := func(c net.Conn) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one too many is not closed: %d %v", n, err)
		}
	}
	var open []net.Conn
	for range 3 {
		open = append(open, dial())
	}
	eventually(t, "three connections", func() bool { return d.stats.Connections.Load() == 3 })
	closed(dial())
	open[0].Close()
	eventually(t, "one less", func() bool { return d.stats.Connections.Load() == 2 })
	dial()
	eventually(t, "one more", func() bool { return d.stats.Connections.Load() == 3 })
	if n := d.stats.Refused.Load(); n != 1 {
		t.Errorf("%d are refused", n)
	}
	// Five of a burst of ten are used.
	open[1].Close()
	eventually(t, "room", func() bool { return d.stats.Connections.Load() == 2 })
	for range 5 {
		c := dial()
		eventually(t, "one more", func() bool { return d.stats.Connections.Load() == 3 })
		c.Close()
		eventually(t, "one less", func() bool { return d.stats.Connections.Load() == 2 })
	}
	closed(dial())
	d.clock.pass(time.Second)
	dial()
	eventually(t, "one a second", func() bool { return d.stats.Connections.Load() == 3 })
}

// TestBoundTotal holds the total, whatever the addresses.
func TestBoundTotal(t *testing.T) {
	b := Bound(nil, Connections{Max: 5, PerAddress: 2, PerSecond: 1000}, &Stats{}, time.Now).(*bounded)
	var open []*boundConn
	enter := func(i int) bool {
		c := &boundConn{b: b, from: prefixOf(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))}
		instead, ok := b.enter(c)
		if instead != nil {
			t.Error("a connection has to go that need not yield")
		}
		open = append(open, c)
		return ok
	}
	for i := range 5 {
		if !enter(i) {
			t.Fatalf("connection %d is refused", i)
		}
	}
	if enter(9) {
		t.Error("one too many is taken")
	}
	b.drop(open[0])
	if !enter(1) || enter(1) {
		t.Error("a place that is free is not given, or given twice")
	}
	for _, c := range open { // those that were closed or refused too: once is all
		b.drop(c)
	}
	if b.total != 0 || len(b.open) != 0 || b.idle.Len() != 0 {
		t.Errorf("left are %d, %v, %d at rest", b.total, b.open, b.idle.Len())
	}
}

// TestStrangersYield: whoever has many addresses and shows nothing, or shows
// something and then rests, holds no place that somebody else wants.
func TestStrangersYield(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	d := openDoor(t, settings{connections: Connections{Max: 4, PerAddress: 8, Yield: true}, routes: func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			entered <- struct{}{}
			<-hold
		}
	}})
	alice, bob := d.token("alice", Tenant, ownDomain), d.token("bob", Auditor)
	held := make(chan answer, 1)
	go func() { held <- d.get(d.client(nil), "/held", alice) }()
	<-entered
	rested := d.client(nil)
	if a := d.get(rested, "/", alice); a.status != http.StatusOK {
		t.Fatalf("alice rests: %d %v", a.status, a.err)
	}
	for i := range 6 {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		eventually(t, "a stranger is let in", func() bool { return d.stats.Connections.Load() == int64(min(3+i, 4)) })
	}
	eventually(t, "four of the six places are taken from others", func() bool { return d.stats.Refused.Load() == 4 })
	for name, token := range map[string]string{"somebody new": bob, "who rested": alice} {
		if a := d.get(d.client(nil), "/", token); a.status != http.StatusOK {
			t.Errorf("%s, among strangers: %d %v", name, a.status, a.err)
		}
	}
	close(hold)
	if a := <-held; a.status != http.StatusOK {
		t.Errorf("a request that was being answered: %d %v", a.status, a.err)
	}
}

// TestRunningAtOnce: one identity cannot hold all connections with answers that
// it does not read, from however many addresses.
func TestRunningAtOnce(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 2)
	d := openDoor(t, settings{limits: Limits{Running: 2}, routes: func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			entered <- struct{}{}
			<-hold
		}
	}})
	alice, bob := d.token("alice", Tenant, ownDomain), d.token("bob", Auditor)
	held := make(chan answer, 2)
	for range 2 {
		c := d.client(nil)
		go func() { held <- d.get(c, "/held", alice) }()
		<-entered
	}
	if a := d.get(d.client(nil), "/", alice); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "2 requests are running for alice") {
		t.Errorf("one more: %d %s", a.status, a.body)
	}
	if a := d.get(d.client(nil), "/", bob); a.status != http.StatusOK {
		t.Errorf("of another: %d", a.status)
	}
	close(hold)
	for range 2 {
		if a := <-held; a.status != http.StatusOK {
			t.Errorf("held: %d %v", a.status, a.err)
		}
	}
	if a := d.get(d.client(nil), "/", alice); a.status != http.StatusOK {
		t.Errorf("behind them: %d %s", a.status, a.body)
	}
}
