// Package bench measures what the guest agent costs: the real binary on this
// machine's own kernel, its channel a unix socket with a host at the other end
// that acknowledges. It promises that every figure comes with exact books: what
// a workload says it did is what arrived, or was declared lost.
//
// Run it by "make bench-probe" (as root). SCAP_OPEN=PATH measures Falco's
// scap-open beside it, in the same runs.
package bench
