// Package enforce turns sealed verdicts into actions and seals their outcomes.
// It promises that no action starts before its verdict is durable, that every
// action which was started ends in a sealed outcome with the state read back,
// and that a crash between the two is repaired on start (invariant I2).
//
// The enforcer is a follower of the ledger. Its durable position never passes
// a verdict whose actions are not all answered by an outcome, so after a crash
// it meets every unfinished verdict again, together with the outcomes that were
// sealed already. Actions are idempotent: what is found done is recorded as
// such. Actions on one domain are serialised, domains act side by side.
//
// An action that lasts (a pause, interfaces cut off, a quarantine) is a hold. What
// holds a domain, and what it was before the first of them, stands in a row of the
// ledger that is written with the entries about it, before the domain is changed
// where that could not be told behind a crash. Holds end one by one: what several
// want stays until the last is released, and what was so before the first came, such
// as a pause by the owner, stays for good.
package enforce
