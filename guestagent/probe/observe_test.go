package probe

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

var (
	mode  = flag.String("mode", "tracepoint", "mode to test: lsm takes a kernel that lets it")
	storm = flag.Int("storm", 1000, "processes of the storm test")
)

// seen is one record as the sink got it.
type seen struct {
	h record.Header
	e *record.Event
}

// collector is a Sink that remembers everything.
type collector struct {
	mu   sync.Mutex
	all  []seen
	lost map[uint32]uint64
	bad  error

	classes map[record.Class]uint64 // lost
}

func (c *collector) Observe(h record.Header, payload []byte) {
	m, err := record.Decode(h.Class, payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.bad = err
		return
	}
	c.all = append(c.all, seen{h, m.(*record.Event)})
}

func (c *collector) ObserveHeavy(h record.Header, payload []byte) { c.Observe(h, payload) }

func (c *collector) Lose(lane uint32, class record.Class, reason record.LossReason, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost[lane] += n
	if c.classes == nil {
		c.classes = map[record.Class]uint64{}
	}
	c.classes[class] += n
}

func (c *collector) Flush() {}

// find waits until an event matches.
func (c *collector) find(t *testing.T, what string, match func(seen) bool) seen {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c.mu.Lock()
		i := slices.IndexFunc(c.all, match)
		var s seen
		if i >= 0 {
			s = c.all[i]
		}
		c.mu.Unlock()
		if i >= 0 {
			return s
		}
		if time.Now().After(deadline) {
			c.dump(t)
			t.Fatalf("no event came: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (c *collector) count(match func(seen) bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.all {
		if match(s) {
			n++
		}
	}
	return n
}

func (c *collector) dump(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.all[max(0, len(c.all)-60):] {
		t.Logf("%s %v", s.h.Class, s.e)
	}
}

// shared is the probe of all tests: loading takes seconds in an emulated guest.
var shared = sync.OnceValues(func() (*Probe, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("loading programs takes root")
	}
	var err error
	opened, err = Open(Config{Mode: Mode(*mode)})
	return opened, err
})

var opened *Probe // by shared, for TestMain to close

// tally is what the probe has told over all tests, by lane.
var tally = struct {
	arrived map[uint32]map[uint64]bool
	lost    map[uint32]uint64
	twice   []record.Header
}{map[uint32]map[uint64]bool{}, map[uint32]uint64{}, nil}

// observe runs the probe for the length of the test. The agent's own process
// is left out by the programs: the tests act as children.
func observe(t *testing.T) (*Probe, *collector, func()) {
	t.Helper()
	p, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, c) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if c.bad != nil {
				t.Error(c.bad)
			}
			for _, s := range c.all {
				if s.h.Lane == record.NoLane {
					continue // the agent's own: no lane counts them
				}
				a := tally.arrived[s.h.Lane]
				if a == nil {
					a = map[uint64]bool{}
					tally.arrived[s.h.Lane] = a
				}
				if a[s.h.LaneSequence] {
					tally.twice = append(tally.twice, s.h)
				}
				a[s.h.LaneSequence] = true
			}
			for lane, n := range c.lost {
				tally.lost[lane] += n
			}
		})
	}
	t.Cleanup(stop)
	return p, c, stop
}

// The tests' own binary is the actor: "act NAME DIR" as arguments.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == CanaryArg {
		Canary(os.Args[2:])
		os.Exit(0)
	}
	if len(os.Args) >= 4 && os.Args[1] == "act" {
		if err := actors[os.Args[2]](os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	code := m.Run()
	if opened != nil {
		if err := opened.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var actors = map[string]func(dir string) error{
	"files": func(dir string) error {
		tmp, real := filepath.Join(dir, "passwd.tmp"), filepath.Join(dir, "passwd")
		f, err := os.Create(tmp)
		if err != nil {
			return err
		}
		for range 10 {
			if _, err := f.WriteString("x"); err != nil {
				return err
			}
		}
		sub := filepath.Join(dir, "sub")
		return errors.Join(f.Truncate(3), f.Chmod(0o640), os.Chown(tmp, 1, 2), f.Close(), os.Rename(tmp, real),
			os.Link(real, filepath.Join(dir, "hard")), os.Symlink("passwd", filepath.Join(dir, "soft")),
			os.Mkdir(sub, 0o755), os.Remove(sub), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
			os.Remove(filepath.Join(dir, "hard")), os.Chdir(dir), unix.Rename("soft", "../moved"))
	},
	"connect": func(address string) error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	},
	"missing": func(string) error {
		err := unix.Exec("/no/such/program", []string{"no"}, nil)
		if err != unix.ENOENT {
			return fmt.Errorf("exec gave %v", err)
		}
		return nil
	},
	"deep": func(dir string) error {
		// A path longer than any system call takes, with every byte a name may hold.
		name := make([]byte, 0, 255)
		for b := byte(1); b != 0; b++ {
			if b != '/' {
				name = append(name, b)
			}
		}
		for range 20 {
			if err := errors.Join(os.Mkdir(filepath.Join(".", strings.Repeat("d", 240)), 0o755), os.Chdir(strings.Repeat("d", 240))); err != nil {
				return err
			}
		}
		return os.WriteFile(string(name), []byte("x"), 0o600)
	},
}

func actor(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"act"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return cmd
}

// workDir is a directory of the test whose name has no symbolic link in it.
func workDir(t *testing.T) string {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "w")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
