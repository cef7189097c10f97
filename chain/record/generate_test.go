package record

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGenerated makes the protobuf code anew and compares it with what is
// committed, so that record.proto and its Go code cannot drift apart.
func TestGenerated(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Fatalf("protoc is missing, install protobuf-compiler: %v", err)
	}
	tools, out := t.TempDir(), t.TempDir()
	for name, pkg := range map[string]string{
		"protoc-gen-go":         "google.golang.org/protobuf/cmd/protoc-gen-go",
		"protoc-gen-go-vtproto": "github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto",
	} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(tools, name), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, b)
		}
	}
	protoc := exec.CommandContext(t.Context(), "protoc", "-I", ".",
		"--plugin=protoc-gen-go="+filepath.Join(tools, "protoc-gen-go"), "--go_out="+out, "--go_opt=paths=source_relative",
		"--plugin=protoc-gen-go-vtproto="+filepath.Join(tools, "protoc-gen-go-vtproto"), "--go-vtproto_out="+out,
		"--go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size", "record.proto")
	if b, err := protoc.CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, b)
	}
	for _, name := range []string{"record.pb.go", "record_vtproto.pb.go"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what record.proto generates: run `make generate`", name)
		}
	}
}
