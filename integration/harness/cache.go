package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Cache is a directory for kernels and guest images. Processes that share it take turns by a lock
// file, so test packages running at the same time build an image once.
type Cache struct{ Dir string }

// DefaultCache is $PROVOST_CACHE, or .cache beside the go.mod that governs the working directory.
func DefaultCache() (Cache, error) {
	if d := os.Getenv("PROVOST_CACHE"); d != "" {
		return Cache{Dir: d}, nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return Cache{}, fmt.Errorf("find cache directory (set PROVOST_CACHE to name one): %w", err)
	}
	return Cache{Dir: filepath.Join(root, ".cache")}, nil
}

// ModuleRoot is the directory of the go.mod that governs the working directory.
func ModuleRoot() (string, error) {
	d, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		up := filepath.Dir(d)
		if up == d {
			return "", errors.New("find module root: no go.mod in the working directory or above it")
		}
		d = up
	}
}

func (c Cache) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// lock waits for the cache's lock and returns the function which gives it back. The kernel gives
// it back too when the process dies, so an interrupted build blocks nobody.
func (c Cache) lock() (func(), error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { f.Close() }, nil
}

// replaceFile writes data to path through a temporary name, so a reader or a later run never meets
// half a file under the final name.
func replaceFile(path string, perm os.FileMode, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
