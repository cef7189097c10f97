package enforce

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// action is an action of a verdict with its arguments read.
type action interface {
	// run makes one attempt and completes the outcome with what is read back. It may
	// be called again behind an error of class record.ErrRetry, and by a later run of
	// the daemon: what it finds done it leaves.
	run(ctx context.Context, x *attempt) error
}

// kind is what this version knows of a kind of action.
type kind struct {
	// changes says that it changes the domain: ahead of those that only tell, or ask the
	// guest, and within limits.
	changes bool
	// ordered says that it keeps its place among those that change the domain, where its
	// verdict has any: a guest that is paused kills nothing.
	ordered bool
	holds   bool          // it lasts until it is released
	timeout time.Duration // of one attempt; 0: Config.Timeout
	params  []string
	read    func(a *record.Action, p *params) action
}

var kinds = map[string]*kind{
	"alert":          {read: readAlert, params: []string{"channels"}},
	"kill_process":   {ordered: true, timeout: killTimeout, read: readKill},
	"pause":          {changes: true, holds: true, read: readPause, params: []string{"resume_after"}},
	"detach_network": {changes: true, holds: true, read: readDetach, params: []string{"interfaces", "mode"}},
	"quarantine":     {changes: true, holds: true, read: readQuarantine, params: []string{"network", "pause", "release"}},
	"snapshot":       {changes: true, timeout: snapshotTimeout + 30*time.Second, read: readSnapshot, params: []string{"memory", "label", "keep"}},
}

// parse reads an action. What it does not know of it is an error: an action is not done
// in another way than it is written.
func parse(a *record.Action) (action, *kind, error) {
	k := kinds[a.Kind]
	if k == nil {
		return nil, nil, fmt.Errorf("action %q is not known to this version: %w", a.Kind, record.ErrReject)
	}
	p := &params{all: a.Parameters}
	for _, name := range slices.Sorted(maps.Keys(a.Parameters)) {
		if !slices.Contains(k.params, name) {
			p.bad(name)
		}
	}
	act := k.read(a, p)
	if p.err != nil {
		return nil, k, fmt.Errorf("action %q: %w: %w", a.Kind, p.err, record.ErrReject)
	}
	return act, k, nil
}

// params are the arguments of an action, as they are sealed. The first that cannot be
// used is kept.
type params struct {
	all map[string]string
	err error
}

func (p *params) bad(name string) {
	if p.err == nil {
		p.err = fmt.Errorf("the argument %s = %.80q cannot be used by this version", name, p.all[name])
	}
}

// oneOf returns an argument, or the first of the words that it may be.
func (p *params) oneOf(name string, words ...string) string {
	v, ok := p.all[name]
	if !ok {
		return words[0]
	}
	if !slices.Contains(words, v) {
		p.bad(name)
	}
	return v
}

func (p *params) flag(name string) bool { return p.oneOf(name, "false", "true") == "true" }

func (p *params) seconds(name string) time.Duration {
	v, ok := p.all[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n <= 0 || n > int64(100*365*24*time.Hour/time.Second) {
		p.bad(name)
	}
	return time.Duration(n) * time.Second
}

// count returns a number from 1 to most, 0 where there is none.
func (p *params) count(name string, most int) int {
	v, ok := p.all[name]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		p.bad(name)
		return 0
	}
	return n
}

func (p *params) list(name string) []string {
	if p.all[name] == "" {
		return nil
	}
	return strings.Split(p.all[name], ",")
}

// Capabilities are what a host with this configuration can do, as rules.Options.Actions
// names them: kinds of action, and behind a blank arguments and values of them.
func Capabilities(cfg *Settings, second bool) []string {
	all := []string{"alert", "kill_process", "pause", "pause resume_after",
		"snapshot", "snapshot memory", "snapshot label", "snapshot keep",
		"detach_network", "detach_network interfaces", "detach_network mode=link_down", "detach_network mode=unplug",
		"quarantine", "quarantine network", "quarantine pause", "quarantine release=manual"}
	if cfg.IsolatedNetwork != "" {
		all = append(all, "detach_network mode=isolate")
	}
	if second {
		all = append(all, "quarantine release=two-person")
	}
	return all
}

// key tells whether two actions do the same.
func key(a *record.Action) string {
	var b strings.Builder
	b.WriteString(a.Kind)
	for _, name := range slices.Sorted(maps.Keys(a.Parameters)) {
		fmt.Fprintf(&b, "\x00%s\x00%s", name, a.Parameters[name])
	}
	return b.String()
}
