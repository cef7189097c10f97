package notify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

// Sender delivers alerts to one receiver. It is safe for concurrent use.
type Sender interface {
	// Send returns once the receiver has the alert, or is as likely to have it
	// as its protocol lets one know; detail says which. An error is perhaps a
	// *Failure. Texts of a receiver belong into Failure.Said: they may repeat
	// what the alert says, and are not sealed.
	Send(ctx context.Context, a *Alert) (detail string, err error)
}

// Failure is an alert that was not delivered.
type Failure struct {
	What  string        // what went wrong, in our words
	Said  string        // what the receiver said
	Final bool          // it would not be taken another time either
	After time.Duration // the receiver wants to be left alone so long
}

func (f *Failure) Error() string { return f.What }

// Channel is a way to tell people.
type Channel struct {
	Name, Type string
	Sender     Sender
	// Timeout bounds one attempt; default 10 s.
	Timeout time.Duration
	// GiveUp is how long an alert is tried; default 24 h. It is tried at least once.
	GiveUp time.Duration
	// Concurrency is how many alerts, of different domains, are delivered at
	// once; default 1.
	Concurrency int
}

// Config is what a Notifier needs.
type Config struct {
	Store    *chain.Store
	Channels []Channel
	Host     string                   // id
	Name     func(uuid string) string // of a domain
	Log      *slog.Logger
	Now      func() time.Time

	// For tests; zero: the defaults.
	first, most      time.Duration // pauses between attempts
	perChannel, each int           // bounds of queues
}

// Bounds of a channel's queue: alerts that wait, of all domains and of one.
const (
	maxWaiting   = 10000
	maxOfADomain = 1000
)

// DefaultTimeout and DefaultGiveUp are those of a Channel.
const (
	DefaultTimeout = 10 * time.Second
	DefaultGiveUp  = 24 * time.Hour
)

// LogChannel is the name of the channel that every host has: the daemon's own
// log, which gets every alert.
const LogChannel = "log"

// Notifier delivers alerts.
type Notifier struct {
	cfg      Config
	channels []*channel
	byName   map[string]*channel
	next     atomic.Uint64 // sequence of the next row
	orphans  []orphan
}

// channel is a Channel with what waits at it.
type channel struct {
	Channel
	n *Notifier

	mu       sync.Mutex // guards the rest
	lanes    lanes
	coming   map[string]int // by domain: rows that are on their way to the disk
	changed  chan struct{}  // closed whenever something is to be looked at anew
	last     string         // error of the newest attempt; empty: it succeeded
	lastAt   time.Time      // of the newest attempt
	failures uint64         // attempts
	given    uint64         // alerts given up, of this run
	sent     uint64         // alerts delivered, of this run
	refused  uint64         // alerts that found no room
}

const rowPrefix, rowVersion, rowSize = "alert/", 1, 25

func rowKey(channel string, seq uint64) string {
	return rowPrefix + channel + "/" + string(binary.BigEndian.AppendUint64(nil, seq))
}

func (q *queued) row() []byte {
	b := binary.BigEndian.AppendUint32([]byte{rowVersion}, uint32(q.log))
	b = binary.BigEndian.AppendUint64(b, q.index)
	b = binary.BigEndian.AppendUint32(b, q.action)
	return binary.BigEndian.AppendUint64(b, uint64(q.at.UnixNano()))
}

func parseRow(key string, b []byte) (channel string, q queued, err error) {
	name, seq, ok := strings.Cut(strings.TrimPrefix(key, rowPrefix), "/")
	if !ok || len(seq) != 8 || len(b) != rowSize || b[0] != rowVersion {
		return "", q, fmt.Errorf("row %q with %d bytes is no alert that this version knows: %w", key, len(b), record.ErrReject)
	}
	return name, queued{
		seq: binary.BigEndian.Uint64([]byte(seq)), log: chain.LogID(binary.BigEndian.Uint32(b[1:])), index: binary.BigEndian.Uint64(b[5:]),
		action: binary.BigEndian.Uint32(b[13:]), at: time.Unix(0, int64(binary.BigEndian.Uint64(b[17:]))),
	}, nil
}

// New returns a Notifier with what an earlier run has left to be delivered. It
// delivers nothing before Run.
func New(cfg Config) (*Notifier, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.first, time.Second)
	def(&cfg.most, time.Minute)
	if cfg.perChannel == 0 {
		cfg.perChannel, cfg.each = maxWaiting, maxOfADomain
	}
	n := &Notifier{cfg: cfg, byName: map[string]*channel{}}
	for _, c := range cfg.Channels {
		def(&c.Timeout, DefaultTimeout)
		def(&c.GiveUp, DefaultGiveUp)
		c.Concurrency = max(c.Concurrency, 1)
		one := &channel{Channel: c, n: n, lanes: lanes{byDomain: map[string]*lane{}}, coming: map[string]int{}, changed: make(chan struct{})}
		n.channels = append(n.channels, one)
		n.byName[c.Name] = one
	}
	for row, err := range cfg.Store.MetaPrefix(rowPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read alerts that wait: %w", err)
		}
		name, q, err := parseRow(row.Key, row.Value)
		if err != nil {
			cfg.Log.Error("an alert that waits cannot be read; it stays where it is", "error", err)
			continue
		}
		n.next.Store(max(n.next.Load(), q.seq+1))
		if c := n.byName[name]; c != nil {
			c.lanes.push(n.domain(q.log), q)
		} else {
			n.orphans = append(n.orphans, orphan{name, q})
		}
	}
	return n, nil
}

// domain names the lane of a log's alerts.
func (n *Notifier) domain(id chain.LogID) string {
	if l, ok := n.cfg.Store.LogByID(id); ok {
		return l.Name().Domain
	}
	return ""
}

// Handed is an alert for which there is room.
type Handed struct {
	Rows  []chain.MetaWrite // to be written with the commit that seals its outcome
	To    []string          // channels
	sure  func()
	taken bool
}

// Durable says that the rows are: deliveries begin. It is called once.
func (h *Handed) Durable() {
	if h.sure != nil && !h.taken {
		h.taken = true
		h.sure()
	}
}

// Hand takes the alert of an action of a verdict for some channels, none
// meaning all. It never waits. An error says which channels do not get it;
// Handed is for the others.
func (n *Notifier) Hand(l *chain.Log, verdict uint64, action uint32, names []string) (*Handed, error) {
	if len(names) == 0 {
		for _, c := range n.channels {
			names = append(names, c.Name)
		}
	}
	h := &Handed{}
	q := queued{log: l.ID(), index: verdict, action: action, at: n.cfg.Now()}
	domain := l.Name().Domain
	var errs []error
	var sure []func()
	for i, name := range names {
		if name == LogChannel || slices.Contains(names[:i], name) {
			continue
		}
		c := n.byName[name]
		if c == nil {
			errs = append(errs, fmt.Errorf("channel %q: the host's configuration has none of that name", name))
			continue
		}
		if err := c.reserve(domain); err != nil {
			errs = append(errs, fmt.Errorf("channel %q: %w", name, err))
			continue
		}
		q := q
		q.seq = n.next.Add(1) - 1
		h.Rows = append(h.Rows, chain.MetaWrite{Key: rowKey(name, q.seq), Value: q.row()})
		h.To = append(h.To, name)
		sure = append(sure, func() { c.push(domain, q) })
	}
	h.sure = func() {
		for _, f := range sure {
			f()
		}
	}
	return h, errors.Join(errs...)
}

// reserve makes room for one more alert of a domain.
func (c *channel) reserve(domain string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := 0
	for _, n := range c.coming {
		all += n
	}
	switch of := c.lanes.of(domain) + c.coming[domain]; {
	case of >= c.n.cfg.each:
		c.refused++
		return fmt.Errorf("%d alerts of the domain wait there already", of)
	case c.lanes.size+all >= c.n.cfg.perChannel:
		c.refused++
		return fmt.Errorf("%d alerts wait there already", c.lanes.size+all)
	}
	c.coming[domain]++
	return nil
}

func (c *channel) push(domain string, q queued) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.coming[domain]--; c.coming[domain] == 0 {
		delete(c.coming, domain)
	}
	c.lanes.push(domain, q)
	c.wake()
}

// wake has workers look anew. The lock is held.
func (c *channel) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// backoff is the pause behind the tries-th failure of an alert: twice as long
// each time, and a random part of that, so that many hosts do not come at once.
func (n *Notifier) backoff(tries int) time.Duration {
	d := n.cfg.most
	if tries < 16 {
		d = min(n.cfg.first<<max(tries-1, 0), n.cfg.most)
	}
	return d/2 + rand.N(d/2+1)
}
