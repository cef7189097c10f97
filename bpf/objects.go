package bpf

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The objects compress to less than a tenth without the numbers of source lines,
// which a program that is to be small in every guest makes use of.

//go:embed probe.o.gz
var packedProbe []byte

//go:embed probe_old.o.gz
var packedOld []byte

// Programs returns the object for this kernel: old for those before 5.12.
func Programs(old bool) (*ebpf.CollectionSpec, error) {
	b := packedProbe
	if old {
		b = packedOld
	}
	object, err := unpack(b)
	if err != nil {
		return nil, fmt.Errorf("unpack BPF object: %w", err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read BPF object: %w", err)
	}
	// What is said of single instructions (that this kernel lacks a field)
	// becomes lines, and a kernel takes lines only if each function begins
	// with one.
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if name := p.Instructions[i].Symbol(); name != "" {
				p.Instructions[i] = p.Instructions[i].WithSource(asm.Comment(name))
			}
		}
	}
	return spec, nil
}

func unpack(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
