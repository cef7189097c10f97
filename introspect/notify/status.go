package notify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Status is a channel as operators see it.
type Status struct {
	Name, Type string
	Waiting    int
	Oldest     time.Time // when the alert was queued that waits longest
	Last       time.Time // newest attempt
	Problem    string    // of the newest attempt; empty: it succeeded
	// Of this run:
	Delivered, GivenUp, Failures, Refused uint64
}

// Status returns all channels in the order of the configuration.
func (n *Notifier) Status() []Status {
	all := make([]Status, len(n.channels))
	for i, c := range n.channels {
		c.mu.Lock()
		all[i] = Status{Name: c.Name, Type: c.Type, Waiting: c.lanes.size, Oldest: c.lanes.oldest(), Last: c.lastAt, Problem: c.last,
			Delivered: c.sent, GivenUp: c.given, Failures: c.failures, Refused: c.refused}
		c.mu.Unlock()
	}
	return all
}

// Test sends a test alert by a channel, once and beside its queue.
func (n *Notifier) Test(ctx context.Context, name, requester string) (detail string, err error) {
	c := n.byName[name]
	if c == nil {
		return "", fmt.Errorf("there is no alert channel %q: %w", name, record.ErrReject)
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	a := &Alert{
		ID: "test/" + n.cfg.Host + "/" + hex.EncodeToString(id[:]), Host: n.cfg.Host, Time: n.cfg.Now().UTC(), Test: true,
		Policy: "test", Severity: "informational", Title: "Test of an alert channel",
		Message: clean("Nothing happened: "+requester+" tries the channel "+c.Name+".", maxMessage),
	}
	detail, err = c.attempt(ctx, a)
	if f := (*Failure)(nil); errors.As(err, &f) && f.Said != "" {
		err = fmt.Errorf("%s; it says: %s", f.What, clean(f.Said, maxText))
	}
	return detail, err
}
