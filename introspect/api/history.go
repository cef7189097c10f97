package api

import (
	"slices"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect/api/client"
)

// chain answers with all logs of a domain and how they hang together.
func (s *Service) chain(c *call) error {
	uuid, logs, err := c.domainLogs(c.r.PathValue("domain"))
	if err != nil {
		return err
	}
	slices.SortFunc(logs, func(a, b *chain.Log) int {
		if later(b.Name(), a.Name()) {
			return -1
		}
		return 1
	})
	out := &client.Chain{Domain: uuid, Name: s.Name(uuid), Whole: true}
	links, err := s.Store.Links(c.ctx, logs)
	if err != nil {
		return err
	}
	for i, k := range links {
		one := client.Link{Log: LogInfo(logs[i]), Cause: k.Cause, State: k.State.String(), Problem: k.Problem}
		if !k.Genesis.IsZero() { // else it was dropped
			one.Begun, one.Genesis = time.Unix(0, k.Begun).UTC().Format(time.RFC3339Nano), k.Genesis.String()
		}
		if k.Previous != nil {
			one.Previous = &client.Quoted{Log: k.Previous.Origin, Size: k.Previous.Size, Root: k.Previous.Root.String()}
		}
		out.Whole = out.Whole && k.State != chain.LinkBroken
		out.Links = append(out.Links, one)
	}
	return c.answer(out, nil)
}
