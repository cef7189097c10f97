package api

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/provostd/provost/introspect/api/access"
)

// limitKey is whom limits count.
func limitKey(id *access.Identity) string { return id.Role.String() + " " + id.Name }

// gate counts what goes on at a time, by identity and altogether.
type gate struct {
	mu   sync.Mutex
	each map[string]int
	all  int
}

// enter counts one in, and returns what counts it out.
func (g *gate) enter(id *access.Identity, what string, each, all int) (leave func(), err error) {
	key := limitKey(id)
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

// turns gives out all places in the order in which they are asked for. One identity
// has each of them at a time, whatever it asks for: others come in between. As many
// wait as its callers let in.
type turns struct {
	each, all int

	mu      sync.Mutex
	held    map[string]int // by identity
	taken   int
	waiting []*turn
}

type turn struct {
	key   string
	given chan struct{} // closed when it has a place
}

func newTurns(each, all int) *turns { return &turns{each: each, all: all, held: map[string]int{}} }

// take waits for a place, and returns what gives it back.
func (t *turns) take(ctx context.Context, id *access.Identity) (leave func(), err error) {
	one := &turn{key: limitKey(id), given: make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, one)
	t.serve()
	t.mu.Unlock()
	leave = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at := slices.Index(t.waiting, one); at >= 0 { // it never had one
			t.waiting = slices.Delete(t.waiting, at, at+1)
			return
		}
		t.taken--
		if t.held[one.key]--; t.held[one.key] == 0 {
			delete(t.held, one.key)
		}
		t.serve()
	}
	select {
	case <-one.given:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// serve gives free places to those who have waited longest and may have one.
func (t *turns) serve() {
	t.waiting = slices.DeleteFunc(t.waiting, func(one *turn) bool {
		if t.taken == t.all || t.held[one.key] == t.each {
			return false
		}
		t.taken++
		t.held[one.key]++
		close(one.given)
		return true
	})
}
