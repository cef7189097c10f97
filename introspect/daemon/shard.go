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
	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/guest"
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
		l, err := shardOf(s, origin)
		if err != nil {
			return err
		}
		ctx = access.With(ctx, &access.Identity{Name: who, Role: access.Operator, How: "provostd shard export"})
		shelf := &shelf{dir: cfg.policiesDir()}
		a, err = exportShard(ctx, s, &access.Sealer{Store: s}, shelf.text, l, file, withhold)
		return err
	})
	return a, err
}

// DropShard drops a closed log of which a file is the archive: it asks the daemon, or
// does it by itself where none runs.
func DropShard(ctx context.Context, cfg *Config, log *slog.Logger, who, origin, archive, reason, requester string) (d *client.Dropped, err error) {
	if archive, err = filepath.Abs(archive); err != nil {
		return nil, err
	}
	c := client.New(cfg.API.Socket)
	defer c.Close()
	if _, err := c.Status(ctx); err == nil {
		return c.DropShard(ctx, origin, archive, reason, requester)
	}
	if requester == "" {
		requester = who
	} else {
		requester += ", by " + who
	}
	err = alone(ctx, cfg, log, func(ctx context.Context, s *chain.Store) error {
		l, err := shardOf(s, origin)
		if err != nil {
			return err
		}
		d, err = dropShard(ctx, s, l, archive, reason, requester)
		return err
	})
	return d, err
}

func shardOf(s *chain.Store, origin string) (*chain.Log, error) {
	l, ok := s.LogByOrigin(client.OriginOf(origin))
	if !ok {
		return nil, fmt.Errorf("there is no log %q; provostd shard list shows them: %w", origin, record.ErrReject)
	}
	return l, nil
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
	return exportShard(ctx, d.store, d.sealer, d.policies.text, l, file, withhold)
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
func exportShard(ctx context.Context, s *chain.Store, to access.Discloser, text func(record.Hash) (map[string][]byte, error), l *chain.Log, file string, withhold bool) (_ *client.Archive, err error) {
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
	a, err := s.Archive(ctx, l, io.MultiWriter(buffer, sum), chain.ArchiveOptions{Withhold: withhold, Policies: textsFor(text), Begin: func(size uint64) error {
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

func (d *Daemon) dropShard(ctx context.Context, l *chain.Log, archive, reason, requester string) (*client.Dropped, error) {
	if err := onHost(ctx, "an archive is read"); err != nil {
		return nil, err
	}
	return dropShard(ctx, d.store, l, archive, reason, requester)
}

// dropShard verifies an archive as anybody would, with the public key of the host log,
// and drops the log for it. The ledger compares their checkpoints.
func dropShard(ctx context.Context, s *chain.Store, l *chain.Log, archive, reason, requester string) (*client.Dropped, error) {
	if !filepath.IsAbs(archive) {
		return nil, fmt.Errorf("name the archive by its whole path, not %q: %w", archive, record.ErrReject)
	}
	if err := l.Gone(); err != nil {
		return nil, err // before hours of reading
	}
	note, sum, size, err := verifyArchive(ctx, s.HostLog(), l, archive)
	if err != nil {
		return nil, fmt.Errorf("drop %s: archive %s: %w", l.Origin(), archive, err)
	}
	if err := introspect.HandedOver(s, l); err != nil {
		return nil, fmt.Errorf("drop %s: %w", l.Origin(), err)
	}
	index, err := s.Drop(ctx, l, chain.DropOptions{
		Reason: reason, Requester: requester, Note: note, SHA256: sum, Bytes: uint64(size),
		Forget: []string{introspect.StateKey(l.ID()), introspect.ActivationKey(l.ID()), introspect.JudgedKey(l.ID()), guest.ProgressKey(l)},
	})
	if err != nil {
		return nil, err
	}
	return &client.Dropped{Log: l.Origin(), Size: l.Size(), Entry: index, SHA256: hex.EncodeToString(sum[:])}, nil
}

// verifyArchive returns the checkpoint of an archive that verifies and is that of a log.
func verifyArchive(ctx context.Context, host, l *chain.Log, name string) (note []byte, sum [32]byte, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, sum, 0, fmt.Errorf("%w: %w", err, record.ErrReject)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, sum, 0, errors.Join(fmt.Errorf("it is no file: %w", record.ErrReject), err)
	}
	if sum, err = digest(f, st.Size()); err != nil {
		return nil, sum, 0, err
	}
	a, err := mirror.OpenArchive(f, st.Size())
	if err != nil {
		return nil, sum, 0, err
	}
	r, err := mirror.VerifyArchive(ctx, a, host.VerifierKey(), mirror.Options{Frame: attest.Frame})
	if r != nil && len(r.Rest) > 0 { // but for gaps that the host log tells of it verifies
		err = nobodyReads(l, r.Lost)
	}
	if err != nil {
		return nil, sum, 0, err
	}
	if origin := r.Logs[0].Origin; origin != l.Origin() {
		return nil, sum, 0, fmt.Errorf("it is that of %s: %w", origin, record.ErrReject)
	}
	if note, err = a.Fetch(ctx, "checkpoint", maxNote); err != nil {
		return nil, sum, 0, err
	}
	// The digest is to be that of what was verified.
	if again, err := digest(f, st.Size()); err != nil || again != sum {
		return nil, sum, 0, errors.Join(fmt.Errorf("it changed while it was verified: %w", record.ErrReject), err)
	}
	return note, sum, st.Size(), nil
}

// maxNote bounds a signed checkpoint with its cosignatures.
const maxNote = 64 << 10

// nobodyReads refuses an archive that lacks what can be read here: of an entry that is
// fenced off nothing goes with the log.
func nobodyReads(l *chain.Log, lost []proof.Range) error {
	for _, r := range lost {
		for i := r.First; i <= r.Last; i++ {
			item, err := l.Look(i)
			if err != nil {
				return err
			}
			if item.Unreadable == nil {
				return fmt.Errorf("entry %d lacks in it, and can be read here: export it again: %w", i, record.ErrReject)
			}
		}
	}
	return nil
}

func digest(f *os.File, size int64) (sum [32]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return sum, fmt.Errorf("read it: %w", err)
	}
	return [32]byte(h.Sum(nil)), nil
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
