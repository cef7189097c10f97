// Package witness asks witnesses to cosign checkpoints: it is the client's side
// of c2sp.org/tlog-witness over an http.Client that is handed in. It promises
// that what it returns is a cosignature which verifies for the checkpoint that
// was sent, that a witness behind us is brought up to date (409), that every
// refusal comes back with what it means and how to mend it, and that a witness
// can cost no more than its timeout and a few kilobytes. It holds no state and
// knows no store. The daemon builds the clients; the ledger decides what their
// answers mean.
//
// # Protocol
//
//	POST <prefix>/add-checkpoint
//	    old <size the witness has cosigned>
//	    <base64 hash of the consistency proof>   a line each, none for size 0
//	    <empty line>
//	    <signed checkpoint>
//	200 signature lines of the witness
//	400 the request is malformed           403 no signature by a key it trusts
//	404 it does not know the log           409 old is not its size; the body is
//	422 the proof does not verify
//
// Some witnesses show what they have seen, as GET <prefix>/<SHA-256 of the
// origin in hexadecimal>/checkpoint.
package witness
