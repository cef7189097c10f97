package bpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The committed object and Go types are what the sources give. It takes
// clang-14, llvm-14 and libbpf-dev, as the setup target installs them.
func TestGenerated(t *testing.T) {
	if _, err := exec.LookPath("clang-14"); err != nil {
		t.Fatalf("clang-14 is missing, run make setup: %v", err)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^//go:generate go (.*)$`).FindSubmatch(doc)
	if line == nil {
		t.Fatal("doc.go has no go:generate line")
	}
	// Beside the sources, so that the paths in debug information agree.
	dir, err := os.MkdirTemp(".", "generate-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	args := strings.Fields(string(line[1]))
	args = append([]string{"tool", "bpf2go", "-output-dir", dir}, args[2:]...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOPACKAGE=bpf", "GOFILE=doc.go")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(made) != 2 {
		t.Fatalf("made %v: %v", made, err)
	}
	for _, path := range made {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources give: run go generate ./bpf and commit it", filepath.Base(path))
		}
	}
}

func TestLicence(t *testing.T) {
	spec, err := LoadProbe()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range spec.Programs {
		if p.License != "GPL" {
			t.Errorf("program %s has licence %q", name, p.License)
		}
	}
}

// Go's layouts have the size of the kernel side's.
func TestLayouts(t *testing.T) {
	spec, err := LoadProbe()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range layouts {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if uintptr(s.Size) != size {
			t.Errorf("%s has %d bytes in the kernel and %d in Go", name, s.Size, size)
		}
	}
}
