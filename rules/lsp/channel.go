package lsp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules/policy"
)

// Bounds of one message: a document whose every byte is escaped, and more.
const (
	maxMessage = 8 * policy.MaxFileSize
	maxHeader  = 4096
)

// frames is the framing of the protocol: headers, an empty line, JSON. It is
// one that refuses lengths instead of believing them.
//
// Nothing can interrupt a read of a standard input. So a goroutine reads, Recv
// waits for it or for Close, and it ends with the next message or the end of
// the input, or with the process.
type frames struct {
	w    io.WriteCloser
	in   chan received
	done chan struct{}
	once sync.Once
}

type received struct {
	msg []byte
	err error
}

func newFrames(r io.Reader, w io.WriteCloser) *frames {
	f := &frames{w: w, in: make(chan received), done: make(chan struct{})}
	go f.pump(bufio.NewReaderSize(r, maxHeader))
	return f
}

func (f *frames) pump(r *bufio.Reader) {
	for {
		msg, err := readMessage(r)
		select {
		case f.in <- received{msg, err}: // it waits: no more than one message is held
		case <-f.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// Send writes one message.
func (f *frames) Send(msg []byte) error {
	out := append(fmt.Appendf(nil, "Content-Length: %d\r\n\r\n", len(msg)), msg...)
	_, err := f.w.Write(out)
	return err
}

// Recv returns the next message, io.EOF after Close.
func (f *frames) Recv() ([]byte, error) {
	select {
	case x := <-f.in:
		return x.msg, x.err
	case <-f.done:
		return nil, io.EOF
	}
}

// Close ends Recv and closes the side that is written to.
func (f *frames) Close() error {
	var err error
	f.once.Do(func() {
		close(f.done)
		err = f.w.Close()
	})
	return err
}

// readMessage reads one message.
func readMessage(r *bufio.Reader) ([]byte, error) {
	size, seen := -1, 0
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 && seen == 0 {
			return nil, io.EOF
		}
		if seen += len(line); err != nil || seen > maxHeader {
			return nil, fmt.Errorf("read header of a message: %w", errors.Join(err, record.ErrReject))
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		name, value, _ := strings.Cut(text, ":")
		if strings.EqualFold(name, "Content-Length") {
			if size, err = strconv.Atoi(strings.TrimSpace(value)); err != nil || size < 0 || size > maxMessage {
				return nil, fmt.Errorf("read header of a message: length %q, want 0 to %d: %w", strings.TrimSpace(value), maxMessage, record.ErrReject)
			}
		}
	}
	if size < 0 {
		return nil, fmt.Errorf("read header of a message: no Content-Length: %w", record.ErrReject)
	}
	msg := make([]byte, size)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return msg, nil
}
