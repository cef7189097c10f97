package record

import "errors"

// The three classes of error. Code that must decide what to do next wraps one
// of them beside the cause and asks with errors.Is.
var (
	// ErrRetry marks a transient failure: the same call may succeed later.
	ErrRetry = errors.New("retry")
	// ErrReject marks a bad input: it will never be accepted, others may.
	ErrReject = errors.New("reject")
	// ErrFatal marks a broken promise of the ledger or of its disk: nothing
	// may be sealed any more and the process must end and recover.
	ErrFatal = errors.New("fatal")
)
