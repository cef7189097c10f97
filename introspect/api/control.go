package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
)

// Control is the interface of the host's own people. Who may use it is decided
// by the unix socket it is served on.
type Control struct {
	Store *chain.Store
	Index *index.Index
	Log   *slog.Logger
	// Status describes the daemon.
	Status func(ctx context.Context) (*client.Status, error)
	// Enroll gives a domain its channel.
	Enroll func(ctx context.Context, nameOrUUID string) (*client.Enrollment, error)
	// StopAgent has the guest agent of a domain end, for the one who asks and
	// with a reason. It returns behind the sealing of both.
	StopAgent func(ctx context.Context, nameOrUUID, requester, reason string) (*client.AgentAnswer, error)
	// Rotate replaces the key of the VM logs, for the one who asks.
	Rotate func(ctx context.Context, requester string) (*client.KeyEpoch, error)
	// Backup copies the ledger to a directory, and the keys of the payloads to
	// another one where that is not empty, for the one who asks.
	Backup func(ctx context.Context, requester, dir, payloadKeys string) (*client.Backup, error)
	// Find returns the newest log of a domain, or an error which wraps
	// ErrNotFound.
	Find func(nameOrUUID string) (*chain.Log, error)
	// Name returns the name of a domain by its UUID, or the UUID.
	Name func(uuid string) string
}

// ErrNotFound says that what was asked for is not there.
var ErrNotFound = errors.New("not found")

// Handler returns the routes of the control interface.
func (c *Control) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s, err := c.Status(r.Context())
		c.answer(w, r, s, err)
	})
	m.HandleFunc("POST /v1/domains/{name}/enroll", func(w http.ResponseWriter, r *http.Request) {
		e, err := c.Enroll(r.Context(), r.PathValue("name"))
		c.answer(w, r, e, err)
	})
	m.HandleFunc("POST /v1/domains/{name}/agent-stop", func(w http.ResponseWriter, r *http.Request) {
		a, err := c.StopAgent(r.Context(), r.PathValue("name"), requester(r.Context()), r.URL.Query().Get("reason"))
		c.answer(w, r, a, err)
	})
	m.HandleFunc("POST /v1/keys/rotate", func(w http.ResponseWriter, r *http.Request) {
		e, err := c.Rotate(r.Context(), requester(r.Context()))
		c.answer(w, r, e, err)
	})
	m.HandleFunc("POST /v1/backup", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		b, err := c.Backup(r.Context(), requester(r.Context()), q.Get("dir"), q.Get("payload_keys"))
		c.answer(w, r, b, err)
	})
	m.HandleFunc("GET /v1/tail", c.tail)
	m.HandleFunc("GET /v1/query", c.query)
	m.HandleFunc("GET /v1/lineage", c.lineage)
	m.HandleFunc("POST /v1/export", c.export)
	m.HandleFunc("POST /v1/erase", c.erase)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.problem(w, r, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, ErrNotFound))
	})
	return m
}

func (c *Control) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		c.problem(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.Log.DebugContext(r.Context(), "answer not delivered", "path", r.URL.Path, "error", err)
	}
}

// problem answers with an error. It must come before any byte of a body.
func (c *Control) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := &client.Problem{Status: http.StatusInternalServerError, Detail: err.Error()}
	switch {
	case errors.Is(err, ErrNotFound):
		p.Status, p.Hint = http.StatusNotFound, "provost domain list shows what there is"
	case errors.Is(err, record.ErrReject):
		p.Status = http.StatusBadRequest
	case errors.Is(err, record.ErrRetry):
		p.Status, p.Hint = http.StatusServiceUnavailable, "it may work in a moment"
	default:
		c.Log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone if this fails
}

// maxLast bounds how many entries a reader may ask to be kept for it.
const maxLast = 100_000

// tailRequest is a parsed query of tail.
type tailRequest struct {
	log     *chain.Log // nil: all
	classes []string
	last    int
	fresh   bool
	follow  bool
}

func (c *Control) parseTail(r *http.Request) (t tailRequest, err error) {
	q := r.URL.Query()
	if name := q.Get("domain"); name != "" {
		if t.log, err = c.Find(name); err != nil {
			return t, err
		}
	}
	for _, pattern := range q["class"] {
		if _, err := path.Match(pattern, ""); err != nil {
			return t, fmt.Errorf("class %q is no pattern: %w", pattern, record.ErrReject)
		}
		known := func(k record.Class) bool { ok, _ := path.Match(pattern, k.String()); return ok }
		if !slices.ContainsFunc(record.Classes(), known) {
			return t, fmt.Errorf("no class matches %q; such are process.exec, file.*, policy.*: %w", pattern, record.ErrReject)
		}
		t.classes = append(t.classes, pattern)
	}
	if s := q.Get("last"); s != "" {
		if t.last, err = strconv.Atoi(s); err != nil || t.last < 0 || t.last > maxLast {
			return t, fmt.Errorf("last is %q, want 0 to %d: %w", s, maxLast, record.ErrReject)
		}
	}
	t.fresh, t.follow = q.Get("new") == "true", q.Get("follow") == "true"
	return t, nil
}

func (t *tailRequest) wants(i *chain.Item) bool {
	if t.log != nil && i.Log != t.log {
		return false
	}
	if len(t.classes) == 0 {
		return true
	}
	name := i.Leaf.Header.Class.String()
	return slices.ContainsFunc(t.classes, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

// tail writes entries as JSON, one a line, in the order they were sealed.
func (c *Control) tail(w http.ResponseWriter, r *http.Request) {
	t, err := c.parseTail(r)
	if err != nil {
		c.problem(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	out := &lines{w: w, enc: json.NewEncoder(w), name: c.Name}
	if err := c.copyTail(r.Context(), &t, out); err != nil && r.Context().Err() == nil {
		c.Log.WarnContext(r.Context(), "tail ended", "error", err)
	}
}

func (c *Control) copyTail(ctx context.Context, t *tailRequest, out *lines) error {
	var start chain.Position
	if t.fresh {
		start = c.Store.End()
	}
	f := c.Store.Tail(start)
	defer f.Close()
	// The newest t.last of what is sealed already. Only their places are kept:
	// payloads are a guest's, and there may be very many.
	var kept []place
	for {
		i, ok, err := f.TryNext()
		if err != nil || ctx.Err() != nil {
			return err
		}
		if !ok {
			break
		}
		if !t.wants(&i) {
			continue
		}
		if t.last == 0 {
			if err := out.write(&i); err != nil {
				return err
			}
		} else if kept = append(kept, place{i.Log, i.Index}); len(kept) > 2*t.last {
			kept = append(kept[:0], kept[len(kept)-t.last:]...)
		}
	}
	for _, p := range kept[max(0, len(kept)-t.last):] {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i, err := p.log.Item(p.index)
		if err != nil {
			return err
		}
		if err := out.write(&i); err != nil {
			return err
		}
	}
	if !t.follow {
		return nil
	}
	for {
		out.flush()
		i, err := f.Next(ctx)
		for ok := true; ok && err == nil; i, ok, err = f.TryNext() {
			if t.wants(&i) {
				if err := out.write(&i); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// place says where an entry stands.
type place struct {
	log   *chain.Log
	index uint64
}

// lines writes entries to a reader.
type lines struct {
	w    http.ResponseWriter
	enc  *json.Encoder
	name func(uuid string) string
}

// writeTimeout ends a tail whose reader does not read.
const writeTimeout = 30 * time.Second

func (l *lines) write(i *chain.Item) error {
	e := client.Entry{Log: i.Log.Origin(), Leaf: i.LeafBytes, Payload: i.Payload}
	if i.Erased {
		e.ErasedBy = &i.ErasedBy
	}
	if o := i.Log.Name(); !o.IsHost() {
		e.Domain = l.name(o.Domain)
	}
	_ = http.NewResponseController(l.w).SetWriteDeadline(time.Now().Add(writeTimeout)) // best effort: no deadline, no end
	return l.enc.Encode(e)
}

func (l *lines) flush() { _ = http.NewResponseController(l.w).Flush() } // the next write reports a reader that is gone

// export writes an evidence bundle. It is built before the first byte is sent,
// so that a failure is an answer and never half a bundle.
func (c *Control) export(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	l, err := c.exportLog(q.Get("domain"), q.Get("origin"))
	if err != nil {
		c.problem(w, r, err)
		return
	}
	from, err := strconv.ParseUint(q.Get("from"), 10, 64)
	to := l.Size() - 1
	if s := q.Get("to"); s != "" && err == nil {
		to, err = strconv.ParseUint(s, 10, 64)
	}
	if err != nil || from > to || to >= l.Size() {
		c.problem(w, r, fmt.Errorf("entries %s to %s: the log has leaves 0 to %d: %w", q.Get("from"), q.Get("to"), l.Size()-1, record.ErrReject))
		return
	}
	f, err := tempFile()
	if err != nil {
		c.problem(w, r, err)
		return
	}
	defer f.Close()
	if err := chain.Export(r.Context(), c.Store, l, chain.Selection{Range: &proof.Range{First: from, Last: to}}, f); err != nil {
		c.problem(w, r, err)
		return
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		c.problem(w, r, fmt.Errorf("export: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	if _, err := io.Copy(w, f); err != nil {
		c.Log.DebugContext(r.Context(), "bundle not delivered", "error", err)
	}
}

func (c *Control) exportLog(domain, origin string) (*chain.Log, error) {
	if origin != "" {
		l, ok := c.Store.LogByOrigin(origin)
		if !ok {
			return nil, fmt.Errorf("log %q: %w", origin, ErrNotFound)
		}
		return l, nil
	}
	return c.Find(domain)
}
