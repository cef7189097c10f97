package daemon

import (
	"fmt"
	"time"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
)

// beatsUntilSilent is how many heartbeats an agent may miss at least.
const beatsUntilSilent = 3

// completeWatch checks how agents are watched.
func (c *Config) completeWatch(v *validator) {
	g := c.Guest
	g.heartbeat = v.duration("guest.heartbeat", g.Heartbeat, 500*time.Millisecond, 30*time.Second)
	if g.heartbeat == 0 {
		g.heartbeat = wire.HeartbeatEvery
	}
	g.silentAfter = c.silence(v, "guest.silent_after", g.SilentAfter)
	if g.silentAfter == 0 {
		g.silentAfter = max(10*time.Second, beatsUntilSilent*g.heartbeat)
	}
	g.bootGrace = v.duration("guest.boot_grace", g.BootGrace, time.Second, 24*time.Hour)
	g.covers = classes(v, "guest.covers", g.Covers)
	probe(v, "guest.probe", g.Probe)
}

// silence checks a time without a sign of life. proof.Coverage relies on its bound.
func (c *Config) silence(v *validator, setting, text string) time.Duration {
	return v.duration(setting, text, beatsUntilSilent*c.Guest.heartbeat, 2*proof.HeartbeatEvery)
}

// completeDuty checks what is asked of one domain's agent.
func (c *Config) completeDuty(v *validator, d *DomainConfig) {
	d.duty = c.duty(domain.UUID{})
	if t := c.silence(v, "domain.silent_after", d.SilentAfter); t > 0 {
		d.duty.SilentAfter = t
	}
	if t := v.duration("domain.boot_grace", d.BootGrace, time.Second, 24*time.Hour); t > 0 {
		d.duty.BootGrace = t
	}
	if d.Covers != nil {
		d.duty.Covers = classes(v, "domain.covers", *d.Covers)
	}
	if d.Probe != "" {
		d.duty.LSM = probe(v, "domain.probe", d.Probe)
	}
}

// duty is what the agent of a domain owes.
func (c *Config) duty(id domain.UUID) guest.Duty {
	for i := range c.Domains {
		if !id.IsZero() && c.Domains[i].id == id {
			return c.Domains[i].duty
		}
	}
	return guest.Duty{SilentAfter: c.Guest.silentAfter, BootGrace: c.Guest.bootGrace, Covers: c.Guest.covers, LSM: c.Guest.Probe == "lsm"}
}

// probe checks by what an agent must see, and reports whether that is BPF LSM.
func probe(v *validator, setting, word string) bool {
	if word != "" {
		v.oneOf(setting, word, "lsm", "any")
	}
	return word == "lsm"
}

// classes checks names of event types that agents observe.
func classes(v *validator, setting string, names []string) []record.Class {
	var all []record.Class
	for _, n := range names {
		c, err := record.ParseClass(n)
		if err != nil || !c.FromGuest() || c >= 0x1000 {
			v.bad(setting, "Event type cannot be covered", fmt.Sprintf("%q is no event type that a guest's agent observes with hooks, such as \"file.rename\".", n))
			continue
		}
		all = append(all, c)
	}
	return all
}
