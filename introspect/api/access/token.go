package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Tokens are the bearer tokens of a file. Each look-up sees the file as it is:
// what was revoked is of no use from then on. A file that cannot be used has no
// tokens. It is safe for concurrent use.
type Tokens struct {
	path  string
	log   *slog.Logger
	stats *Stats

	mu   sync.Mutex
	seen stamp
	read bool
	all  []Token
	bad  string // why the file is not used, as it was logged
}

// OpenTokens reads the tokens of a file, which need not be there yet. A file
// that is there and cannot be used is an error.
func OpenTokens(path string, log *slog.Logger, stats *Stats) (*Tokens, error) {
	t := &Tokens{path: path, log: log, stats: stats}
	return t, t.Reload(context.Background())
}

// Reload looks at the file now.
func (t *Tokens) Reload(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refresh(ctx)
}

func (t *Tokens) refresh(ctx context.Context) error {
	now := stampOf(t.path) // before the file is read: a change in between is seen next time
	if t.read && t.seen.same(now) && t.bad == "" {
		return nil
	}
	all, err := readTokens(t.path)
	changed := !t.read || t.seen != now
	t.all, t.seen, t.read = all, now, true
	if err == nil {
		if t.bad = ""; changed {
			t.stats.Reloads.Add(1)
		}
		return nil
	}
	if err.Error() != t.bad { // once for each fault
		t.bad = err.Error()
		t.stats.ReloadFails.Add(1)
		t.log.ErrorContext(ctx, "the tokens cannot be used, none is taken", "error", err)
	}
	return err
}

// find returns whose token a request shows. Every token is compared, whether
// one fits or not, and every refusal is the same.
func (t *Tokens) find(ctx context.Context, authorization string, now time.Time) *Identity {
	t.mu.Lock()
	_ = t.refresh(ctx) // logged there, and there are no tokens
	all := t.all
	t.mu.Unlock()
	scheme, text, _ := strings.Cut(authorization, " ")
	formed := 1
	if !strings.EqualFold(scheme, "Bearer") || len(text) != tokenLength {
		formed, text = 0, strings.Repeat("0", tokenLength) // the same work
	}
	sum := sha256.Sum256([]byte(text))
	at := -1
	for i := range all {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(all[i].sum[:], sum[:])&formed, i, at)
	}
	if at < 0 || !now.Before(all[at].Expires) {
		return nil
	}
	k := &all[at]
	return &Identity{Name: k.Name, Role: k.role, Domains: k.Domains, How: "token " + k.ID}
}
