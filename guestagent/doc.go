// Package guestagent is the guest's end of the channel: it takes records from a
// source, commits to them, signs them in frames and sends them until the host
// has said that they are durable. It promises that a record it was given is
// sealed by the host, or counted as lost in a signed statement (invariant I4),
// and that neither a host that is away nor one that does not read ever makes
// the source wait.
//
// # Life of a record
//
//  1. Observe puts it into the queue, which is bounded; where there is no room
//     the record is dropped and counted by lane and class
//  2. as soon as the channel takes a frame, what is in the queue goes into one:
//     batches grow only while the channel is busy
//  3. the frame is signed and kept until its acknowledgement
//  4. a new Hello of the host means a new conversation: kept frames that follow
//     the last one it has sealed are sent again
//  5. at the end what the host has not taken is sent for the grace time; its
//     last part is for the account of what is left, which closes every lane
//
// The signing key is drawn at start and never leaves memory: it is bound to
// this run and to the domain's channel, no more.
//
// # Goroutines
//
// Run owns three: the source, the writer, which alone makes frames and writes
// to the port, and the reader. They share Agent.mu. The writer is never waited
// for by the others.
package guestagent
