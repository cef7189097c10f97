package chain

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

const (
	anchorMagic = "provost-anchor/v1"
	maxAnchor   = 64 << 10
)

// AnchorError says that the store is not the one its anchor saw, or an older
// copy of it. Nothing may be appended: it would fork a published log.
type AnchorError struct {
	File       string
	Origin     string
	AnchorSize uint64
	AnchorRoot record.Hash
	StoreSize  uint64
	StoreRoot  record.Hash // at AnchorSize, or at StoreSize where that is less
	Reason     string
}

// Error says what differs and how it can have come to it.
func (e *AnchorError) Error() string {
	return fmt.Sprintf("anchor %s of %s says size %d root %s, the store has size %d root %s: %s; "+
		"restore the newest copy of the store, or keep this one for reading only",
		e.File, e.Origin, e.AnchorSize, e.AnchorRoot, e.StoreSize, e.StoreRoot, e.Reason)
}

// Is makes an AnchorError fatal.
func (e *AnchorError) Is(target error) bool { return target == record.ErrFatal }

// anchorText is the content of an anchor file: a line with magic and version,
// a line with the store's id, an empty line, and the signed host checkpoint.
func anchorText(id [16]byte, note []byte) []byte {
	return append(fmt.Appendf(nil, "%s\nstore %s\n\n", anchorMagic, hex.EncodeToString(id[:])), note...)
}

func parseAnchor(text []byte) (id [16]byte, note []byte, err error) {
	head, note, ok := bytes.Cut(text, []byte("\n\n"))
	magic, rest, _ := bytes.Cut(head, []byte("\n"))
	store, isStore := bytes.CutPrefix(rest, []byte("store "))
	if !ok || string(magic) != anchorMagic || !isStore {
		return id, nil, fmt.Errorf("it is no anchor of version %s: %w", anchorMagic, record.ErrReject)
	}
	raw, err := hex.DecodeString(string(store))
	if err != nil || len(raw) != len(id) {
		return id, nil, fmt.Errorf("its store id is not 32 hexadecimal digits: %w", record.ErrReject)
	}
	copy(id[:], raw)
	return id, note, nil
}

// readAnchor returns the anchor file's bytes, or nil where there is none.
func readAnchor(f vfs.FS, path string) (text []byte, err error) {
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read anchor: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err = io.ReadAll(io.LimitReader(file, maxAnchor+1))
	if err != nil {
		return nil, fmt.Errorf("read anchor %s: %w", path, err)
	}
	if len(text) > maxAnchor {
		return nil, fmt.Errorf("read anchor %s: more than %d bytes: %w", path, maxAnchor, record.ErrReject)
	}
	return text, nil
}

// anchor replaces the anchor file by compare-and-swap: whoever else writes it
// runs a second copy of this store, and one of the two must stop before it
// publishes. The caller holds checkpointMu.
func (s *Store) anchor(p *Published) error {
	found, err := readAnchor(s.cfg.FS, s.cfg.Anchor)
	if err != nil {
		return err
	}
	if !bytes.Equal(found, s.anchored) {
		return s.anchorChanged(found)
	}
	text := anchorText(s.id, p.Note)
	if err := writeAnchor(s.cfg.FS, s.cfg.Anchor, text); err != nil {
		return err
	}
	s.anchored = text
	return nil
}

// anchorChanged describes an anchor that this process did not write.
func (s *Store) anchorChanged(found []byte) error {
	e := &AnchorError{File: s.cfg.Anchor, Origin: s.host.origin, Reason: "another process wrote or removed the anchor while this one was running"}
	e.StoreSize, e.StoreRoot = s.host.Root()
	if _, note, err := parseAnchor(found); err == nil {
		if c, err := proof.ParseCheckpoint(note); err == nil {
			e.AnchorSize, e.AnchorRoot = c.Size, c.Root
		}
	}
	return e
}

// writeAnchor makes text the durable content of path. A crash at any step
// leaves the older content or the new one, and perhaps a file beside it which
// the next write replaces.
func writeAnchor(f vfs.FS, path string, text []byte) error {
	temporary := path + ".new"
	file, err := f.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("write anchor: %w", err)
	}
	_, err = file.Write(bytes.Clone(text)) // a vfs may spoil what it is given
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write anchor %s: %w", temporary, err)
	}
	if err := f.Rename(temporary, path); err != nil {
		return fmt.Errorf("write anchor: %w", err)
	}
	// Only now is it certain that a crash does not bring the older one back.
	dir, err := f.OpenDir(f.PathDir(path))
	if err != nil {
		return fmt.Errorf("sync anchor directory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync anchor directory: %w", err)
	}
	return nil
}
