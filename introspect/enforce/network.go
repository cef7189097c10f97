package enforce

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/virt"
)

// detach cuts interfaces off.
type detach struct {
	names []string // nil: all
	mode  string
}

func readDetach(_ *record.Action, p *params) action {
	return detach{p.list("interfaces"), p.oneOf("mode", virt.ModeLink, virt.ModeUnplug, virt.ModeIsolate)}
}

func (a detach) run(ctx context.Context, x *attempt) error {
	if err := x.current("detach the network"); err != nil {
		return err
	}
	if a.mode == virt.ModeIsolate && x.e.cfg.IsolatedNetwork == "" {
		return fmt.Errorf("detach the network: this host has no isolated_network in its configuration: %w", record.ErrReject)
	}
	all, err := x.e.cfg.Actor.Interfaces(ctx, x.j.id)
	if err != nil {
		return fmt.Errorf("detach the network: %w", err)
	}
	h := x.hold(HoldNetwork)
	h.Mode = a.mode
	if i := slices.IndexFunc(x.held.Holds, h.same); i >= 0 {
		h.Keys = x.held.Holds[i].Keys // of an earlier attempt: what it has unplugged does not show
	} else if h.Keys, err = keysOf(all, a.names); err != nil {
		return err
	}
	before := x.about(all, h.Keys)
	x.o.StateBefore = cutText(before, h.Keys, a.mode, x.e.cfg.IsolatedNetwork)
	x.held.cutBy(a.mode, h.Keys)
	if err := x.intend(ctx, h, before); err != nil {
		return err
	}
	after, err := x.e.cut(ctx, x.j.id, h.Keys, a.mode)
	x.o.Links, x.o.StateAfter = recordLinks(x.about(after, h.Keys), false), cutText(after, h.Keys, a.mode, x.e.cfg.IsolatedNetwork)
	if err != nil {
		return fmt.Errorf("detach the network: %w", err)
	}
	if n := uncut(after, h.Keys, a.mode, x.e.cfg.IsolatedNetwork); n > 0 {
		return fmt.Errorf("detach the network: libvirt says yes, and %d of %d interfaces are not cut off: %w", n, len(h.Keys), record.ErrRetry)
	}
	x.o.Result = resultDone
	if uncut(before, h.Keys, a.mode, x.e.cfg.IsolatedNetwork) == 0 {
		x.o.Result = resultAlready
	}
	if len(h.Keys) == 0 {
		x.o.Detail = "it has no network interface"
	}
	return nil
}

// keysOf returns the keys of the interfaces with the given names; all without names.
func keysOf(all []virt.Interface, names []string) ([]string, error) {
	var keys []string
	for _, n := range all {
		if len(names) == 0 || slices.ContainsFunc(names, n.Is) {
			keys = append(keys, n.Key)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(n virt.Interface) bool { return n.Is(name) }) {
			return nil, fmt.Errorf("detach the network: the domain has no interface %q: %w", name, record.ErrReject)
		}
	}
	return keys, nil
}

// about picks the interfaces with the given keys.
func (x *attempt) about(all []virt.Interface, keys []string) []virt.Interface {
	return slices.DeleteFunc(slices.Clone(all), func(n virt.Interface) bool { return !slices.Contains(keys, n.Key) })
}

// intend makes durable what is about to be changed, so that behind a crash it can be
// undone, before it is changed. What is held already is known.
func (x *attempt) intend(ctx context.Context, h Hold, about []virt.Interface) error {
	x.lasts = &h
	x.held.add(h)
	fresh := x.held.save(about)
	if len(fresh) == 0 && slices.ContainsFunc(x.d.held.Holds, h.same) && maps.Equal(x.held.Modes, x.d.held.Modes) {
		return nil
	}
	m := &record.Held{Holds: recordHolds([]Hold{h}), Links: recordLinks(fresh, true)}
	return x.e.sealHeld(ctx, x.d, x.j.log, record.OriginPolicy, record.ClassPolicyActing, m, x.held)
}

// cut cuts interfaces off and returns what is read back.
func (e *Enforcer) cut(ctx context.Context, id domain.UUID, keys []string, mode string) ([]virt.Interface, error) {
	if keys == nil {
		keys = []string{} // none, and not all
	}
	switch mode {
	case virt.ModeUnplug:
		return e.cfg.Actor.Unplug(ctx, id, keys)
	case virt.ModeIsolate:
		return e.cfg.Actor.Isolate(ctx, id, keys, e.cfg.IsolatedNetwork)
	}
	return e.cfg.Actor.LinksDown(ctx, id, keys)
}

// uncut counts the interfaces that are not cut off.
func uncut(all []virt.Interface, keys []string, mode, network string) int {
	n := 0
	for _, i := range all {
		if !slices.Contains(keys, i.Key) {
			continue
		}
		switch mode {
		case virt.ModeUnplug:
			n++
		case virt.ModeIsolate:
			if i.Live != "" && virt.NetworkOf(i.Live) != network || i.Config != "" && virt.NetworkOf(i.Config) != network {
				n++
			}
		default:
			if !i.Down() {
				n++
			}
		}
	}
	return n
}

func cutText(all []virt.Interface, keys []string, mode, network string) string {
	return fmt.Sprintf("%d of %d interfaces reach the network", uncut(all, keys, mode, network), len(keys))
}

// quarantine cuts a domain off until it is released, whatever its owner does meanwhile.
type quarantine struct{ cut, pause, second bool }

func readQuarantine(_ *record.Action, p *params) action {
	return quarantine{p.oneOf("network", "isolate", "keep") == "isolate", p.flag("pause"), p.oneOf("release", "manual", "two-person") == "two-person"}
}

func (a quarantine) run(ctx context.Context, x *attempt) error {
	if err := x.current("quarantine"); err != nil {
		return err
	}
	all, err := x.e.cfg.Actor.Interfaces(ctx, x.j.id)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	h := x.hold(HoldQuarantine)
	h.All, h.Pause, h.Second, h.Mode = a.cut, a.pause, a.second, virt.ModeLink
	var notes []string
	if a.cut {
		notes = append(notes, x.e.filter(ctx, x.j.id, all))
	} else {
		all = nil
	}
	keys, _ := keysOf(all, nil)
	x.o.StateBefore = cutText(all, keys, h.Mode, "")
	if err := x.intend(ctx, h, all); err != nil {
		return err
	}
	// The pause comes first: libvirt takes it also while a migration or a snapshot has
	// all that changes devices or metadata wait.
	if a.pause {
		note, perr := x.pauseToo(ctx)
		notes, err = append(notes, note), perr
	}
	after := all
	if len(all) > 0 {
		var cerr error
		after, cerr = x.e.cut(ctx, x.j.id, keys, h.Mode)
		x.o.Links, err = recordLinks(after, false), errors.Join(err, cerr)
	}
	x.o.StateAfter = cutText(after, keys, h.Mode, "")
	// The mark comes behind the cut: what is sealed says what a crash between leaves.
	err = errors.Join(err, x.e.cfg.Actor.SetQuarantineMark(ctx, x.j.id, markText(&x.held)))
	x.o.Detail = strings.Join(notes, "; ")
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if n := uncut(after, keys, h.Mode, ""); n > 0 {
		return fmt.Errorf("quarantine: libvirt says yes, and %d of %d interfaces are not cut off: %w", n, len(keys), record.ErrRetry)
	}
	x.o.Result = resultDone
	return nil
}

// pauseToo pauses a domain beside its quarantine. One that does not run is not to be.
func (x *attempt) pauseToo(ctx context.Context) (string, error) {
	s, err := x.e.cfg.Actor.State(ctx, x.j.id)
	if err != nil {
		return "", err
	}
	if !s.State.Active() {
		return "it does not run (" + stateText(s) + "): it is paused when it does", nil
	}
	before, after, err := x.pause(ctx)
	return stateText(before) + " -> " + stateText(after), err
}

// filter drops what passes the taps at once, where this host has a packet filter. The
// links go down in any case, so that it cannot fail a quarantine.
func (e *Enforcer) filter(ctx context.Context, id domain.UUID, all []virt.Interface) string {
	if e.cfg.Guard == nil {
		return "links down, no packet filter"
	}
	var taps []string
	for _, n := range all {
		if n.Device != "" {
			taps = append(taps, n.Device)
		}
	}
	if err := e.cfg.Guard.Cut(ctx, id, taps, e.cfg.QuarantineAllow); err != nil {
		e.cfg.Log.WarnContext(ctx, "the packet filter of a quarantine does not hold, its links do", "uuid", id.String(), "error", err)
		return "links down; no packet filter: " + err.Error()
	}
	return fmt.Sprintf("packet filter on %d taps, links down", len(taps))
}

// mark is the mark of a quarantined domain, in its metadata: it tells people who look,
// and the host that it migrates to.
type mark struct {
	XMLName xml.Name   `xml:"quarantine"`
	Holds   []markHold `xml:"hold"`
	Links   []markLink `xml:"interface"`
}

type markHold struct {
	Policy  string `xml:"policy,attr"`
	Log     string `xml:"log,attr"`
	Verdict uint64 `xml:"verdict,attr"`
	Index   uint32 `xml:"action,attr"`
	Since   string `xml:"since,attr"`
	Network bool   `xml:"network,attr"`
	Pause   bool   `xml:"pause,attr"`
	Second  bool   `xml:"second,attr"`
}

type markLink struct {
	Key    string `xml:"key,attr"`
	Live   string `xml:"live,attr"`
	Config string `xml:"persistent,attr"`
}

// markText is the mark that a domain must bear, "" for none.
func markText(h *held) string {
	if !h.quarantined() {
		return ""
	}
	m := mark{}
	for _, n := range h.Holds {
		if n.Action == HoldQuarantine {
			m.Holds = append(m.Holds, markHold{n.Policy, n.Log, n.Verdict, n.Index, time.Unix(0, n.Since).UTC().Format(time.RFC3339Nano), n.All, n.Pause, n.Second})
		}
	}
	for _, n := range h.Links {
		m.Links = append(m.Links, markLink{n.Key, orNone(n.LiveLink), orNone(n.ConfigLink)})
	}
	b, err := xml.Marshal(&m)
	if err != nil {
		return "" // it holds nothing that XML cannot
	}
	return string(b)
}

// maxMark bounds the mark that is read: whoever may change the domain may write it.
const maxMark = 64 << 10

// parseMark reads the mark of a domain that came from another host.
func parseMark(text string, all []virt.Interface) (held, error) {
	var m mark
	var h held
	if len(text) > maxMark {
		return h, fmt.Errorf("the mark has %d bytes, the limit is %d: %w", len(text), maxMark, record.ErrReject)
	}
	if err := xml.Unmarshal([]byte(text), &m); err != nil {
		return h, fmt.Errorf("read mark: %w: %w", err, record.ErrReject)
	}
	for _, n := range m.Holds {
		since, err := time.Parse(time.RFC3339Nano, n.Since)
		if err != nil {
			return h, fmt.Errorf("read mark: since: %w: %w", err, record.ErrReject)
		}
		h.add(Hold{Action: HoldQuarantine, Policy: n.Policy, Log: n.Log, Verdict: n.Verdict, Index: n.Index, Since: since.UnixNano(),
			Second: n.Second, Pause: n.Pause, All: n.Network, Mode: virt.ModeLink})
	}
	if len(h.Holds) == 0 {
		return h, fmt.Errorf("read mark: it names no verdict: %w", record.ErrReject)
	}
	if h.pauses() {
		h.PausedAt = h.Holds[0].Since // by the host that it came from
	}
	for _, n := range all {
		// What the interface was before stands in the mark; the rest is as it came.
		for _, l := range m.Links {
			if l.Key == n.Key {
				n.SetLinks(l.Live, l.Config)
			}
		}
		h.Links = append(h.Links, n)
	}
	return h, nil
}
