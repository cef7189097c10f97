package rules

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/provostd/provost/chain/record"
)

// Bounds of files of recorded entries.
const (
	maxEntryLine = 16 << 20
	maxEntries   = 1_000_000
)

// Entry is one sealed entry as it was recorded.
type Entry struct {
	Log     string // origin
	Leaf    record.Leaf
	Hash    record.Hash
	Payload record.Message // nil: erased
}

// ReadEntries reads entries as the daemon's interface gives them, in the bytes
// that were sealed, one JSON object a line. An error wraps record.ErrReject and
// names the line.
func ReadEntries(r io.Reader) ([]Entry, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var out []Entry
	for n := 1; ; n++ {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			if len(out) == 0 {
				return nil, fmt.Errorf("read entries: there are none: %w", record.ErrReject)
			}
			return out, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read entries: line %d: %w", n, err)
		}
		e, some, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("read entries: line %d: %w: %w", n, err, record.ErrReject)
		}
		if !some {
			continue
		}
		if len(out) == maxEntries {
			return nil, fmt.Errorf("read entries: more than %d of them: %w", maxEntries, record.ErrReject)
		}
		out = append(out, e)
	}
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxEntryLine {
			return nil, fmt.Errorf("longer than %d bytes: %w", maxEntryLine, record.ErrReject)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// parseEntry reads one line. some is false for the line that ends an answer,
// and for empty ones.
func parseEntry(line []byte) (e Entry, some bool, err error) {
	var in struct {
		Log        string          `json:"log"`
		Leaf       []byte          `json:"leaf"`
		Payload    []byte          `json:"payload"`
		ErasedBy   *uint64         `json:"erased_by"`
		Unreadable string          `json:"unreadable"`
		End        json.RawMessage `json:"end"`
	}
	if len(line) == 0 || len(line) == 1 && line[0] == '\n' {
		return e, false, nil
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return e, false, fmt.Errorf(`want an entry as "provost query --raw" writes it: %w`, err)
	}
	switch {
	case in.End != nil:
		return e, false, nil
	case in.Leaf == nil:
		return e, false, fmt.Errorf(`the entry has no "leaf": record entries with "provost query --raw"`)
	case in.Unreadable != "":
		return e, false, fmt.Errorf("the entry is unreadable: %s", in.Unreadable)
	}
	e.Log = in.Log
	if e.Leaf, err = record.ParseLeaf(in.Leaf); err != nil {
		return e, false, err
	}
	e.Hash = record.LeafHash(in.Leaf)
	if in.ErasedBy == nil {
		if e.Payload, err = record.Decode(e.Leaf.Header.Class, in.Payload); err != nil {
			return e, false, err
		}
	}
	return e, true, nil
}
