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
	lines := regexp.MustCompile(`(?m)^//go:generate go (.*)$`).FindAllSubmatch(doc, -1)
	if len(lines) != 2 {
		t.Fatalf("doc.go has %d go:generate lines, want 2", len(lines))
	}
	for _, line := range lines {
		generated(t, strings.Fields(string(line[1])))
	}
}

func generated(t *testing.T, command []string) {
	// Beside the sources, so that the paths in debug information agree.
	dir, err := os.MkdirTemp(".", "generate-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	args := append([]string{"tool", "bpf2go", "-output-dir", dir}, command[2:]...)
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

// Go's layouts are the kernel side's: size, and the place of every field.
func TestLayouts(t *testing.T) {
	spec, err := LoadProbe()
	if err != nil {
		t.Fatal(err)
	}
	for name, typ := range layouts {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if uintptr(s.Size) != typ.Size() {
			t.Errorf("%s has %d bytes in the kernel and %d in Go", name, s.Size, typ.Size())
		}
		offsets := map[string]uintptr{}
		for i := range typ.NumField() {
			f := typ.Field(i)
			offsets[strings.ToLower(f.Name)] = f.Offset
		}
		for _, m := range s.Members {
			field := strings.ToLower(strings.ReplaceAll(m.Name, "_", ""))
			if got, ok := offsets[field]; !ok || uintptr(m.Offset.Bytes()) != got {
				t.Errorf("%s.%s is at byte %d in the kernel, at %d in Go (there: %v)", name, m.Name, m.Offset.Bytes(), got, ok)
			}
		}
	}
}

// Both objects hold the same programs and maps.
func TestOld(t *testing.T) {
	now, err := LoadProbe()
	if err != nil {
		t.Fatal(err)
	}
	old, err := LoadOld()
	if err != nil {
		t.Fatal(err)
	}
	for name := range now.Programs {
		if old.Programs[name] == nil {
			t.Errorf("program %s is missing in the object for old kernels", name)
		}
	}
	for name, m := range now.Maps {
		if o := old.Maps[name]; o == nil || o.ValueSize != m.ValueSize || o.MaxEntries != m.MaxEntries {
			t.Errorf("map %s differs in the object for old kernels", name)
		}
	}
}
