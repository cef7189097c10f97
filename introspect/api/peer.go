package api

import (
	"context"

	"github.com/provostd/provost/introspect/api/access"
)

// requester names who has sent a request, for the record.
func requester(ctx context.Context) string { return access.From(ctx).String() }
