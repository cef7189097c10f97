package guestagent

// Waiting says how many bytes wait in the queue and how many chunks are on the
// disk, for tests that must not outrun the spooler.
func (a *Agent) Waiting() (bytes, chunks int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.queue.bytes, a.spool.away
}

// SpoolFull says whether the spool has found no room the last time.
func (a *Agent) SpoolFull() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spool.full
}
