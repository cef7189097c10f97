package conformance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/api"
)

// TestTorchwoodClient has torchwood's client read logs of the real pipeline: every
// entry under the signed checkpoint, some by their inclusion proofs, and none from a
// log of which a byte was changed.
func TestTorchwoodClient(t *testing.T) {
	s, l := ledger(t)
	handler := api.Tiles(s, nil)
	for _, l := range []*chain.Log{l, s.HostLog()} {
		entries, err := torchwoodReads(t, handler, l)
		if err != nil {
			t.Errorf("%s: %v", l.Origin(), err)
			continue
		}
		p, _ := l.Checkpoint()
		if uint64(len(entries)) != p.Size {
			t.Errorf("%s: %d entries of %d", l.Origin(), len(entries), p.Size)
		}
		for i, entry := range entries {
			item, err := l.Item(uint64(i))
			must(t, err)
			if string(item.LeafBytes) != string(entry) {
				t.Fatalf("entry %d of %s is another", i, l.Origin())
			}
		}
	}
	// The negative control: were these read as well, the above would say nothing.
	for _, resource := range []string{"tile/entries/002", "tile/0/001", fmt.Sprintf("tile/1/000.p/%d", l.Size()/256), "checkpoint"} {
		if _, err := torchwoodReads(t, flip(handler, "/logs/"+l.Origin()+"/"+resource), l); err == nil {
			t.Errorf("torchwood reads a log with a changed %s", resource)
		}
	}
}

// torchwoodReads returns all entries of a log as torchwood's client gives them.
func torchwoodReads(t *testing.T, h http.Handler, l *chain.Log) (all [][]byte, err error) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	prefix := srv.URL + "/logs/" + l.Origin() + "/"
	v, err := note.NewVerifier(l.VerifierKey())
	must(t, err)
	res, err := http.Get(prefix + "checkpoint")
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	head, _, err := torchwood.VerifyCheckpoint(text, torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(l.Origin()), torchwood.SingleVerifierPolicy(v)))
	if err != nil {
		return nil, err
	}
	fetcher, err := torchwood.NewTileFetcher(prefix)
	must(t, err)
	client, err := torchwood.NewClient(fetcher)
	must(t, err)
	for i, entry := range client.AllEntries(t.Context(), head.Tree, 0) {
		if i != int64(len(all)) {
			return nil, fmt.Errorf("entry %d comes behind %d entries", i, len(all))
		}
		all = append(all, append([]byte{}, entry...))
	}
	if err := client.Err(); err != nil {
		return nil, err
	}
	for _, i := range []int64{0, 1, head.N / 2, head.N - 1} {
		entry, proof, err := client.Entry(t.Context(), head.Tree, i)
		if err != nil {
			return nil, err
		}
		if string(entry) != string(all[i]) {
			return nil, fmt.Errorf("entry %d by its proof is another", i)
		}
		if err := tlog.CheckRecord(proof, head.N, head.Hash, i, tlog.RecordHash(all[i])); err != nil {
			return nil, err
		}
	}
	return all, nil
}
