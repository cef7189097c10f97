package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/provostd/provost/introspect/api/access"
)

// TestTurns has one identity ask for all places, and more: others need not wait for
// it, and nobody has more than there are.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1, 2)
		ask := func(ctx context.Context, who *access.Identity) chan func() {
			got := make(chan func(), 1)
			go func() {
				leave, err := turns.take(ctx, who)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				got <- leave
			}()
			synctest.Wait()
			return got
		}
		first := <-ask(t.Context(), tenant)
		second, third := ask(t.Context(), tenant), ask(t.Context(), tenant)
		other := <-ask(t.Context(), auditor) // in between
		late := ask(t.Context(), operator)
		if len(second)+len(third)+len(late) != 0 {
			t.Fatal("there are more places than two, or one identity has two")
		}
		ctx, cancel := context.WithCancel(t.Context())
		given := ask(ctx, stranger)
		cancel()
		if leave := <-given; leave != nil || len(turns.waiting) != 3 {
			t.Errorf("who waits no longer has a place, or %d wait", len(turns.waiting))
		}
		first()
		synctest.Wait()
		if len(second) != 1 || len(third)+len(late) != 0 {
			t.Error("who has waited longest is not the next one")
		}
		other() // the third has waited longer than the late one, and its identity has a place
		synctest.Wait()
		if len(third) != 0 || len(late) != 1 {
			t.Error("one identity has both places, or a place is left empty")
		}
		(<-second)()
		(<-third)()
		(<-late)()
		if turns.taken != 0 || len(turns.held) != 0 || len(turns.waiting) != 0 {
			t.Errorf("left over: %d %v %d", turns.taken, turns.held, len(turns.waiting))
		}
	})
}
