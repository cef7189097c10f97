package repo

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProtobuf makes the Go code of the record format again and compares. (The
// kernel programs are compared by the tests of package bpf.)
func TestProtobuf(t *testing.T) {
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Fatalf("protoc is missing (Debian package protobuf-compiler, \"make setup\" installs it): without it nothing shows that record.proto and its Go code agree")
	}
	out := t.TempDir()
	plugins := filepath.Join(out, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"google.golang.org/protobuf/cmd/protoc-gen-go", "github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto"} {
		build := exec.Command("go", "build", "-o", plugins+"/", p) // of the versions in go.mod
		build.Dir = root
		if msg, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p, err, msg)
		}
	}
	args := protocArgs(t)
	for i, a := range args {
		for _, flag := range []string{"--go_out", "--go-vtproto_out"} {
			if strings.HasPrefix(a, flag+"=") {
				args[i] = flag + "=" + out
			}
		}
	}
	gen := exec.Command(protoc, args...)
	gen.Dir = filepath.Join(root, "chain/record")
	gen.Env = append(gen.Environ(), "PATH="+plugins+string(os.PathListSeparator)+os.Getenv("PATH"))
	if msg, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, msg)
	}
	for _, f := range []string{"record.pb.go", "record_vtproto.pb.go"} {
		want, err := os.ReadFile(filepath.Join(out, f))
		if err != nil {
			t.Fatalf("protoc did not write %s: %v", f, err)
		}
		if got := read(t, "chain/record/"+f); !bytes.Equal([]byte(got), want) {
			t.Errorf("chain/record/%s is not what %s makes of record.proto: run \"make generate\" and commit the result, or readers of the schema read something else than the program does", f, protoc)
		}
	}
}

// protocArgs returns the arguments of the go:generate line in chain/record.
func protocArgs(t *testing.T) []string {
	t.Helper()
	for line := range strings.Lines(read(t, "chain/record/doc.go")) {
		if rest, ok := strings.CutPrefix(line, "//go:generate protoc "); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatal("chain/record/doc.go has no go:generate line for protoc")
	return nil
}
