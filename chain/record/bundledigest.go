package record

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

// bundlePrefix separates digests of policy bundles from others. Part of the format.
const bundlePrefix = "provost/bundle/v1\x00"

// BundleDigest returns the digest of a policy bundle made of these files, as a
// BundleActivation and a Verdict name it: SHA-256 over the prefix, then for each file in
// order of its name the length of the name in 8 bytes, the name, the length of the file
// in 8 bytes, and the file.
func BundleDigest(files map[string][]byte) Hash {
	h := sha256.New()
	h.Write([]byte(bundlePrefix))
	size := func(n int) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		size(len(name))
		h.Write([]byte(name))
		size(len(files[name]))
		h.Write(files[name])
	}
	var d Hash
	h.Sum(d[:0])
	return d
}
