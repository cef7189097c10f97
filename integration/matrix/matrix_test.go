package matrix

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
)

var (
	long = flag.Bool("long", false, "test kernels 6.1 and 5.10 as well, the latter with and without BPF LSM, with larger storms")
	only = flag.String("rows", "", "comma-separated numbers of rows: do these only")
	on   = flag.String("on", "", "one guest only, as in the name of its subtest: 6.12, 6.1, 5.10, 5.10-tracepoint, ...")
)

// guests are the kernels on which the rows run. Without BPF LSM the agent
// chooses mode tracepoint by itself.
var guests = []guest{
	{name: "6.12", kernel: "6.12", mode: "lsm"},
	{name: "6.1", kernel: "6.1", mode: "lsm", long: true},
	{name: "5.10", kernel: "5.10", mode: "lsm", long: true},
	{name: "5.10-tracepoint", kernel: "5.10", mode: "tracepoint", noLSM: true, long: true},
}

// agentArgs switch on every class that is optional.
var agentArgs = []string{"-classes", "signals,unix,dns,renames,digests"}

// hold is how long the acts last that the host does something meanwhile.
func hold() time.Duration {
	if *long {
		return 30 * time.Second
	}
	return 3 * time.Second
}

// TestGuests does every row in real guests, and checks what the host has
// sealed, from an evidence bundle that verifies.
func TestGuests(t *testing.T) {
	for _, g := range guests {
		if *on != g.name && (*on != "" || g.long && !*long) {
			t.Logf("short run: without guest %s, and with small storms; -long has all, -on %s this one", g.name, g.name)
			continue
		}
		t.Run(g.name, g.test)
	}
}

// TestNative does the rows on this machine, in namespaces of their own, with
// the agent in mode tracepoint and a terminal in the place of the port.
func TestNative(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the agent loads BPF programs: run this as root")
	}
	if *on != "" && *on != "native" {
		t.Skipf("only guest %s is asked for (-on)", *on)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	t.Log("mode tracepoint only: guests are for mode lsm")
	storm := 1000
	if *long {
		storm = 10000
	} else {
		t.Log("short run: natively storms of 1000; -long makes 10000")
	}
	bin := t.TempDir()
	n := startNative(t, ctx, build(t, bin, "provost-agent", "./cmd/provost-agent"))
	act := build(t, bin, "act", "./integration/cmd/act")
	dir := t.TempDir()
	runs := doRows(t, ctx, n, func(r Row, nonce string) (string, error) {
		if r.GuestOnly != "" {
			return "", errLeftOut{r.GuestOnly}
		}
		cmd := exec.CommandContext(ctx, act, "-private", "-run", nonce, "-dir", filepath.Join(dir, strconv.Itoa(r.ID)), "-storm", strconv.Itoa(storm), "-hold", hold().String(), strconv.Itoa(r.ID))
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, errs.String())
		}
		return string(out), err
	})
	checkRows(t, ctx, runs, storm, n.books, func(nonce string) error {
		return exec.CommandContext(ctx, act, "sub", "nop", nonce).Run()
	})
}

// selected are the rows that this run does.
func selected(t *testing.T) (out []Row) {
	if *only == "" {
		return Rows()
	}
	add := func(r Row) { // once: a row finds what it has made
		if !slices.ContainsFunc(out, func(o Row) bool { return o.ID == r.ID }) {
			out = append(out, r)
		}
	}
	for _, s := range strings.Split(*only, ",") {
		id, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Find(id)
		if err != nil {
			t.Fatal(err)
		}
		if as, err := Find(r.As); err == nil {
			add(as)
		}
		add(r)
	}
	return out
}

// errLeftOut says why a row is not done here.
type errLeftOut struct{ why string }

func (e errLeftOut) Error() string { return e.why }

// attempt is a row that was tried.
type attempt struct {
	Run
	err error
}

// doRows does the rows one after the other. A row of the host's side calls the
// act itself.
func doRows(t *testing.T, ctx context.Context, h Host, act func(r Row, nonce string) (string, error)) (all []attempt) {
	for _, r := range selected(t) {
		if i := slices.IndexFunc(all, func(a attempt) bool { return a.Row.ID == r.As }); i >= 0 {
			a := all[i]
			a.Row = r
			all = append(all, a)
			continue
		}
		a := attempt{Run: Run{Row: r, Nonce: newNonce()}}
		do := func() (Facts, error) {
			out, err := act(r, a.Nonce)
			if err == nil {
				a.Facts, err = ParseFacts(out)
			}
			return a.Facts, err
		}
		if r.Host == nil {
			_, a.err = do()
		} else {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
			a.err = r.Host(ctx, h, do)
			cancel()
		}
		all = append(all, a)
	}
	return all
}

// patience is how long after the last act an event may come, such as the sum
// of a flow.
const patience = 15 * time.Second

// checkRows runs a program that does nothing, waits for it to be sealed, and
// then checks each row.
func checkRows(t *testing.T, ctx context.Context, runs []attempt, storm int, read func(context.Context) (*Books, error), nop func(nonce string) error) {
	t.Helper()
	var b *Books
	books := func() {
		t.Helper()
		var err error
		if b, err = read(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sealed := func() bool {
		nonce := newNonce()
		if err := nop(nonce); err != nil {
			t.Fatalf("run the program that ends the rows: %v", err)
		}
		wait, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		for books(); ; books() {
			if _, e := b.Exec(nonce); e != nil {
				return true
			}
			if !pause(wait, 200*time.Millisecond) {
				return false
			}
		}
	}
	// Natively, what others do on this machine meanwhile may push it out.
	for tries := 1; !sealed(); tries++ {
		if tries == 10 || ctx.Err() != nil {
			t.Fatalf("the program that ends the rows is not among the %d sealed records", len(b.Records))
		}
	}
	late, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	gaps := 0
	for _, a := range runs {
		t.Run(fmt.Sprintf("%03d %s", a.Row.ID, a.Row.Name), func(t *testing.T) {
			if why, ok := a.err.(errLeftOut); ok {
				t.Skipf("done in guests only: %s", why.why)
			}
			if a.err != nil {
				t.Fatalf("the act itself failed: %v", a.err)
			}
			for {
				declared, err := b.Check(&a.Run, storm)
				if err == nil {
					for _, g := range declared {
						t.Logf("declared gap: %s", g)
						gaps++
					}
					return
				}
				if !pause(late, 500*time.Millisecond) {
					t.Fatal(err)
				}
				books()
			}
		})
	}
	for err := b.Balance(); err != nil; err = b.Balance() {
		if !pause(late, 500*time.Millisecond) {
			t.Error(err)
			break
		}
		books()
	}
	if t.Failed() && b.hooks != nil {
		for _, h := range b.hooks.Hooks {
			t.Logf("hooks: %s: %q %q", record.Class(h.Class), h.Name, h.Error)
		}
	}
	t.Logf("%d rows, %d declared gaps, %d sealed records", len(runs), gaps, len(b.Records))
}

// pause waits a moment and reports whether there is more time.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

var nonces int

// newNonce is text that no program on this machine has as an argument.
func newNonce() string {
	nonces++
	return fmt.Sprintf("act-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), nonces)
}

// build makes a static program of ours.
func build(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return bin
}

// TestRows holds the table together.
func TestRows(t *testing.T) {
	if len(Rows()) < 10 {
		t.Fatalf("%d rows are registered", len(Rows()))
	}
	for _, r := range Rows() {
		if r.Check == nil || r.Name == "" {
			t.Errorf("row %d has no name or check", r.ID)
		}
		if other, err := Find(r.As); r.Do == nil && (err != nil || other.Do == nil || r.As >= r.ID) || r.Do != nil && r.As != 0 {
			t.Errorf("row %d has no act of its own or of an earlier row, or both", r.ID)
		}
	}
	names := []string{}
	for _, r := range Rows() {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) {
		t.Errorf("two rows have one name: %q", names)
	}
}
