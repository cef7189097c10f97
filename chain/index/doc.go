// Package index finds entries of the ledger: by log, class, time, path,
// executable, digest, address, process, user and name, and follows from there
// who made what out of what (Lineage). It is a follower of the ledger with a
// database of its own, and promises that nothing in it is evidence: every
// answer is read from the ledger and checked against the question there, so a
// damaged index can hide an entry but never invent one. Deleting its directory
// rebuilds it. The daemon and the API of the host may import it.
//
// # Chunks
//
// Every entry has an ordinal, its place in the one total order of the store
// from 0. A chunk is a run of up to 32,768 ordinals, shorter where guests chose
// so many different words that it would outgrow its bound in memory. The newest
// chunk is kept in memory and never stored: after a restart its entries are
// read from the ledger again. A full chunk is written in one batch and only
// changes when entries are forgotten. For each word that entries of a chunk
// hold there is one row with the places of these entries in the chunk. A
// question is answered chunk by chunk, so its answer is in the order of time
// and the first of it comes soon, whatever the order of words on disk.
//
// # Rows
//
// All integers are big-endian, varints are those of encoding/binary. n is a
// place in a chunk.
//
//	key                   value
//	M                     1 version = 1, 16 store id
//	Z chunk4              zone, see below
//	R chunk4              runs: varint log, varint first index, varint count
//	I chunk4 kind1 term   places: 1 = 0, varint differences of n, the first
//	                      from -1; or 1 = 1, bitmap of 4,096 bytes, n in
//	                      bit n%8 of byte n/8
//	S log4 session8       16 boot id of the agent's session
//
// Zone: 8 first ordinal, 4 count, 8 least and 8 greatest wall time, 8 commit
// and 4 offset of the position behind the chunk, 4 log, 8 index and 32 leaf
// hash of its last entry. The last zone is the position that is saved; its hash
// tells a ledger that is not the one which was indexed.
//
// Terms are cut after 256 bytes. Kinds:
//
//	l  4 log                    c  2 class
//	p  path of an object        e  executable of the process
//	h  SHA-256                  a  16 address (IPv4 mapped), 2 port
//	P  4 pid, 8 start           q  the same of the parent: fork and exec
//	o  the same of the object   u  4 user id
//	n  name of DNS              A  account
package index
