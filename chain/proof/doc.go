// Package proof is what an auditor needs: names of logs, checkpoints,
// inclusion and consistency proofs, and the evidence bundle. It parses,
// formats and verifies; it promises that a verification which succeeds was
// complete and that one which fails names every fault it found. It is pure: no
// store, no clock, no network, no file but the reader it is given. The command
// line and the ledger import it.
//
// # Formats of others
//
// Checkpoints are c2sp.org/tlog-checkpoint without extension lines, in
// c2sp.org/signed-note with Ed25519 keys of type 0x01; further signatures are
// tolerated, and those of witnesses (c2sp.org/tlog-cosignature) are looked at where
// a policy asks for them (c2sp.org/tlog-policy). Trees are RFC 6962, single proofs c2sp.org/tlog-proof@v1.
//
// # Evidence bundle
//
// A bundle is a zip archive. Its members are stored, sorted by name, without
// times, so the same content always has the same bytes; a reader compares.
//
//	manifest.json            JSON: format "provost-evidence", version 4, origins,
//	                         range claim, and for each entry its index, role,
//	                         files, and its place in the agent's frame
//	README.txt               what it is, and the commands of stock tools
//	verify.sh                verifies one entry with openssl and a shell
//	host.checkpoint          signed note of the host log
//	vm.checkpoint            signed note of the VM log
//	host.vkey, vm.vkey       verifier keys; they prove nothing, and must be the key
//	                         given and the certified one
//	vm-key.*                 entry of the host log that certifies vm.vkey
//	vm-keys/NNNNNNNN.*       likewise for key number N, which was replaced
//	vm-checkpoint.*          entry of the host log that quotes vm.checkpoint
//	events/NNNNNNNN.*        entry N of the VM log
//	frames/NNNNNNNN.*        likewise, where it is a guest agent's signed statement
//	policies/DIGEST/FILE     file of the policy bundle that entries name by this digest
//
// and of each entry:
//
//	.leaf                    136 bytes, see chain/record
//	.payload                 32 bytes salt, then the payload; may be withheld
//	.tlog-proof              inclusion under the log's checkpoint above
//	.leaf.spicy              the same without its first line, for `spicy -verify`
//
// # What Verify checks
//
// In this order, each step resting on those before: the host checkpoint with
// the key given, which host.vkey must equal; the cosignatures on it that a policy
// asks for; the two host-log entries under it; the VM-log key from its
// certificate, behind those of all keys before it; the VM checkpoint with that key, and that it is the one quoted;
// every entry's leaf under it and every payload against its leaf; the hash
// chain between neighbours and, for a range, that nothing is missing; the
// genesis against the origin; for each entry of a guest the agent's signature
// over it and the enrolment of the key, with the epoch as far as the bundle
// can decide it; that verdicts and outcomes name
// what they follow by the right hash; and that texts of policies have the digests that
// activations and verdicts name.
package proof
