package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const (
	// DefaultTimeout is what a witness has for one cosignature, proofs and
	// repetitions included.
	DefaultTimeout = 5 * time.Second

	maxAnswer = 64 << 10 // bytes of any answer
	maxSize   = 1 << 62  // of a tree that a witness may speak of
	maxProof  = 63       // hashes, as the specification has it
	maxTries  = 3        // a witness that others update meanwhile conflicts again
)

// Config says how to reach one witness. All but Timeout is required.
type Config struct {
	// URL is the submission prefix, such as "https://witness.example/w1".
	URL string
	// Key verifies the witness's cosignatures and names it.
	Key proof.WitnessKey
	// HTTP carries the requests. Redirects should not be followed: a witness
	// answers itself.
	HTTP *http.Client
	// Timeout bounds one Cosign. Default: DefaultTimeout.
	Timeout time.Duration
}

// Client asks one witness. It is safe for concurrent use.
type Client struct {
	prefix  string
	key     proof.WitnessKey
	http    *http.Client
	timeout time.Duration
}

// CheckURL reports whether s can be a witness's submission prefix.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("check witness address: %w: %w", err, record.ErrReject)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("check witness address %q: want https://HOST/PATH or http://HOST/PATH, without user, query and fragment: %w", s, record.ErrReject)
	}
	return nil
}

// New returns a client. An error wraps record.ErrReject.
func New(c Config) (*Client, error) {
	if err := CheckURL(c.URL); err != nil {
		return nil, err
	}
	if c.HTTP == nil {
		return nil, fmt.Errorf("make client of witness %s: no HTTP client is given: %w", c.Key.Name, record.ErrReject)
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	return &Client{prefix: strings.TrimRight(c.URL, "/"), key: c.Key, http: c.HTTP, timeout: c.Timeout}, nil
}

// Key returns the key of the witness.
func (c *Client) Key() proof.WitnessKey { return c.key }

// Cosign has the witness cosign the checkpoint cp, whose signed note is msg.
// from is the size that it cosigned last, as far as the caller knows; prove
// returns the consistency proof from a size to cp's. Errors are a
// *proof.DisputeError where the witness knows another history, a *StatusError
// where it refuses, or else that it could not be reached in time.
func (c *Client) Cosign(ctx context.Context, cp proof.Checkpoint, msg []byte, from uint64, prove func(from uint64) ([]record.Hash, error)) (proof.Cosignature, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s", c.timeout))
	defer cancel()
	from = min(from, cp.Size)
	for range maxTries {
		var path []record.Hash
		if from > 0 && from < cp.Size {
			var err error
			if path, err = prove(from); err != nil {
				return proof.Cosignature{}, fmt.Errorf("prove size %d to witness %s: %w", from, c.key.Name, err)
			}
		}
		status, answer, err := c.do(ctx, http.MethodPost, c.prefix+"/add-checkpoint", request(from, path, msg))
		if err != nil {
			return proof.Cosignature{}, err
		}
		switch status {
		case http.StatusOK:
			s, err := c.key.Verify(msg, answer)
			if err != nil {
				return proof.Cosignature{}, fmt.Errorf("witness %s: %w", c.key.Name, err)
			}
			return s, nil
		case http.StatusConflict:
			size, err := parseSize(answer)
			if err != nil {
				return proof.Cosignature{}, fmt.Errorf("witness %s answers 409 (conflict): %w", c.key.Name, err)
			}
			switch {
			case size > cp.Size:
				return proof.Cosignature{}, &proof.DisputeError{Witness: c.key.Name, Origin: cp.Origin, Ours: cp.Size, Theirs: size, Reason: "this ledger was rolled back, or a copy of it went on elsewhere"}
			case size == from:
				// Its size is what we said, so it is the root that differs.
				return proof.Cosignature{}, &proof.DisputeError{Witness: c.key.Name, Origin: cp.Origin, Ours: cp.Size, Theirs: size, Reason: "it has cosigned another root at that size"}
			}
			from = size
		case http.StatusUnprocessableEntity:
			return proof.Cosignature{}, &proof.DisputeError{Witness: c.key.Name, Origin: cp.Origin, Ours: cp.Size, Theirs: from,
				Reason: fmt.Sprintf("the checkpoint is not consistent with the one it cosigned at size %d: %s", from, words(answer))}
		default:
			return proof.Cosignature{}, &StatusError{Witness: c.key.Name, Status: status, Origin: cp.Origin, Answer: words(answer)}
		}
	}
	return proof.Cosignature{}, fmt.Errorf("witness %s: its size changed %d times while it was asked, now %d: is another daemon using the keys of %s? %w", c.key.Name, maxTries, from, cp.Origin, record.ErrRetry)
}

// Latest returns the newest signed checkpoint of a log that the witness shows,
// unverified. Not all witnesses do.
func (c *Client) Latest(ctx context.Context, origin string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s", c.timeout))
	defer cancel()
	sum := sha256.Sum256([]byte(origin))
	status, answer, err := c.do(ctx, http.MethodGet, c.prefix+"/"+hex.EncodeToString(sum[:])+"/checkpoint", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &StatusError{Witness: c.key.Name, Status: status, Origin: origin, Answer: words(answer)}
	}
	return answer, nil
}

// do makes one request and returns status and bounded body.
func (c *Client) do(ctx context.Context, method, target string, body []byte) (status int, answer []byte, err error) {
	fail := func(err error) (int, []byte, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // it names the address, which stands below
		}
		return 0, nil, fmt.Errorf("ask witness %s at %s: %w: %w", c.key.Name, c.prefix, err, record.ErrRetry)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	r.Header.Set("User-Agent", "provostd")
	if body != nil {
		r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	w, err := c.http.Do(r)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = w.Body.Close() }() // read only
	answer, err = io.ReadAll(io.LimitReader(w.Body, maxAnswer+1))
	if err != nil {
		return fail(err)
	}
	if len(answer) > maxAnswer {
		return fail(fmt.Errorf("the answer has more than %d bytes", maxAnswer))
	}
	return w.StatusCode, answer, nil
}

// request formats the body of add-checkpoint.
func request(from uint64, path []record.Hash, msg []byte) []byte {
	b := fmt.Appendf(nil, "old %d\n", from)
	for _, h := range path[:min(len(path), maxProof)] {
		b = base64.StdEncoding.AppendEncode(b, h[:])
		b = append(b, '\n')
	}
	return append(append(b, '\n'), msg...)
}

// parseSize reads the body of a conflict: a decimal number and a line's end.
func parseSize(b []byte) (uint64, error) {
	s := strings.TrimSuffix(string(b[:min(len(b), 32)]), "\n")
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(b) > 21 || strconv.FormatUint(n, 10) != s || n > maxSize {
		return 0, fmt.Errorf("the body is no size of a tree: %w", record.ErrReject)
	}
	return n, nil
}

// words makes a line for people of an answer's body.
func words(b []byte) string {
	return record.Printable(bytes.TrimSpace(b[:min(len(b), 200)]))
}

// StatusError is a witness's refusal.
type StatusError struct {
	Witness string
	Status  int
	Origin  string
	Answer  string
}

// Error says what the refusal means and what to do.
func (e *StatusError) Error() string {
	why := map[int]string{
		http.StatusBadRequest:      "it cannot read the request",
		http.StatusForbidden:       fmt.Sprintf("it does not trust the key that signed %s; give its operator the verifier key of the host log", e.Origin),
		http.StatusNotFound:        fmt.Sprintf("it does not know %s, or the address is wrong; have its operator add the log with its verifier key", e.Origin),
		http.StatusTooManyRequests: "it is asked too often",
	}[e.Status]
	switch {
	case why != "":
	case e.Status/100 == 3:
		why = "it redirects; configure the address that it redirects to"
	case e.Status/100 == 5:
		why = "it has a fault of its own"
	default:
		why = "that is not part of the protocol"
	}
	return fmt.Sprintf("witness %s answers %d: %s (%s)", e.Witness, e.Status, why, e.Answer)
}

// Is makes refusals by fault of the witness retryable, others rejections.
func (e *StatusError) Is(target error) bool {
	if e.Status/100 == 5 || e.Status == http.StatusTooManyRequests {
		return target == record.ErrRetry
	}
	return target == record.ErrReject
}
