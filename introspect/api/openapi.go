package api

import (
	_ "embed"
	"net/http"
	"strconv"
)

// description is the OpenAPI description of all routes. A test holds it against
// the table of routes and real answers.
//
//go:embed openapi.json
var description []byte

func openAPI(c *call) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(description)))
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(description) // the client has gone: nobody to tell
	}
	return nil
}
