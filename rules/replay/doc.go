// Package replay judges sealed records again. It promises that what it says follows
// from records and bundles alone: no clock, no ledger, no network. Memory is bounded
// by rules.State for the one log that is read, and by the bundles.
//
// # Check: was judged what had to be
//
// A Check is given every entry of VM logs, in order, whose place and signatures
// somebody else has verified. For each entry it asks the policies that the log's own
// activations name, in the modes that stand there, and holds what they say against
// the verdicts that are sealed behind it. A verdict that lacks, one that nothing
// explains and one that says something else are differences.
//
// What cannot be evaluated is never taken for "no verdict". A record whose payload is
// not given (erased or withheld) is counted; from there on what remembers earlier
// records (cooldowns, windows, approvals) is not compared for the policies that would
// have judged it, since what they remember is not known. The same holds for all
// policies behind entries that are missing or were pruned, and behind activations whose bundle is not given.
//
// Verdicts without a policy are the engine's and the host's own: that an entry could
// not be read, or that memory was given up. They are counted and not compared.
//
// A shard goes on from what policies remember of the one before, where that was given
// to its end; else those that remember are not compared in it. What the log says was
// carried must be what the shard before gives.
//
// # Trial: what another bundle would say
//
// A Trial judges recorded entries by a candidate and by the bundle in force, both in
// the modes of now and from the same empty memory, which begins as far ahead of what
// is counted as any policy of the two remembers.
package replay
