// Package record defines what a log is made of: the record an author writes,
// the commitment that binds its payload, and the leaf the ledger seals. It
// promises that the same record always has the same bytes and the same hashes.
// It is pure: no IO, no clock, no randomness. Every part of Provost, on the
// host, in the guest and at the auditor's, may import it.
//
// # Record
//
// A record is a header and a payload. The payload is a protobuf message (see
// record.proto) which holds personal data, so the leaf never contains it: the
// leaf holds a salted commitment, and the payload can be erased or disclosed
// alone. All integers are big-endian.
//
// Header, 40 bytes, version 1:
//
//	offset size field
//	     0    1 version = 1
//	     1    1 reserved = 0
//	     2    2 class (see Class)
//	     4    4 lane: where the sequence at 24 counts: a kernel ring and CPU
//	            (ring<<16 | cpu), or 0xffffffff for the author itself
//	     8    8 session of the author
//	    16    8 sequence: contiguous from 0 in (epoch, session)
//	    24    8 lane sequence: taken in the kernel before a place in the ring
//	            is reserved, so that every loss leaves a hole; 0 without a lane
//	    32    8 time on the author's clock, nanoseconds: CLOCK_BOOTTIME of the
//	            guest, or the host's monotone time
//
//	commitment  = SHA-256("provost/commitment/v1" || 0x00 || salt[32] || payload)
//	record hash = SHA-256("provost/record/v1" || 0x00 || header || commitment)
//	salt        = HMAC-SHA256(seed[32], sequence as 8 bytes)
//
// # Leaf
//
// Leaf, 136 bytes, version 1. These bytes are the Merkle leaf of RFC 6962, so
// the leaf hash is SHA-256(0x00 || leaf).
//
//	offset size field
//	     0    4 magic and version: "PVL1"
//	     4    1 origin: 1 guest, 2 host, 3 policy, 4 operator
//	     5    3 reserved = 0
//	     8    8 index of this leaf in its log
//	    16    8 host monotone time, nanoseconds; never decreases in a log
//	    24    8 host wall time, Unix nanoseconds
//	    32   32 leaf hash of the leaf before; 32 zero bytes in leaf 0
//	    64   40 record header, as the author wrote it
//	   104   32 payload commitment
//
// The host's monotone time starts at the wall time of the store's opening, or
// at the newest sealed time where that is later, and advances with
// CLOCK_BOOTTIME from there: it is comparable with wall time and never steps
// back.
//
// Constants and layouts in this package are part of the format and must not
// change; testdata/vectors.json fixes them.
package record

//go:generate protoc -I . --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size record.proto
