package policy

import (
	"math/rand/v2"
	"testing"

	"github.com/provostd/provost/rules/event"
)

// For tests of packages that build on this one.

// Expressions makes generated conditions and events.
type Expressions struct {
	c   chooser
	env *env
}

// RandomExpressions draws from a random source.
func RandomExpressions(t testing.TB, r *rand.Rand) *Expressions {
	return &Expressions{randChooser{r}, testEnv(t)}
}

// Of draws from fuzz input instead, which is used up.
func (x *Expressions) Of(data []byte) *Expressions {
	return &Expressions{&byteChooser{data}, x.env}
}

// Condition returns a condition and its text, or nil where the checker refuses
// what was drawn.
func (x *Expressions) Condition(depth int) (*Condition, string) {
	g := generator{c: x.c, depth: depth}
	text := g.indexable()
	c, _ := compileText(x.env, text)
	return c, text
}

// Event returns an event with some fields knocked out.
func (x *Expressions) Event() *event.Event { return genEvent(x.c) }

// Describe writes the event's fields.
func Describe(e *event.Event) string { return describe(e) }

// Draw returns a number below limit.
func (x *Expressions) Draw(limit int) int { return x.c.n(limit) }
