package policytest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// log is the log of a test's VM: it gives entries their places and times. Host
// monotone time is wall time here, as it is where no clock was ever set.
type log struct {
	start     time.Time
	live      *rules.State // as the daemon judges
	watched   *rules.State // under observation
	next      uint64
	now       int64 // of the newest entry
	prev      record.Hash
	approvals []*policy.TestApproval // not loaded yet
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
	l := &log{start: t.Start, live: &rules.State{}, watched: &rules.State{}, now: t.Start.Add(-time.Second).UnixNano(), approvals: t.Approvals}
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
		e, err := l.seal(record.Leaf{Origin: record.OriginHost, Header: record.Header{Class: first.class}}, first.payload, l.now)
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
func (l *log) seal(leaf record.Leaf, payload record.Message, at int64) (entry, error) {
	var data []byte
	if payload != nil {
		var err error
		if data, err = payload.MarshalVT(); err != nil {
			return entry{}, fmt.Errorf("encode payload: %w", err)
		}
	}
	l.now = max(l.now, at)
	leaf.Index, leaf.Mono, leaf.Wall, leaf.Prev = l.next, l.now, l.now, l.prev
	if leaf.Header.Time == 0 {
		leaf.Header.Time = uint64(l.now)
	}
	leaf.Commitment = record.Commit(&record.Salt{}, data)
	e := entry{leaf: leaf, hash: record.LeafHash(leaf.AppendBinary(nil)), payload: payload}
	l.next++
	l.prev = e.hash
	return e, nil
}

// entries are those of one event block, in their order.
func (l *log) entries(e *policy.TestEvent) ([]entry, error) {
	at := l.now + int64(time.Millisecond)
	if e.At >= 0 {
		at = l.start.Add(e.At).UnixNano()
	}
	if at < l.now {
		return nil, fmt.Errorf("this event comes at %s, and the one before it at %s: time does not go back", offset(l.start, at), offset(l.start, l.now))
	}
	if e.Recorded != nil {
		return l.recorded(e.Recorded, at)
	}
	out := make([]entry, 0, len(e.Entries))
	for i, d := range e.Entries {
		s, err := l.seal(d.Leaf, d.Payload, at+int64(i)*int64(e.Every))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func offset(start time.Time, at int64) string { return "+" + time.Unix(0, at).Sub(start).String() }

// recorded gives entries of another log their places in this one. Their
// distances in time stay.
func (l *log) recorded(data []byte, at int64) ([]entry, error) {
	read, err := rules.ReadEntries(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, r := range read {
		s, err := l.seal(r.Leaf, r.Payload, at+max(r.Leaf.Mono-read[0].Leaf.Mono, 0))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
