package bpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// generated makes objects and types again, beside the sources, so that the paths
// in debug information agree. It takes clang-14, llvm-14 and libbpf-dev, as the
// setup target installs them.
func generated(t *testing.T) (dir string) {
	t.Helper()
	if _, err := exec.LookPath("clang-14"); err != nil {
		t.Fatalf("clang-14 is missing, run make setup: %v", err)
	}
	dir, err := os.MkdirTemp(".", "generate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("go", "run", "./generate", "-dir", dir, "-whole").CombinedOutput(); err != nil {
		t.Fatalf("go run ./generate: %v\n%s", err, out)
	}
	return dir
}

// The committed objects and Go types are what the sources give; and what is
// packed are the objects as they were compiled, but for the numbers of lines.
func TestGenerated(t *testing.T) {
	dir := generated(t)
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(read("types.go"), read(filepath.Join(dir, "types.go"))) {
		t.Error("types.go is not what the sources give: run go generate ./bpf and commit it")
	}
	for name, packed := range map[string][]byte{"probe": packedProbe, "probe_old": packedOld} {
		made, err := unpack(read(filepath.Join(dir, name+".o.gz"))) // packing may differ with Go's version
		if err != nil {
			t.Fatal(err)
		}
		got, err := unpack(packed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, made) {
			t.Errorf("%s.o.gz is not what the sources give: run go generate ./bpf and commit it", name)
		}
		samePrograms(t, name, got, read(filepath.Join(dir, name+"_x86_bpfel.o")))
	}
}

// samePrograms holds what is packed to what was compiled: the same code, of the
// same programs with the same types, and no numbers of lines.
func samePrograms(t *testing.T, name string, packed, whole []byte) {
	t.Helper()
	got, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	want, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Programs) != len(want.Programs) || len(got.Maps) != len(want.Maps) || len(want.Programs) == 0 {
		t.Errorf("%s: %d programs and %d maps, want %d and %d", name, len(got.Programs), len(got.Maps), len(want.Programs), len(want.Maps))
	}
	for p, w := range want.Programs {
		g := got.Programs[p]
		if g == nil || g.SectionName != w.SectionName || len(g.Instructions) != len(w.Instructions) {
			t.Errorf("%s: program %s is not as it was compiled", name, p)
			continue
		}
		for i, x := range w.Instructions {
			y := g.Instructions[i]
			if y.OpCode != x.OpCode || y.Constant != x.Constant || y.Offset != x.Offset || y.Dst != x.Dst || y.Src != x.Src || y.Reference() != x.Reference() {
				t.Errorf("%s: program %s: instruction %d is %v, want %v", name, p, i, y, x)
				break
			}
			if y.Source() != nil {
				t.Fatalf("%s: program %s has lines", name, p)
			}
		}
	}
}

// spec is an object as the agent loads it.
func spec(t *testing.T, old bool) *ebpf.CollectionSpec {
	t.Helper()
	s, err := Programs(old)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLicence(t *testing.T) {
	for name, p := range spec(t, false).Programs {
		if p.License != "GPL" {
			t.Errorf("program %s has licence %q", name, p.License)
		}
	}
}

// Go's layouts are the kernel side's: size, and the place of every field.
func TestLayouts(t *testing.T) {
	spec := spec(t, false)
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
	now, old := spec(t, false), spec(t, true)
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
