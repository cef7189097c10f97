package access

import "sync/atomic"

// Stats counts what happens at the door. It is safe for concurrent use.
type Stats struct {
	Requests    atomic.Uint64 // that had an identity
	Failures    atomic.Uint64 // requests whose sender did not show who it is
	Limited     atomic.Uint64 // requests refused for their number
	Busy        atomic.Uint64 // requests refused because as many of their kind run
	Panics      atomic.Uint64 // requests that ended in a fault of ours
	Cut         atomic.Uint64 // requests ended because their identity did not last
	Connections atomic.Int64  // open now
	Refused     atomic.Uint64 // connections closed for their number
	Broken      atomic.Uint64 // connections that ended in an error, TLS handshakes among them
	Reloads     atomic.Uint64 // certificates, CAs and tokens read anew
	ReloadFails atomic.Uint64 // of these, that could not be used
}
