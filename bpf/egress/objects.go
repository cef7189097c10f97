package egress

import "bytes"

// Object returns the object's bytes, for a digest of them.
func Object() []byte { return bytes.Clone(_EgressBytes) }
