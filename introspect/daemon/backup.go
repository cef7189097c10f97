package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect/api/client"
)

// Backup copies the ledger to dir, and the keys of its payloads to keysDir
// where that is not empty: it asks the daemon, or does it by itself where none
// runs.
func Backup(ctx context.Context, cfg *Config, log *slog.Logger, version, dir, keysDir string) (b *client.Backup, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if keysDir != "" {
		if keysDir, err = filepath.Abs(keysDir); err != nil {
			return nil, err
		}
	}
	c := client.New(cfg.API.Socket)
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		return c.Backup(ctx, dir, keysDir)
	}
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	s, err := chain.Open(cfg.chain(k, log)) // refused where a daemon has it open
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	shelf := &shelf{dir: cfg.policiesDir()}
	b, err = backUp(ctx, s, shelf, "provostd "+version, "operator: provostd backup", dir, keysDir)
	return b, errors.Join(err, s.Close())
}

func (d *Daemon) backup(ctx context.Context, requester, dir, keysDir string) (*client.Backup, error) {
	// It is written where the requester says, with the daemon's powers.
	if err := onHost(ctx, "a backup is written"); err != nil {
		return nil, err
	}
	return backUp(ctx, d.store, d.policies.shelf, "provostd "+d.version, requester, dir, keysDir)
}

func backUp(ctx context.Context, s *chain.Store, policies *shelf, software, requester, dir, keysDir string) (*client.Backup, error) {
	m, err := s.Backup(ctx, chain.BackupOptions{Dir: dir, PayloadKeys: keysDir, Requester: requester, Software: software, Beside: policies.copyTo})
	if err != nil {
		return nil, err
	}
	b := &client.Backup{Dir: dir, PayloadKeys: keysDir, Logs: len(m.Logs), Files: len(m.Files), Size: m.Anchored.Size, Root: m.Anchored.Root}
	for _, l := range m.Logs {
		b.Entries += l.Size
	}
	for _, f := range m.Beside {
		b.Files, b.Bytes = b.Files+1, b.Bytes+f.Size
	}
	for _, f := range m.Files {
		b.Bytes += f.Size
		if st, err := os.Stat(filepath.Join(dir, f.Name)); err == nil {
			sys, ok := st.Sys().(*syscall.Stat_t)
			b.Linked = b.Linked || ok && sys.Nlink > 1
		}
	}
	return b, nil
}

// Restore puts a backup in the place of a ledger that is gone, and keeps the policies that
// it has. No daemon may run.
func Restore(ctx context.Context, cfg *Config, log *slog.Logger, o chain.RestoreOptions) (_ *chain.Restored, _ *RestoredPolicies, err error) {
	for _, d := range []*string{&o.Dir, &o.PayloadKeys} {
		if *d != "" {
			if *d, err = filepath.Abs(*d); err != nil {
				return nil, nil, err
			}
		}
	}
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return nil, nil, fmt.Errorf("open keys: %w", err)
	}
	var done func()
	if o.Fsck, done, err = fsckOptions(ctx, log); err != nil {
		return nil, nil, err
	}
	defer done()
	p, err := restorePolicies(cfg, o.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("restore %s: policies: %w", o.Dir, err)
	}
	r, err := chain.Restore(ctx, cfg.chain(k, log), o)
	return r, p, err
}

// fsckOptions are how this program checks ledgers. done gives the temporary file back.
func fsckOptions(ctx context.Context, log *slog.Logger) (_ chain.FsckOptions, done func(), err error) {
	spool, err := spoolFile()
	if err != nil {
		return chain.FsckOptions{}, nil, err
	}
	return chain.FsckOptions{
		Frame: attest.Frame, Spool: spool,
		Progress: func(origin string, done, total uint64) {
			log.DebugContext(ctx, "checking", "log", origin, "done", done, "of", total)
		},
	}, func() { _ = spool.Close() }, nil // it is of no use behind this
}

// spoolFile returns a file without a name: it is gone when it is closed, or when the
// program dies. It may become large, and /tmp is memory on many hosts.
func spoolFile() (*os.File, error) {
	dir := os.Getenv("TMPDIR")
	if dir == "" {
		dir = "/var/tmp"
	}
	f, err := os.CreateTemp(dir, "provost-fsck-")
	if err != nil {
		return nil, fmt.Errorf("make room for the check: %w; TMPDIR names another directory", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make room for the check: %w", err), f.Close())
	}
	return f, nil
}
