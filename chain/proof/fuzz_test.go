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

func evidence(t testing.TB) (archive []byte, key string) { return vector(t, "") }

// vector is the committed archive of a version: "" the newest, "-2" version 2.
func vector(t testing.TB, version string) (archive []byte, key string) {
	t.Helper()
	archive, err := os.ReadFile("testdata/evidence" + version + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/host" + version + ".vkey")
	if err != nil {
		t.Fatal(err)
	}
	return archive, string(text)
}

// TestEvidenceVector holds the bundle format to a committed archive of each
// version: it must verify for ever and be written again to the same bytes.
func TestEvidenceVector(t *testing.T) {
	for version, n := range map[string]int{"": bundleVersion, "-2": 2, "-3": 3} {
		archive, key := vector(t, version)
		testVector(t, archive, key, n)
	}
}

// TestScriptOfAnotherVersion: a bundle cannot have the weaker script of an older one.
func TestScriptOfAnotherVersion(t *testing.T) {
	archive, _ := evidence(t)
	b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := b.members()
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if files[i].name == scriptFile {
			files[i].data = script2
		}
	}
	var out bytes.Buffer
	if err := writeArchive(&out, files); err != nil {
		t.Fatal(err)
	}
	b, err = ReadBundle(bytes.NewReader(out.Bytes()), int64(out.Len()), Limits{})
	if err != nil || len(b.faults) != 1 || b.faults[0].File != scriptFile {
		t.Errorf("%v, faults %+v", err, b)
	}
	if _, err := parseManifest([]byte(`{"format":"provost-evidence","version":5}`)); err == nil || !strings.Contains(err.Error(), "versions 2 to 4") {
		t.Errorf("a later version: %v", err)
	}
}

func testVector(t *testing.T, archive []byte, key string, version int) {
	t.Helper()
	b, err := ReadBundle(bytes.NewReader(archive), int64(len(archive)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(b, key, Options{Frame: testFrame})
	if err != nil {
		t.Fatal(err)
	}
	if b.version != version {
		t.Errorf("version is %d, want %d", b.version, version)
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

// FuzzParseCheckpoint: what is parsed without a key is what the text says, and can
// be signed to the same text again.
func FuzzParseCheckpoint(f *testing.F) {
	signer, _ := key(f, HostOrigin("kvm1.example"), 1)
	msg, err := Checkpoint{Origin: HostOrigin("kvm1.example"), Size: 5}.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(bytes.Replace(msg, []byte("\n5\n"), []byte("\n05\n"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCheckpoint(b)
		if err != nil {
			if c != (Checkpoint{}) || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %+v", err, c)
			}
			return
		}
		if !bytes.HasPrefix(b, []byte(c.Text()+"\n")) {
			t.Fatalf("%q is read as %q", b, c.Text())
		}
	})
}

// FuzzSignatureLines: an answer is refused whole, or every one of its lines comes
// back as it was.
func FuzzSignatureLines(f *testing.F) {
	f.Add([]byte("— w.example/w1 AAAAAAAAAAA=\n"))
	f.Add([]byte("— w AAAAAAA=\n— w\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := parseSignatures(b)
		if err != nil {
			if lines != nil || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v with %v", err, lines)
			}
			return
		}
		var again bytes.Buffer
		for _, l := range lines {
			again.WriteString("— " + l.Name + " " + l.Base64 + "\n")
		}
		if !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("%q comes back as %q", b, again.Bytes())
		}
	})
}

// FuzzVerifierKeys: a key of a log or a witness is refused, or it is the one that
// its text says.
func FuzzVerifierKeys(f *testing.F) {
	_, v := key(f, HostOrigin("kvm1.example"), 1)
	f.Add(v.Name() + "+00000000+AQ==")
	f.Add("witness.example.net/w1+aeaf2fc2+BIF27VPtpqRVC0ao2eJ7UqBV4+3YdjkTI37J2c9UdC9A")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseVerifierKey(s); err == nil {
			if !strings.HasPrefix(strings.TrimSpace(s), v.Name()+"+") {
				t.Fatalf("%q is read as the key of %q", s, v.Name())
			}
		} else if v != nil || !errors.Is(err, record.ErrReject) {
			t.Fatalf("error %v with %v", err, v)
		}
		if k, err := NewWitnessKey("w", s); err == nil {
			if k.String() != strings.TrimSpace(s) {
				t.Fatalf("%q comes back as %q", s, k.String())
			}
		} else if k.v != nil || !errors.Is(err, record.ErrReject) {
			t.Fatalf("error %v with %v", err, k)
		}
	})
}

// FuzzKeyChain: no certificate but one that the key before has signed is taken
// behind the first, and what is refused leaves no trace.
func FuzzKeyChain(f *testing.F) {
	host := "kvm1.example"
	first := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey)
	public := first.Public().(ed25519.PublicKey)
	good := ed25519.Sign(first, KeyStatement(VMPrefix(host), 1, public, next))
	f.Add(uint64(7), uint64(1), []byte(next), []byte(public), good, VMPrefix(host))
	f.Add(uint64(1), uint64(0), []byte(public), []byte{}, []byte{}, "")
	f.Fuzz(func(t *testing.T, index, number uint64, key, previous, signature []byte, prefix string) {
		c := KeyChain{HostID: host}
		if err := c.Add(3, &record.KeyCertificate{Use: "vm-log", PublicKey: public, OriginPrefix: VMPrefix(host)}); err != nil {
			t.Fatal(err)
		}
		err := c.Add(index, &record.KeyCertificate{Use: "vm-log", PublicKey: key, OriginPrefix: prefix, Number: number, PreviousKey: previous, PreviousSignature: signature})
		if err != nil {
			if len(c.Keys()) != 1 || !errors.Is(err, record.ErrReject) {
				t.Fatalf("error %v leaves %d keys", err, len(c.Keys()))
			}
			return
		}
		if index <= 3 || number != 1 || prefix != VMPrefix(host) || !bytes.Equal(previous, public) || !ed25519.Verify(public, KeyStatement(prefix, 1, public, key), signature) {
			t.Fatalf("a key that nobody handed over: %d %d %x", index, number, key)
		}
	})
}
