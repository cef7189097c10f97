package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// StreamQuery chooses entries, in the order they were sealed. The zero value
// means all that are sealed, of all logs that may be seen.
type StreamQuery struct {
	Domain    string   // name or UUID: of all its incarnations
	Log       string   // id or origin of one log
	Classes   []string // any of these; file.* is all of a group; empty: all
	Last      int      // only the newest so many entries that match; 0: all
	New       bool     // none that are sealed already
	Follow    bool     // go on as entries are sealed, and over lost connections
	After     string   // behind the entry with this id
	NoPayload bool     // leaves only: nothing is disclosed
	// Lost is told that the connection is lost and made anew; it may be nil.
	Lost func(err error)
}

func (q *StreamQuery) values() url.Values {
	v := url.Values{}
	if q.Domain != "" {
		v.Set("domain", q.Domain)
	}
	if q.Log != "" {
		v.Set("log", q.Log)
	}
	if len(q.Classes) > 0 {
		v["class"] = q.Classes
	}
	if q.Last > 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if q.New {
		v.Set("new", "true")
	}
	if !q.Follow {
		v.Set("follow", "false")
	}
	if q.NoPayload {
		v.Set("payload", "false")
	}
	return v
}

// Pauses between two attempts to go on with a stream.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 15 * time.Second
)

// Stream returns the entries that are wanted. It ends with the newest one, or
// with ctx where it follows. A stream that follows survives the end of a
// connection: it asks again from where it was, so that every entry comes once.
func (c *Client) Stream(ctx context.Context, q StreamQuery) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		s := &stream{c: c, q: q, id: q.After, yield: yield}
		pause := firstPause
		for {
			before := s.heard
			err := s.read(ctx)
			switch {
			case s.enough || err == nil:
				return
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case !q.Follow || s.heard == 0 || !passing(err):
				yield(nil, err)
				return
			}
			if q.Lost != nil {
				q.Lost(err)
			}
			if s.heard > before {
				pause = firstPause
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// passing tells a failure that another attempt may not meet.
func passing(err error) bool {
	var p *Problem
	return !errors.As(err, &p) || p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError
}

// stream is a stream over all its connections.
type stream struct {
	c      *Client
	q      StreamQuery
	id     string // of the last event
	heard  int    // events, over all connections
	yield  func(*Entry, error) bool
	enough bool // the reader has
}

// read reads over one connection. It returns nil where all was given.
func (s *stream) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the connection, whatever is still to come
	v := s.q.values()
	var header map[string]string
	if s.id != "" {
		header = map[string]string{"Last-Event-ID": s.id}
		v.Del("new")
		v.Del("last")
	}
	body, err := s.c.open(ctx, http.MethodGet, "/v1/stream", v, header)
	if err != nil {
		return err
	}
	defer body.Close()
	// A connection that says nothing for three heartbeats is dead.
	quiet := time.AfterFunc(maxQuiet, cancel)
	defer quiet.Stop()
	r := bufio.NewReaderSize(body, 64<<10)
	for {
		e, err := readEvent(r)
		if err != nil {
			return fmt.Errorf("read entries from %s: the stream was cut off: %w", s.c.name, err)
		}
		quiet.Reset(maxQuiet)
		s.heard++
		switch e.kind {
		case "entry":
			var entry Entry
			if err := json.Unmarshal(e.data, &entry); err != nil {
				return fmt.Errorf("read entries from %s: %w", s.c.name, err)
			}
			entry.ID = e.id
			if !s.yield(&entry, nil) {
				s.enough = true
				return nil
			}
		case "end":
			var end StreamEnd
			if err := json.Unmarshal(e.data, &end); err != nil {
				return fmt.Errorf("read entries from %s: %w", s.c.name, err)
			}
			if end.Code == EndDone {
				return nil
			}
			return fmt.Errorf("read entries from %s: %s", s.c.name, end.Reason)
		}
		if e.id != "" {
			s.id = e.id
		}
	}
}

// maxQuiet is when a connection that says nothing is given up.
const maxQuiet = 50 * time.Second

// maxEvent bounds one event, and one line of an answer, in bytes.
const maxEvent = 16 << 20

// event is a server-sent event.
type event struct {
	kind string
	id   string
	data []byte
}

// readEvent reads up to the next empty line. Fields that it does not know, and
// comments, are passed over.
func readEvent(r *bufio.Reader) (event, error) {
	var e event
	for size := 0; ; {
		line, err := readLine(r, maxEvent-size)
		if err != nil {
			return event{}, err
		}
		if len(line) == 0 {
			return e, nil
		}
		size += len(line)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.kind = string(value)
		case "id":
			e.id = string(value)
		case "data":
			if e.data != nil {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
		}
	}
}

// readLine reads a line without its end, of at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("an entry has more than %d bytes", maxEvent)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
