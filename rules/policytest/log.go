package policytest

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

// log is the log of a test's VM: it gives entries their places and times. Host
// monotone time is wall time here, as it is where no clock was ever set.
type log struct {
	start     time.Time
	live      *rules.State // as the daemon judges
	watched   *rules.State // under observation
	now       int64        // of the newest entry
	prev      record.Hash
	test      *policy.Test
	approvals []*policy.TestApproval // not loaded yet, in order of their times
	loaded    int                    // the others
	sealed    []entry                // by index
}

// pending is an entry that has no place yet: what comes of the ones before it
// is sealed ahead of it.
type pending struct {
	leaf    record.Leaf
	payload record.Message
	at      int64
}

type entry struct {
	leaf    record.Leaf
	hash    record.Hash
	payload record.Message
}

// setup knows no policies: what it judges only says what there is.
var setup = func() *rules.Engine {
	e, err := rules.New(&policy.Bundle{Name: "setup"}, rules.Options{})
	if err != nil {
		panic(err) // it has nothing that a host could lack
	}
	return e
}()

// newLog begins the log of a test: its genesis says what the VM is, and a start
// in what state.
func newLog(t *policy.Test) (*log, error) {
	l := &log{start: t.Start, now: t.Start.Add(-time.Millisecond).UnixNano(), test: t, approvals: slices.Clone(t.Approvals)}
	l.live, l.watched = &rules.State{Recall: l.recall}, &rules.State{Recall: l.recall}
	slices.SortStableFunc(l.approvals, func(a, b *policy.TestApproval) int { return cmp.Compare(a.At, b.At) })
	vm := t.VM
	text, err := domainXML(vm)
	if err != nil {
		return nil, err
	}
	for _, first := range []struct {
		class   record.Class
		payload record.Message
	}{
		{record.ClassGenesis, &record.Genesis{DomainUuid: vm.UUID, DomainName: vm.Name, DomainXml: text, Cause: "first_seen"}},
		{record.ClassVMStart, &record.Event{Vm: &record.VM{Uuid: vm.UUID, Name: vm.Name, State: vm.State, LibvirtEvent: -1, LibvirtDetail: -1, LibvirtId: -1}}},
	} {
		e, err := l.seal(pending{record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: first.class}}, first.payload, l.now})
		if err != nil {
			return nil, err
		}
		for _, st := range []*rules.State{l.live, l.watched} {
			if _, err := setup.Eval(st, e.leaf, e.hash, e.payload); err != nil {
				return nil, fmt.Errorf("begin log: %w", err)
			}
		}
	}
	return l, nil
}

// domainXML is the part of a domain's XML that policies can select by.
func domainXML(vm *policy.TestVM) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`<domain><metadata><provost:vm xmlns:provost="` + rules.MetadataNamespace + `">`)
	put := func(open, text, end string) error {
		b.WriteString(open)
		if err := xml.EscapeText(&b, []byte(text)); err != nil {
			return fmt.Errorf("write domain XML: %w", err)
		}
		b.WriteString(end)
		return nil
	}
	var errs []error
	for _, tag := range vm.Tags {
		errs = append(errs, put("<provost:tag>", tag, "</provost:tag>"))
	}
	for _, k := range slices.Sorted(maps.Keys(vm.Metadata)) {
		errs = append(errs, put(`<provost:value key="`, k, `">`), put("", vm.Metadata[k], "</provost:value>"))
	}
	b.WriteString(`</provost:vm></metadata></domain>`)
	return b.Bytes(), errors.Join(errs...)
}

// seal gives an entry its place in the log.
func (l *log) seal(p pending) (entry, error) {
	var data []byte
	if p.payload != nil {
		var err error
		if data, err = p.payload.MarshalVT(); err != nil {
			return entry{}, fmt.Errorf("encode payload: %w", err)
		}
	}
	leaf := p.leaf
	l.now = max(l.now, p.at)
	leaf.Index, leaf.Mono, leaf.Wall, leaf.Prev = uint64(len(l.sealed)), l.now, l.now, l.prev
	if leaf.Header.Time == 0 {
		leaf.Header.Time = uint64(l.now)
	}
	leaf.Commitment = record.Commit(&record.Salt{}, data)
	e := entry{leaf: leaf, hash: record.LeafHash(leaf.AppendBinary(nil)), payload: p.payload}
	l.sealed = append(l.sealed, e)
	l.prev = e.hash
	return e, nil
}

// recall gives an entry again.
func (l *log) recall(_ uint32, index uint64) (record.Leaf, record.Message, error) {
	if index >= uint64(len(l.sealed)) {
		return record.Leaf{}, nil, fmt.Errorf("recall entry %d of %d: %w", index, len(l.sealed), record.ErrReject)
	}
	e := &l.sealed[index]
	if e.payload == nil {
		return e.leaf, nil, fmt.Errorf("recall entry %d: %w", index, rules.ErrNoPayload)
	}
	return e.leaf, e.payload, nil
}

// entries are those of one event block, in their order.
func (l *log) entries(e *policy.TestEvent) ([]pending, error) {
	at := l.now + int64(time.Millisecond)
	if e.At >= 0 {
		at = l.start.Add(e.At).UnixNano()
	}
	if at < l.now {
		return nil, fmt.Errorf("this event comes at %s, and the one before it at %s: time does not go back", offset(l.start, at), offset(l.start, l.now))
	}
	if e.Recorded != nil {
		return recorded(e.Recorded, at)
	}
	out := make([]pending, 0, len(e.Entries))
	for i, d := range e.Entries {
		out = append(out, pending{d.Leaf, d.Payload, at + int64(i)*int64(e.Every)})
	}
	return out, nil
}

// due takes out the approvals that are loaded at a time or before.
func (l *log) due(at int64) ([]pending, error) {
	var out []pending
	for len(l.approvals) > 0 && l.start.Add(l.approvals[0].At).UnixNano() <= at {
		p, err := l.approval(l.approvals[0])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
		l.approvals = l.approvals[1:]
	}
	return out, nil
}

// approval is the entry of an approval which the daemon has verified. Who signs
// makes no difference to a policy, only how many do.
func (l *log) approval(a *policy.TestApproval) (pending, error) {
	from := l.start.Add(a.At)
	l.loaded++
	s := &approval.Statement{
		Type: approval.Type, ID: a.ID, Host: "test", Group: a.Group, Policies: []string{l.test.Policy.Name}, VMs: []string{l.test.VM.UUID},
		Scope: approval.Scope{Condition: a.Condition}, NotBefore: approval.At(from), NotAfter: approval.At(l.start.Add(a.Until)), MaxUses: cmp.Or(a.MaxUses, approval.MaxUses),
		RequestedBy: "requester", Reason: "test", Issued: approval.At(from), Nonce: fmt.Sprintf("%032x", l.loaded),
	}
	text, err := s.Encode()
	if err == nil {
		_, err = s.Matcher()
	}
	if err != nil {
		return pending{}, fmt.Errorf("approval %q: %w", a.ID, err)
	}
	m := &record.Approval{Statement: text, Require: uint32(max(l.test.Policy.Approval.Require, 1)), Submitter: "test"}
	for i := range cmp.Or(a.Signers, uint64(m.Require)) {
		m.Signers = append(m.Signers, fmt.Sprintf("signer-%d", i+1))
	}
	return pending{record.Leaf{Origin: record.OriginOperator, Header: record.Header{Class: record.ClassApprovalLoaded}}, m, from.UnixNano()}, nil
}

func offset(start time.Time, at int64) string { return "+" + time.Unix(0, at).Sub(start).String() }

// recorded are entries of another log. Their distances in time stay.
func recorded(data []byte, at int64) ([]pending, error) {
	read, err := rules.ReadEntries(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out := make([]pending, 0, len(read))
	for _, r := range read {
		out = append(out, pending{r.Leaf, r.Payload, at + max(r.Leaf.Mono-read[0].Leaf.Mono, 0)})
	}
	return out, nil
}
