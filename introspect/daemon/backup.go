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
	b, err = backUp(ctx, s, "provostd "+version, "operator: provostd backup", dir, keysDir)
	return b, errors.Join(err, s.Close())
}

func (d *Daemon) backup(ctx context.Context, requester, dir, keysDir string) (*client.Backup, error) {
	// It is written where the requester says, with the daemon's powers.
	if err := onHost(ctx, "a backup is written"); err != nil {
		return nil, err
	}
	return backUp(ctx, d.store, "provostd "+d.version, requester, dir, keysDir)
}

func backUp(ctx context.Context, s *chain.Store, software, requester, dir, keysDir string) (*client.Backup, error) {
	m, err := s.Backup(ctx, chain.BackupOptions{Dir: dir, PayloadKeys: keysDir, Requester: requester, Software: software})
	if err != nil {
		return nil, err
	}
	b := &client.Backup{Dir: dir, PayloadKeys: keysDir, Logs: len(m.Logs), Files: len(m.Files), Size: m.Anchored.Size, Root: m.Anchored.Root}
	for _, l := range m.Logs {
		b.Entries += l.Size
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

// Restore puts a backup in the place of a ledger that is gone. No daemon may
// run.
func Restore(ctx context.Context, cfg *Config, log *slog.Logger, o chain.RestoreOptions) (_ *chain.Restored, err error) {
	for _, d := range []*string{&o.Dir, &o.PayloadKeys} {
		if *d != "" {
			if *d, err = filepath.Abs(*d); err != nil {
				return nil, err
			}
		}
	}
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	o.Fsck = fsckOptions(ctx, log)
	return chain.Restore(ctx, cfg.chain(k, log), o)
}

// fsckOptions are how this program checks ledgers.
func fsckOptions(ctx context.Context, log *slog.Logger) chain.FsckOptions {
	return chain.FsckOptions{
		Frame: attest.Frame,
		Progress: func(origin string, done, total uint64) {
			log.DebugContext(ctx, "checking", "log", origin, "done", done, "of", total)
		},
	}
}
