package chain

import "testing"

// BenchmarkRecentAdd remembers commits of one small entry, with all that there is room
// for remembered: it must not cost what moving them does.
func BenchmarkRecentAdd(b *testing.B) {
	c := &recent{limit: recentBytes}
	n := uint64(0)
	add := func() {
		n++
		c.add(n, []span{{log: 1, first: n, count: 1}}, []*recentRun{{entries: []recentEntry{{payload: make([]byte, 100)}}}})
	}
	for c.first < 2 {
		add()
	}
	for b.Loop() {
		add()
	}
}
