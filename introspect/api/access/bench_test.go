package access

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkDisclose is what a reader waits for before the first payload.
func BenchmarkDisclose(b *testing.B) {
	for _, readers := range []int{1, 64} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			s, _ := ledger(b)
			sealer := &Sealer{Store: s}
			ctx := With(b.Context(), &Identity{Name: "acme", Role: Tenant, How: "token 3f9c21d07a55", Address: "192.0.2.7"})
			b.SetParallelism(readers)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := sealer.Disclose(ctx, Disclosure{Origin: "kvm1.example/vm/x/1/1", Last: 9, Count: 10, What: "GET /v1/query"}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkToken finds a token among as many as there may be.
func BenchmarkToken(b *testing.B) {
	path := filepath.Join(b.TempDir(), "tokens")
	text, _, err := CreateToken(path, "acme", "tenant", []string{ownDomain}, time.Now(), time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	tokens, err := OpenTokens(path, nil, &Stats{})
	if err != nil {
		b.Fatal(err)
	}
	for len(tokens.all) < maxTokens {
		t := tokens.all[0]
		t.sum[0]++
		t.sum[1] = byte(len(tokens.all))
		tokens.all = append(tokens.all, t)
	}
	r := &http.Request{Header: http.Header{"Authorization": {"Bearer " + text}}}
	tokens.seen.fresh = false
	for b.Loop() {
		if tokens.find(b.Context(), r.Header.Get("Authorization"), time.Now()) == nil {
			b.Fatal("not found")
		}
	}
}
