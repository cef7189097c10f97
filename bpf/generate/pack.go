package main

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
)

// pack writes an object as the agent holds it.
func pack(name, to string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	if err := slim(b); err != nil {
		return fmt.Errorf("slim %s: %w", name, err)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("compress object: %w", err)
	}
	if _, err := z.Write(b); err != nil {
		return fmt.Errorf("compress object: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress object: %w", err)
	}
	if err := os.WriteFile(to, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write packed object: %w", err)
	}
	return nil
}

// slim puts zeros, which take no room when compressed, in place of the numbers
// of source lines and of the relocations that a linker of objects would use.
func slim(b []byte) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("read ELF: %w", err)
	}
	part := func(name string) ([]byte, error) {
		s := f.Section(name)
		if s == nil || s.Offset+s.FileSize > uint64(len(b)) {
			return nil, fmt.Errorf("no section %s", name)
		}
		return b[s.Offset : s.Offset+s.FileSize], nil
	}
	ext, err := part(".BTF.ext")
	if err != nil {
		return err
	}
	// Header: magic, version, flags, its length; then offset behind it and
	// length of the information about functions, and of that about lines.
	const offsetAt, lengthAt = 16, 20
	if len(ext) < lengthAt+4 {
		return fmt.Errorf("section .BTF.ext has %d bytes", len(ext))
	}
	head, offset, length := binary.LittleEndian.Uint32(ext[4:]), binary.LittleEndian.Uint32(ext[offsetAt:]), binary.LittleEndian.Uint32(ext[lengthAt:])
	from, to := uint64(head)+uint64(offset), uint64(head)+uint64(offset)+uint64(length)
	if length < 4 || to > uint64(len(ext)) {
		return fmt.Errorf("information about lines at %d to %d of %d bytes", from, to, len(ext))
	}
	// The size of a record stays, and is all there is.
	clear(ext[from+4 : to])
	binary.LittleEndian.PutUint32(ext[lengthAt:], 4)
	rel, err := part(".rel.BTF.ext")
	if err != nil {
		return err
	}
	clear(rel)
	return nil
}
