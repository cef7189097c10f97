package enforce

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// The names of what lasts, as operators release it.
const (
	HoldPause      = "pause"
	HoldNetwork    = "network"
	HoldQuarantine = "quarantine"
)

// Hold is an action of a verdict that lasts.
type Hold struct {
	Action  string `json:"action"`
	Policy  string `json:"policy"`
	Log     string `json:"log"` // origin
	Verdict uint64 `json:"verdict"`
	Index   uint32 `json:"index"` // of the action in the verdict
	Since   int64  `json:"since"` // Unix nanoseconds
	Until   int64  `json:"until,omitempty"`
	// Second says that a second person must sign the release.
	Second bool `json:"second,omitempty"`
	// Pause and Keys are what it wants: the domain paused, the interfaces with these
	// keys cut off in this mode.
	Pause bool     `json:"pause,omitempty"`
	Keys  []string `json:"keys,omitempty"`
	Mode  string   `json:"mode,omitempty"`
	All   bool     `json:"all,omitempty"` // all interfaces, also those plugged in later
}

// held is all that holds a domain, and what it was before. Its row of the ledger is the
// only record of that: it is written with the entries that tell of it.
type held struct {
	Holds []Hold `json:"holds"`
	// PausedAt is when Provost paused it, in Unix nanoseconds: the last of the pauses to
	// end resumes it. 0: somebody else had paused it before.
	PausedAt int64 `json:"paused_at,omitempty"`
	// Links are the interfaces as they were before the first of the holds on them.
	Links []virt.Interface `json:"links,omitempty"`
	// Modes are how those were cut off that were not by their links, by key: their hold
	// may end before the others that want them cut.
	Modes map[string]string `json:"modes,omitempty"`
	// Adopted says that it was taken over from a mark, which whoever may change the domain
	// can write: it counts for no limit.
	Adopted bool `json:"adopted,omitempty"`
}

const heldPrefix = "enforce/held/"

func heldKey(id domain.UUID) string { return heldPrefix + id.String() }

// row is what keeps it; without a hold there is none.
func (h *held) row(id domain.UUID) (chain.MetaWrite, error) {
	if len(h.Holds) == 0 {
		return chain.MetaWrite{Key: heldKey(id)}, nil
	}
	b, err := json.Marshal(h)
	if err != nil {
		return chain.MetaWrite{}, fmt.Errorf("encode holds of domain %s: %w", id, err)
	}
	return chain.MetaWrite{Key: heldKey(id), Value: b}, nil
}

func (h *held) clone() held {
	return held{Holds: slices.Clone(h.Holds), PausedAt: h.PausedAt, Links: slices.Clone(h.Links), Modes: maps.Clone(h.Modes), Adopted: h.Adopted}
}

// maxHolds is how many holds stand apart. A guest makes as many verdicts as it likes, all
// that is kept of a domain is written with each of them, and a release names them all.
const maxHolds = 64

// add takes in a hold, unless it is there already. Where there are many, one that wants
// what another wants lasts as long as both and goes by the name of that.
func (h *held) add(n Hold) {
	if slices.ContainsFunc(h.Holds, n.same) {
		return
	}
	i := -1
	if len(h.Holds) >= maxHolds {
		i = slices.IndexFunc(h.Holds, n.wants)
	}
	if i < 0 {
		h.Holds = append(h.Holds, n)
		return
	}
	h.Holds[i].Until = max(h.Holds[i].Until, n.Until)
}

// wants reports whether o wants the same, and ends in the same way.
func (n Hold) wants(o Hold) bool {
	return n.Action == o.Action && n.Second == o.Second && n.Pause == o.Pause && n.All == o.All && n.Mode == o.Mode &&
		(n.Until == 0) == (o.Until == 0) && slices.Equal(n.Keys, o.Keys)
}

// cutBy remembers how interfaces are cut off.
func (h *held) cutBy(mode string, keys []string) {
	if mode == virt.ModeLink {
		return
	}
	if h.Modes == nil {
		h.Modes = map[string]string{}
	}
	for _, key := range keys {
		h.Modes[key] = mode
	}
}

func (n Hold) same(o Hold) bool {
	return n.Log == o.Log && n.Verdict == o.Verdict && n.Index == o.Index
}

// save takes in interfaces as they are now, unless they are held already.
func (h *held) save(all []virt.Interface) (fresh []virt.Interface) {
	for _, n := range all {
		if !slices.ContainsFunc(h.Links, func(o virt.Interface) bool { return o.Key == n.Key }) {
			h.Links = append(h.Links, n)
			fresh = append(fresh, n)
		}
	}
	return fresh
}

func (h *held) pauses() bool {
	return slices.ContainsFunc(h.Holds, func(n Hold) bool { return n.Pause })
}

func (h *held) quarantined() bool {
	return slices.ContainsFunc(h.Holds, func(n Hold) bool { return n.Action == HoldQuarantine })
}

// cuts reports whether a hold wants an interface cut off.
func (h *held) cuts(key string) bool {
	return slices.ContainsFunc(h.Holds, func(n Hold) bool { return n.All || slices.Contains(n.Keys, key) })
}

// pauser returns the verdict of this log that paused the domain, 0 where there is none.
func (h *held) pauser(log string) uint64 {
	for _, n := range h.Holds {
		if n.Pause && n.Log == log {
			return n.Verdict
		}
	}
	return 0
}

// loadHeld reads what holds the domains of this host.
func (e *Enforcer) loadHeld() error {
	for row, err := range e.cfg.Store.MetaPrefix(heldPrefix) {
		if err != nil {
			return fmt.Errorf("read holds from the ledger: %w", err)
		}
		id, err := domain.ParseUUID(strings.TrimPrefix(row.Key, heldPrefix))
		if err != nil {
			return fmt.Errorf("read holds from the ledger: %w: %w", err, record.ErrFatal)
		}
		var h held
		if err := json.Unmarshal(row.Value, &h); err != nil {
			return fmt.Errorf("read holds of domain %s from the ledger: %w: %w", id, err, record.ErrFatal)
		}
		e.setHeld(e.dom(id), h)
		if !h.Adopted {
			e.limits.hold(id)
		}
		e.due[id] = true
	}
	return nil
}

// setHeld takes over what is durable. The caller has the domain's turn, or runs before
// there is another.
func (e *Enforcer) setHeld(d *dom, h held) {
	d.held = h
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(h.Holds) == 0 {
		delete(e.shown, d.id)
	} else {
		e.shown[d.id] = h.clone()
	}
}

// Holds returns what holds a domain.
func (e *Enforcer) Holds(id domain.UUID) []Hold {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.shown[id]
	return slices.Clone(h.Holds)
}

func recordHolds(all []Hold) []*record.Hold {
	var out []*record.Hold
	for _, n := range all {
		out = append(out, &record.Hold{Action: n.Action, Policy: n.Policy, Log: n.Log, VerdictIndex: n.Verdict, ActionIndex: n.Index})
	}
	return out
}

// recordLinks tells of interfaces, with their XML where that is to be kept.
func recordLinks(all []virt.Interface, xml bool) []*record.Link {
	var out []*record.Link
	for _, n := range all {
		l := &record.Link{Key: n.Key, Device: n.Device, Type: n.Type, Live: orNone(n.LiveLink), Persistent: orNone(n.ConfigLink)}
		if xml {
			l.LiveXml, l.PersistentXml = []byte(n.Live), []byte(n.Config)
		}
		out = append(out, l)
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
