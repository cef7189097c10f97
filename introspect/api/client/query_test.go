package client

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestQueryOfALiar: what a server answers is bounded by what was asked for.
func TestQueryOfALiar(t *testing.T) {
	entry := `{"log":"a","leaf":""}` + "\n"
	end := func(next string) string {
		return fmt.Sprintf("{\"end\":{\"next\":%q,\"behind\":0,\"examined\":1}}\n", next)
	}
	for name, c := range map[string]struct {
		limit  int
		answer func(w io.Writer, after string)
		want   string
	}{
		"as asked for": {3, func(w io.Writer, after string) { io.WriteString(w, entry+end("x"+after)) }, ""},
		"too many":     {2, func(w io.Writer, _ string) { io.WriteString(w, strings.Repeat(entry, 5)+end("")) }, "more than the 2 entries"},
		"a page without an end": {0, func(w io.Writer, _ string) {
			for range MaxPage + 1 {
				io.WriteString(w, entry)
			}
		}, "more than the 10000 entries"},
		"no progress": {0, func(w io.Writer, _ string) { io.WriteString(w, end("x")) }, "it ends where it began"},
		"a line without an end": {0, func(w io.Writer, _ string) {
			chunk := strings.Repeat("a", 1<<20)
			for i := 0; i < 64; i++ {
				if _, err := io.WriteString(w, chunk); err != nil {
					return // as it should be
				}
			}
		}, "more than 16777216 bytes"},
		"cut off": {0, func(w io.Writer, _ string) { io.WriteString(w, entry) }, "ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.answer(w, r.URL.Query().Get("after")) }))
			defer srv.Close()
			cl := &Client{name: "liar", base: srv.URL, http: srv.Client()}
			n := 0
			var failed error
			for _, err := range cl.Query(t.Context(), Query{Limit: c.limit}, nil) {
				if err != nil {
					failed = err
					break
				}
				n++
			}
			switch {
			case c.want == "" && (failed != nil || n != c.limit):
				t.Errorf("%d entries, %v", n, failed)
			case c.want != "" && (failed == nil || !strings.Contains(failed.Error(), c.want)):
				t.Errorf("%d entries, %v; want %q", n, failed, c.want)
			case c.limit > 0 && n > c.limit:
				t.Errorf("%d entries, asked for %d", n, c.limit)
			}
		})
	}
}
