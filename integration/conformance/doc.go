// Package conformance holds the tests that our logs are what the
// specifications say, judged by programs that were written elsewhere. The logs are
// filled by the real pipeline: agent, session, ledger. Tessera's
// fsck and client, and torchwood's client, read a VM log and the host log over HTTP as we serve them, and
// torchwood's spicy and a shell with openssl verify proofs from an exported bundle, and torchwood's
// litewitness cosigns the host log through restarts, conflicts and outages. The programs are
// built from the versions that bench/go.mod pins, into .cache/tools. Debian's
// Alertmanager takes our alerts.
package conformance
