package policy

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// soon is how long before an exception ends its author is warned.
const soon = 14 * 24 * time.Hour

// Expiring warns of the exceptions that have ended at a time, or will soon.
// Loading itself knows no time: a bundle means the same on every day.
func (b *Bundle) Expiring(now time.Time) hcl.Diagnostics {
	r := newReport()
	for _, p := range b.Policies {
		for _, x := range p.Exceptions {
			switch left := x.Expires.Sub(now); {
			case x.Expires.IsZero() || left > soon:
			case left <= 0:
				r.warn(CodeExpired, x.rng, "Exception has ended", fmt.Sprintf("The exception %q of policy %q ended at %s and covers nothing any more. Remove it, or give it a new date with a reason.", x.Name, p.Name, x.Expires.Format(time.RFC3339)))
			default:
				r.warn(CodeExpired, x.rng, "Exception ends soon", fmt.Sprintf("The exception %q of policy %q ends at %s. What it covers will match from then on.", x.Name, p.Name, x.Expires.Format(time.RFC3339)))
			}
		}
	}
	return r.diags
}
