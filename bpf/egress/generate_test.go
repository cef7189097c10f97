package egress

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The committed object and types are what the sources give. It takes clang-14,
// llvm-14 and libbpf-dev, as the setup target installs them. Debug information
// holds the names of sources as the compiler was given them, so they are made in a
// copy of this folder with the same names.
func TestGenerated(t *testing.T) {
	made, err := os.MkdirTemp(".", "generate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(made) })
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(doc), "//go:generate go ")
	if !ok {
		t.Fatal("doc.go does not say how the object is made")
	}
	args := strings.Fields(strings.TrimSpace(line))
	args = append(args[:2:2], append([]string{"-output-dir", made}, args[2:]...)...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, name := range []string{"egress_bpfel.go", "egress_bpfel.o"} {
		want, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources give: run go generate ./bpf/egress and commit it (%v)", name, err)
		}
	}
}

// Go's types have the sizes of the kernel's, and the program the licence it needs.
func TestLayouts(t *testing.T) {
	spec, err := LoadEgress()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range sizes() {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if int(s.Size) != size {
			t.Errorf("%s has %d bytes in the kernel and %d in Go", name, s.Size, size)
		}
	}
	for name, p := range spec.Programs {
		if p.License != "GPL" {
			t.Errorf("program %s has licence %q", name, p.License)
		}
	}
}

func sizes() map[string]int {
	size := func(v any) int { return int(reflect.TypeOf(v).Size()) }
	return map[string]int{
		"config": size(EgressConfig{}), "prefix": size(EgressPrefix{}), "rule": size(EgressRule{}), "port_key": size(EgressPortKey{}),
		"port_rule": size(EgressPortRule{}), "flow": size(EgressFlow{}), "denied": size(EgressDenied{}), "counts": size(EgressCounts{}),
		"event": size(EgressEvent{}), "dns_event": size(EgressDnsEvent{}),
	}
}
