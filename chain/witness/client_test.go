package witness

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// world is a log's signed checkpoint and a witness with a key.
type world struct {
	cp     proof.Checkpoint
	msg    []byte
	signer *torchwood.CosignatureSigner
	key    proof.WitnessKey
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{cp: proof.Checkpoint{Origin: "kvm1.example/log/1", Size: 10, Root: record.Hash{7}}}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	skey, _, err := note.GenerateKey(deterministic{}, w.cp.Origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	if w.msg, err = w.cp.Sign(signer); err != nil {
		t.Fatal(err)
	}
	if w.signer, err = torchwood.NewCosignatureSigner("witness.example/w1", key); err != nil {
		t.Fatal(err)
	}
	if w.key, err = proof.NewWitnessKey("w1", w.signer.Verifier().String()); err != nil {
		t.Fatal(err)
	}
	return w
}

type deterministic struct{}

func (deterministic) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i)
	}
	return len(b), nil
}

// cosignature returns a signature line of the witness on text.
func (w *world) cosignature(t testing.TB, text string) string {
	t.Helper()
	sig, err := w.signer.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	h := w.signer.KeyHash()
	raw := append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)
	return fmt.Sprintf("— %s %s\n", w.signer.Name(), base64.StdEncoding.EncodeToString(raw))
}

func (w *world) client(t testing.TB, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Config{URL: srv.URL + "/w/", Key: w.key, HTTP: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) cosign(t testing.TB, c *Client, from uint64) (proof.Cosignature, error) {
	t.Helper()
	return c.Cosign(t.Context(), w.cp, w.msg, from, func(from uint64) ([]record.Hash, error) {
		return []record.Hash{{byte(from)}}, nil
	})
}

// TestRequest compares what is sent with what the specification says.
func TestRequest(t *testing.T) {
	w := newWorld(t)
	line := w.cosignature(t, w.cp.Text())
	var got string
	c := w.client(t, func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.Path + "\n" + string(b)
		io.WriteString(rw, "— other.example/x AAAAAAECAwQ=\n"+line)
	})
	s, err := w.cosign(t, c, 4)
	if err != nil {
		t.Fatal(err)
	}
	want := "POST /w/add-checkpoint\nold 4\nBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n" + string(w.msg)
	if got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
	if s.Witness != "w1" || s.ID != w.key.ID() || s.Time == 0 {
		t.Errorf("cosignature %+v", s)
	}
	merged, err := proof.AddCosignatures(w.msg, s, s)
	if err != nil || strings.Count(string(merged), "witness.example/w1") != 2 {
		// Both were given, and both stand there: the caller adds one of each.
		t.Errorf("merged %q: %v", merged, err)
	}
	again, err := proof.AddCosignatures(merged, s)
	if err != nil || string(again) != string(w.msg)+line {
		t.Errorf("merged again %q: %v", again, err)
	}
}

// TestConflict recovers from a witness that has another size than we thought.
func TestConflict(t *testing.T) {
	w := newWorld(t)
	for _, at := range []uint64{0, 1, 9, 10} {
		var olds []string
		c := w.client(t, func(rw http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			old, rest, _ := strings.Cut(string(b), "\n")
			olds = append(olds, old)
			if old != fmt.Sprint("old ", at) {
				rw.Header().Set("Content-Type", "text/x.tlog.size")
				rw.WriteHeader(http.StatusConflict)
				fmt.Fprintln(rw, at)
				return
			}
			if proofs := strings.Count(strings.SplitN(rest, "\n\n", 2)[0], "="); at > 0 && at < 10 && proofs != 1 || (at == 0 || at == 10) && rest[0] != '\n' {
				t.Errorf("size %d comes with proof %q", at, rest)
			}
			io.WriteString(rw, w.cosignature(t, w.cp.Text()))
		})
		if _, err := w.cosign(t, c, 5); err != nil {
			t.Errorf("size %d: %v", at, err)
		}
		if len(olds) != 2 || olds[0] != "old 5" {
			t.Errorf("size %d was asked with %v", at, olds)
		}
	}
}

// TestRefusals wants each refusal to say what it means, and of what kind it is.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	good := w.cosignature(t, w.cp.Text())
	other := w.cp
	other.Size = 11
	for name, c := range map[string]struct {
		status  int
		body    string
		is      error
		dispute bool
		words   string
	}{
		"unknown log":       {404, "unknown origin", record.ErrReject, false, "have its operator add the log"},
		"unknown key":       {403, "", record.ErrReject, false, "does not trust the key"},
		"malformed":         {400, "bad", record.ErrReject, false, "cannot read the request"},
		"too often":         {429, "", record.ErrRetry, false, "too often"},
		"fault":             {500, "oops\x1b[2J", record.ErrRetry, false, `oops\x1b`},
		"redirect":          {302, "", record.ErrReject, false, "redirects"},
		"teapot":            {418, "", record.ErrReject, false, "not part of the protocol"},
		"bad proof":         {422, "no", record.ErrReject, true, "not consistent"},
		"ahead":             {409, "11\n", record.ErrReject, true, "at size 11, this checkpoint has size 10"},
		"other root":        {409, "5\n", record.ErrReject, true, "another root"},
		"conflict no size":  {409, "what?\n", record.ErrReject, false, "no size"},
		"conflict sign":     {409, "+7\n", record.ErrReject, false, "no size"},
		"conflict negative": {409, "-7\n", record.ErrReject, false, "no size"},
		"conflict huge":     {409, "99999999999999999999\n", record.ErrReject, false, "no size"},
		"empty":             {200, "", record.ErrReject, false, "does not end"},
		"no line":           {200, "thanks\n", record.ErrReject, false, "no signature line"},
		"other key":         {200, "— other.example/x AAAAAAECAwQ=\n", record.ErrReject, false, "holds no cosignature"},
		"other checkpoint":  {200, w.cosignature(t, other.Text()), record.ErrReject, false, "does not verify"},
		"behind garbage":    {200, good + "\n", record.ErrReject, false, "no signature line"},
		"many lines":        {200, strings.Repeat(good, 17), record.ErrReject, false, "17 lines"},
		"long":              {200, strings.Repeat(good, 1000), record.ErrRetry, false, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			client := w.client(t, func(rw http.ResponseWriter, r *http.Request) {
				rw.WriteHeader(c.status)
				io.WriteString(rw, c.body)
			})
			_, err := w.cosign(t, client, 5)
			var d *proof.DisputeError
			if !errors.Is(err, c.is) || errors.As(err, &d) != c.dispute || !strings.Contains(fmt.Sprint(err), c.words) || !strings.Contains(fmt.Sprint(err), "w1") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRestless gives up on a witness whose size is another each time.
func TestRestless(t *testing.T) {
	w := newWorld(t)
	n := 0
	c := w.client(t, func(rw http.ResponseWriter, r *http.Request) {
		n++
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintln(rw, n)
	})
	if _, err := w.cosign(t, c, 0); !errors.Is(err, record.ErrRetry) || n != maxTries {
		t.Errorf("after %d tries: %v", n, err)
	}
}

// TestTimeout gives up on a witness that does not answer, and on one that is
// not there.
func TestTimeout(t *testing.T) {
	w := newWorld(t)
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	c, err := New(Config{URL: srv.URL, Key: w.key, HTTP: srv.Client(), Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.cosign(t, c, 0); !errors.Is(err, record.ErrRetry) || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("a witness that hangs: %v", err)
	}
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	if c, err = New(Config{URL: down.URL, Key: w.key, HTTP: http.DefaultClient}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.cosign(t, c, 0); !errors.Is(err, record.ErrRetry) {
		t.Errorf("a witness that is down: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Latest(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

func TestLatest(t *testing.T) {
	w := newWorld(t)
	sum := sha256.Sum256([]byte(w.cp.Origin))
	c := w.client(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/w/"+hex.EncodeToString(sum[:])+"/checkpoint" {
			http.NotFound(rw, r)
			return
		}
		_, _ = rw.Write(w.msg)
	})
	if msg, err := c.Latest(t.Context(), w.cp.Origin); err != nil || string(msg) != string(w.msg) {
		t.Errorf("latest %q: %v", msg, err)
	}
	var refused *StatusError
	if _, err := c.Latest(t.Context(), "other"); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("latest of an unknown log: %v", err)
	}
}

func TestConfig(t *testing.T) {
	w := newWorld(t)
	for _, url := range []string{"", "witness.example", "ftp://w.example/", "https://", "https://u:p@w.example/", "https://w.example/?a=b", "https://w.example/#x", "://"} {
		if _, err := New(Config{URL: url, Key: w.key, HTTP: http.DefaultClient}); !errors.Is(err, record.ErrReject) {
			t.Errorf("address %q: %v", url, err)
		}
	}
	if _, err := New(Config{URL: "https://w.example", Key: w.key}); !errors.Is(err, record.ErrReject) {
		t.Errorf("no HTTP client: %v", err)
	}
}

// FuzzAnswer: whatever a witness answers, an error wraps record.ErrReject, and
// what is accepted is a cosignature of the right key on this very checkpoint:
// it still verifies when it stands in the note.
func FuzzAnswer(f *testing.F) {
	w := newWorld(f)
	line := w.cosignature(f, w.cp.Text())
	f.Add([]byte(line))
	f.Add([]byte("— other.example/x AAAAAAECAwQ=\n" + line))
	f.Add([]byte("— witness.example/w1 AAAAAAECAwQ=\n"))
	f.Add([]byte("10\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if n, err := parseSize(answer); err == nil && fmt.Sprint(n) != strings.TrimSuffix(string(answer), "\n") {
			t.Fatalf("size %d of %q", n, answer)
		} else if err != nil && !errors.Is(err, record.ErrReject) {
			t.Fatal(err)
		}
		s, err := w.key.Verify(w.msg, answer)
		if err != nil {
			if !errors.Is(err, record.ErrReject) || s != (proof.Cosignature{}) {
				t.Fatalf("%v: %+v", err, s)
			}
			return
		}
		merged, err := proof.AddCosignatures(w.msg, s)
		if err != nil {
			t.Fatal(err)
		}
		found, err := proof.Cosignatures(merged, []proof.WitnessKey{w.key})
		if err != nil || len(found) != 1 || found[0] != s {
			t.Fatalf("in the note: %+v, %v", found, err)
		}
		v, err := torchwood.NewCosignatureVerifier(w.key.String())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := note.Open(merged, note.VerifierList(v)); err != nil || len(n.Sigs) != 1 {
			t.Fatalf("elsewhere: %v", err)
		}
	})
}
