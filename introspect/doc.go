// Package introspect is the host side of Provost: it ties sources, ledger,
// policies and enforcement together, in one direction. It promises the order
// of the steps below and the invariants behind them.
//
// # The life of one event
//
//  1. A BPF program in the guest fills a record in a ring buffer: bpf/src.
//     No room: a counter for the class goes up.
//  2. probe.Probe decodes it (guestagent/probe). A risen counter becomes a
//     Lost record.
//  3. guestagent.Agent queues it, commits to it, packs what is ready into a
//     frame and signs the frame's statement, which names the frame before it.
//  4. The frame goes through virtio-serial (guestagent/wire) to the unix socket
//     that the XML of this one domain names.
//  5. A session of guest.Sessions reads it: bounded decode, signature, chain of
//     frames, sequence. Which domain it is comes from the socket (I3).
//  6. chain.Store.Submit: one committer seals it with what the other domains
//     have sent, in one synced batch; then it is acknowledged, then the agent
//     forgets it (I7).
//  7. Judge follows the ledger and has rules.Engine evaluate each entry (I1, I5).
//  8. Judge seals the verdict (I2).
//  9. enforce.Enforcer follows the ledger too; it acts through virt.Host.
//  10. It seals the outcome. libvirt's own event about the same change arrives
//     through Registry.Observe, as independent evidence. The next checkpoint
//     covers all of it, the host log quotes the checkpoint.
//
// The single way back is an append, through the same door as every source.
//
// # Invariants
//
//   - I1 Sealed before decided: a policy sees an entry only after it is durable.
//   - I2 A verdict is sealed before its action starts, the outcome after it
//     ends. A crash between the two is repaired on start. Actions are idempotent.
//   - I3 A domain's identity comes from the host side of its channel: the peer's
//     pidfd matched with libvirt's own pid file and start time, never a command
//     line or a payload.
//   - I4 Every loss is an entry: kernel drops, agent queue, spool, sequence
//     holes, an agent silent past its heartbeat.
//   - I5 Evaluation depends on the entries of one VM log and its saved state
//     only: no clock, no IO. Replaying the same entries gives the same verdicts.
//   - I6 A checkpoint never covers an entry that is not durable, is stored and
//     synced before it is published, and is consistent with the one before it.
//     An anchor outside the store is written before publishing; a store behind
//     its anchor refuses to append and says why.
//   - I7 Acknowledged means durable.
//   - I8 A guest can hurt neither the host nor its neighbours: bounded memory
//     and CPU for each domain, fair shares, hostile input rejected; its own pause
//     is never queued behind its own flood.
//   - I9 The signing keys of provenance are read in chain/keys only.
//   - I10 A mode which cannot be honoured is refused at load, never silently
//     weakened.
package introspect
