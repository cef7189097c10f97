package egress

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// ledger keeps what is sealed.
type ledger struct {
	mu   sync.Mutex
	all  []string // class, reason
	last map[record.Class]*record.Event
	more chan struct{}
}

func (l *ledger) seal(_ context.Context, id domain.UUID, c record.Class, all []*record.Event) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id != vm {
		return false, errors.New("sealed for another domain")
	}
	for _, e := range all {
		l.all = append(l.all, c.String()+" "+e.Reason)
		l.last[c] = e
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return true, nil
}

// wait returns the first entry from number n on that holds a text, and its number.
func (l *ledger) wait(t *testing.T, n int, text string) (string, int) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		for i := n; i < len(l.all); i++ {
			if strings.Contains(l.all[i], text) {
				defer l.mu.Unlock()
				return l.all[i], i
			}
		}
		have := strings.Join(l.all, "\n")
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-limit:
			t.Fatalf("nothing sealed says %q; there is:\n%s", text, have)
		}
	}
}

// direct runs a director over one domain with one tap.
func direct(t *testing.T, l *lan, read func() (*Guarded, error), resolvers ...netip.Addr) (*Director, *ledger) {
	t.Helper()
	book := &ledger{last: map[record.Class]*record.Event{}, more: make(chan struct{}, 1)}
	var d *Director
	g, err := New(Config{Dir: bpffs(t), Resolvers: resolvers, Log: slog.New(slog.DiscardHandler), Sink: func(dev Device, e *Event) { d.Hear(dev, e) }})
	if err != nil {
		t.Fatal(err)
	}
	d = NewDirector(DirectorConfig{Guard: g, Log: slog.New(slog.DiscardHandler), Seal: book.seal,
		Running: func() []domain.UUID { return []domain.UUID{vm} },
		Read:    func(context.Context, domain.UUID) (*Guarded, error) { return read() }})
	d.passEvery, d.sumEvery = time.Hour, 100*time.Millisecond // what comes is heard of
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, g.Close()); err != nil {
			t.Error(err)
		}
	})
	d.Kick()
	return d, book
}

// TestDirector: what is denied is sealed with its address, policy and prefix; another
// list comes in force when told; a tap that is made anew is guarded without being told.
func TestDirector(t *testing.T) {
	l := newLAN(t)
	var mu sync.Mutex
	policies := []Policy{external()}
	d, book := direct(t, l, func() (*Guarded, error) {
		mu.Lock()
		defer mu.Unlock()
		return &Guarded{ID: vm, Devices: []Device{{Domain: vm, Name: l.name, MAC: guestMAC}}, Policies: policies}, nil
	})
	book.wait(t, 0, "vm.guard the packet filter on "+l.name+" filters by egress_allowlist")
	if got := l.send(tcp4(denied4, 80)); len(got) != 0 {
		t.Error("a denied frame leaves")
	}
	said, n := book.wait(t, 0, "network.drop denied on "+l.name+": list by egress_allowlist (0.0.0.0/0)")
	book.mu.Lock()
	e := book.last[record.ClassNetworkDrop].Network
	book.mu.Unlock()
	if a, _ := netip.AddrFromSlice(e.DestinationIp); a != denied4 || e.DestinationPort != 80 || e.Protocol != "tcp" || e.Family != 4 || e.Direction != "egress" {
		t.Errorf("%s: sealed %v", said, e)
	}
	for range 5 {
		l.send(tcp4(denied4, 80))
	}
	_, n = book.wait(t, n+1, "list, tried again")
	mu.Lock()
	policies = []Policy{{Name: "other", Enforce: true, Deny: []Entry{{Prefix: netip.PrefixFrom(allowed4, 32)}}}}
	mu.Unlock()
	d.Kick()
	_, n = book.wait(t, n, "filters by other")
	if l.send(tcp4(denied4, 80)); len(l.send(tcp4(allowed4, 80))) != 0 {
		t.Error("what another policy denies leaves")
	}
	if err := l.tap.Close(); err != nil {
		t.Fatal(err)
	}
	l.open()
	l.join()
	book.wait(t, n+1, "filters by other")
	if len(l.send(tcp4(allowed4, 80))) != 0 {
		t.Error("a tap that was made anew is open")
	}
}

// TestDirectorFails: a domain that cannot be guarded is sealed as such once, and
// again when it is.
func TestDirectorFails(t *testing.T) {
	l := newLAN(t)
	var mu sync.Mutex
	untapped := []string{"52:54:00:00:00:09 of kind direct"}
	d, book := direct(t, l, func() (*Guarded, error) {
		mu.Lock()
		defer mu.Unlock()
		return &Guarded{ID: vm, Devices: []Device{{Domain: vm, Name: l.name}}, Untapped: untapped, Policies: []Policy{external()}}, nil
	})
	_, n := book.wait(t, 0, "not guarded: interface 52:54:00:00:00:09 of kind direct has no tap device")
	if len(l.send(tcp4(denied4, 80))) != 0 {
		t.Error("its other interface is open")
	}
	if d.Stats().Failing.Load() != 1 {
		t.Error("it does not count as failing")
	}
	mu.Lock()
	untapped = nil
	mu.Unlock()
	d.Kick()
	book.wait(t, n+1, "guarded as the policies ask for")
}

// TestFlood: a guest that is denied very many flows has a bounded number of entries,
// and the rest of it as numbers.
func TestFlood(t *testing.T) {
	book := &ledger{last: map[record.Class]*record.Event{}, more: make(chan struct{}, 1)}
	g := newGuard(t, bpffs(t), nil, false)
	l := newLAN(t)
	l.guard(g, table(t, external()))
	d := NewDirector(DirectorConfig{Guard: g, Log: slog.New(slog.DiscardHandler), Seal: book.seal})
	dev := g.Devices()[0]
	for i := range 3 * dropsEach {
		e := &Event{Kind: Denied, Reason: 1, Flow: Flow{Family: 4, Protocol: 6, Local: guest4, Remote: denied4, RemotePort: uint16(i)}}
		if err := d.hear(t.Context(), told{dev, e}); err != nil {
			t.Fatal(err)
		}
	}
	for range eventRoom + 7 {
		d.Hear(dev, &Event{Kind: Out})
	}
	if err := d.sum(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(book.all) != dropsEach+2 { // those, their sum, and what was lost
		t.Errorf("%d entries are sealed, want %d", len(book.all), dropsEach+2)
	}
	book.wait(t, 0, "400 packets more were denied")
	book.wait(t, 0, "of all taps together 7 were lost on the way")
}
