package introspect

import (
	"testing"

	"github.com/provostd/provost/introspect/domain"
)

// TestFindByUUID gives a domain the UUID of another for a name.
func TestFindByUUID(t *testing.T) {
	a, b := domain.UUID{1}, domain.UUID{2}
	r := &Registry{machines: map[domain.UUID]*machine{a: {UUID: a, Name: b.String()}, b: {UUID: b, Name: "web"}}}
	for name, want := range map[string]domain.UUID{b.String(): b, a.String(): a, "web": b} {
		if m, err := r.Find(name); err != nil || m.UUID != want {
			t.Errorf("%s is %s: %v", name, m.UUID, err)
		}
	}
}
