// Package guest is the host end of the guests' channels: one session for each
// domain, from the connected socket to the acknowledged frame. It promises
// that whatever arrives on a socket is sealed only in the log of the domain
// whose QEMU holds the other end (invariant I3), that nothing is acknowledged
// before it is durable (I7), that every hole is sealed (I4), and that one guest
// costs the host no more than its quota (I8).
//
// # Life of a session
//
//  1. connect to the unix socket that the domain's live XML names
//  2. the peer's pidfd must be the QEMU process libvirt has for the domain
//  3. Hello out, Ident in: signed over the transcript, sealed as agent.enrolled
//  4. Frame in: parse, verify, seal the records and the statement in one batch
//  5. Ack out, in order, after the batch is durable
//
// A guest that breaks the protocol is sealed as having done so, with a bounded
// piece of evidence, and its session starts anew after a pause that grows.
// Nothing that is read is dropped: a session that is over its quota does not
// read.
package guest
