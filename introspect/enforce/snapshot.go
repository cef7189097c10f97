package enforce

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// snapshotTimeout bounds the taking of one snapshot.
const snapshotTimeout = 5 * time.Minute

// snapshot keeps memory and disks of a domain as they are now.
type snapshot struct {
	memory bool
	label  string
	keep   int // 0: all
}

func readSnapshot(a *record.Action, p *params) action {
	return snapshot{p.flag("memory"), a.Parameters["label"], p.count("keep", 1_000)}
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// name is the same for every attempt, and no other's.
func (s snapshot) name(x *attempt) string {
	o := x.j.log.Name()
	name := fmt.Sprintf("%d-%d-%d-%d-%s", o.Incarnation, o.Shard, x.j.index, x.i, x.j.verdict.Policy)
	if s.label != "" {
		name += "-" + s.label
	}
	name = notInNames.ReplaceAllString(name, "_")
	return name[:min(len(name), 100)]
}

func (s snapshot) run(ctx context.Context, x *attempt) error {
	if err := x.current("snapshot"); err != nil {
		return err
	}
	cfg := &x.e.cfg
	req := virt.SnapshotRequest{Name: s.name(x), Memory: s.memory, Dir: filepath.Join(cfg.Snapshots, x.j.id.String()),
		Spare: cfg.SnapshotSpare, MaxChain: cfg.SnapshotChain}
	end := x.e.beginShot(ctx, x.d)
	r, err := cfg.Actor.Snapshot(ctx, x.j.id, req, snapshotTimeout)
	end()
	if err != nil {
		return err
	}
	x.o.Result = resultDone
	if r.Existed {
		x.o.Result = resultAlready
	}
	x.o.StateBefore, x.o.StateAfter = stateText(r.Before), stateText(r.After)
	x.o.Detail = strings.Join(append([]string{req.Name + ": " + r.Variant}, r.Notes...), "; ")
	x.o.Files = recordFiles(r.Files)
	row := snapshotRow{Domain: x.j.id, Policy: x.j.verdict.Policy, Verdict: x.j.index, Index: x.i, Name: req.Name, Files: r.Files}
	w, err := row.write()
	if err != nil {
		return err
	}
	kept := keptRow{Domain: x.j.id, Policy: row.Policy, Verdict: row.Verdict, Index: row.Index, Name: req.Name, Taken: x.e.cfg.Now().UnixNano(), Keep: s.keep}
	for _, f := range r.Files {
		kept.Files = append(kept.Files, keptFile{SnapshotFile: f})
	}
	k, err := kept.write()
	if err != nil {
		return err
	}
	x.rows = append(x.rows, w, k)
	x.e.mu.Lock()
	x.e.hash = append(x.e.hash, w.Key)
	x.e.mu.Unlock()
	return nil
}

func recordFiles(all []virt.SnapshotFile) []*record.SnapshotFile {
	var out []*record.SnapshotFile
	for _, f := range all {
		out = append(out, &record.SnapshotFile{Role: f.Role, Target: f.Target, Path: f.Path, Size: uint64(max(f.Size, 0)), Overlay: f.Overlay})
	}
	return out
}

// snapshotRow is a snapshot whose files have no digests yet.
type snapshotRow struct {
	Domain  domain.UUID         `json:"domain"`
	Policy  string              `json:"policy"`
	Verdict uint64              `json:"verdict"`
	Index   uint32              `json:"index"`
	Name    string              `json:"name"`
	Files   []virt.SnapshotFile `json:"files"`
}

const snapshotPrefix = "enforce/snapshot/"

func (r *snapshotRow) write() (chain.MetaWrite, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("encode snapshot: %w", err)
	}
	return chain.MetaWrite{Key: snapshotPrefix + r.Domain.String() + "/" + r.Name, Value: b}, nil
}

// loadSnapshots finds the snapshots whose digests an earlier run did not come to.
func (e *Enforcer) loadSnapshots() error {
	for row, err := range e.cfg.Store.MetaPrefix(snapshotPrefix) {
		if err != nil {
			return fmt.Errorf("read snapshots from the ledger: %w", err)
		}
		e.hash = append(e.hash, row.Key)
	}
	return nil
}

// digest seals the digests of the files of snapshots, one after the other, and removes
// behind them what is not kept any more. It ends with ctx; what it has not come to is done
// by the next run.
func (e *Enforcer) digest(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	sweep := time.NewTicker(e.cfg.Sweep)
	defer sweep.Stop()
	for {
		e.mu.Lock()
		key := ""
		var due *retention
		switch {
		case len(e.hash) > 0:
			key, e.hash = e.hash[0], e.hash[1:]
		case len(e.retains) > 0: // behind all digests
			due, e.retains = &e.retains[0], e.retains[1:]
		}
		e.mu.Unlock()
		if due != nil {
			if err := e.retain(ctx, *due); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		if key != "" {
			if err := e.digestOne(ctx, key); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-sweep.C:
			e.mu.Lock()
			e.retains, e.retainLater = append(e.retains, e.retainLater...), nil
			e.mu.Unlock()
		}
	}
}

func (e *Enforcer) digestOne(ctx context.Context, key string) error {
	b, ok, err := e.cfg.Store.Meta(key)
	if err != nil {
		return err
	}
	if !ok { // its outcome is on its way: look again
		e.mu.Lock()
		e.hash = append(e.hash, key)
		e.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		return nil
	}
	var row snapshotRow
	if err := json.Unmarshal(b, &row); err != nil {
		return fmt.Errorf("read snapshot from the ledger: %w: %w", err, record.ErrFatal)
	}
	m := &record.Snapshotted{VerdictIndex: row.Verdict, ActionIndex: row.Index, Policy: row.Policy, Name: row.Name, Files: recordFiles(row.Files)}
	for _, f := range m.Files {
		sum, size, err := fileDigest(ctx, f.Path)
		if ctx.Err() != nil {
			return nil
		}
		if f.Size = size; err != nil {
			f.Error = err.Error()
		} else {
			f.Sha256 = sum
		}
	}
	rows := []chain.MetaWrite{{Key: key}}
	kept, err := e.keptDigests(&row, m.Files)
	if err != nil {
		return err
	}
	if kept != nil {
		rows = append(rows, *kept)
	}
	err = e.cfg.Seal(ctx, row.Domain, rows, func() (chain.Entry, error) {
		return e.cfg.Store.Draft(record.OriginHost, record.ClassPolicySnapshot, m)
	})
	if err != nil {
		return fmt.Errorf("seal digests of snapshot %s: %w", row.Name, err)
	}
	e.mu.Lock()
	if due := (retention{row.Domain, row.Policy}); !slices.Contains(e.retains, due) {
		e.retains = append(e.retains, due)
	}
	e.mu.Unlock()
	for _, f := range m.Files {
		e.cfg.Log.InfoContext(ctx, "file of a snapshot", "snapshot", row.Name, "uuid", row.Domain.String(), "path", f.Path, "sha256", hex.EncodeToString(f.Sha256), "error", f.Error)
	}
	return nil
}

// digestRate bounds how fast files are read, in bytes for a second: the disks are the
// domains'.
const digestRate = 128 << 20

// fileDigest reads a file that nobody should write any more, and notices if one does.
func fileDigest(ctx context.Context, path string) (sum []byte, size uint64, err error) {
	// What stands at the path by now may be anything: a pipe would keep us waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if m := before.Mode(); !m.IsRegular() && m&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return nil, 0, fmt.Errorf("%s is neither a file nor a block device", path)
	}
	tick := time.NewTicker(time.Second / 16)
	defer tick.Stop()
	h := sha256.New()
	for {
		n, err := io.CopyN(h, f, digestRate/16)
		size += uint64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, size, err
		}
		select {
		case <-ctx.Done():
			return nil, size, ctx.Err()
		case <-tick.C:
		}
	}
	after, err := f.Stat()
	if err != nil {
		return nil, size, err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, size, fmt.Errorf("%s was changed while it was read", path)
	}
	return h.Sum(nil), size, nil
}
