package client

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestReadEvent reads what the standard for server-sent events allows.
func TestReadEvent(t *testing.T) {
	for text, want := range map[string]event{
		"event: entry\nid: 7\ndata: {}\n\n":        {"entry", "7", []byte("{}")},
		"event:entry\r\nid:7\r\ndata:{}\r\n\r\n":   {"entry", "7", []byte("{}")},
		": alive\nid: 8\n\n":                       {"", "8", nil},
		"data: a\ndata: b\n\n":                     {"", "", []byte("a\nb")},
		"retry: 10\nfoo\ndata\n\n":                 {"", "", []byte{}},
		"data:  two blanks: and a colon\n\nrest\n": {"", "", []byte(" two blanks: and a colon")},
	} {
		got, err := readEvent(bufio.NewReader(strings.NewReader(text)))
		if err != nil || got.kind != want.kind || got.id != want.id || !bytes.Equal(got.data, want.data) {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "data: x\n", "data: x"} {
		if e, err := readEvent(bufio.NewReader(strings.NewReader(text))); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %+v %v", text, e, err)
		}
	}
}

// endless is a server that never ends a line, or an event.
type endless struct {
	text []byte
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], e.text)
	}
	e.read += n
	return n, nil
}

// TestReadEventIsBounded: a server that floods gets an error, not memory.
func TestReadEventIsBounded(t *testing.T) {
	for _, text := range []string{"x", "data: 0123456789abcdef\n", "event: 0123456789abcdef\n"} {
		e := &endless{text: []byte(text)}
		if _, err := readEvent(bufio.NewReaderSize(e, 64<<10)); err == nil || !strings.Contains(err.Error(), "more than") || e.read > maxEvent+1<<20 {
			t.Errorf("%q without end: %v after %d bytes", text, err, e.read)
		}
	}
}

// FuzzReadEvent reads anything: an error, or an event no larger than what was
// read, and the next one stands behind it.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte("event: entry\nid: 7\ndata: {}\n\n: alive\n\n"))
	f.Add([]byte("data\n\n\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(b), 16)
		for n := 0; ; n++ {
			e, err := readEvent(r)
			if err != nil {
				if e.kind != "" || e.id != "" || e.data != nil {
					t.Fatalf("an error and %+v", e)
				}
				return
			}
			if len(e.data)+len(e.kind)+len(e.id) > len(b) || n > len(b) {
				t.Fatalf("%d events of %d bytes: %+v", n, len(b), e)
			}
		}
	})
}
