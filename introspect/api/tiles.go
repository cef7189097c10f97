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
)

// logsPrefix is where logs are served.
const logsPrefix = "/logs/"

// Cache headers: a checkpoint is replaced, a tile never changes.
const (
	cacheNever   = "no-store"
	cacheForever = "public, max-age=31536000, immutable"
)

// tiles serves the logs of a store as c2sp.org/tlog-tiles.
type tiles struct {
	store *chain.Store
	log   *slog.Logger
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
	return &tiles{store: store, log: log}
}

// TilesPath returns where a log is served: what follows the scheme and host in
// the URL that stock tools take.
func TilesPath(l *chain.Log) string { return logsPrefix + l.Origin() + "/" }

// ServeHTTP implements http.Handler.
func (t *tiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a log can only be read", http.StatusMethodNotAllowed)
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
	http.Error(w, "no such log or resource; "+logsPrefix+" lists the logs", http.StatusNotFound)
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
		if l, ok := t.store.LogByOrigin(origin); ok {
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
		http.Error(w, "the log has no checkpoint yet", http.StatusNotFound)
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
	if errors.Is(err, chain.ErrNotFound) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if err != nil {
		t.log.ErrorContext(r.Context(), "tile cannot be served", slog.String("log", l.Origin()), slog.String("resource", resource), slog.Any("error", err))
		http.Error(w, "the log cannot be read; see the daemon's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", cacheForever)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // the client has gone: nobody to tell
}
