package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/integration/lab"
	"github.com/provostd/provost/introspect/api/client"
)

// guest is a kernel under test.
type guest struct {
	name, kernel, mode string
	noLSM              bool
	long               bool // only in long runs
}

func (g guest) test(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	storm := 200
	switch {
	case *long && !g.long:
		storm = 10000
	case *long:
		storm = 2000 // the size of a storm is tried on one kernel: emulated, it takes minutes
	}
	bin := t.TempDir()
	build(t, bin, "provost-agent", "./cmd/provost-agent")
	load, spare := Modules()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"provost", "provostd"} {
		if err := os.Symlink(filepath.Join(root, "bin", b), filepath.Join(bin, b)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := lab.New(ctx, lab.Config{
		Dir: fmt.Sprintf("/run/pv-mx-%d", os.Getpid()), Bin: bin, Kernel: g.kernel, NoBPFLSM: g.noLSM, Channel: true, Out: t.Logf, AgentArgs: agentArgs,
		Files: linked(t, map[string]string{"/bin/act": build(t, bin, "act", "./integration/cmd/act")}), Modules: load, SpareModules: spare,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = l.CopyLog(t.Output()) // what it says helps; that it cannot be read does not
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	hooks, err := l.Boot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if h := hooks.Msg.(*record.Hooks); h.Mode != g.mode {
		t.Errorf("the agent runs in mode %s, want %s; its hooks: %s", h.Mode, g.mode, record.Text(hooks.Leaf.Header.Class, h))
	}
	begin := time.Now()
	runs := doRows(t, ctx, labHost{l}, func(r Row, nonce string) (string, error) {
		return l.Guest.Output(ctx, fmt.Sprintf("exec /bin/act -run %s -storm %d -hold %v %d", nonce, storm, hold(), r.ID))
	})
	t.Logf("%d acts took %v", len(runs), time.Since(begin).Round(time.Millisecond))
	checkRows(t, ctx, runs, storm, (&auditor{l: l, dir: t.TempDir()}).books, func(nonce string) error {
		_, err := l.Guest.Output(ctx, "/bin/act sub nop "+nonce)
		return err
	})
}

// auditor reads the domain's log as an auditor does: it exports evidence,
// verifies it with the host's key, and opens what is in it.
type auditor struct {
	l          *lab.Lab
	dir        string
	next       uint64 // first entry that is not read yet
	records    []*Sealed
	statements []wire.Statement
}

// atOnce is how many entries one bundle holds at most.
const atOnce = 20000

func (a *auditor) books(ctx context.Context) (*Books, error) {
	s, err := a.l.Client.Status(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.Domains, func(d client.Domain) bool { return d.Name == a.l.Domain && d.Log != nil })
	if i < 0 {
		return nil, fmt.Errorf("the daemon has no log of domain %s", a.l.Domain)
	}
	for size := s.Domains[i].Log.Size; a.next < size; {
		if err := a.read(ctx, min(size, a.next+atOnce)-1); err != nil {
			return nil, err
		}
	}
	return NewBooks(a.records, a.statements)
}

// read takes the entries up to last.
func (a *auditor) read(ctx context.Context, last uint64) error {
	file := fmt.Sprintf("%s/%d.zip", a.dir, a.next)
	if _, err := a.l.Provost(ctx, "export", "--socket", a.l.Socket(), "--entries", fmt.Sprintf("%d-%d", a.next, last), "-o", file, a.l.Domain); err != nil {
		return err
	}
	if out, err := a.l.Provost(ctx, "verify", "--key", a.l.Dir+"/state/keys/host.vkey", file); err != nil || !strings.HasPrefix(out, "VALID") {
		return fmt.Errorf("verify evidence: %w: %s", err, out)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	bundle, err := proof.ReadBundle(f, st.Size(), proof.Limits{})
	if err != nil {
		return err
	}
	for _, e := range bundle.Entries {
		if e.Index < a.next || e.Index > last {
			continue // of a frame that the range cuts in two
		}
		if err := a.take(&e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	a.next = last + 1
	return nil
}

func (a *auditor) take(e *proof.Entry) error {
	leaf, err := record.ParseLeaf(e.Leaf)
	if err != nil {
		return err
	}
	salt := len(record.Salt{})
	if len(e.Opening) < salt {
		return errors.New("it is not disclosed")
	}
	m, err := record.Decode(leaf.Header.Class, e.Opening[salt:])
	if err != nil {
		return err
	}
	if frame, ok := m.(*record.Frame); ok {
		s, err := wire.ParseStatement(frame.Statement)
		if err != nil {
			return err
		}
		a.statements = append(a.statements, s)
		return nil
	}
	if _, lost := m.(*record.Lost); leaf.Origin == record.OriginGuest || lost {
		a.records = append(a.records, &Sealed{Header: leaf.Header, Msg: m})
	}
	return nil
}

// labHost is the host's side of the rows that need one.
type labHost struct{ l *lab.Lab }

// StopReading stops the daemon as a whole: then nobody reads the channel.
func (h labHost) StopReading(context.Context) error { return h.l.SignalDaemon(syscall.SIGSTOP) }

func (h labHost) Read(context.Context) error { return h.l.SignalDaemon(syscall.SIGCONT) }

func (h labHost) Settle(ctx context.Context) error {
	for {
		nonce := newNonce()
		if _, err := h.l.Guest.Output(ctx, "/bin/act sub nop "+nonce); err != nil {
			return err
		}
		for range 10 {
			for e, err := range h.l.Client.Stream(ctx, client.StreamQuery{Domain: h.l.Domain, Classes: []string{record.ClassProcessExec.String()}, Last: 500}) {
				if err != nil {
					return err
				}
				_, m, err := e.Open()
				if err != nil {
					return err
				}
				if x, ok := m.(*record.Event); ok && slices.ContainsFunc(x.Process.GetArgs(), func(a []byte) bool { return string(a) == nonce }) {
					return nil
				}
			}
			if !pause(ctx, 500*time.Millisecond) {
				return fmt.Errorf("wait for what has happened to be sealed: %w", ctx.Err())
			}
		}
	}
}

func (h labHost) RestartAgent(ctx context.Context) error {
	// An agent tells its hooks more than once.
	session := func() (n uint64, err error) {
		for e, err := range h.l.Client.Stream(ctx, client.StreamQuery{Domain: h.l.Domain, Classes: []string{record.ClassAgentHooks.String()}, Last: 1}) {
			if err != nil {
				return 0, err
			}
			l, _, err := e.Open()
			if err != nil {
				return 0, err
			}
			n = l.Header.Session
		}
		return n, nil
	}
	before, err := session()
	if err != nil {
		return err
	}
	// Only its host can stop it; the guest's first process starts it again.
	if _, err := h.l.Provost(ctx, "domain", "agent-stop", "--socket", h.l.Socket(), "--reason", "restarted by a test", h.l.Domain); err != nil {
		return err
	}
	for {
		if n, err := session(); err != nil || n != before {
			return err
		}
		if !pause(ctx, 500*time.Millisecond) {
			return fmt.Errorf("wait for the restarted agent: %w", ctx.Err())
		}
	}
}

func (h labHost) Shell(ctx context.Context, script string) error {
	_, err := h.l.Guest.Output(ctx, script)
	return err
}

// linked adds the programs that rows need, and what they are linked with.
func linked(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	for _, r := range Rows() {
		for _, p := range r.Programs {
			out, err := exec.Command("ldd", p).CombinedOutput()
			if err != nil {
				t.Fatalf("row %d needs %s: ldd: %v: %s", r.ID, p, err, out)
			}
			files[p] = p
			for word := range strings.FieldsSeq(string(out)) {
				if strings.HasPrefix(word, "/") {
					files[word] = word
				}
			}
		}
	}
	return files
}
