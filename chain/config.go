package chain

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Config says where a store is and how it behaves. Dir, Anchor, HostID and
// Keys are required; every other zero value means the default given.
type Config struct {
	// Dir is the directory of the Pebble store. Create makes it.
	Dir string
	// Anchor is a file outside Dir, better on another disk, that holds the
	// newest published host checkpoint (invariant I6).
	Anchor string
	// PayloadKeys is a directory outside Dir for the keys that payloads are
	// encrypted under. It must not be in backups of the store: a key that is
	// destroyed there takes all copies of the payload along. A store that is
	// made without it keeps payloads as they are, for ever.
	PayloadKeys string
	// HostID is the first part of every origin, such as "kvm1.example". It
	// cannot change in the life of a store.
	HostID string
	// Keys sign the host log and the VM logs.
	Keys *keys.Keys

	// Log receives what the store has to say. Default: nothing.
	Log *slog.Logger
	// Now is the wall clock. Default: time.Now.
	Now func() time.Time
	// Boot is a clock that also advances while the host sleeps and is never
	// set. Default: CLOCK_BOOTTIME.
	Boot func() time.Duration

	// CheckpointEvery is the time between checkpoints of a growing VM log.
	// Default: 1 s.
	CheckpointEvery time.Duration
	// HostEvery is the same for the host log. Default: 1 s.
	HostEvery time.Duration
	// WitnessEvery is the time between rounds that quote grown VM logs in
	// the host log and have witnesses cosign it. Default: 10 s.
	WitnessEvery time.Duration

	// Retention says how long parts of VM logs are kept. Default: for ever.
	Retention Retention
	// DomainRetention says it for single domains instead, by UUID.
	DomainRetention map[string]Retention
	// RetainEvery is the time between looks at what is old enough. Default: 1 h.
	RetainEvery time.Duration

	// Witnesses cosign the host log's checkpoints. Default: none.
	Witnesses []Witness
	// Quorum says which cosignatures are enough; those that lack are sealed.
	// It must be reachable with Witnesses. Default: all of them.
	Quorum *proof.Policy

	// Exit ends the process when the disk breaks a promise below the store's
	// feet and no error can be returned any more. Default: os.Exit. It must
	// not return.
	Exit func(code int)
	// FS is where Dir and Anchor live. Default: the disk.
	FS vfs.FS

	unpacked   bool // tests look at rows as the committer writes them
	unretained bool // tests make the rounds of retention
	// after is the clock between rounds of witnesses. Default: time.After.
	after func(time.Duration) <-chan time.Time
}

// withDefaults returns c with every default filled in, or the first rule that
// it breaks.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Anchor == "" {
		return c, fmt.Errorf("configure store: directory and anchor file must both be named: %w", record.ErrReject)
	}
	if rel, err := filepath.Rel(filepath.Clean(c.Dir), filepath.Clean(c.Anchor)); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return c, fmt.Errorf("configure store: anchor %s lies in the store %s; it must be outside, or a rollback takes both: %w", c.Anchor, c.Dir, record.ErrReject)
	}
	if rel, err := filepath.Rel(filepath.Clean(c.Dir), filepath.Clean(c.PayloadKeys)); c.PayloadKeys != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return c, fmt.Errorf("configure store: the payload keys %s lie in the store %s; they must be outside, or every copy of it takes them along: %w", c.PayloadKeys, c.Dir, record.ErrReject)
	}
	if err := proof.CheckHostID(c.HostID); err != nil {
		return c, fmt.Errorf("configure store: %w", err)
	}
	if c.Keys == nil {
		return c, fmt.Errorf("configure store: no keys: %w", record.ErrReject)
	}
	if err := c.Retention.Check(); err != nil {
		return c, fmt.Errorf("configure store: retention: %w", err)
	}
	for id, r := range c.DomainRetention {
		if err := r.Check(); err != nil {
			return c, fmt.Errorf("configure store: retention of domain %s: %w", id, err)
		}
	}
	if err := c.checkWitnesses(); err != nil {
		return c, fmt.Errorf("configure store: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Boot == nil {
		c.Boot = bootTime
	}
	if c.Exit == nil {
		c.Exit = os.Exit
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.after == nil {
		c.after = time.After
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&c.CheckpointEvery, time.Second}, {&c.HostEvery, time.Second}, {&c.WitnessEvery, 10 * time.Second}, {&c.RetainEvery, time.Hour}} {
		if *d.v < 0 {
			return c, fmt.Errorf("configure store: an interval is %s, want more than zero: %w", *d.v, record.ErrReject)
		}
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	return c, nil
}

// checkWitnesses refuses witnesses that cannot do what the quorum asks for
// (invariant I10).
func (c *Config) checkWitnesses() error {
	keys := make([]proof.WitnessKey, len(c.Witnesses))
	ids := make([]string, len(c.Witnesses))
	for i, w := range c.Witnesses {
		keys[i], ids[i] = w.Key(), w.Key().ID()
	}
	all, err := proof.AllOf(keys)
	if err != nil {
		return err
	}
	if c.Quorum == nil {
		c.Quorum = all
		return nil
	}
	if err := c.Quorum.Reached(ids); err != nil {
		return fmt.Errorf("the witness policy cannot be satisfied by the witnesses that are configured: %w", err)
	}
	if origin := proof.HostOrigin(c.HostID); len(c.Quorum.Logs) > 0 {
		want, err := proof.VerifierKey(origin, c.Keys.HostPublic())
		if err != nil {
			return err
		}
		if key, ok := c.Quorum.LogKey(origin); !ok || key != want {
			return fmt.Errorf("the witness policy names logs, and not %s with the key %s: %w", origin, want, record.ErrReject)
		}
	}
	return nil
}

// bootTime reads CLOCK_BOOTTIME.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("chain: the kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}
