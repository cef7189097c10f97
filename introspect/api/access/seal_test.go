package access

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
)

// ledger is a store that runs until the returned function is called.
func ledger(t testing.TB) (*chain.Store, func()) {
	t.Helper()
	dir := t.TempDir()
	k, err := keys.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := chain.Create(chain.Config{Dir: filepath.Join(dir, "store"), Anchor: filepath.Join(dir, "anchor"), HostID: "kvm1.example", Keys: k})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, stop
}

// TestDiscloseIsSealed holds that Disclose returns behind the seal, with all
// that the record has to say, and fails where nothing can be sealed.
func TestDiscloseIsSealed(t *testing.T) {
	s, stop := ledger(t)
	sealer := &Sealer{Store: s}
	d := Disclosure{Origin: "kvm1.example/vm/x", First: 3, Last: 9, Count: 5, What: "GET /v1/query/" + strings.Repeat("é", maxWhat)}
	if err := sealer.Disclose(t.Context(), d); !errors.Is(err, record.ErrReject) {
		t.Errorf("nobody is given payloads: %v", err)
	}
	if err := sealer.Disclose(With(t.Context(), &Identity{Name: "x"}), d); !errors.Is(err, record.ErrReject) {
		t.Errorf("an identity without a role is given payloads: %v", err)
	}
	before := s.HostLog().Size()
	who := With(t.Context(), &Identity{Name: "alice", Role: Tenant, How: "token 1", Address: "192.0.2.7"})
	if err := sealer.Disclose(who, d); err != nil {
		t.Fatal(err)
	}
	item, err := s.HostLog().Item(before)
	if err != nil {
		t.Fatal(err)
	}
	m, err := item.Decode()
	if err != nil || item.Leaf.Header.Class != record.ClassAccessDisclosed || item.Leaf.Origin != record.OriginHost {
		t.Fatalf("%s is sealed: %v", item.Leaf.Header.Class, err)
	}
	got := m.(*record.Disclosed)
	if got.Name != "alice" || got.Role != "tenant" || got.How != "token 1" || got.Address != "192.0.2.7" || got.Origin != d.Origin ||
		got.First != 3 || got.Last != 9 || got.Count != 5 || !strings.HasPrefix(d.What, got.What) || len(got.What) > maxWhat || !utf8.ValidString(got.What) {
		t.Errorf("sealed is %+v", got)
	}
	gone, hangUp := context.WithCancel(who)
	hangUp()
	if err := sealer.Disclose(gone, d); err == nil {
		t.Error("a reader who has gone is given payloads")
	}
	stop()
	if err := sealer.Disclose(who, d); !errors.Is(err, record.ErrRetry) {
		t.Errorf("a ledger that is closed takes a disclosure: %v", err)
	}
	if sealed, refused := sealer.Sealed(); sealed != 1 || refused != 3 {
		t.Errorf("%d sealed, %d refused", sealed, refused)
	}
	if Disclosed(record.ClassAccessDisclosed) || !Disclosed(record.ClassProcessExec) || !Disclosed(record.ClassHostStart) {
		t.Error("reading disclosures is one, or reading anything else is none")
	}
}
