package matrix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/integration/lab"
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
	if *long {
		storm = 10000
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
		Dir: fmt.Sprintf("/run/pv-mx-%d", os.Getpid()), Bin: bin, Kernel: g.kernel, NoBPFLSM: g.noLSM, Channel: true, Out: t.Logf,
		Files: map[string]string{"/bin/act": build(t, bin, "act", "./integration/cmd/act")}, Modules: load, SpareModules: spare,
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
	runs := doRows(t, func(r Row, nonce string) (string, error) {
		return l.Guest.Output(ctx, fmt.Sprintf("exec /bin/act -run %s -storm %d %d", nonce, storm, r.ID))
	})
	end := newNonce()
	if _, err := l.Guest.Output(ctx, "/bin/act sub nop "+end); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d acts took %v", len(runs), time.Since(begin).Round(time.Millisecond))
	checkRows(t, ctx, runs, storm, end, func(ctx context.Context) (*Books, error) { return readSealed(ctx, l, t.TempDir()) })
}

// readSealed reads the domain's log as an auditor does: it exports evidence,
// verifies it with the host's key, and opens what is in it.
func readSealed(ctx context.Context, l *lab.Lab, dir string) (*Books, error) {
	file := filepath.Join(dir, "evidence.zip")
	if _, err := l.Provost(ctx, "export", "--socket", l.Socket(), "-o", file, l.Domain); err != nil {
		return nil, err
	}
	if out, err := l.Provost(ctx, "verify", "--key", l.Dir+"/state/keys/host.vkey", file); err != nil || !strings.HasPrefix(out, "VALID") {
		return nil, fmt.Errorf("verify evidence: %w: %s", err, out)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	bundle, err := proof.ReadBundle(f, st.Size(), proof.Limits{})
	if err != nil {
		return nil, err
	}
	var records []*Sealed
	var statements []wire.Statement
	for _, e := range bundle.Entries {
		leaf, err := record.ParseLeaf(e.Leaf)
		if err != nil {
			return nil, err
		}
		if len(e.Opening) < len(record.Salt{}) {
			return nil, fmt.Errorf("entry %d is not disclosed", e.Index)
		}
		m, err := record.Decode(leaf.Header.Class, e.Opening[len(record.Salt{}):])
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if frame, ok := m.(*record.Frame); ok {
			s, err := wire.ParseStatement(frame.Statement)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", e.Index, err)
			}
			statements = append(statements, s)
			continue
		}
		if _, lost := m.(*record.Lost); leaf.Origin == record.OriginGuest || lost {
			records = append(records, &Sealed{Header: leaf.Header, Msg: m})
		}
	}
	return NewBooks(records, statements)
}
