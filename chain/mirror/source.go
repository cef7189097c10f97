package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/provostd/provost/chain/record"
)

// Source gives the resources of a mirror. Its methods are called from several
// goroutines.
type Source interface {
	// Fetch returns a resource, whose path has slashes and does not begin with
	// one. What is not there is an error that wraps fs.ErrNotExist, maybe a GoneError, what is
	// larger than limit bytes one that wraps ErrTooLarge, and what is damaged one
	// that wraps ErrDamaged: these are faults of the mirror. Every other error says that it could not be read.
	Fetch(ctx context.Context, path string, limit int) ([]byte, error)
}

// GoneError is the error of a resource whose server says that entries which it needs
// cannot be read any more. It wraps fs.ErrNotExist. What it says is not verified.
type GoneError struct {
	First, Last uint64 // entries of the log
	Reason      string
}

// Error names the entries.
func (e *GoneError) Error() string {
	return fmt.Sprintf("%s unreadable: %s", entriesAre(e.First, e.Last), e.Reason)
}

// Unwrap makes it a resource that is not there.
func (e *GoneError) Unwrap() error { return fs.ErrNotExist }

// Faults of a mirror: a resource is larger than it can be, or it is there and what
// it holds cannot be got out of it.
var (
	ErrTooLarge = errors.New("larger than it can be")
	ErrDamaged  = errors.New("damaged")
)

// unusable reports whether a resource is there and of no use.
func unusable(err error) bool { return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrDamaged) }

// Files is a Source over files, such as those of os.OpenRoot.
type Files struct{ FS fs.FS }

// Fetch implements Source.
func (f Files) Fetch(_ context.Context, path string, limit int) ([]byte, error) {
	if !fs.ValidPath(path) {
		return nil, fmt.Errorf("read %q: it is no path: %w", path, fs.ErrNotExist)
	}
	file, err := f.FS.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read mirror: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	st, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read mirror: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no file: %w", path, fs.ErrNotExist)
	}
	if st.Size() > int64(limit) {
		return nil, fmt.Errorf("read %s: %d bytes, limit %d: %w: %w", path, st.Size(), limit, ErrTooLarge, record.ErrReject)
	}
	// One byte more than it says it has: a file that grows meanwhile is seen.
	b := make([]byte, st.Size()+1)
	n, err := io.ReadFull(file, b)
	if err == nil || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: it changed while it was read: %w", path, errors.Join(err, record.ErrRetry))
	}
	return b[:n], nil
}

// Path returns the path of a tile or a bundle below its log, as c2sp.org/tlog-tiles
// has it. kind is "entries", "openings" or the level of a tile.
func Path(kind string, n uint64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	path = "tile/" + kind + "/" + path
	if width < bundleWidth {
		path += ".p/" + strconv.Itoa(width)
	}
	return path
}
