package api

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"filippo.io/torchwood"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/api/client"
)

// openingsPrefix is what paths of opening bundles begin with, below a log; they go
// on like those of entry bundles.
const openingsPrefix = "tile/openings/"

// openings serves an opening bundle, as package chain/mirror has it: payloads
// that hold nothing but keys, signatures, signed checkpoints, epochs and ranges, for verifiers. All other
// payloads are withheld here.
func (t *tiles) openings(w http.ResponseWriter, r *http.Request, l *chain.Log, resource string) {
	path := "tile/entries/" + strings.TrimPrefix(resource, openingsPrefix)
	tile, err := torchwood.ParseTilePath(path)
	if err != nil || tile.L != -1 || torchwood.TilePath(tile) != path {
		notFound(w)
		return
	}
	data, err := l.Openings(r.Context(), uint64(tile.N), tile.W, chain.OpensItself)
	if errors.Is(err, chain.ErrPruned) {
		writeProblem(w, &client.Problem{Status: http.StatusGone, Detail: err.Error()})
		return
	}
	if errors.Is(err, chain.ErrNotFound) {
		writeProblem(w, &client.Problem{Status: http.StatusNotFound, Detail: err.Error()})
		return
	}
	if err != nil {
		t.log.ErrorContext(r.Context(), "opening bundle cannot be served", slog.String("log", l.Origin()), slog.String("resource", resource), slog.Any("error", err))
		writeProblem(w, &client.Problem{Status: http.StatusInternalServerError, Detail: "the log cannot be read", Hint: "the daemon's log says why"})
		return
	}
	w.Header().Set("Cache-Control", t.cache+cacheForever)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // the client has gone: nobody to tell
}
