package daemon

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
)

// Shards lists the VM logs: it asks the daemon, or looks by itself where none runs.
func Shards(ctx context.Context, cfg *Config, log *slog.Logger) (all []client.Log, err error) {
	c := client.New(cfg.API.Socket)
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		if all, err = c.Logs(ctx); err != nil {
			return nil, err
		}
	} else if err := alone(ctx, cfg, log, func(_ context.Context, s *chain.Store) error {
		for _, l := range s.Logs() {
			all = append(all, api.LogInfo(l))
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for i, l := range all {
		if l.Domain == "" { // the host log, which stands first
			return append(all[:i:i], all[i+1:]...), nil
		}
	}
	return all, nil
}

// ExportShard writes the archive of a closed log to a file that is not there yet: it
// asks the daemon, or does it by itself where none runs.
func ExportShard(ctx context.Context, cfg *Config, log *slog.Logger, who, origin, file string, withhold bool) (a *client.Archive, err error) {
	if file, err = filepath.Abs(file); err != nil {
		return nil, err
	}
	c := client.New(cfg.API.Socket)
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		return c.ExportShard(ctx, origin, file, withhold)
	}
	err = alone(ctx, cfg, log, func(ctx context.Context, s *chain.Store) error {
		l, ok := s.LogByOrigin(client.OriginOf(origin))
		if !ok {
			return fmt.Errorf("there is no log %q; provostd shard list shows them: %w", origin, record.ErrReject)
		}
		ctx = access.With(ctx, &access.Identity{Name: who, Role: access.Operator, How: "provostd shard export"})
		a, err = exportShard(ctx, s, &access.Sealer{Store: s}, l, file, withhold)
		return err
	})
	return a, err
}

// alone does something with the ledger that no daemon has open.
func alone(ctx context.Context, cfg *Config, log *slog.Logger, do func(context.Context, *chain.Store) error) error {
	k, err := keys.Open(cfg.keysDir())
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	s, err := chain.Open(cfg.chain(k, log)) // refused where a daemon has it open
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	err = do(ctx, s)
	cancel()
	return errors.Join(err, <-ran, s.Close())
}

func (d *Daemon) exportShard(ctx context.Context, l *chain.Log, file string, withhold bool) (*client.Archive, error) {
	if err := onHost(ctx, "an archive is written"); err != nil {
		return nil, err
	}
	return exportShard(ctx, d.store, d.sealer, l, file, withhold)
}

// onHost refuses who is not on this host: what names files of it is done with the
// daemon's powers.
func onHost(ctx context.Context, what string) error {
	if who := access.From(ctx); who == nil || who.Address != "" {
		return fmt.Errorf("%s on this host; ask for it on this host, over its socket: %w", what, record.ErrReject)
	}
	return nil
}

// exportShard writes an archive. That its payloads are given is sealed before the
// first byte of it. The file is whole and on disk when it has its name; a crash before
// that leaves a file ".provost-shard-*" beside it, which may be deleted.
func exportShard(ctx context.Context, s *chain.Store, to access.Discloser, l *chain.Log, file string, withhold bool) (_ *client.Archive, err error) {
	if !filepath.IsAbs(file) {
		return nil, fmt.Errorf("name the file by its whole path, not %q: %w", file, record.ErrReject)
	}
	if err := absent(file); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".provost-shard-") // its owner's alone
	if err != nil {
		return nil, fmt.Errorf("write archive: %w: %w", err, record.ErrReject)
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the error to report is the first one
			_ = os.Remove(f.Name()) // best effort, likewise
		}
	}()
	sum, buffer := sha256.New(), bufio.NewWriterSize(f, 1<<20)
	a, err := s.Archive(ctx, l, io.MultiWriter(buffer, sum), chain.ArchiveOptions{Withhold: withhold, Begin: func(size uint64) error {
		d := access.Disclosure{Origin: l.Origin(), Last: size - 1, What: "shard export"}
		if withhold {
			d.Last, d.Count = 0, 1 // the genesis
		}
		return to.Disclose(ctx, d)
	}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(buffer.Flush(), f.Sync()); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if err := absent(file); err != nil { // it took a while
		return nil, err
	}
	if err := errors.Join(f.Close(), os.Rename(f.Name(), file), syncDir(filepath.Dir(file))); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	return &client.Archive{Log: l.Origin(), File: file, Bytes: st.Size(), SHA256: hex.EncodeToString(sum.Sum(nil)), Size: a.Size, Root: a.Root.String(), Payloads: a.Opened, Withheld: withhold}, nil
}

// absent refuses a file that is there.
func absent(file string) error {
	_, err := os.Lstat(file)
	switch {
	case err == nil:
		return fmt.Errorf("%s exists; name a file that does not: %w", file, record.ErrReject)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w: %w", file, err, record.ErrReject)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
