package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/access"
)

// servers are the daemon's listeners.
type servers struct {
	all   []server
	guard *access.Guard
}

type server struct {
	http     *http.Server
	listener net.Listener
}

// reloader is something that is read from files.
type reloader interface {
	Reload(ctx context.Context) error
}

// listen opens the listeners, so that a port in use, or a certificate that
// cannot be used, is an error of the start.
func (d *Daemon) listen() (_ *servers, err error) {
	s := &servers{guard: access.NewGuard(access.GuardConfig{
		Limits: access.Limits{RequestsPerSecond: d.cfg.API.RequestsPerSecond, Expensive: d.cfg.API.ExpensiveRequests, ExpensiveAll: d.cfg.API.ExpensiveRequestsAll,
			Running: (d.cfg.API.Connections + 3) / 4}, // as Connections.PerAddress; 0: the default
		Expensive: expensive, Cheap: cheap, Body: api.Body, Stats: d.door, Log: d.log, Now: time.Now,
	})}
	defer func() {
		if err != nil {
			for _, v := range s.all {
				err = errors.Join(err, v.listener.Close())
			}
		}
	}()
	routes := d.routes()
	group, err := groupID(d.cfg.API.Group)
	if err != nil {
		return nil, err
	}
	control, err := controlSocket(d.cfg.API.Socket, group)
	if err != nil {
		return nil, err
	}
	server := d.harden(s.guard.Wrap(routes, access.Peers{Group: group}))
	server.ConnContext = access.WithPeer
	s.add(server, d.bound(control, access.Connections{Unlimited: true}))
	if d.cfg.API.Listen != "off" {
		l, err := net.Listen("tcp", d.cfg.API.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w; setting api.listen names another address, or \"off\"", d.cfg.API.Listen, err)
		}
		s.add(d.harden(s.guard.Contain(localNames(d.public()))), d.bound(l, access.Connections{PerSecond: 1000})) // there is no handshake
	}
	if len(d.cfg.Listeners) == 0 {
		return s, nil
	}
	tokens, err := access.OpenTokens(d.cfg.API.Tokens, d.log, d.door)
	if err != nil {
		return nil, err
	}
	d.reloads = append(d.reloads, tokens)
	for _, c := range d.cfg.Listeners {
		if err := d.listenTLS(s, &c, tokens, routes); err != nil {
			return nil, fmt.Errorf("listener %s: %w", c.Address, err)
		}
	}
	return s, nil
}

func (s *servers) add(h *http.Server, l net.Listener) { s.all = append(s.all, server{h, l}) }

func (c *ListenerConfig) files() access.TLSFiles {
	return access.TLSFiles{Certificate: c.Certificate, Key: c.Key, ClientCA: c.ClientCA, ClientCRLs: c.ClientCRL, Optional: c.Tokens}
}

// CheckListeners reads what listeners need, so that a certificate or a file of
// tokens that cannot be used is found before a start.
func CheckListeners(c *Config) error {
	if len(c.Listeners) == 0 {
		return nil
	}
	nobody := slog.New(slog.DiscardHandler)
	_, err := access.OpenTokens(c.API.Tokens, nobody, &access.Stats{})
	for i := range c.Listeners {
		files, e := access.OpenTLS(c.Listeners[i].files(), nobody, &access.Stats{}, time.Now)
		if e == nil {
			e = files.Fresh()
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("listener %s: %w", c.Listeners[i].Address, e))
		}
	}
	return err
}

// listenTLS adds a listener for others than this host.
func (d *Daemon) listenTLS(s *servers, c *ListenerConfig, tokens *access.Tokens, routes http.Handler) error {
	files, err := access.OpenTLS(c.files(), d.log, d.door, time.Now)
	if err != nil {
		return err
	}
	d.reloads = append(d.reloads, files)
	from := &access.Remote{TLS: files, Identities: d.cfg.identities()}
	if c.Tokens {
		from.Tokens = tokens
	}
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return fmt.Errorf("listen: %w; the label of the block names another address", err)
	}
	server := d.harden(s.guard.Wrap(routes, from))
	server.ConnContext = access.WithConn
	s.add(server, tls.NewListener(d.bound(l, access.Connections{Yield: true}), files.Config()))
	return nil
}

// routes are what every listener with identities serves.
func (d *Daemon) routes() http.Handler {
	s := &api.Service{Store: d.store, Index: d.index, Log: d.log, Discloser: d.sealer, Secret: d.keys.Secret("api tokens"),
		Status: d.status, Enroll: d.enroll, StopAgent: d.stopAgent, Rotate: d.rotate, Backup: d.backup, ExportShard: d.exportShard, DropShard: d.dropShard,
		Policies: d.activePolicies, PolicyText: d.policyText, ApplyPolicies: d.applyPolicies, ReplayPolicies: d.replayPolicies, RollBack: d.rollBack, Find: d.find, Name: d.name, Release: d.release,
		Approvals: approver{d}}
	s.Alerts, s.TestAlert = d.alertStatus, d.testAlert
	return s.Handler()
}

// public is what everybody on this host may read.
func (d *Daemon) public() http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{}))
	m.Handle("/logs/", api.Tiles(d.store, d.log))
	return m
}

// expensive tells the requests that may take long.
func expensive(r *http.Request) bool {
	switch p := r.URL.Path; p {
	case "/v1/export", "/v1/query", "/v1/lineage", "/v1/policies/apply", "/v1/policies/replay":
		return true
	default:
		return strings.HasSuffix(p, "/chain") || strings.HasSuffix(p, "/window")
	}
}

// cheap tells the requests for tiles, of which whoever verifies a log sends very
// many. The first payloads of a log are none of them: their disclosure is sealed.
func cheap(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/logs/") && !strings.Contains(r.URL.Path, "/tile/openings/000")
}

// localNames refuses requests for a name that is not this host's own: a web
// page whose name was made to point here must not read along.
func localNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			http.Error(w, "this listener is for this host; ask for it by a loopback address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d *Daemon) bound(l net.Listener, c access.Connections) net.Listener {
	c.Max = d.cfg.API.Connections
	return access.Bound(l, c, d.door, time.Now)
}

// harden bounds what a slow or hostile client may cost. Answers have deadlines
// that their routes move on, and there is no HTTP/2: what one connection can
// have running is one request.
func (d *Daemon) harden(h http.Handler) *http.Server {
	one := &http.Protocols{}
	one.SetHTTP1(true)
	return &http.Server{Handler: h, Protocols: one, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(brokenConnections{d.log.Handler(), d.door}, slog.LevelDebug)}
}

// brokenConnections takes what a server has to say of connections that ended in
// an error: it counts them, and logs them where that much is wanted.
type brokenConnections struct {
	slog.Handler
	stats *access.Stats
}

func (brokenConnections) Enabled(context.Context, slog.Level) bool { return true }

func (h brokenConnections) Handle(ctx context.Context, r slog.Record) error {
	h.stats.Broken.Add(1)
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// groupID finds a group by its name; the empty one is none.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("setting api.group: %w; groupadd makes one: %w", err, record.ErrReject)
	}
	return strconv.Atoi(g.Gid)
}

// controlSocket listens on a unix socket that only root and one group (below 0:
// none) may use. A socket that an earlier daemon left behind is replaced, one
// that is answered on is not.
func controlSocket(path string, group int) (_ net.Listener, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listen on %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another provostd answers there; stop it, or set api.socket: %w", record.ErrReject)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	mode := os.FileMode(0o600)
	if group >= 0 {
		if err := os.Chown(path, -1, group); err != nil {
			return nil, errors.Join(fmt.Errorf("give it to the group of api.group: %w; under systemd, name the group in SupplementaryGroups of the unit", err), l.Close())
		}
		mode = 0o660
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// run serves until ctx ends; live views are cut off, other requests end.
func (s *servers) run(ctx context.Context) error {
	own, cancel := context.WithCancel(ctx)
	guarded := make(chan error, 1)
	go func() { guarded <- s.guard.Run(own) }()
	failed := make(chan error, len(s.all))
	for _, v := range s.all {
		v.http.BaseContext = func(net.Listener) context.Context { return ctx }
		go func() { failed <- v.http.Serve(v.listener) }()
	}
	var err error
	pending := len(s.all)
	select {
	case <-ctx.Done():
	case err = <-failed:
		pending--
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	for _, v := range s.all {
		if e := v.http.Shutdown(grace); e != nil {
			e = v.http.Close()
			err = errors.Join(err, e)
		}
	}
	for range pending {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	cancel()
	return errors.Join(err, <-guarded)
}

// Reload reads certificates, CAs and tokens anew, as each request and handshake
// does by itself, the configured policies and the approver groups of the configuration. What
// cannot be used is logged, told, and leaves what was in force.
func (d *Daemon) Reload(ctx context.Context) error {
	err := d.reloadPolicies(ctx)
	if err != nil {
		d.log.ErrorContext(ctx, "policies are not read anew; those in force stay", "error", err)
	}
	for _, r := range d.reloads {
		err = errors.Join(err, r.Reload(ctx))
	}
	return err
}
