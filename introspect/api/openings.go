package api

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"filippo.io/torchwood"

	"github.com/provostd/provost/chain"
)

// openingsPrefix is what paths of opening bundles begin with, below a log; they go
// on like those of entry bundles.
const openingsPrefix = "tile/openings/"

// openings serves an opening bundle, as package chain/mirror has it: payloads
// that hold nothing but keys, signatures, signed checkpoints and epochs, for verifiers. All other
// payloads are withheld here.
func (t *tiles) openings(w http.ResponseWriter, r *http.Request, l *chain.Log, resource string) {
	path := "tile/entries/" + strings.TrimPrefix(resource, openingsPrefix)
	tile, err := torchwood.ParseTilePath(path)
	if err != nil || tile.L != -1 || torchwood.TilePath(tile) != path {
		notFound(w)
		return
	}
	data, err := l.Openings(r.Context(), uint64(tile.N), tile.W, chain.OpensItself)
	if errors.Is(err, chain.ErrNotFound) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if err != nil {
		t.log.ErrorContext(r.Context(), "opening bundle cannot be served", slog.String("log", l.Origin()), slog.String("resource", resource), slog.Any("error", err))
		http.Error(w, "the log cannot be read; see the daemon's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", cacheForever)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // the client has gone: nobody to tell
}
