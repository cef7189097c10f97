package access

import (
	"context"
	"fmt"
	"slices"

	"github.com/provostd/provost/chain/record"
)

// Role is what an identity may do. A larger one may do all that a smaller one
// may. The zero value may nothing.
type Role uint8

// The roles, ordered by right.
const (
	_        Role = iota
	Tenant        // reads the logs of the domains it is given
	Auditor       // reads every log
	Operator      // reads every log, and has the daemon act
)

var roleNames = [...]string{Tenant: "tenant", Auditor: "auditor", Operator: "operator"}

// String returns the role's word.
func (r Role) String() string {
	if r == 0 || int(r) >= len(roleNames) {
		return "nobody"
	}
	return roleNames[r]
}

// ParseRole returns the role that a word names.
func ParseRole(word string) (Role, error) {
	if i := slices.Index(roleNames[1:], word); i >= 0 {
		return Role(i + 1), nil
	}
	return 0, fmt.Errorf("role %q is none of operator, auditor, tenant: %w", word, record.ErrReject)
}

// Identity is who sends a request. It is not changed once it is made.
type Identity struct {
	Name    string   // in the configuration, of the token, or of the account
	Role    Role     // what it may do
	Domains []string // UUIDs in lower case that a tenant may see; of no meaning to others
	How     string   // it was authenticated, for the record: "uid 0, pid 812", "token 3f9c21d07a55"
	Address string   // it came from; empty: the host's own socket
}

// String names the identity for the record of what it asked for.
func (i *Identity) String() string {
	if i == nil {
		return "nobody"
	}
	return i.How + " (" + i.Name + ")"
}

// key is whom limits count: nobody shares those of another role by taking his
// name.
func (i *Identity) key() string { return i.Role.String() + " " + i.Name }

// Sees reports whether the identity may know of the logs of a domain. The host
// log is the domain "". Nobody, that is nil, sees nothing.
func (i *Identity) Sees(domainUUID string) bool {
	switch {
	case i == nil:
		return false
	case i.Role == Auditor, i.Role == Operator:
		return true
	}
	return i.Role == Tenant && domainUUID != "" && slices.Contains(i.Domains, domainUUID)
}

// May reports whether the identity has at least a role.
func (i *Identity) May(least Role) bool {
	return i != nil && least != 0 && i.Role >= least && i.Role <= Operator
}

type identityKey struct{}

// With returns a context of a request that comes from i.
func With(ctx context.Context, i *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// From returns who sends the request. Nil is nobody, and is to be refused.
func From(ctx context.Context) *Identity {
	i, _ := ctx.Value(identityKey{}).(*Identity)
	return i
}
