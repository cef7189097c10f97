package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect/api/client"
)

// verifyMirror verifies the logs in a directory or at a URL.
func (a *app) verifyMirror(ctx context.Context, f *verifyFlags, place string, isURL bool, vkey string, policy *proof.Policy) (err error) {
	if vkey == "" {
		if len(policy.Logs) != 1 {
			return &usageError{fmt.Sprintf("the policy %s names %d logs; say which with --key", f.policy, len(policy.Logs))}
		}
		vkey = policy.Logs[0].Key
	}
	opts := mirror.Options{Frame: attest.Frame, Policy: policy, WithoutPayloads: f.bare, OneLog: f.one, Window: f.window, Entry: f.replay.entry(), Progress: a.progress(f.progress)}
	if f.logs != "" {
		opts.Logs = strings.Split(f.logs, ",")
	}
	if opts.Seen, err = readSmall(f.state, maxState, true); err != nil {
		return fmt.Errorf("read the checkpoint seen before: %w", err)
	}
	spool, err := os.CreateTemp("", "provost-verify-")
	if err != nil {
		return err
	}
	defer func() {
		_ = spool.Close() // it is of no use behind this
		err = errors.Join(err, os.Remove(spool.Name()))
	}()
	opts.Spool = spool
	src, done, err := f.source(place, isURL, &opts)
	if err != nil {
		return err
	}
	defer done()
	if f.save != "" {
		keep, err := newSaver(src, f.save)
		if err != nil {
			return fmt.Errorf("save logs: %w", err)
		}
		defer keep.root.Close()
		src = keep
	}
	r, err := mirror.Verify(ctx, src, vkey, opts)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: interrupted, nothing is proved", place) // not context.Canceled, which would be a good end
	}
	var invalid *mirror.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		return fmt.Errorf("%s: %w", place, err)
	}
	if r.Valid && f.state != "" {
		if err := writeState(f.state, []byte(r.Checkpoint)); err != nil {
			return fmt.Errorf("remember the checkpoint: %w", err)
		}
	}
	return f.replay.verdict(a, r, r.WriteText, invalid != nil)
}

// source opens the place of the logs.
func (f *verifyFlags) source(place string, isURL bool, opts *mirror.Options) (mirror.Source, func(), error) {
	if !isURL {
		root, err := os.OpenRoot(place) // links out of it are not followed
		if err != nil {
			return nil, nil, err
		}
		return mirror.Files{FS: root.FS()}, func() { _ = root.Close() }, nil
	}
	// Servers of other logs may be older than ours.
	cfg := client.MirrorConfig{URL: place}
	var err error
	if cfg.Token, err = readToken(f.to.token); err != nil {
		return nil, nil, fmt.Errorf("read token: %w", err)
	}
	if cfg.TLS, err = f.to.tls(tls.VersionTLS12); err != nil {
		return nil, nil, err
	}
	m, err := client.NewMirror(cfg)
	if err != nil {
		return nil, nil, err
	}
	opts.Workers = max(8, runtime.GOMAXPROCS(0)) // they wait for the network most of the time
	return m, m.Close, nil
}

// saver is a Source that keeps what it reads in a directory, for later.
type saver struct {
	mirror.Source
	root *os.Root
}

func newSaver(src mirror.Source, dir string) (*saver, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return &saver{src, root}, err
}

// Fetch implements mirror.Source. A crash may leave a file that is cut short: the
// next verification of the directory names it.
func (s *saver) Fetch(ctx context.Context, name string, limit int) ([]byte, error) {
	b, err := s.Source.Fetch(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	if err := s.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("save %s: %w", name, err)
	}
	if err := s.root.WriteFile(name, b, 0o600); err != nil {
		return nil, fmt.Errorf("save %s: %w", name, err)
	}
	return b, nil
}

// maxState bounds a remembered checkpoint, in bytes.
const maxState = 64 << 10

// readSmall reads a file whole; none is read with an empty name. mayLack says that it need
// not be there.
func readSmall(name string, limit int64, mayLack bool) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if mayLack && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", name, limit, record.ErrReject)
	}
	return b, err
}

// writeState replaces the remembered checkpoint. A crash leaves the old one or the
// new one: either is one that was verified.
func writeState(name string, text []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, text) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".provost-state-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // best effort: the error to report is the first one
	}
	return err
}

// progress returns what shows how far a verification is: on a terminal in one
// line, else, if it is asked for, a line now and then.
func (a *app) progress(asked bool) func(origin string, done, total uint64) {
	f, _ := a.stderr.(*os.File)
	terminal := false
	if f != nil {
		st, err := f.Stat()
		terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	if !terminal && !asked {
		return nil
	}
	every, head, end := 5*time.Second, "", "\n"
	if terminal {
		every, head, end = 200*time.Millisecond, "\r\x1b[K", "\r"
	}
	var last time.Time
	return func(origin string, done, total uint64) {
		now := time.Now()
		if done < total && now.Sub(last) < every {
			return
		}
		last = now
		fmt.Fprintf(a.stderr, "%sverified %d of %d entries of %s%s", head, done, total, record.Printable([]byte(origin)), end)
		if terminal && done == total {
			fmt.Fprint(a.stderr, "\x1b[K")
		}
	}
}
