package access

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fmt"
)

// TestTokens shows a listener tokens of many kinds, and holds that whoever is
// refused learns nothing from how.
func TestTokens(t *testing.T) {
	d := openDoor(t, settings{})
	alice, bob, carol := d.token("alice", Tenant, ownDomain), d.token("bob", Auditor), d.token("carol", Operator)
	short, _, err := CreateToken(d.file("tokens"), "short", "auditor", nil, d.clock.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	c := d.client(nil)
	for text, want := range map[string]string{alice: "tenant alice " + ownDomain, bob: "auditor bob ", carol: "operator carol ", short: "auditor short "} {
		if a := d.get(c, "/", text); a.status != http.StatusOK || !strings.HasPrefix(a.body, want) {
			t.Errorf("%d %s %v, want %s", a.status, a.body, a.err, want)
		}
	}
	if gone, err := RevokeToken(d.file("tokens"), "alice"); err != nil || len(gone) != 1 {
		t.Fatalf("%v %v", gone, err)
	}
	d.clock.pass(time.Minute)
	refused := map[string]string{"revoked": "Bearer " + alice, "expired": "Bearer " + short, "none": "", "empty": "Bearer ", "no scheme": bob,
		"other scheme": "Basic " + bob, "short": "Bearer " + bob[:len(bob)-1], "long": "Bearer " + bob + "x", "changed": "Bearer " + bob[:20] + strings.ToUpper(bob[20:]),
		"zeros": "Bearer " + strings.Repeat("0", tokenLength)}
	var first answer
	for name, h := range refused {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if h != "" {
			r.Header.Set("Authorization", h)
		}
		a := do(c, r)
		a.header.Del("Date")
		if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, a.err)
		}
		if first.status == 0 {
			first = a
		} else if a.body != first.body || fmt.Sprint(a.header) != fmt.Sprint(first.header) {
			t.Errorf("%s is refused in other words: %s %v, %s %v", name, a.body, a.header, first.body, first.header)
		}
	}
	if n := d.stats.Failures.Load(); n != uint64(len(refused)) {
		t.Errorf("%d failures are counted of %d", n, len(refused))
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Authorization"] = []string{"Bearer " + bob, "Bearer " + bob}
	if a := do(c, r); a.status != http.StatusUnauthorized {
		t.Errorf("two tokens in one request: %d", a.status)
	}
	// A token that does not hold is not made up for by a certificate that does.
	if a := d.get(d.client(d.clients.client(nil, "cn:acme")), "/", alice); a.status != http.StatusUnauthorized {
		t.Errorf("a revoked token with a good certificate: %d %s", a.status, a.body)
	}
}

// TestTokenFile makes, lists and revokes, several processes' worth at once.
func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	if all, err := ListTokens(path); err != nil || len(all) != 0 {
		t.Fatalf("a file that is not there has %v: %v", all, err)
	}
	const n = 8
	var wg sync.WaitGroup
	texts := make([]string, n)
	for i := range n {
		wg.Go(func() {
			var err error
			if texts[i], _, err = CreateToken(path, fmt.Sprintf("t%d", i%4), "auditor", nil, now, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := ListTokens(path)
	if err != nil || len(all) != n {
		t.Fatalf("%d tokens of %d: %v", len(all), n, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range texts {
		if len(s) != tokenLength || strings.Contains(string(b), s) || seen[s] {
			t.Errorf("token %q is of another form, kept, or given twice", s)
		}
		seen[s] = true
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v: %v", st.Mode(), err)
	}
	if !all[0].Created.Equal(now) || !all[0].Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("token is %+v", all[0])
	}
	if gone, err := RevokeToken(path, "t0"); err != nil || len(gone) != 2 {
		t.Errorf("of a name %d are revoked: %v", len(gone), err)
	}
	if all, err = ListTokens(path); err != nil || len(all) != n-2 {
		t.Errorf("%d are left: %v", len(all), err)
	}
	if gone, err := RevokeToken(path, all[0].ID); err != nil || len(gone) != 1 || gone[0].ID != all[0].ID {
		t.Errorf("%v are revoked: %v", gone, err)
	}
	if _, err := RevokeToken(path, "nobody"); err == nil {
		t.Error("what is not there is revoked")
	}
	for name, c := range map[string]struct {
		name, role string
		domains    []string
		life       time.Duration
	}{
		"no name":           {"", "auditor", nil, time.Hour},
		"name with a space": {"a b", "auditor", nil, time.Hour},
		"no role":           {"a", "", nil, time.Hour},
		"tenant of nothing": {"a", "tenant", nil, time.Hour},
		"no UUID":           {"a", "tenant", []string{"web"}, time.Hour},
		"auditor of one":    {"a", "auditor", []string{ownDomain}, time.Hour},
		"no life":           {"a", "auditor", nil, 0},
		"for ever":          {"a", "auditor", nil, MaxTokenLife + 1},
	} {
		if _, _, err := CreateToken(path, c.name, c.role, c.domains, now, c.life); err == nil {
			t.Errorf("%s: it is made", name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestTokenFileFailsClosed holds that a file which cannot be used lets nobody
// in, at the start and while the daemon runs.
func TestTokenFileFailsClosed(t *testing.T) {
	d := openDoor(t, settings{})
	text := d.token("bob", Auditor)
	good, err := os.ReadFile(d.file("tokens"))
	if err != nil {
		t.Fatal(err)
	}
	c := d.client(nil)
	status := func() int { t.Helper(); return d.get(c, "/", text).status }
	if status() != http.StatusOK {
		t.Fatal("a good token is refused")
	}
	for name, bad := range map[string]string{
		"empty": "", "no JSON": "bob", "other format": `{"format":"provost-tokens/v2","tokens":[]}`, "more": string(good) + "{}",
		"unknown field": strings.Replace(string(good), `"id"`, `"admin": true, "id"`, 1),
		"other id":      strings.Replace(string(good), `"id": "`, `"id": "0`, 1),
		"role":          strings.Replace(string(good), "auditor", "root", 1),
	} {
		put(t, d.file("tokens"), []byte(bad))
		if got := status(); got != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got)
		}
		if _, err := OpenTokens(d.file("tokens"), d.tokens.log, &Stats{}); err == nil {
			t.Errorf("%s: a daemon starts with it", name)
		}
		if _, _, err := CreateToken(d.file("tokens"), "x", "auditor", nil, d.clock.Now(), time.Hour); err == nil {
			t.Errorf("%s: it is written over", name)
		}
		put(t, d.file("tokens"), good)
		if got := status(); got != http.StatusOK {
			t.Errorf("%s: mended, %d", name, got)
		}
	}
	if err := os.Chmod(d.file("tokens"), 0o640); err != nil {
		t.Fatal(err)
	}
	if status() != http.StatusUnauthorized {
		t.Error("a file that others read is used")
	}
	if err := os.Remove(d.file("tokens")); err != nil {
		t.Fatal(err)
	}
	if status() != http.StatusUnauthorized {
		t.Error("a file that is gone is used")
	}
	if d.stats.ReloadFails.Load() == 0 {
		t.Error("no failure is counted")
	}
}

// FuzzTokens: what is taken can be written and read again, and every token of
// it has an owner, a role and an end.
func FuzzTokens(f *testing.F) {
	f.Add([]byte(`{"format":"provost-tokens/v1","tokens":[]}`))
	f.Add([]byte(`{"format":"provost-tokens/v1","tokens":[{"id":"973ae80e7dc5","name":"alice","role":"tenant","domains":["` + ownDomain + `"],` +
		`"sha256":"973ae80e7dc58d6e1cb07a4fa9843420dda76cff3e85393ddf3dde3fa25b289b","created":"2026-11-23T08:16:30Z","expires":"2027-02-21T08:16:30Z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseTokens(b)
		if err != nil && all != nil {
			t.Error("tokens and an error")
		}
		for _, k := range all {
			id := &Identity{Name: k.Name, Role: k.role, Domains: k.Domains}
			if !id.May(Tenant) || k.Name == "" || k.Expires.IsZero() || k.role == Tenant && (id.Sees("") || len(k.Domains) == 0) {
				t.Errorf("taken is %+v", k)
			}
		}
	})
}
