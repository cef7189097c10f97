package api

import (
	"net/http"
	"strings"

	"filippo.io/torchwood"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// openingsPrefix is what paths of opening bundles begin with, below a log; they go
// on like those of entry bundles.
const openingsPrefix = "tile/openings/"

// openings serves an opening bundle, as package chain/mirror has it: payloads
// that hold nothing but keys, signatures, signed checkpoints, epochs, ranges and what was damaged, for verifiers.
// Where disclosures are sealed it opens the genesis of a VM log too, which says
// what the log continues and holds the domain's XML. All other payloads are withheld here.
func (t *tiles) openings(w http.ResponseWriter, r *http.Request, l *chain.Log, resource string) {
	path := "tile/entries/" + strings.TrimPrefix(resource, openingsPrefix)
	tile, err := torchwood.ParseTilePath(path)
	if err != nil || tile.L != -1 || torchwood.TilePath(tile) != path {
		notFound(w)
		return
	}
	open := chain.OpensItself
	if t.disclose != nil && tile.N == 0 && !l.Name().IsHost() {
		if err := t.disclose(access.Disclosure{Origin: l.Origin(), Count: 1}); err != nil {
			writeProblem(w, &client.Problem{Status: http.StatusServiceUnavailable, Detail: err.Error(), Hint: "it may work in a moment"})
			return
		}
		open = func(leaf *record.Leaf) bool { return leaf.Index == 0 || chain.OpensItself(leaf) }
	}
	data, err := l.Openings(r.Context(), uint64(tile.N), tile.W, open)
	t.answer(w, r, l, data, err)
}
