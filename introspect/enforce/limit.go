package enforce

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// limits count what is done on the whole host. A count stands in rows that are written
// with the first outcome of each verdict, so that a restart forgets none.
type limits struct {
	cfg *Config

	mu      sync.Mutex // guards the rest
	acted   map[string]map[string]counted
	holding map[domain.UUID]bool // domains that are held, or are about to be
	stale   []string             // rows that count nothing any more
}

// counted is a verdict that has acted.
type counted struct {
	At int64 `json:"at"` // Unix nanoseconds
	N  int   `json:"n"`  // actions that change the domain
}

// refusal is why a verdict does not act.
type refusal struct {
	why string
	all bool  // nor tells
	err error // the limit cannot be read
}

const actedPrefix = "enforce/acted/"

// actedRow names the row of a verdict: its policy, and its place.
func actedRow(j *job) (policy, place string) {
	return j.verdict.Policy, strconv.FormatUint(uint64(j.log.ID()), 10) + "-" + strconv.FormatUint(j.index, 10)
}

func loadLimits(cfg *Config) (*limits, error) {
	l := &limits{cfg: cfg, acted: map[string]map[string]counted{}, holding: map[domain.UUID]bool{}}
	for row, err := range cfg.Store.MetaPrefix(actedPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read limits from the ledger: %w", err)
		}
		policy, place, ok := strings.Cut(strings.TrimPrefix(row.Key, actedPrefix), "/")
		var c counted
		if err := json.Unmarshal(row.Value, &c); err != nil || !ok {
			return nil, fmt.Errorf("read limits from the ledger: row %q: %v: %w", row.Key, err, record.ErrFatal)
		}
		l.put(policy, place, c)
	}
	return l, nil
}

func (l *limits) put(policy, place string, c counted) {
	if l.acted[policy] == nil {
		l.acted[policy] = map[string]counted{}
	}
	l.acted[policy][place] = c
}

// decide asks once for each verdict whether it may act. What it may is counted at once:
// two domains do not share one place.
func (e *Enforcer) decide(j *job) {
	j.decided.Do(func() {
		n, holds := 0, false
		for _, a := range j.verdict.Actions {
			if k := kinds[a.Kind]; k != nil && k.changes {
				n++
				holds = holds || k.holds
			}
		}
		if n == 0 {
			return
		}
		var limit *Limit
		var err error
		if e.cfg.Limit != nil {
			limit, err = e.cfg.Limit(j.verdict)
		}
		if err != nil {
			j.refused = &refusal{err: fmt.Errorf("the limits of the policy cannot be read, so it does not act: %w", err)}
			return
		}
		held := len(e.Holds(j.id)) > 0
		j.refused = e.limits.take(j, n, holds && !held, limit)
		if j.refused != nil {
			e.cfg.Log.Warn("a limit forbids an action", "policy", j.verdict.Policy, "uuid", j.id.String(), "verdict", j.index, "limit", j.refused.why)
		}
	})
}

// take counts a verdict with n actions that change a domain, or says which limit forbids it.
func (l *limits) take(j *job, n int, holds bool, limit *Limit) *refusal {
	now := l.cfg.Now()
	running := 0
	if holds && l.cfg.MaxHeld > 0 {
		running = len(l.cfg.Running())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	policy, place := actedRow(j)
	if _, counted := l.acted[policy][place]; counted {
		return nil // by an earlier run, which was cut short
	}
	l.expire(policy, now, limit)
	if limit != nil && uint64(len(l.acted[policy])) >= limit.Max {
		r := &refusal{why: fmt.Sprintf("not done: the policy has acted %d times on this host within %s, its limit; its alerts are left", limit.Max, limit.Per), all: limit.Audit}
		if r.all {
			r.why = fmt.Sprintf("not done: the policy has acted %d times on this host within %s, its limit; nothing is left", limit.Max, limit.Per)
		}
		return r
	}
	if most := l.cfg.ActionsPerMinute; most > 0 {
		if done := l.lately(now); done+n > most {
			return &refusal{why: fmt.Sprintf("not done: %d actions were done on this host within a minute, and actions_per_minute is %d; alerts are left", done, most)}
		}
	}
	if most := l.cfg.MaxHeld; holds && most > 0 && !l.holding[j.id] {
		if held := len(l.holding); held > 0 && (held+1)*100 > most*running {
			return &refusal{why: fmt.Sprintf("not done: %d of %d running domains are paused or cut off, and max_held_percent is %d; alerts are left", held, running, most)}
		}
	}
	l.put(policy, place, counted{now.UnixNano(), n})
	if holds {
		l.holding[j.id] = true
	}
	return nil
}

// lately counts the actions of the last minute.
func (l *limits) lately(now time.Time) int {
	n := 0
	for _, places := range l.acted {
		for _, c := range places {
			if c.At > now.Add(-time.Minute).UnixNano() {
				n += c.N
			}
		}
	}
	return n
}

// expire forgets what counts for no limit any more.
func (l *limits) expire(policy string, now time.Time, limit *Limit) {
	keep := time.Minute
	if limit != nil {
		keep = max(keep, limit.Per)
	}
	for place, c := range l.acted[policy] {
		if c.At <= now.Add(-keep).UnixNano() {
			delete(l.acted[policy], place)
			l.stale = append(l.stale, actedPrefix+policy+"/"+place)
		}
	}
}

// rows are what a verdict's outcome writes about limits.
func (l *limits) rows(j *job) []chain.MetaWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []chain.MetaWrite
	for _, key := range l.stale {
		rows = append(rows, chain.MetaWrite{Key: key})
	}
	l.stale = nil
	policy, place := actedRow(j)
	if c, ok := l.acted[policy][place]; ok {
		b, err := json.Marshal(c)
		if err == nil { // two numbers
			rows = append(rows, chain.MetaWrite{Key: actedPrefix + policy + "/" + place, Value: b})
		}
	}
	return rows
}

// free says that a domain is not held any more.
func (l *limits) free(id domain.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holding, id)
}

// hold says that a domain is held.
func (l *limits) hold(id domain.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding[id] = true
}
