package guest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Duty is what the agent of a domain owes its host. Zero values ask for nothing but
// the times, which are those of the Config then.
type Duty struct {
	SilentAfter, BootGrace time.Duration
	// Covers are classes that a hook must see.
	Covers []record.Class
	// LSM: the probe must observe by BPF LSM, where the guest cannot get round it.
	LSM bool
}

// asks reports whether the agent must say what it covers.
func (d *Duty) asks() bool { return d.LSM || len(d.Covers) > 0 }

// coverage is what an agent said last of what its hooks see. It is kept for the domain,
// not for its log: a guest that boots with less than it had before is told of.
type coverage struct {
	Mode string         `json:"mode"`
	Seen []record.Class `json:"seen"` // sorted
	LSM  []record.Class `json:"lsm"`  // of these by BPF LSM; sorted
}

func coverageKey(id domain.UUID) string { return "agent-coverage/" + id.String() }

// coverageOf keeps what is compared of an agent's word. It is bounded by the classes
// that there are.
func coverageOf(h *record.Hooks) *coverage {
	c := &coverage{Mode: h.Mode[:min(len(h.Mode), 16)]}
	for _, k := range h.Hooks {
		class := record.Class(k.GetClass())
		if k.GetClass() > 0xffff || k.GetName() == "" || !class.Known() || !class.FromGuest() {
			continue
		}
		c.Seen = append(c.Seen, class)
		if strings.HasPrefix(k.GetName(), "lsm/") {
			c.LSM = append(c.LSM, class)
		}
	}
	for _, s := range []*[]record.Class{&c.Seen, &c.LSM} {
		slices.Sort(*s)
		*s = slices.Compact(*s)
	}
	return c
}

// lacks returns which of the classes are not among those seen.
func lacks(seen, classes []record.Class) []record.Class {
	var out []record.Class
	for _, k := range classes {
		if !slices.Contains(seen, k) {
			out = append(out, k)
		}
	}
	return out
}

// names lists classes for people.
func names(classes []record.Class) string {
	all := make([]string, len(classes))
	for i, c := range classes {
		all[i] = c.String()
	}
	return strings.Join(all, ", ")
}

// short says in what a coverage falls short of a duty.
func (c *coverage) short(d *Duty) (reason string, n int) {
	var why []string
	if d.LSM && c.Mode != "lsm" {
		why = append(why, fmt.Sprintf("the probe observes by %q, lsm is wanted", c.Mode))
	}
	missing := lacks(c.Seen, d.Covers)
	if len(missing) > 0 {
		why = append(why, "no hook sees "+names(missing))
	}
	return strings.Join(why, "; "), len(missing)
}

// less says in what a coverage is less than the one before it.
func (c *coverage) less(was *coverage) (reason string, n int) {
	var why []string
	if was.Mode == "lsm" && c.Mode != "lsm" {
		why = append(why, fmt.Sprintf("the probe observes by %q, it was lsm", c.Mode))
	}
	gone := lacks(c.Seen, was.Seen)
	if len(gone) > 0 {
		why = append(why, "no hook sees any more "+names(gone))
	}
	weaker := lacks(append(slices.Clone(c.LSM), gone...), was.LSM)
	if len(weaker) > 0 {
		why = append(why, "not seen by BPF LSM any more "+names(weaker))
	}
	return strings.Join(why, "; "), len(gone) + len(weaker)
}

// loadCoverage reads what the domain's agent said last.
func (s *session) loadCoverage(id domain.UUID) error {
	s.covered = nil
	b, ok, err := s.cfg.Store.Meta(coverageKey(id))
	if err != nil {
		return fmt.Errorf("read coverage of the agent: %w", err)
	}
	if !ok {
		return nil
	}
	c := &coverage{}
	if err := json.Unmarshal(b, c); err != nil {
		return fmt.Errorf("parse coverage of the agent: %w: %w", err, record.ErrFatal)
	}
	s.covered = c
	return nil
}

// coverageFindings holds what a frame tells of the agent's hooks against the domain's
// duty and against what was told before. hooks is nil where it tells nothing; only the
// first frame of a session has to.
func (s *session) coverageFindings(session, frame uint64, hooks *record.Hooks) ([]chain.Entry, []chain.MetaWrite, error) {
	var entries []chain.Entry
	find := func(class record.Class, reason string, n int) error {
		e, err := s.cfg.Store.Draft(record.OriginHost, class, &record.AgentState{Session: session, Frame: frame, Reason: reason, Count: uint64(n)})
		if err != nil {
			return fmt.Errorf("seal coverage: %w", err)
		}
		entries = append(entries, e)
		return nil
	}
	if hooks == nil {
		if frame == 1 && s.duty.asks() {
			err := find(record.ClassAgentCoverageLow, "the agent does not say what it covers", len(s.duty.Covers))
			return entries, nil, err
		}
		return nil, nil, nil
	}
	now := coverageOf(hooks)
	if reason, n := now.short(&s.duty); reason != "" {
		if err := find(record.ClassAgentCoverageLow, reason, n); err != nil {
			return nil, nil, err
		}
	}
	if s.covered != nil {
		if reason, n := now.less(s.covered); reason != "" {
			if err := find(record.ClassAgentCoverageLost, reason, n); err != nil {
				return nil, nil, err
			}
		}
	}
	s.covered = now // should the batch fail, the books are read again
	b, err := json.Marshal(now)
	if err != nil {
		return nil, nil, fmt.Errorf("keep coverage of the agent: %w", err)
	}
	return entries, []chain.MetaWrite{{Key: coverageKey(s.dom.Load().UUID), Value: b}}, nil
}
