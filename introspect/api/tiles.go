package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"filippo.io/torchwood"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// logsPrefix is where logs are served.
const logsPrefix = "/logs/"

// Cache headers: a checkpoint is replaced, a tile never changes.
const (
	cacheNever   = "no-store"
	cacheForever = "max-age=31536000, immutable"
	cachePublic  = "public, "  // by anybody on the way
	cachePrivate = "private, " // by who asked
)

// tiles serves the logs of a store as c2sp.org/tlog-tiles.
type tiles struct {
	store *chain.Store
	log   *slog.Logger
	sees  func(*chain.Log) bool
	cache string
	// disclose has sealed that a payload is given; nil: none is that would have to be.
	disclose func(access.Disclosure) error
}

// Tiles returns the handler of the store's logs, to be mounted at /logs/:
//
//	/logs/                                      JSON list of the logs
//	/logs/<origin>/checkpoint                   newest published checkpoint
//	/logs/<origin>/tile/<level>/<index>[.p/<w>]  tile of hashes
//	/logs/<origin>/tile/entries/<index>[.p/<w>]  entry bundle: the leaves
//	/logs/<origin>/tile/openings/<index>[.p/<w>] opening bundle: keys, signatures and checkpoints
//
// An origin stands in the path as it is, or with its slashes escaped. The
// prefix /logs/<origin>/ is what stock tools take as the URL of a log.
// Other payloads are not served here. log may be nil.
func Tiles(store *chain.Store, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &tiles{store: store, log: log, sees: func(*chain.Log) bool { return true }, cache: cachePublic}
}

// tiles serves the logs that the caller sees.
func (s *Service) tiles(c *call) error {
	(&tiles{store: s.Store, log: s.Log, sees: c.sees, cache: cachePrivate, disclose: c.disclose}).ServeHTTP(c.w, c.r)
	return nil
}

// TilesPath returns where a log is served: what follows the scheme and host in
// the URL that stock tools take.
func TilesPath(l *chain.Log) string { return logsPrefix + l.Origin() + "/" }

// ServeHTTP implements http.Handler.
func (t *tiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeProblem(w, &client.Problem{Status: http.StatusMethodNotAllowed, Detail: "a log can only be read"})
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, logsPrefix)
	if !ok || len(rest) > 1024 {
		notFound(w)
		return
	}
	w.Header().Set("Cache-Control", cacheNever) // until it is known to be a tile
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if rest == "" {
		t.list(w)
		return
	}
	l, resource, ok := t.split(rest)
	if !ok {
		notFound(w)
		return
	}
	if err := l.Gone(); err != nil {
		t.answer(w, r, l, nil, err)
		return
	}
	if resource == "checkpoint" {
		checkpoint(w, l)
		return
	}
	if strings.HasPrefix(resource, openingsPrefix) {
		t.openings(w, r, l, resource)
		return
	}
	t.tile(w, r, l, resource)
}

func notFound(w http.ResponseWriter) {
	writeProblem(w, &client.Problem{Status: http.StatusNotFound, Detail: "no such log or resource", Hint: logsPrefix + " lists the logs"})
}

// split finds the log that a path begins with. Host-log origins have three
// parts and VM-log origins five, and no origin is the prefix of another.
func (t *tiles) split(rest string) (l *chain.Log, resource string, ok bool) {
	parts := strings.SplitN(rest, "/", 6)
	for _, n := range []int{3, 5} {
		if len(parts) <= n {
			break
		}
		origin := strings.Join(parts[:n], "/")
		if l, ok := t.store.LogByOrigin(origin); ok && t.sees(l) {
			return l, rest[len(origin)+1:], true
		}
	}
	return nil, "", false
}

// logEntry is one line of the list of logs.
type logEntry struct {
	Origin      string `json:"origin"`
	VerifierKey string `json:"verifier_key"`
	Size        uint64 `json:"size"` // of the published checkpoint
	Path        string `json:"path"` // of the log, with a slash at its end
}

func (t *tiles) list(w http.ResponseWriter) {
	all := []logEntry{}
	for _, l := range t.store.Logs() {
		if !t.sees(l) || l.Gone() != nil {
			continue
		}
		e := logEntry{Origin: l.Origin(), VerifierKey: l.VerifierKey(), Path: TilesPath(l)}
		if p, ok := l.Checkpoint(); ok {
			e.Size = p.Size
		}
		all = append(all, e)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // the client has gone: nobody to tell
}

func checkpoint(w http.ResponseWriter, l *chain.Log) {
	p, ok := l.Checkpoint()
	if !ok {
		writeProblem(w, &client.Problem{Status: http.StatusNotFound, Detail: "the log has no checkpoint yet", Hint: "it may have one in a moment"})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(p.Note) // the client has gone: nobody to tell
}

func (t *tiles) tile(w http.ResponseWriter, r *http.Request, l *chain.Log, resource string) {
	tile, err := torchwood.ParseTilePath(resource)
	// One path for each tile: no second spelling of it is served.
	if err != nil || tile.H != torchwood.TileHeight || tile.L > 7 || torchwood.TilePath(tile) != resource {
		notFound(w)
		return
	}
	var data []byte
	if tile.L == -1 {
		data, err = l.Bundle(uint64(tile.N), tile.W)
	} else {
		data, err = l.Tile(uint8(tile.L), uint64(tile.N), tile.W)
	}
	t.answer(w, r, l, data, err)
}

// answer gives what of a log never changes, or says why it cannot.
func (t *tiles) answer(w http.ResponseWriter, r *http.Request, l *chain.Log, data []byte, err error) {
	switch p := unreadable(err); {
	case err == nil:
	case p != nil:
		writeProblem(w, p)
		return
	case errors.Is(err, chain.ErrPruned):
		writeProblem(w, &client.Problem{Status: http.StatusGone, Detail: err.Error()})
		return
	case errors.Is(err, chain.ErrNotFound):
		writeProblem(w, &client.Problem{Status: http.StatusNotFound, Detail: err.Error()})
		return
	default:
		t.log.ErrorContext(r.Context(), "a log cannot be served", slog.String("log", l.Origin()), slog.String("path", r.URL.Path), slog.Any("error", err))
		writeProblem(w, &client.Problem{Status: http.StatusInternalServerError, Detail: "the log cannot be read", Hint: "the daemon's log says why"})
		return
	}
	w.Header().Set("Cache-Control", t.cache+cacheForever)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // the client has gone: nobody to tell
}
