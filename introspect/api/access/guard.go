package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/provostd/provost/introspect/api/client"
)

// DefaultExpensive is the default of Limits.Expensive.
const DefaultExpensive = 4

// Limits bound what one identity may ask for. Zero means the default.
type Limits struct {
	// RequestsPerSecond is what an identity may send over TLS, sustained, and
	// five times that at once; of cheap requests cheapFor for one. Default 20.
	RequestsPerSecond float64
	// Expensive is how many expensive requests of an identity run at once.
	// Default DefaultExpensive.
	Expensive int
	// ExpensiveAll is how many run at once over TLS of all identities together,
	// and at least twice Expensive. Of its second half each identity has one: few
	// cannot keep all others out. Default 32, or twice Expensive where that is more.
	ExpensiveAll int
	// Running is how many requests of any kind an identity may have answered at
	// once over TLS. Default 64, a quarter of the connections of a listener: who
	// reads slowly holds a connection with each.
	Running int
}

// cheapFor is how many cheap requests count as one. Who verifies a log reads
// some tiles for each 256 entries of it.
const cheapFor = 32

// Failures of one address: so many at once, and one more every so often.
const (
	failureBurst = 20
	failureEvery = 3 * time.Second
)

const (
	// bodyTimeout ends the reading of a body, which few routes need.
	bodyTimeout = 10 * time.Second
	// answerTimeout ends an answer whose route sets no deadline of its own.
	answerTimeout = time.Minute
	maxBody       = 64 << 10
)

// GuardConfig is what a Guard needs.
type GuardConfig struct {
	Limits    Limits
	Expensive func(*http.Request) bool // nil: none is
	Cheap     func(*http.Request) bool // nil: none is
	// Body returns how long a body a request may have and how long its reading may
	// take, beyond what all may; nil: none is.
	Body  func(*http.Request) (int64, time.Duration)
	Stats *Stats
	Log   *slog.Logger
	Now   func() time.Time

	private struct { // for tests
		body, answer time.Duration
	}
}

// Guard stands in front of the routes of all listeners: it finds out who sends
// a request, bounds how much that is, and ends what no longer may go on. It is
// safe for concurrent use.
type Guard struct {
	cfg      GuardConfig
	failures *buckets[netip.Prefix]
	requests *buckets[string]

	mu      sync.Mutex
	running map[string]int // requests over TLS, by identity
	costly  map[string]int // expensive requests likewise, and of the control socket
	load    int            // of these, those over TLS
	active  map[*active]bool
}

// active is a request that is being answered.
type active struct {
	r      *http.Request
	who    *Identity
	from   Authenticator
	began  time.Time
	cancel context.CancelCauseFunc
}

// Authenticator finds out who sends a request, from its transport: Peers or
// Remote. Where nobody can be told, it says why, for the daemon's log only.
type Authenticator interface {
	authenticate(r *http.Request, now time.Time) (who *Identity, why string)
}

var (
	_ Authenticator = Peers{}
	_ Authenticator = (*Remote)(nil)
)

// NewGuard returns a guard. Run has to run for it to end requests.
func NewGuard(cfg GuardConfig) *Guard {
	if cfg.Limits.RequestsPerSecond <= 0 {
		cfg.Limits.RequestsPerSecond = 20
	}
	if cfg.Limits.Expensive <= 0 {
		cfg.Limits.Expensive = DefaultExpensive
	}
	if cfg.Limits.ExpensiveAll <= 0 {
		cfg.Limits.ExpensiveAll = max(32, 2*cfg.Limits.Expensive)
	}
	if cfg.Limits.Running <= 0 {
		cfg.Limits.Running = 64
	}
	if cfg.Expensive == nil {
		cfg.Expensive = func(*http.Request) bool { return false }
	}
	if cfg.Cheap == nil {
		cfg.Cheap = func(*http.Request) bool { return false }
	}
	if cfg.private.body == 0 {
		cfg.private.body = bodyTimeout
	}
	if cfg.private.answer == 0 {
		cfg.private.answer = answerTimeout
	}
	per := cfg.Limits.RequestsPerSecond
	return &Guard{cfg: cfg,
		failures: newBuckets[netip.Prefix](rate.Every(failureEvery), failureBurst),
		requests: newBuckets[string](rate.Limit(cheapFor*per), cheapFor*int(math.Ceil(5*per))),
		running:  map[string]int{}, costly: map[string]int{}, active: map[*active]bool{},
	}
}

// Wrap returns next behind the guard, with identities of one listener.
func (g *Guard) Wrap(next http.Handler, from Authenticator) http.Handler {
	// Certificates are sent by browsers unasked: what another site has them
	// send changes nothing here. That includes reading: each payload that is given
	// is sealed, in the name of who was given it.
	sites := http.NewCrossOriginProtection()
	return g.Contain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if foreign(r) || sites.Check(r) != nil {
			w.Header().Set("Connection", "close")
			problem(w, &client.Problem{Status: http.StatusForbidden, Detail: "a browser sends this request for another site"})
			return
		}
		who, p := g.admit(w, r, from)
		if p != nil {
			problem(w, p)
			return
		}
		g.cfg.Stats.Requests.Add(1)
		if who.Address != "" {
			if !g.begin(g.running, who.key(), g.cfg.Limits.Running) {
				g.busy(w, fmt.Sprintf("%d requests are running for %s", g.cfg.Limits.Running, who.Name))
				return
			}
			defer g.end(g.running, who.key())
			defer occupy(r.Context())()
		}
		if g.cfg.Expensive(r) {
			why := g.beginCostly(who)
			if why != "" {
				g.busy(w, why)
				return
			}
			defer g.endCostly(who)
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		a := &active{r: r, who: who, from: from, began: g.cfg.Now(), cancel: cancel}
		g.enter(a)
		defer g.leave(a)
		next.ServeHTTP(w, r.WithContext(With(ctx, who)))
	}))
}

// foreign reports whether a browser says that another site has it send a request.
// One that a person typed in, or that is no browser's, says none or nothing.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "none" && site != "same-origin"
}

// admit finds out who sends a request, or why it is refused.
func (g *Guard) admit(w http.ResponseWriter, r *http.Request, from Authenticator) (*Identity, *client.Problem) {
	now := g.cfg.Now()
	who, why := from.authenticate(r, now)
	address := remoteOrigin(r)
	if who == nil {
		g.cfg.Stats.Failures.Add(1)
		if wait, ok := g.failures.take(address, now, 1); !ok {
			// From here on each guess costs a connection, and these are limited.
			// Whoever shows what is in force gets in: neighbours behind one address
			// cannot lock each other out.
			g.cfg.Stats.Limited.Add(1)
			w.Header().Set("Connection", "close")
			return nil, tooMany(w, wait, "too many requests from this address did not show who sends them")
		}
		g.cfg.Log.InfoContext(r.Context(), "a request is refused: nobody is known to send it", "address", r.RemoteAddr, "reason", why)
		w.Header().Set("WWW-Authenticate", "Bearer")
		return nil, &client.Problem{Status: http.StatusUnauthorized, Detail: "nobody is known to send this request",
			Hint: "show a client certificate or a bearer token that is in force here"}
	}
	if _, local := from.(Peers); local {
		return who, nil // they may stop the daemon: their number is their own affair
	}
	one := *who
	one.Address = address.Addr().String()
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		one.Address = ap.Addr().Unmap().String()
	}
	cost := cheapFor
	if g.cfg.Cheap(r) {
		cost = 1
	}
	if wait, ok := g.requests.take(one.key(), now, cost); !ok {
		g.cfg.Stats.Limited.Add(1)
		return nil, tooMany(w, wait, one.Name+" sends too many requests")
	}
	return &one, nil
}

func remoteOrigin(r *http.Request) netip.Prefix {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	return prefixOf(ap.Addr())
}

func tooMany(w http.ResponseWriter, wait time.Duration, detail string) *client.Problem {
	s := strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
	w.Header().Set("Retry-After", s)
	return &client.Problem{Status: http.StatusTooManyRequests, Detail: detail, Hint: "try again in " + s + " s"}
}

// busy refuses a request because as many are being answered as may be.
func (g *Guard) busy(w http.ResponseWriter, detail string) {
	g.cfg.Stats.Busy.Add(1)
	w.Header().Set("Retry-After", "1")
	problem(w, &client.Problem{Status: http.StatusTooManyRequests, Detail: detail, Hint: "wait for one of them to end"})
}

// begin counts one more request of an identity in, up to a limit.
func (g *Guard) begin(count map[string]int, who string, limit int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if count[who] >= limit {
		return false
	}
	count[who]++
	return true
}

// beginCostly counts one more expensive request in, or says why not. Those of the
// host's own socket have their own limit only: readers cannot keep the host's
// operators out.
func (g *Guard) beginCostly(who *Identity) (why string) {
	l := &g.cfg.Limits
	g.mu.Lock()
	defer g.mu.Unlock()
	switch own := g.costly[who.key()]; {
	case own >= l.Expensive:
		return fmt.Sprintf("%d requests of this kind are running for %s", own, who.Name)
	case who.Address == "":
	case g.load >= l.ExpensiveAll, own > 0 && g.load >= l.ExpensiveAll/2:
		return fmt.Sprintf("%d requests of this kind are running for %s, and as many as may for all readers together", own, who.Name)
	default:
		g.load++
	}
	g.costly[who.key()]++
	return ""
}

func (g *Guard) endCostly(who *Identity) {
	g.end(g.costly, who.key())
	if who.Address != "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.load--
	}
}

func (g *Guard) end(count map[string]int, who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if count[who]--; count[who] == 0 {
		delete(count, who)
	}
}

func (g *Guard) enter(a *active) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active[a] = true
}

func (g *Guard) leave(a *active) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.active, a)
}

// recheck is how often those that are being answered are asked for again.
const recheck = 2 * time.Second

// ErrGone is why a request is ended whose sender would not be let in again.
var ErrGone = errors.New("the token or certificate of this request is not in force any more")

// Run ends requests whose token or certificate is revoked, expires or is given
// other domains while they run, such as live views, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.sweep(ctx)
		}
	}
}

func (g *Guard) sweep(ctx context.Context) {
	now := g.cfg.Now()
	g.mu.Lock()
	all := make([]*active, 0, len(g.active))
	for a := range g.active {
		all = append(all, a)
	}
	g.mu.Unlock()
	for _, a := range all {
		who, why := a.from.authenticate(a.r, now)
		if who != nil && (who.Role != a.who.Role || !slices.Equal(who.Domains, a.who.Domains)) {
			who, why = nil, "its role or its domains are others now"
		}
		if who == nil {
			g.cfg.Stats.Cut.Add(1)
			g.cfg.Log.InfoContext(ctx, "a request is ended", "address", a.r.RemoteAddr, "path", a.r.URL.Path, "reason", why)
			a.cancel(ErrGone)
		}
	}
}

// Contain returns next with headers that keep browsers from doing anything with
// answers, with bounds for bodies, and with faults of ours contained: they end
// their request, and are logged and counted.
func (g *Guard) Contain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store") // routes say so where it is otherwise
		// Best effort: a writer without deadlines has none.
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(g.cfg.private.answer))
		if r.ContentLength != 0 {
			limit, patience := int64(maxBody), g.cfg.private.body
			if g.cfg.Body != nil {
				if n, d := g.cfg.Body(r); n > limit {
					limit, patience = n, d
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			r.Body = http.MaxBytesReader(w, r.Body, limit)
		}
		s := &started{ResponseWriter: w}
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if fault == http.ErrAbortHandler { //nolint:errorlint // a sentinel that is panicked with
				panic(fault)
			}
			g.cfg.Stats.Panics.Add(1)
			g.cfg.Log.ErrorContext(r.Context(), "fault in a request", "path", r.URL.Path, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
			if s.begun {
				panic(http.ErrAbortHandler) // a cut answer must not look whole
			}
			h.Set("Connection", "close")
			problem(w, &client.Problem{Status: http.StatusInternalServerError, Detail: "the daemon could not answer; its log says why"})
		}()
		next.ServeHTTP(s, r)
	})
}

// started tells whether an answer has begun.
type started struct {
	http.ResponseWriter
	begun bool
}

func (s *started) WriteHeader(code int) {
	s.begun = true
	s.ResponseWriter.WriteHeader(code)
}

func (s *started) Write(b []byte) (int, error) {
	s.begun = true
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *started) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// problem answers with an error.
func problem(w http.ResponseWriter, p *client.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone if this fails
}
