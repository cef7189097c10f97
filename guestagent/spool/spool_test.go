package spool

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newSpool(t *testing.T, bytes int64) *Spool {
	t.Helper()
	s, err := New(Config{Directory: filepath.Join(t.TempDir(), "spool"), Bytes: bytes, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustPut(t *testing.T, s *Spool, b []byte) {
	t.Helper()
	if err := s.Put(b); err != nil {
		t.Fatal(err)
	}
}

// Whatever goes in comes out, in order; the bound holds; no name is left; what
// was taken gives its space back.
func TestModel(t *testing.T) {
	for seed := range uint64(10) {
		rnd := mathrand.New(mathrand.NewPCG(seed, 3))
		s := newSpool(t, MinBytes+int64(rnd.IntN(MinBytes)))
		var model [][]byte
		full := 0
		for range 3000 {
			if rnd.IntN(100) < 53 {
				b := make([]byte, rnd.IntN(20000))
				_, _ = rand.Read(b)
				err := s.Put(b)
				switch {
				case err == nil:
					model = append(model, b)
				case errors.Is(err, ErrFull):
					full++
					// A quarter at most is lost to what is taken and shares a segment.
					var sum int64
					for _, m := range model {
						sum += int64(len(m))
					}
					if sum < s.segment {
						t.Fatalf("seed %d: full with %d bytes of %d", seed, sum, s.segment*int64(s.limit))
					}
				default:
					t.Fatal(err)
				}
			} else if s.Len() > 0 {
				b, err := s.Take()
				if err != nil || !bytes.Equal(b, model[0]) {
					t.Fatalf("seed %d: took %d bytes, want %d: %v", seed, len(b), len(model[0]), err)
				}
				model = model[1:]
			}
			if s.Len() != len(model) || len(s.segments) > s.limit || (len(model) == 0) != (len(s.segments) == 0) {
				t.Fatalf("seed %d: %d runs in %d segments, want %d runs", seed, s.Len(), len(s.segments), len(model))
			}
		}
		if names, err := os.ReadDir(s.dir); err != nil || len(names) != 0 {
			t.Errorf("names in the directory: %v, %v", names, err)
		}
		if full == 0 {
			t.Errorf("seed %d: never full", seed)
		}
	}
}

// Nothing of what is spooled stands on the disk in clear.
func TestEncrypted(t *testing.T) {
	s := newSpool(t, MinBytes)
	secret := bytes.Repeat([]byte("what the guest did; "), 100)
	mustPut(t, s, secret)
	raw := make([]byte, 4096)
	if _, err := s.segments[0].f.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, secret[:20]) || bytes.Equal(raw[:2000], make([]byte, 2000)) {
		t.Error("the run stands on the disk as it is")
	}
	again := make([]byte, 4096)
	if b, err := s.Take(); err != nil || !bytes.Equal(b, secret) {
		t.Fatal(err)
	}
	mustPut(t, s, secret)
	if _, err := s.segments[0].f.ReadAt(again, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(raw, again) {
		t.Error("the same run twice has the same bytes: the nonce was used again")
	}
}

// Who can write to the disk destroys runs, and no more than those: each is
// told, none is changed, repeated or put in another's place.
func TestTampered(t *testing.T) {
	const n, size = 8, 1000
	const sealed = size + 16
	fill := func(s *Spool) {
		for i := range n {
			mustPut(t, s, bytes.Repeat([]byte{byte(i)}, size))
		}
	}
	move := func(f file, from, to, n int64) {
		b := make([]byte, n)
		if _, err := f.ReadAt(b, from); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, to); err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		act  func(f file)
		gone map[int]bool
	}{
		"one bit": {func(f file) {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, 3*sealed+700); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 1
			if _, err := f.WriteAt(b, 3*sealed+700); err != nil {
				t.Fatal(err)
			}
		}, map[int]bool{3: true}},
		"repeated": {func(f file) { move(f, 1*sealed, 2*sealed, sealed) }, map[int]bool{2: true}},
		"reordered": {func(f file) {
			move(f, 0, 20*sealed, sealed)
			move(f, sealed, 0, sealed)
			move(f, 20*sealed, sealed, sealed)
		}, map[int]bool{0: true, 1: true}},
		"shifted": {func(f file) { move(f, 5*sealed, 4*sealed, 3*sealed) }, map[int]bool{4: true, 5: true, 6: true}},
		"cut":     {func(f file) { must(t, f.(*os.File).Truncate(6*sealed+10)) }, map[int]bool{6: true, 7: true}},
	} {
		s := newSpool(t, MinBytes)
		fill(s)
		x.act(s.segments[0].f)
		for i := range n {
			b, err := s.Take()
			if x.gone[i] {
				if !errors.Is(err, ErrDamaged) || b != nil {
					t.Errorf("%s: run %d: %x, %v", name, i, b, err)
				}
			} else if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Errorf("%s: run %d: %v", name, i, err)
			}
		}
		if s.Len() != 0 || len(s.segments) != 0 {
			t.Errorf("%s: %d runs and %d segments are left", name, s.Len(), len(s.segments))
		}
	}
}

// An old content of the very same place, exchanged back by whoever copied the
// disk, is noticed.
func TestRolledBack(t *testing.T) {
	s := newSpool(t, MinBytes)
	keep := bytes.Repeat([]byte{9}, 1000)
	mustPut(t, s, keep) // keeps the segment
	mustPut(t, s, bytes.Repeat([]byte{1}, 1000))
	f := s.segments[0].f
	old := make([]byte, 1016)
	if _, err := f.ReadAt(old, 1016); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, keep)
	mustPut(t, s, bytes.Repeat([]byte{2}, 1000))
	if _, err := s.segments[0].f.WriteAt(old, 1016); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Take(); !errors.Is(err, ErrDamaged) {
		t.Errorf("took %x, %v", b[:4], err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// faulty is a file whose writes or reads fail when they are told to.
type faulty struct {
	file
	write, read *error
}

func (f faulty) WriteAt(b []byte, at int64) (int, error) {
	if *f.write != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at) // half of it reaches the disk
		return n, *f.write
	}
	return f.file.WriteAt(b, at)
}

func (f faulty) ReadAt(b []byte, at int64) (int, error) {
	if *f.read != nil {
		return 0, *f.read
	}
	return f.file.ReadAt(b, at)
}

// A write that fails costs that run only, and what was put before and after
// comes out; a read that fails is told as damage.
func TestDiskErrors(t *testing.T) {
	var write, read error
	s := newSpool(t, MinBytes)
	s.open = func(dir string, size int64) (file, error) {
		f, err := openSegment(dir, size)
		return faulty{f, &write, &read}, err
	}
	var want []string
	for i := range 200 {
		write = nil
		if i%3 == 1 {
			write = unix.EIO
		}
		b := fmt.Sprintf("run %d %s", i, strings.Repeat("x", 5000))
		err := s.Put([]byte(b))
		switch {
		case write == nil && err == nil:
			want = append(want, b)
		case write == nil || !errors.Is(err, unix.EIO):
			t.Fatalf("run %d: %v", i, err)
		}
	}
	for i, w := range want {
		read = nil
		if i == 7 {
			read = unix.EIO
		}
		b, err := s.Take()
		if i == 7 {
			if !errors.Is(err, ErrDamaged) || !errors.Is(err, unix.EIO) {
				t.Errorf("run 7: %v", err)
			}
			continue
		}
		if err != nil || string(b) != w {
			t.Fatalf("run %d: %q, %v", i, b[:min(len(b), 10)], err)
		}
	}
}

// On a disk that is full a Put fails and leaves the spool as it was; when there
// is room again it goes on.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounting a small file system takes root: run the tests as root, as make test does")
	}
	// In a mount namespace of this thread alone, which ends with it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is of no use to others
		if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			t.Errorf("make mount namespace: %v", err)
			return
		}
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
			t.Errorf("mount tmpfs: %v", err)
			return
		}
		diskFull(t, dir)
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the namespace ends anyway
	}()
	<-done
}

func diskFull(t *testing.T, dir string) {
	s, err := New(Config{Directory: dir, Bytes: 16 << 20, Rand: rand.Reader})
	if err != nil {
		t.Error(err)
		return
	}
	s.segment = 1 << 20
	b := make([]byte, 60<<10)
	var putErr error
	n := 0
	for ; putErr == nil && n < 1000; n++ {
		b[0] = byte(n)
		putErr = s.Put(b)
	}
	n--
	if !errors.Is(putErr, unix.ENOSPC) || n < 2*17 {
		t.Errorf("%d runs, then %v; want %v", n, putErr, unix.ENOSPC)
	}
	for i := range 17 { // the first segment
		if b, err := s.Take(); err != nil || b[0] != byte(i) {
			t.Errorf("run %d: %v", i, err)
		}
	}
	b[0] = byte(n)
	if err := s.Put(b); err != nil {
		t.Errorf("with room again: %v", err)
	}
	for i := 17; i <= n; i++ {
		if b, err := s.Take(); err != nil || b[0] != byte(i) {
			t.Errorf("run %d: %v", i, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A directory that others can write to, or a link in its place, is refused.
func TestDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(t.TempDir(), link))
	for _, d := range []string{dir, link} {
		s, err := New(Config{Directory: d, Bytes: MinBytes, Rand: rand.Reader})
		must(t, err)
		if err := s.Put([]byte("x")); err == nil {
			t.Errorf("%s is used", d)
		}
		if s.Len() != 0 || len(s.segments) != 0 {
			t.Errorf("%s: something is in the spool", d)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []Config{{Bytes: MinBytes, Rand: rand.Reader}, {Directory: "x", Bytes: MinBytes - 1, Rand: rand.Reader},
		{Directory: "x", Bytes: MinBytes}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	// Without randomness nothing is written: 31 bytes are no key, 43 no nonce.
	for _, n := range []int64{31, 43} {
		s, err := New(Config{Directory: t.TempDir(), Bytes: MinBytes, Rand: io.LimitReader(rand.Reader, n)})
		must(t, err)
		if err := s.Put([]byte("x")); err == nil || s.Len() != 0 || len(s.segments) != 0 {
			t.Errorf("with %d random bytes: %v, %d runs in %d segments", n, err, s.Len(), len(s.segments))
		}
	}
	s := newSpool(t, MinBytes)
	if err := s.Put(make([]byte, s.segment)); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("a run larger than a segment: %v", err)
	}
}

func BenchmarkPutTake(b *testing.B) {
	s, err := New(Config{Directory: b.TempDir(), Bytes: 64 << 20, Rand: rand.Reader})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	run := make([]byte, 64<<10)
	b.SetBytes(int64(len(run)))
	for b.Loop() {
		if err := s.Put(run); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Take(); err != nil {
			b.Fatal(err)
		}
	}
}
