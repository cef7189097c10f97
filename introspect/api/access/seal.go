package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Sealer seals disclosures in the host log. It is safe for concurrent use;
// what several requests disclose at once shares a commit.
type Sealer struct {
	Store *chain.Store

	sealed, refused atomic.Uint64
}

var _ Discloser = (*Sealer)(nil)

// Sealed returns how many disclosures were sealed, and how many could not be
// and gave nothing.
func (s *Sealer) Sealed() (sealed, refused uint64) { return s.sealed.Load(), s.refused.Load() }

// maxWhat bounds what a disclosure says of its route, in bytes.
const maxWhat = 256

// Disclose implements Discloser. An error wraps record.ErrRetry: the ledger
// does not take entries now, and what is not sealed is not given.
func (s *Sealer) Disclose(ctx context.Context, d Disclosure) error {
	if err := s.seal(ctx, d); err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // a reader who hangs up is refused nothing
			s.refused.Add(1)
		}
		return err
	}
	s.sealed.Add(1)
	return nil
}

func (s *Sealer) seal(ctx context.Context, d Disclosure) error {
	who := From(ctx)
	if !who.May(Tenant) {
		return fmt.Errorf("disclose payloads: the request has no identity: %w", record.ErrReject)
	}
	// What was asked for may name people, and the host's own entries are not
	// erased.
	what, _, _ := strings.Cut(d.What, "?")
	e, err := s.Store.Draft(record.OriginHost, record.ClassAccessDisclosed, &record.Disclosed{
		Name: who.Name, Role: who.Role.String(), How: who.How, Address: who.Address,
		What: strings.ToValidUTF8(what[:min(len(what), maxWhat)], ""), Origin: d.Origin, First: d.First, Last: d.Last, Count: d.Count,
	})
	if err != nil {
		return fmt.Errorf("disclose payloads: %w", err)
	}
	// Stopping behind this line leaves a disclosure of what was not given:
	// the record may say too much, and never too little.
	if _, err := s.Store.Append(ctx, chain.Batch{Log: s.Store.HostLog(), Entries: []chain.Entry{e}}); err != nil {
		return fmt.Errorf("nothing is given, because its disclosure cannot be sealed: %w: %w", err, record.ErrRetry)
	}
	return nil
}

// Disclosed reports whether giving the payload of a record of class c is a
// disclosure. Payloads of disclosures are not: see Discloser.
func Disclosed(c record.Class) bool { return c != record.ClassAccessDisclosed }
