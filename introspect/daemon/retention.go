package daemon

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/domain"
)

// RetentionConfig says how long parts of VM logs are kept, such as "30d", "2y" or
// "12h". What is left out is kept for ever.
type RetentionConfig struct {
	Payloads string `hcl:"payloads,optional"` // what guests have said
	Leaves   string `hcl:"leaves,optional"`   // entries
	Tiles    string `hcl:"tiles,optional"`    // leaf hashes

	Domains []DomainRetention `hcl:"domain,block"`

	keep    chain.Retention
	domains map[string]chain.Retention
}

// DomainRetention takes the place of all of it for one domain.
type DomainRetention struct {
	UUID     string `hcl:"uuid,label"`
	Payloads string `hcl:"payloads,optional"`
	Leaves   string `hcl:"leaves,optional"`
	Tiles    string `hcl:"tiles,optional"`
}

func (c *Config) completeRetention(v *validator) {
	if c.Retention == nil {
		c.Retention = &RetentionConfig{}
	}
	r := c.Retention
	r.keep = v.retention("retention", r.Payloads, r.Leaves, r.Tiles)
	r.domains = map[string]chain.Retention{}
	for _, d := range r.Domains {
		id, err := domain.ParseUUID(d.UUID)
		if err != nil {
			v.bad("retention.domain", "Domain is not named by its UUID", err.Error()+" (virsh domuuid NAME prints it).")
			continue
		}
		if _, twice := r.domains[id.String()]; twice {
			v.bad("retention.domain", "Domain has two blocks", fmt.Sprintf("How long %s is kept is said twice; keep one of the blocks.", id))
		}
		r.domains[id.String()] = v.retention("retention.domain", d.Payloads, d.Leaves, d.Tiles)
	}
}

// retention reads and checks the ages of one block.
func (v *validator) retention(block, payloads, leaves, tiles string) (r chain.Retention) {
	for _, s := range []struct {
		name, value string
		into        *time.Duration
	}{{"payloads", payloads, &r.Payloads}, {"leaves", leaves, &r.Leaves}, {"tiles", tiles, &r.Tiles}} {
		if s.value == "" {
			continue
		}
		d, err := parseAge(s.value)
		if err != nil {
			v.bad(block+"."+s.name, "Age cannot be used", fmt.Sprintf("%v. Write one such as \"30d\", \"2y\" or \"12h\", from 1h to 100y; leave it out to keep them for ever.", err))
			return chain.Retention{}
		}
		*s.into = d
	}
	if err := r.Check(); err != nil {
		v.bad(block, "Retention cannot be kept", err.Error()+". Payloads go first, then leaves, then tiles.")
	}
	return r
}

const day = 24 * time.Hour

// parseAge reads a duration that may be in days or years of 365 days.
func parseAge(s string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": day, "y": 365 * day} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			count, err := strconv.ParseUint(n, 10, 16)
			if err != nil || count == 0 || time.Duration(count)*length > 100*365*day {
				return 0, fmt.Errorf("%q is no number of days or years in range", s)
			}
			return time.Duration(count) * length, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Hour || d > 100*365*day {
		return 0, fmt.Errorf("%q is no age", s)
	}
	return d, nil
}

// ShardsConfig says when the log of a domain goes on in another shard.
type ShardsConfig struct {
	Entries uint64 `hcl:"entries,optional"` // default 16777216
	Age     string `hcl:"age,optional"`     // default 30d

	age time.Duration
}

// minShardEntries keeps genesis and quotes of shards far below what is in them.
const minShardEntries = 1 << 16

func (c *Config) completeShards(v *validator) {
	if c.Shards == nil {
		c.Shards = &ShardsConfig{}
	}
	s := c.Shards
	if s.Entries == 0 {
		s.Entries = introspect.DefaultShardEntries
	}
	if s.Entries < minShardEntries {
		v.bad("shards.entries", "Shards are too small", fmt.Sprintf("%d entries; want %d or more.", s.Entries, minShardEntries))
	}
	def(&s.Age, "30d")
	var err error
	if s.age, err = parseAge(s.Age); err != nil {
		v.bad("shards.age", "Age cannot be used", fmt.Sprintf("%v. Write one such as \"30d\", \"1y\" or \"12h\".", err))
	}
}
