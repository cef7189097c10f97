// Package proof is what an auditor needs: names of logs, checkpoints,
// inclusion and consistency proofs, and the evidence bundle. It parses,
// formats and verifies; it promises that a verification which succeeds was
// complete and that one which fails names every fault it found. It is pure: no
// store, no clock, no network, no file but the reader it is given.
package proof
