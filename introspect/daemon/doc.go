// Package daemon builds provostd out of its parts: it reads the configuration,
// constructs everything once, and starts and stops it in the right order. It
// promises that every part it starts is waited for, and that the ledger stops
// last. Nothing but cmd/provostd and tests imports it.
//
// Start: ledger, judge and enforcer, sessions, libvirt, listeners. Stop:
// listeners, libvirt, sessions, judge, enforcer, ledger. What is sealed while
// the parts behind it stop is judged and acted on after the next start.
package daemon
