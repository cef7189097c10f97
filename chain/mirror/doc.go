// Package mirror verifies whole logs where they are served or kept: at the URL
// of a Verification Service, at that of any c2sp.org/tlog-tiles server, or in a
// directory with the same files. It promises that a verification which succeeds
// has read every entry that a signed checkpoint covers, and that one which fails
// names what is wrong; that memory does not grow with the logs; and that it
// believes nothing of what it is given but what follows from one public key. The
// command line imports it; it needs no store, no clock and no network: a Source
// is what it is given.
//
// # Resources
//
// Below the place of a log, which is "logs/<origin>/" or "<origin>/" or the top:
//
//	checkpoint                 signed note, c2sp.org/tlog-checkpoint
//	tile/entries/<N>[.p/<W>]   entry bundle, c2sp.org/tlog-tiles
//	tile/openings/<N>[.p/<W>]  what opens these entries, see below
//
// <N> is the number of the bundle in groups of three digits, all but the last
// behind an x; W is the width of a partial one. Tiles of hashes follow from the
// entries and are not read, but those of level 1 where entries were pruned, and of an
// archive those of level 0 where entries lack.
//
// An Archive holds them for one VM log that is closed, with the evidence of the host log
// for its checkpoint: docs/formats.md has its members. Entries that the host had fenced off
// as damaged may lack in it, where it has the entries of the host log that tell so.
//
// # Opening bundle
//
// For each entry of the entry bundle with the same path, in its order:
//
//	offset size field
//	     0    4 n, big-endian: 0 where the entry is not opened
//	     4    n 32 bytes salt, then the payload: n >= 32
//
// A server of opening bundles opens what verification needs (keys, quotes of
// checkpoints, statements of frames) and may open more. The layout is part of the
// format and must not change.
//
// # What Verify checks
//
// The host log: its checkpoint with the key given, the cosignatures that a policy
// asks for, and what was seen of it before; then every entry, in order: index,
// hash of the leaf before, host time, numbering of the host's own entries, payload
// against commitment; the certificates of the keys of VM logs; each quote of a
// VM log's checkpoint with the key in force at that entry, none smaller than the one
// before; and that all leaves together make the root that was signed. Then each
// VM log that it quotes, likewise: its own checkpoint, every entry, that the tree
// had at each quoted size the quoted root, that each entry of the guest is signed
// in a frame by a key that was enrolled, that frames follow each other or an entry
// says that some are missing, and that the genesis names this log and quotes the
// log before it. What lacks is a gap; where the host log, or the server, says that it
// was damaged and fenced off, the gap is named by that. A VM log that is not there must
// have been dropped, by an entry of the host log at the checkpoint that was quoted last.
package mirror
