package proof

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// testFrame reads the statements in testdata, which are signed JSON.
func testFrame(statement, signature, key []byte) (Frame, error) {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, statement, signature) {
		return Frame{}, errors.New("signature does not match")
	}
	var f Frame
	return f, json.Unmarshal(statement, &f)
}

func evidence(t testing.TB) (archive []byte, key string) {
	t.Helper()
	archive, err := os.ReadFile("testdata/evidence.zip")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/host.vkey")
	if err != nil {
		t.Fatal(err)
	}
	return archive, string(text)
}

// TestEvidenceVector holds the bundle format to a committed archive: it must
// verify for ever and be written again to the same bytes.
func TestEvidenceVector(t *testing.T) {
	archive, key := evidence(t)
	b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(b, key, Options{Frame: testFrame})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Valid || r.Signed != 1 || len(r.Entries) != 6 {
		t.Fatalf("report %+v", r)
	}
	all := strings.Join(r.Proved, "\n")
	for _, words := range []string{"signed by the key given", "are in that log", "signed by the guest agent", `policy "etc"`, `state before "running", after "paused"`} {
		if !strings.Contains(all, words) {
			t.Errorf("the report does not say %q:\n%s", words, all)
		}
	}
	var again bytes.Buffer
	if err := WriteBundle(&again, b); err != nil || !bytes.Equal(again.Bytes(), archive) {
		t.Fatalf("written again it has other bytes (%v)", err)
	}
	text, err := json.Marshal(r)
	if err != nil || !bytes.Contains(text, []byte(`"valid":true`)) {
		t.Fatalf("%s %v", text, err)
	}
}

func TestReadBundleLimits(t *testing.T) {
	archive, _ := evidence(t)
	for name, l := range map[string]Limits{"bytes": {Bytes: 100}, "members": {Members: 3}, "member": {Member: 10}} {
		if b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), l); !errors.Is(err, record.ErrReject) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string][]byte{"empty": nil, "text": []byte("not a zip"), "cut": archive[:len(archive)-30]} {
		if b, err := ReadBundle(bytes.NewReader(bad), int64(len(bad)), Limits{}); !errors.Is(err, record.ErrReject) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReadBundle: no archive but the true one verifies, whatever it is.
func FuzzReadBundle(f *testing.F) {
	archive, key := evidence(f)
	f.Add(archive)
	f.Add(archive[:len(archive)/2])
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := ReadBundle(bytes.NewReader(b), int64(len(b)), Limits{Bytes: 1 << 20, Members: 200, Member: 1 << 18})
		if err != nil {
			if bundle != nil || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with a bundle", err)
			}
			return
		}
		r, err := Verify(bundle, key, Options{Frame: testFrame})
		if err == nil && !bytes.Equal(b, archive) {
			t.Fatal("another archive verifies")
		}
		if (err == nil) != r.Valid || r.Valid != (len(r.Failures) == 0) {
			t.Fatalf("error %v, report %+v", err, r)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":"provost-evidence","version":2,"host_origin":"h/log/1","vm_origin":"","entries":[{"index":1,"role":"chosen","file":"events/00000001","payload":true}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			if m.Entries != nil || m.Format != "" || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %+v", err, m)
			}
			return
		}
		for _, e := range m.Entries {
			if strings.Contains(e.File, "..") || strings.HasPrefix(e.File, "/") {
				t.Fatalf("file %q", e.File)
			}
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest(text); err != nil {
			t.Fatalf("%s does not come back: %v", text, err)
		}
	})
}

func FuzzParseInclusion(f *testing.F) {
	f.Add((&Inclusion{Index: 3, Path: []record.Hash{{1}}, Note: []byte("note\n")}).Format())
	f.Add([]byte(proofMagic + "index 0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseInclusion(b)
		if err != nil {
			if p.Path != nil || p.Note != nil || p.Index != 0 || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %+v", err, p)
			}
			return
		}
		if got := p.Format(); !bytes.Equal(got, b) {
			t.Fatalf("%q comes back as %q", b, got)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	origin := HostOrigin("kvm1.example")
	signer, verifier := key(f, origin, 1)
	msg, err := Checkpoint{Origin: origin, Size: 5}.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := OpenCheckpoint(b, verifier)
		if err != nil {
			if c != (Checkpoint{}) || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %+v", err, c)
			}
			return
		}
		if c.Size != 5 || c.Origin != origin {
			t.Fatalf("a checkpoint that nobody signed: %+v", c)
		}
	})
}

func FuzzParseOrigin(f *testing.F) {
	f.Add("kvm1.example/log/1")
	f.Add("h/vm/6a2f41a3-c54c-4f54-9d3b-0a6b6a1f0001/1/1")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOrigin(s)
		if err != nil {
			if o != (Origin{}) || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %+v", err, o)
			}
			return
		}
		if o.String() != s {
			t.Fatalf("%q comes back as %q", s, o.String())
		}
	})
}
