package access

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFailuresAreLimited: whoever guesses pays with a connection for each
// guess. Neighbours who show what is in force get in.
func TestFailuresAreLimited(t *testing.T) {
	d := openDoor(t, settings{})
	good := d.token("bob", Auditor)
	bad := "x" + good[1:]
	c, certified := d.client(nil), d.client(d.clients.client(nil, "cn:acme"))
	for i := range failureBurst {
		if a := d.get(c, "/", bad); a.status != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d %v", i, a.status, a.err)
		}
	}
	if n := d.stats.Connections.Load(); n != 1 {
		t.Errorf("%d connections for the first guesses", n)
	}
	for name, text := range map[string]string{"guess": bad, "nothing": ""} {
		a := d.get(c, "/", text)
		if s, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != http.StatusTooManyRequests || err != nil || s < 1 || s > 3 {
			t.Errorf("%s behind too many guesses: %d, again in %v", name, a.status, a.header["Retry-After"])
		}
		eventually(t, "its connection is closed", func() bool { return d.stats.Connections.Load() == 0 })
	}
	if a := d.get(c, "/", good); a.status != http.StatusOK {
		t.Errorf("a token that holds, from the same address: %d %s", a.status, a.body)
	}
	if a := d.get(certified, "/", ""); a.status != http.StatusOK {
		t.Errorf("a certificate from the same address: %d %s", a.status, a.body)
	}
	if f, l := d.stats.Failures.Load(), d.stats.Limited.Load(); f != failureBurst+2 || l != 2 {
		t.Errorf("%d failures, %d refused for their number", f, l)
	}
	d.clock.pass(failureEvery)
	for i, want := range []int{http.StatusUnauthorized, http.StatusTooManyRequests} {
		if a := d.get(c, "/", bad); a.status != want {
			t.Errorf("guess %d a while later: %d, want %d", i, a.status, want)
		}
	}
}

// TestRequestsAreLimited for each identity apart, over all its connections.
func TestRequestsAreLimited(t *testing.T) {
	d := openDoor(t, settings{limits: Limits{RequestsPerSecond: 2}})
	alice, bob := d.token("alice", Tenant, ownDomain), d.token("bob", Auditor)
	for i := range 10 {
		if a := d.get(d.client(nil), "/", alice); a.status != http.StatusOK {
			t.Fatalf("request %d: %d", i, a.status)
		}
	}
	if a := d.get(d.client(nil), "/", alice); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, "alice sends too many") {
		t.Errorf("beyond the limit: %d %s %v", a.status, a.body, a.header)
	}
	if a := d.get(d.client(nil), "/", bob); a.status != http.StatusOK {
		t.Errorf("somebody else: %d", a.status)
	}
	d.clock.pass(time.Second)
	for i, want := range []int{200, 200, 429} {
		if a := d.get(d.client(nil), "/", alice); a.status != want {
			t.Errorf("request %d a second later: %d, want %d", i, a.status, want)
		}
	}
	d.clock.pass(time.Second)
	c := d.client(nil)
	for i := range 2*cheapFor + 1 {
		if a := d.get(c, "/cheap", alice); (a.status == http.StatusOK) != (i < 2*cheapFor) {
			t.Fatalf("cheap request %d: %d", i, a.status)
		}
	}
}

// TestExpensive runs as many as may run at once, and one more.
func TestExpensive(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 8)
	d := openDoor(t, settings{limits: Limits{Expensive: 2}, routes: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/expensive/held" {
			entered <- struct{}{}
			<-hold
		}
		if r.URL.Path == "/expensive/fault" {
			panic("fault")
		}
	}})
	alice, bob := d.token("alice", Tenant, ownDomain), d.token("bob", Auditor)
	held := make(chan answer, 2)
	for range 2 {
		c := d.client(nil)
		go func() { held <- d.get(c, "/expensive/held", alice) }()
		<-entered
	}
	c := d.client(nil)
	if a := d.get(c, "/expensive/more", alice); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("one more: %d %s", a.status, a.body)
	}
	if a := d.get(c, "/cheap", alice); a.status != http.StatusOK {
		t.Errorf("a cheap one: %d", a.status)
	}
	if a := d.get(c, "/expensive/more", bob); a.status != http.StatusOK {
		t.Errorf("of another: %d", a.status)
	}
	close(hold)
	for range 2 {
		if a := <-held; a.status != http.StatusOK {
			t.Errorf("held: %d %v", a.status, a.err)
		}
	}
	for range 3 { // a fault gives its place back
		d.get(c, "/expensive/fault", alice)
	}
	if a := d.get(c, "/expensive/more", alice); a.status != http.StatusOK {
		t.Errorf("behind faults: %d", a.status)
	}
	d.guard.mu.Lock()
	defer d.guard.mu.Unlock()
	if len(d.guard.running)+len(d.guard.costly) != 0 {
		t.Errorf("still running: %v %v", d.guard.running, d.guard.costly)
	}
}

// TestExpensiveOfAll fills what all identities may have running together: one that has
// none running gets in until it is full, one that has some only to its half.
func TestExpensiveOfAll(t *testing.T) {
	g := NewGuard(GuardConfig{Limits: Limits{Expensive: 3, ExpensiveAll: 6}})
	reader := func(name string) *Identity { return &Identity{Name: name, Role: Tenant, Address: "192.0.2.1"} }
	local := &Identity{Name: "root", Role: Operator}
	begin := func(who *Identity, want string) {
		t.Helper()
		if why := g.beginCostly(who); (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s with %d of all: %q, want %q", who.Name, g.load, why, want)
		}
	}
	for range 3 {
		begin(reader("a"), "")
	}
	begin(reader("a"), "3 requests of this kind are running for a")
	begin(reader("b"), "")
	begin(reader("b"), "1 requests of this kind are running for b, and as many as may")
	begin(reader("c"), "")
	begin(reader("d"), "")
	begin(reader("e"), "0 requests of this kind are running for e, and as many as may")
	for range 3 {
		begin(local, "")
	}
	begin(local, "3 requests of this kind are running for root")
	g.endCostly(reader("a"))
	begin(reader("e"), "")
	for _, who := range []*Identity{reader("a"), reader("a"), reader("b"), reader("c"), reader("d"), reader("e"), local, local, local} {
		g.endCostly(who)
	}
	if g.load != 0 || len(g.costly) != 0 {
		t.Errorf("left over: %d %v", g.load, g.costly)
	}
	if l := NewGuard(GuardConfig{Limits: Limits{Expensive: 20}}).cfg.Limits; l.ExpensiveAll != 40 {
		t.Errorf("by default %d", l.ExpensiveAll)
	}
}

// TestNarrowedWhileRunning takes a domain away from a token whose live view runs.
func TestNarrowedWhileRunning(t *testing.T) {
	const other = "77777777-2222-4333-8444-555555555555"
	causes := make(chan error, 1)
	d := openDoor(t, settings{routes: func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		select {
		case <-r.Context().Done():
			causes <- context.Cause(r.Context())
		case <-t.Context().Done():
		}
	}})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.address+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+d.token("acme", Tenant, ownDomain, other))
	res, err := d.client(nil).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	d.guard.sweep(t.Context())
	if n := d.stats.Cut.Load(); n != 0 {
		t.Fatalf("%d are cut whose tokens hold", n)
	}
	err = changeTokens(d.file("tokens"), func(all []Token) ([]Token, error) {
		all[0].Domains = []string{other}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.guard.sweep(t.Context())
	if n := d.stats.Cut.Load(); n != 1 {
		t.Fatalf("%d are cut whose token sees less", n)
	}
	if err := <-causes; !errors.Is(err, ErrGone) {
		t.Errorf("it ends for %v", err)
	}
}

// TestRevokedWhileRunning cuts a live view whose token is revoked.
func TestRevokedWhileRunning(t *testing.T) {
	causes := make(chan error, 2)
	d := openDoor(t, settings{routes: func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, From(r.Context()).Name)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	}})
	open := func(text string) *bufio.Reader {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.address+"/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+text)
		res, err := d.client(nil).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		b := bufio.NewReader(res.Body)
		if _, err := b.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		return b
	}
	alice, _ := open(d.token("alice", Auditor)), open(d.token("bob", Auditor))
	d.guard.sweep(t.Context())
	if n := d.stats.Cut.Load(); n != 0 {
		t.Fatalf("%d are cut whose tokens hold", n)
	}
	if _, err := RevokeToken(d.file("tokens"), "alice"); err != nil {
		t.Fatal(err)
	}
	d.guard.sweep(t.Context())
	if err := <-causes; !errors.Is(err, ErrGone) {
		t.Errorf("it ends for %v", err)
	}
	if _, err := alice.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("its reader sees %v", err)
	}
	if n := d.stats.Cut.Load(); n != 1 {
		t.Errorf("%d are cut", n)
	}
	d.clock.pass(2 * time.Hour)
	d.guard.sweep(t.Context())
	if err := <-causes; !errors.Is(err, ErrGone) {
		t.Errorf("the one that expires ends for %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.guard.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestFaults: a fault ends its request and nothing else.
func TestFaults(t *testing.T) {
	d := openDoor(t, settings{routes: func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			fmt.Fprint(w, "half of ")
			panic(errors.New("secret fault"))
		case "/early":
			var m map[string]int
			m["x"] = 1
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	}})
	text := d.token("bob", Auditor)
	c := d.client(nil)
	if a := d.get(c, "/early", text); a.status != http.StatusInternalServerError || strings.Contains(a.body, "map") || !strings.Contains(a.body, "its log says why") {
		t.Errorf("%d %s %v", a.status, a.body, a.err)
	}
	if a := d.get(c, "/late", text); a.err == nil {
		t.Errorf("half an answer looks whole: %d %s", a.status, a.body)
	}
	if a := d.get(c, "/abort", text); a.err == nil {
		t.Errorf("an aborted answer looks whole: %d", a.status)
	}
	if n := d.stats.Panics.Load(); n != 2 {
		t.Errorf("%d faults are counted", n)
	}
	if a := d.get(c, "/fine", text); a.status != http.StatusOK {
		t.Errorf("behind faults: %d %v", a.status, a.err)
	}
}

// TestBrowsers: nothing in an answer helps another site, and its requests
// change nothing.
func TestBrowsers(t *testing.T) {
	d := openDoor(t, settings{routes: func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			}
		}
	}})
	c := d.client(d.clients.client(nil, "cn:acme"))
	request := func(method, body string, header ...string) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+d.address+"/v1/keys/rotate", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return do(c, r)
	}
	for _, a := range []answer{request("GET", ""), request("OPTIONS", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "GET"),
		request("GET", "", "Origin", "https://evil.example"), d.get(d.client(nil), "/", "")} {
		for h, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := a.header.Get(h); got != want {
				t.Errorf("%s is %q", h, got)
			}
		}
		for h := range a.header {
			if strings.HasPrefix(h, "Access-Control-") || h == "Server" || h == "X-Powered-By" {
				t.Errorf("an answer has the header %s", h)
			}
		}
	}
	if a := request("POST", "", "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
		t.Errorf("another site rotates keys: %d", a.status)
	}
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
		if a := request("GET", "", "Sec-Fetch-Site", site); a.status != want {
			t.Errorf("a browser reads, for %s: %d, want %d", site, a.status, want)
		}
	}
	if a := request("POST", "", "Origin", "https://evil.example"); a.status != http.StatusForbidden {
		t.Errorf("another origin rotates keys: %d", a.status)
	}
	if a := request("POST", ""); a.status != http.StatusOK {
		t.Errorf("a program: %d %s %v", a.status, a.body, a.err)
	}
	if a := request("POST", strings.Repeat("x", maxBody+1)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d %v", a.status, a.err)
	}
	if a := request("GET", "", "X", strings.Repeat("x", 64<<10)); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %d %v", a.status, a.err)
	}
}

// TestSlow: clients that send or read next to nothing lose their connection.
func TestSlow(t *testing.T) {
	ends := make(chan error, 1)
	d := openDoor(t, settings{patience: time.Second, routes: func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			_, err := io.Copy(io.Discard, r.Body)
			ends <- err
		case "/answer":
			_, err := io.Copy(w, zeros{})
			ends <- err
		}
	}})
	text := d.token("bob", Auditor)
	send := func(s string) net.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", d.address, d.client(nil).Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, s); err != nil {
			t.Fatal(err)
		}
		return c
	}
	head := " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + text + "\r\n"
	send("POST /body" + head + "Content-Length: 10\r\n\r\nx")
	if err := <-ends; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body that does not come ends with %v", err)
	}
	send("GET /answer" + head + "\r\n")
	if err := <-ends; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer that is not read ends with %v", err)
	}
	send("POST /ignored" + head + "Content-Length: 10\r\n\r\nx") // its body is waited for by nobody but the server
	send("GET /headers" + head)
	eventually(t, "all are gone", func() bool { return d.stats.Connections.Load() == 0 })
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestBucketsAreBounded: addresses cost nothing to who has many.
func TestBucketsAreBounded(t *testing.T) {
	b := newBuckets[netip.Prefix](1, 1)
	now := time.Now()
	first := prefixOf(netip.MustParseAddr("2001:db8::1"))
	if first != prefixOf(netip.MustParseAddr("2001:db8::2")) || first == prefixOf(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("a /64 is not one sender")
	}
	if prefixOf(netip.MustParseAddr("::ffff:192.0.2.1")) != netip.MustParsePrefix("192.0.2.1/32") {
		t.Error("an address has two spellings")
	}
	for i := range 3 * maxKeys {
		var a [16]byte
		a[0], a[4], a[5] = 0x20, byte(i>>8), byte(i)
		a[6] = byte(i >> 16)
		if _, ok := b.take(prefixOf(netip.AddrFrom16(a)), now, 1); !ok {
			t.Fatal("a new address is limited")
		}
		if _, ok := b.take(first, now, 1); ok != (i == 0) {
			t.Fatalf("an address that keeps coming is forgotten at %d", i)
		}
	}
	if len(b.byKey) != maxKeys || b.order.Len() != maxKeys {
		t.Errorf("%d keys are remembered, %d in order", len(b.byKey), b.order.Len())
	}
}

// TestPeers: who is at the other end of a unix socket is what the kernel says.
func TestPeers(t *testing.T) {
	for _, c := range []struct {
		uid, gid uint32
		groups   []uint32
		group    int
		ok       bool
	}{
		{0, 0, nil, -1, true}, {0, 0, nil, 7, true}, {5, 0, nil, -1, false}, {5, 5, nil, 7, false}, {5, 7, nil, 7, true},
		{5, 5, []uint32{1, 7}, 7, true}, {5, 5, []uint32{1, 2}, 7, false}, {5, 5, []uint32{1<<32 - 1}, -1, false}, {5, 1<<32 - 1, nil, -1, false},
	} {
		p := &peer{cred: unix.Ucred{Uid: c.uid, Gid: c.gid, Pid: 9}, groups: c.groups, name: func() string { return "x" }}
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), peerKey{}, p), http.MethodGet, "/", nil)
		who, why := Peers{Group: c.group}.authenticate(r, time.Now())
		if (who != nil) != c.ok || (why == "") != c.ok || c.ok && (who.Role != Operator || who.How != fmt.Sprintf("uid %d, pid 9", c.uid)) {
			t.Errorf("%+v is %+v: %s", c, who, why)
		}
	}
	if who, _ := (Peers{Group: -1}).authenticate(httptest.NewRequest(http.MethodGet, "/", nil), time.Now()); who != nil {
		t.Errorf("without a peer: %+v", who)
	}

	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var stats Stats
	l = Bound(l, Connections{Unlimited: true}, &stats, time.Now)
	seen := make(chan *peer, 1)
	srv := &http.Server{ConnContext: WithPeer, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(peerKey{}).(*peer)
		seen <- p
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.Addr().String())
	}}}
	res, err := c.Get("http://x/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p := <-seen
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if p == nil || int(p.cred.Uid) != os.Geteuid() || int(p.cred.Gid) != os.Getegid() || int(p.cred.Pid) != os.Getpid() || len(p.groups) != len(groups) || p.name() == "" {
		t.Errorf("the kernel says %+v, groups %v", p, groups)
	}
	c.CloseIdleConnections()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-done
}
