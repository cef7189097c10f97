package chain_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/chaintest"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
)

// Writers that die: Pebble answers faults of the disk with the end of the
// process, so what a fault leaves is looked at from outside. TestWriter is the
// writer; alone it does nothing.

// writer says what a child is to do: its directory, the operation that fails
// and how, and how many batches it appends (0: until it dies).
var (
	writerDir  = flag.String("writer-dir", "", "be a writer on the store in this directory")
	writerFail = flag.Int64("writer-fail", -1, "operation that fails")
	writerDone = flag.Bool("writer-done", false, "it fails after it was done")
	writerMany = flag.Int("writer-batches", 0, "batches to append; 0: until it dies")
)

// faultFS counts the operations that change a file system, and has one of them
// fail: done or not.
type faultFS struct {
	vfs.FS
	n    *atomic.Int64
	fail int64
	done bool
}

var errFault = fmt.Errorf("the disk says no: %w", syscall.EIO)

func (f *faultFS) op(do func() error) error {
	if f.n.Add(1)-1 != f.fail {
		return do()
	}
	if f.done {
		return errors.Join(do(), errFault)
	}
	return errFault
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	err = f.op(func() error { file, err = f.FS.Create(name, c); return err })
	return f.wrap(file, err)
}

func (f *faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (file vfs.File, err error) {
	err = f.op(func() error { file, err = f.FS.OpenReadWrite(name, c, o...); return err })
	return f.wrap(file, err)
}

func (f *faultFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	err = f.op(func() error { file, err = f.FS.ReuseForWrite(from, to, c); return err })
	return f.wrap(file, err)
}

func (f *faultFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(file, err)
}

func (f *faultFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return nil, err
	}
	return &faultFile{file, f}, nil
}

func (f *faultFS) Link(from, to string) error {
	return f.op(func() error { return f.FS.Link(from, to) })
}
func (f *faultFS) Remove(name string) error {
	return f.op(func() error { return f.FS.Remove(name) })
}
func (f *faultFS) RemoveAll(name string) error {
	return f.op(func() error { return f.FS.RemoveAll(name) })
}
func (f *faultFS) Rename(from, to string) error {
	return f.op(func() error { return f.FS.Rename(from, to) })
}
func (f *faultFS) MkdirAll(dir string, mode os.FileMode) error {
	return f.op(func() error { return f.FS.MkdirAll(dir, mode) })
}
func (f *faultFS) Unwrap() vfs.FS { return f.FS }

type faultFile struct {
	vfs.File
	fs *faultFS
}

func (f *faultFile) Write(b []byte) (n int, err error) {
	err = f.fs.op(func() error { n, err = f.File.Write(b); return err })
	return n, err
}

func (f *faultFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.fs.op(func() error { n, err = f.File.WriteAt(b, at); return err })
	return n, err
}
func (f *faultFile) Sync() error     { return f.fs.op(f.File.Sync) }
func (f *faultFile) SyncData() error { return f.fs.op(f.File.SyncData) }
func (f *faultFile) SyncTo(n int64) (full bool, err error) {
	err = f.fs.op(func() error { full, err = f.File.SyncTo(n); return err })
	return full, err
}

// writerConfig is the store in a directory of the disk.
func writerConfig(dir string) (chain.Config, error) {
	k, err := keys.Open(filepath.Join(dir, "keys"))
	return chain.Config{
		Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), PayloadKeys: filepath.Join(dir, "payload-keys"), HostID: chaintest.HostID, Keys: k,
	}, err
}

// newWriterStore makes a store for writers.
func newWriterStore(t *testing.T, dir string) {
	t.Helper()
	if _, err := keys.Create(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	cfg, err := writerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWriter is what children run. It says on standard output what was
// acknowledged, and how many operations there were.
func TestWriter(t *testing.T) {
	if *writerDir == "" {
		return
	}
	cfg, err := writerConfig(*writerDir)
	if err != nil {
		t.Fatal(err)
	}
	fs := &faultFS{FS: vfs.Default, n: &atomic.Int64{}, fail: *writerFail, done: *writerDone}
	cfg.FS = fs
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg.Exit = func(code int) { os.Exit(code) }
	s, err := chain.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := chaintest.Run(t, s)
	for n := 0; *writerMany == 0 || n < *writerMany; n++ {
		l := logNumber(t, s, n%3)
		b := chain.Batch{Log: l}
		for range 1 + n*7%40 {
			e, err := s.Draft(record.OriginHost, record.ClassVMChange, &record.Event{Reason: strings.Repeat("x", 200)})
			if err != nil {
				t.Fatal(err)
			}
			b.Entries = append(b.Entries, e)
		}
		sealed, err := s.Append(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acked %s %d %s\n", l.Origin(), sealed.First+uint64(sealed.Count)-1, sealed.LastHash)
		if n%3 == 2 {
			if err := s.CheckpointNow(context.Background(), l); err != nil {
				t.Fatal(err)
			}
			p, _ := s.HostLog().Checkpoint()
			fmt.Printf("published %d %s\n", p.Size, p.Root)
		}
	}
	if err := errors.Join(stop(), s.Close()); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("operations %d\n", fs.n.Load())
}

// promises are what a writer said before it died.
type promises struct {
	acked      map[string]string // origin to "index hash"
	published  string            // "size root"
	operations int64
	lines      int
	said       string // all else
}

// write runs a writer to its end, or kills it behind so many lines.
func write(t *testing.T, dir string, kill int, args ...string) (*promises, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestWriter$", "-writer-dir=" + dir}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &promises{acked: map[string]string{}}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.take(lines.Text())
		if p.lines == kill {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	p.said += problems.String()
	return p, err
}

func (p *promises) take(line string) {
	switch f := strings.Fields(line); {
	case len(f) == 4 && f[0] == "acked":
		p.acked[f[1]] = f[2] + " " + f[3]
		p.lines++
	case len(f) == 3 && f[0] == "published":
		p.published = f[1] + " " + f[2]
	case len(f) == 2 && f[0] == "operations":
		p.operations, _ = strconv.ParseInt(f[1], 10, 64)
	default:
		p.said += line + "\n"
	}
}

// kept opens the store that a writer left: all that it said must be true.
func (p *promises) kept(t *testing.T, dir, name string) {
	t.Helper()
	cfg, err := writerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Open(cfg)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, p.said)
	}
	for origin, want := range p.acked {
		l, ok := s.LogByOrigin(origin)
		if !ok {
			t.Fatalf("%s: %s was acknowledged and is gone", name, origin)
		}
		index, hash, _ := strings.Cut(want, " ")
		n, err := strconv.ParseUint(index, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := l.LeafHash(n); err != nil || h.String() != hash {
			t.Fatalf("%s: leaf %d of %s was acknowledged with hash %s, now %s (%v)", name, n, origin, hash, h, err)
		}
	}
	if size, root, ok := strings.Cut(p.published, " "); ok {
		n, err := strconv.ParseUint(size, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.HostLog().RootAt(n); err != nil || r.String() != root {
			t.Fatalf("%s: the host log was published with root %s at size %d, now %s (%v)", name, root, n, r, err)
		}
	}
	if err := errors.Join(chaintest.CheckStore(context.Background(), s), s.Close()); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	r, err := chain.Fsck(context.Background(), cfg, chain.FsckOptions{})
	if err != nil || !r.OK() {
		t.Fatalf("%s: fsck: %v %v", name, r.Findings, err)
	}
}

// TestFaults has each operation of a writer on a real disk fail, in both forms:
// not done, and done all the same. Whatever becomes of the writer, what it said
// before is true, and the store opens.
func TestFaults(t *testing.T) {
	life := []string{"-writer-batches=9"}
	dir := t.TempDir()
	newWriterStore(t, dir)
	p, err := write(t, dir, -1, life...)
	if err != nil || p.operations < 50 || len(p.acked) == 0 {
		t.Fatalf("a writer without faults: %v, %d operations\n%s", err, p.operations, p.said)
	}
	p.kept(t, dir, "no fault")
	stride := int64(1)
	if !isLong() {
		stride = p.operations / 8
		t.Logf("short run: every %dth of %d operations; -long takes each", stride, p.operations)
	}
	died := 0
	for at := rand.Int64N(stride); at < p.operations; at += stride {
		for _, done := range []bool{false, true} {
			name := fmt.Sprintf("operation %d, done %v", at, done)
			dir := t.TempDir()
			newWriterStore(t, dir)
			p, err := write(t, dir, -1, append(life, fmt.Sprint("-writer-fail=", at), fmt.Sprint("-writer-done=", done))...)
			if err != nil {
				died++
			}
			p.kept(t, dir, name)
		}
	}
	if died == 0 {
		t.Error("no writer has died of its fault: nothing was tested")
	}
}

// TestKill kills writers on one real directory at random moments, again and
// again.
func TestKill(t *testing.T) {
	rounds := 3
	if isLong() {
		rounds = 200
	} else {
		t.Logf("short run: %d kills; -long makes 200", rounds)
	}
	dir := t.TempDir()
	newWriterStore(t, dir)
	for i := range rounds {
		p, err := write(t, dir, 1+rand.IntN(40))
		if err == nil || len(p.acked) == 0 {
			t.Fatalf("round %d: the writer was not killed at work: %v\n%s", i, err, p.said)
		}
		p.kept(t, dir, fmt.Sprint("kill ", i))
	}
}
