package api

import (
	"fmt"
	"sync"

	"github.com/provostd/provost/introspect/api/access"
)

// gate counts what goes on at a time, by identity and altogether.
type gate struct {
	mu   sync.Mutex
	each map[string]int
	all  int
}

// enter counts one in, and returns what counts it out.
func (g *gate) enter(id *access.Identity, what string, each, all int) (leave func(), err error) {
	key := id.Role.String() + " " + id.Name
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.each[key] >= each || g.all >= all {
		return nil, &busyError{fmt.Sprintf("%d %s of %s run; the limits are %d, and %d for all together", g.each[key], what, id.Name, each, all)}
	}
	if g.each == nil {
		g.each = map[string]int{}
	}
	g.each[key]++
	g.all++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.each[key]--; g.each[key] == 0 {
			delete(g.each, key)
		}
	}, nil
}
