package chain

// Progress tells whoever watches the committer how far it has come: the newest durable
// commit, and whether more is waiting, submitted or on its way to the disk. A committer
// that does not move while something waits is stuck, or its disk is.
func (s *Store) Progress() (commit uint64, waiting bool) {
	// In this order: what is durable may be older than what is said to wait, never newer.
	commit = s.durable.Load()
	return commit, s.making.Load() > commit || s.queue.waiting()
}

// waiting reports whether anything was put and not taken.
func (q *queue) waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.urgent.requests) > 0 || len(q.ring) > 0
}
