// Package chain is the ledger: the transparency log of every incarnation of
// every domain of a host, and the host log above them, in one Pebble store. It
// promises that what it acknowledged is durable (invariant I7), that a batch is
// sealed whole or not at all, that readers see only what is durable (I1), and
// that its signed checkpoints never contradict each other (I6). Every part of
// the host side may import it; proofs are verified without it, by chain/proof.
//
// # Sealing
//
// Sources hand in batches (Submit, Append). One committer takes what waits,
// gives every entry its leaf, and writes all of it as one Pebble batch with one
// sync; while that runs the next one is made, and the one after it gathers.
// Payloads are encrypted beside the leaves' hashing. Entries of the host, of
// policies and of operators go before entries of guests, and guests take turns
// (I8). Batches of one log that hold entries of a guest keep their order.
//
// # Order of durable steps
//
//  1. Rows of a commit are written and synced together, behind those of the
//     commit before it. Then its batches are acknowledged and its entries shown
//     to followers. A commit with rows of the ledger's own (a log is closed,
//     erased from, dropped, ...) starts when the one before it is durable, and the
//     next one when it is.
//  2. A VM log's checkpoint is signed over durable entries, after comparison
//     with the one before.
//  3. It is stored and synced, then published.
//  4. An entry of the host log quotes it; with that entry stands the row that
//     says where.
//  5. The host log's checkpoint is signed likewise, stored and synced.
//  6. The anchor file, outside the store, is replaced by compare-and-swap and
//     synced with its directory.
//  7. The host checkpoint is published.
//  8. Witnesses are asked to cosign it, all at once. No step waits for them; what
//     they answer is stored and synced with the checkpoint, then shown with it.
//     A lost quorum is sealed in the host log, once for each change.
//
// A crash after any step leaves a store that Open brings up by itself: in step
// 1 the whole commit or nothing; after 3 and 5 a checkpoint that Open publishes
// (the host's after anchoring it). The anchor is never ahead of the store, so a
// store behind its anchor was rolled back, and Open refuses it (*AnchorError).
//
// In step 1 keys of payloads that are new go ahead: their file, outside the
// store, is synced before the commit is. A crash between leaves keys that open
// nothing.
//
// # Erasing
//
// Erase seals an entry that says what is erased, together with a row which says
// that it is not done; from there on readers are not shown it, and new payloads
// are under new keys. Then it rewrites the rows: first those that hold a seed of
// an erased record beside it, where salts take the seed's place, then those of
// the erased records, then what else is under the keys that will go. The keys are
// destroyed, the store is flushed and compacted, and the row goes. Run finishes
// what a crash has cut short.
//
// # Dropping
//
// Archive writes all of a closed log to a file, and Drop takes the log away once such a
// file was verified: an entry of the host log says so, with a row that keeps what the
// log's root follows from. Then rows go and the keys of its payloads. Run finishes what
// a crash has cut short.
//
// # Rows
//
// All integers are big-endian. The first byte of a key is its table, log4 is a
// log's dense number in this store. Part of the format:
//
//	key                       value
//	M 's'                     1 version = 2, 16 store id, 1 flags, host id
//	M 'l' log4                origin of the log; the host log is number 0
//	M 'k' public key          4 log, 8 index: the entry that certifies the key
//	M 'e' log4 index8         that entry's erasure is under way: 1 version = 1, then for
//	                          each hour whose keys it destroys 8 hour, 4 generation
//	M 'c' log4                8 index: that entry closed the log
//	M 'd' log4                the log was dropped: 1 version = 1, 8 index of the entry of
//	                          the host log, 1 pending, 32 for each leaf hash that no full
//	                          tile has, then likewise for hashes on level 1
//	M 'p' log4                what is pruned of the log, see prune.go
//	M 'u' key                 the caller's own (MetaWrite)
//	M 'w' key id              witness: 1 version = 1, 8 size cosigned last, 8 time of
//	                          that in Unix seconds, 1 flags (1: it disputes the log)
//	M 'q'                     1 version = 1, 1 state of the quorum as it was sealed
//	                          last (0: reached, 1: short)
//	M 'r' index8              restore that the entry of the host log tells of:
//	                          1 version = 1, 8 size restored, 8 size given up, state
//	M 'f' log4 index8         fence: 1 version = 1, 8 last index, 2 n, 32n leaf
//	                          hashes that no full tile has, reason
//	E log4 index8             leaf, 136 bytes, see chain/record
//	P log4 index8             1 form (1 salt, 2 seed), 32 salt or seed, payload; 5:
//	                          8 run, 4 generation, one of these encrypted; 4:
//	                          erased, 8 index of the entry that says why
//	B log4 bundle8            packed bundle of 256 entries, see docs/formats.md
//	T log4 level1 index8      full tile, 256 hashes of 32 bytes, c2sp.org/tlog-tiles
//	R log4 level1 index8      hash that a full tile stands for on the level above,
//	                          until the tile there is full; it follows from the tile
//	H log4                    head, see below
//	C log4 size8              signed checkpoint (a note, any number of signatures)
//	O commit8                 1 version = 1, then for each log in the commit:
//	                          4 log, 8 first index, 4 count
//	F name                    follower: 1 version = 1, 8 commit, 4 offset, state
//	Q log4                    newest quote in the host log: 8 size, 8 index
//
// Head, version 1:
//
//	offset size field
//	     0    1 version = 1
//	     1    8 size of the log in leaves
//	     9   32 leaf hash of the last leaf
//	    41    8 host monotone time of the last leaf, nanoseconds
//	    49    8 host wall time of the last leaf, Unix nanoseconds
//	    57    1 number n of right-edge hashes
//	    58  32n right-edge hashes, the largest subtree first
//
// An entry has an E and a P row until its bundle is full and the packer, which
// works behind the committer, puts a B row in their place. Only payloads above
// 64 KiB keep their P rows. All bundles of a log before the first E row are
// packed; of those behind it each one that has no E row. A bundle with rows that do
// not make its tile, or whose key is lost, is left in them.
//
// Partial tiles are never stored: they are kept in memory and rebuilt on open
// from at most 255 leaves and 255 R rows of each level, or the tiles themselves
// where those rows are missing or do not make the head's right edge. Of the checkpoints the
// newest one of a log is kept, one for each 65,536 leaves, and every one that
// witnesses have cosigned, with their signatures; all that the
// host log quotes stand in its payloads as well.
//
// # Anchor
//
// The anchor file is text: a line "provost-anchor/v1", a line "store " with
// the store id in hexadecimal, an empty line, and the signed host checkpoint.
package chain
