package access

import "context"

// Disclosure is a stretch of one log whose payloads a request is given.
type Disclosure struct {
	Origin string // of the log; empty: all that the identity sees
	First  uint64 // entry
	Last   uint64 // entry, with it; Open: there is no end yet
	Count  uint64 // payloads that are given; 0: not known beforehand
	What   string // the route. No words of the question: the host log is not erased
}

// Open is the Last of a stream, which goes on as entries are sealed.
const Open = ^uint64(0)

// Discloser seals in the host log that payloads are given to the identity of
// ctx. Disclose returns behind the seal: only then may the first byte of a
// payload leave. A context without an identity, and a seal that fails, are
// errors, and nothing may be given.
//
// A stream discloses its selection with Open before its first byte, and what
// it did give each so many entries and when it ends. Payloads of disclosures
// are given without one: they hold no guest's data, and a reader that follows
// the host log would keep it growing by reading.
type Discloser interface {
	Disclose(ctx context.Context, d Disclosure) error
}
