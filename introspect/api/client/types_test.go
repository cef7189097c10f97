package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// TestOpen holds entries of a server that lies against their leaves.
func TestOpen(t *testing.T) {
	payload, err := record.Encode(&record.Event{Reason: "it is so"})
	if err != nil {
		t.Fatal(err)
	}
	salt := record.Salt{1}
	leaf := record.Leaf{Origin: record.OriginHost, Index: 7, Header: record.Header{Class: record.ClassVMChange, Lane: record.NoLane}, Commitment: record.Commit(&salt, payload)}
	other, err := record.Encode(&record.Event{Reason: "it is otherwise"})
	if err != nil {
		t.Fatal(err)
	}
	by := uint64(9)
	for name, c := range map[string]struct {
		e    Entry
		want string
		is   error
	}{
		"as sealed":          {Entry{Payload: payload, Salt: salt[:]}, "", nil},
		"another payload":    {Entry{Payload: other, Salt: salt[:]}, "not the one that its leaf commits to", record.ErrReject},
		"another salt":       {Entry{Payload: payload, Salt: make([]byte, 32)}, "not the one that its leaf commits to", record.ErrReject},
		"a short salt":       {Entry{Payload: payload, Salt: salt[:31]}, "not the one that its leaf commits to", record.ErrReject},
		"no salt":            {Entry{Payload: payload}, "not the one that its leaf commits to", record.ErrReject},
		"no payload":         {Entry{Salt: salt[:]}, "not the one that its leaf commits to", record.ErrReject},
		"neither":            {Entry{}, "withheld", ErrWithheld},
		"erased":             {Entry{ErasedBy: &by}, "entry 9 says why", ErrErased},
		"what is unreadable": {Entry{Unreadable: "the key is lost"}, "the key is lost", ErrUnreadable},
	} {
		c.e.Log, c.e.Leaf = "h/log/1", leaf.AppendBinary(nil)
		l, m, err := c.e.Open()
		if c.want == "" {
			if e, ok := m.(*record.Event); err != nil || !ok || e.Reason != "it is so" {
				t.Errorf("%s: %v %v", name, m, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) || m != nil || l.Index != 7 {
			t.Errorf("%s: %v with %v of entry %d, want %q", name, err, m, l.Index, c.want)
		}
	}
}
