// Package hostbench measures the host's side: what provostd adds between a
// frame that arrives and a domain that is paused, how much the whole path from
// channel to verdict takes in, and what one flooding guest costs its
// neighbours. It promises that the parts are the daemon's own, on a real
// store; frames are signed by a process of its own that plays the guests.
//
// Run it by "make bench-host" (as root).
package hostbench
