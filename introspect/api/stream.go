package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

const (
	// maxLast bounds how many entries a reader may ask to be kept for it.
	maxLast = 100_000
	// maxStreams bounds the streams of one identity, and maxAllStreams those of
	// all. One holds a goroutine and one entry.
	maxStreams    = 16
	maxAllStreams = 256
	// streamHeartbeat is how often a stream without entries says that it lives.
	streamHeartbeat = 15 * time.Second
	// streamLifetime ends a stream, so that who may read what is asked again.
	streamLifetime = time.Hour
	// streamSettle is after how many entries a stream has sealed how many it
	// gave.
	streamSettle = 10_000
	// scanCommits is how many commits of others are passed between two looks at
	// the clock.
	scanCommits = 4096
)

// selection is which entries a stream gives.
type selection struct {
	want    func(*chain.Log) bool
	origin  string // of the one log that is wanted, or ""
	classes []record.Class
	last    int
	start   chain.Position
	follow  bool
	payload bool
}

func (c *call) parseStream() (*selection, error) {
	t := &selection{}
	logs, chosen, err := c.choose()
	if err != nil {
		return nil, err
	}
	switch name := c.v.Get("domain"); {
	case !chosen:
		t.want = c.sees
	case name != "" && c.v.Get("log") == "":
		c.what += " of domain " + logs[0].Name().Domain
		// An incarnation that begins later is wanted as well.
		uuid := logs[0].Name().Domain
		t.want = func(l *chain.Log) bool { return l.Name().Domain == uuid && c.sees(l) }
	default:
		t.want = func(l *chain.Log) bool { return slices.Contains(logs, l) && c.sees(l) }
	}
	if c.v.Get("log") != "" && len(logs) == 1 { // of a domain, more logs may begin
		t.origin = logs[0].Origin()
	}
	p := c.params()
	t.classes = p.classes()
	p.parse("last", func(s string) (err error) {
		if t.last, err = strconv.Atoi(s); err != nil || t.last < 0 || t.last > maxLast {
			return fmt.Errorf("want 0 to %d", maxLast)
		}
		return nil
	})
	if p.boolean("new", false) {
		t.start, t.last = c.s.Store.End(), 0
	}
	t.follow = p.boolean("follow", true)
	t.payload = p.boolean("payload", true)
	// Where an earlier stream ended: browsers say so in a header.
	after := func(s string) (err error) {
		t.last = 0
		t.start.Commit, t.start.Offset, err = c.s.parseToken(tokenStream, s)
		return err
	}
	p.parse("after", after)
	if id := c.r.Header.Get("Last-Event-ID"); id != "" && p.err == nil {
		if err := after(id); err != nil {
			return nil, fmt.Errorf("Last-Event-ID is %q: %w", clip(id), err)
		}
	}
	return t, p.err
}

func (t *selection) admits(l *record.Leaf) bool {
	return len(t.classes) == 0 || slices.Contains(t.classes, l.Header.Class)
}

// stream writes entries in the order they were sealed, as server-sent events.
func (s *Service) stream(c *call) error {
	t, err := c.parseStream()
	if err != nil {
		return err
	}
	leave, err := s.streams.enter(c.id, "streams", maxStreams, maxAllStreams)
	if err != nil {
		return err
	}
	defer leave()
	if t.payload {
		if err := c.disclose(access.Disclosure{Origin: t.origin, Last: access.Open}); err != nil {
			return err
		}
	}
	c.w.Header().Set("Content-Type", client.EventStream)
	ctx, cancel := context.WithTimeoutCause(c.ctx, s.private.lifetime, errLifetime)
	defer cancel()
	out := &events{c: c, payload: t.payload, given: tally{}}
	c.deadline(c.s.private.write)
	c.flush()
	err = s.copyStream(ctx, t, out)
	out.given.settle(c)
	switch {
	case err == nil:
		out.end(client.EndDone, "all that is sealed was given")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.Log.WarnContext(c.ctx, "a stream is cut: its reader does not read", "who", c.id.Name, "how", c.id.How)
	case errors.Is(context.Cause(ctx), errLifetime):
		out.end(client.EndLifetime, errLifetime.Error())
	case errors.Is(context.Cause(c.ctx), access.ErrGone):
		out.end(client.EndFailed, access.ErrGone.Error())
	case c.ctx.Err() != nil:
		out.end(client.EndStopping, "the daemon stops") // or the reader is gone, and nobody reads it
	default:
		s.Log.ErrorContext(c.ctx, "a stream ended", "error", err)
		out.end(client.EndFailed, "the daemon could not go on; its log says why")
	}
	return nil
}

var errLifetime = errors.New("a stream has its time; go on with its last id")

// copyStream gives what is sealed, and then goes on with what will be.
func (s *Service) copyStream(ctx context.Context, t *selection, out *events) error {
	if t.last > 0 {
		t.start = s.Store.End()
		if err := s.copyNewest(ctx, t, out); err != nil {
			return err
		}
	}
	f := s.Store.Tail(t.start)
	defer f.Close()
	// A reader that is cut off before the next entry goes on here.
	if err := out.alive(s.position(t.start)); err != nil {
		return err
	}
	beat := time.Now()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		item, at, err := f.Scan(t.want, scanCommits)
		if err != nil {
			return err
		}
		if at == chain.ScanFound && t.admits(&item.Leaf) {
			if err := out.entry(&item); err != nil {
				return err
			}
		}
		switch {
		case at != chain.ScanEnd:
			if time.Since(beat) < s.private.heartbeat {
				continue
			}
		case !t.follow:
			return nil
		default:
			out.c.flush()
			wait, cancel := context.WithTimeout(ctx, max(0, s.private.heartbeat-time.Since(beat)))
			_, err := s.Store.Wait(wait, max(f.Reached().Commit, 1)-1)
			cancel()
			if err == nil {
				continue
			} else if wait.Err() == nil {
				return err
			}
		}
		beat = time.Now()
		if err := out.alive(s.position(f.Reached())); err != nil {
			return err
		}
	}
}

// copyNewest gives the newest entries before the start. Only their places are
// kept: payloads are a guest's, and there may be very many.
func (s *Service) copyNewest(ctx context.Context, t *selection, out *events) error {
	back := s.Store.Back(t.start)
	var places []chain.Place
	beat := time.Now()
	for more := true; more && len(places) < t.last; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		found, m, err := back.Step(t.want, t.admits, scanCommits, t.last-len(places))
		if err != nil {
			return err
		}
		places, more = append(places, found...), m
		if time.Since(beat) >= s.private.heartbeat {
			beat = time.Now()
			if err := out.alive(""); err != nil { // what comes first is not known yet
				return err
			}
		}
	}
	for _, p := range slices.Backward(places) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i, err := p.Log.Look(p.Index)
		if errors.Is(err, chain.ErrPruned) {
			continue // a moment ago
		} else if err != nil {
			return err
		}
		i.Pos = p.Pos
		if err := out.entry(&i); err != nil {
			return err
		}
	}
	return nil
}

// events writes server-sent events.
type events struct {
	c       *call
	payload bool
	given   tally
	count   int // since it was sealed how many were given
	b       bytes.Buffer
}

// entry writes one entry. Its id is the place behind it.
func (e *events) entry(i *chain.Item) error {
	if e.count >= streamSettle {
		e.given.settle(e.c)
		e.count = 0
	}
	e.b.Reset()
	e.b.WriteString("event: entry\nid: " + e.c.s.position(i.Pos) + "\ndata: ")
	if err := json.NewEncoder(&e.b).Encode(e.c.s.wire(i, e.payload)); err != nil { // with its newline
		return err
	}
	e.b.WriteByte('\n')
	if disclosed(i, e.payload) {
		e.given.add(i)
		e.count++
	}
	return e.write()
}

// alive tells a reader without news that there are none, and how far the
// search for some has come.
func (e *events) alive(id string) error {
	e.b.Reset()
	e.b.WriteString(": alive\n")
	if id != "" {
		e.b.WriteString("id: " + id + "\n")
	}
	e.b.WriteByte('\n')
	err := e.write()
	e.c.flush()
	return err
}

// end tells why nothing more comes, best effort: the reader may be gone. A
// stream that ends without it was cut.
func (e *events) end(code, why string) {
	e.b.Reset()
	e.b.WriteString("event: end\ndata: ")
	_ = json.NewEncoder(&e.b).Encode(client.StreamEnd{Code: code, Reason: why})
	e.b.WriteByte('\n')
	_ = e.write()
	e.c.flush()
}

func (e *events) write() error {
	e.c.deadline(e.c.s.private.write)
	_, err := e.b.WriteTo(e.c.w)
	return err
}
