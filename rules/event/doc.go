// Package event turns one sealed entry of a VM log into the Event that
// policies read. It promises one table, Fields, of everything a policy can
// name: checker, documentation and completion all come from it. It is pure: no
// IO, no clock.
//
// An Event is reused from entry to entry and does not copy the payload: its
// strings may share memory with the payload it was loaded from, so the payload
// must not be changed until the next Load or Reset, or with the Event itself,
// which overwrites them then. Who keeps a string longer (a verdict, a window)
// must clone it.
//
// # Strings
//
// A guest's file names are bytes. Matching uses their NFC-normalised form, as
// HCL normalises the constants they are compared with; bytes that are not
// UTF-8 are kept as they are. The payload in the ledger keeps the raw bytes.
//
// # Missing fields
//
// What an author left out is missing: Has reports false, true/false fields read
// as false and lists as empty.
package event
