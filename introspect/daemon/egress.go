package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/egress"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
)

// EgressConfig has this host filter what domains send, on their tap devices. Without
// the block, policies that prevent are refused.
type EgressConfig struct {
	// Dir is where the filters are kept while no daemon runs, on a BPF file system.
	// Default /sys/fs/bpf/provost/egress.
	Dir string `hcl:"dir,optional"`
	// SourceMAC denies frames from another address than the interface's own.
	SourceMAC bool `hcl:"source_mac,optional"`
	// Resolvers are the name servers whose answers say which addresses the names in
	// policies have. Without them, policies that allow names are refused.
	Resolvers []string `hcl:"resolvers,optional"`
	// HookSocket is where the hook of libvirt asks. Default /run/provost/hook.sock.
	HookSocket string `hcl:"hook_socket,optional"`
	// Fail is what the hook does where taps cannot be guarded: open lets the domain
	// start, closed does not. Default open.
	Fail string `hcl:"fail,optional"`

	resolvers []netip.Addr
}

// failOpen is the word for letting domains start all the same.
const failOpen = "open"

func (c *Config) completeEgress(v *validator) {
	if c.Egress == nil {
		return
	}
	def(&c.Egress.Dir, egress.DefaultDir)
	def(&c.Egress.HookSocket, "/run/provost/hook.sock")
	def(&c.Egress.Fail, failOpen)
	v.path("egress.dir", c.Egress.Dir)
	v.path("egress.hook_socket", c.Egress.HookSocket)
	for _, r := range c.Egress.Resolvers {
		a, err := netip.ParseAddr(r)
		if err != nil || a.Zone() != "" || len(c.Egress.resolvers) >= egress.MaxResolvers {
			v.bad("egress.resolvers", "Resolver cannot be used", fmt.Sprintf("%q is no address, or there are more than %d.", r, egress.MaxResolvers))
			continue
		}
		c.Egress.resolvers = append(c.Egress.resolvers, a.Unmap())
	}
	v.oneOf("egress.fail", c.Egress.Fail, failOpen, "closed")
}

// guards are the packet filters of this host's domains; nil where they are not
// configured.
type guards struct {
	d        *Daemon
	guard    *egress.Guard
	director *egress.Director
}

// openGuards makes what guards taps. A host that cannot do it refuses to start (I10).
func openGuards(d *Daemon) (*guards, error) {
	if d.cfg.Egress == nil {
		return nil, nil
	}
	if err := egress.Probe(); err != nil {
		return nil, fmt.Errorf("%w; without the block egress the daemon starts, and refuses policies that prevent", err)
	}
	g := &guards{d: d}
	var err error
	g.guard, err = egress.New(egress.Config{Dir: d.cfg.Egress.Dir, Log: d.log, Resolvers: d.cfg.Egress.resolvers,
		Sink: func(dev egress.Device, e *egress.Event) { g.director.Hear(dev, e) }})
	if err != nil {
		return nil, err
	}
	g.director = egress.NewDirector(egress.DirectorConfig{Guard: g.guard, Running: g.running, Log: d.log, Seal: d.registry.Note, Now: time.Now, Entries: g.entries,
		Read: func(ctx context.Context, id domain.UUID) (*egress.Guarded, error) {
			e, _ := d.policies.current()
			return g.read(ctx, id, e)
		}})
	d.metrics.egress(g)
	return g, nil
}

// entries hands on what is sealed in the logs of domains from now on.
func (g *guards) entries(ctx context.Context, each func(domain.UUID, record.Class, record.Origin, []byte)) error {
	f := g.d.store.Tail(g.d.store.End())
	defer f.Close()
	for {
		it, err := f.Next(ctx)
		if err != nil {
			return fmt.Errorf("compare flows with what agents tell: %w", err)
		}
		if id, err := domain.ParseUUID(it.Log.Name().Domain); err == nil {
			each(id, it.Leaf.Header.Class, it.Leaf.Origin, it.Payload) // one that cannot be read counts as a loss
		}
	}
}

// run keeps taps guarded until ctx ends. The guards stay.
func (g *guards) run(ctx context.Context) error {
	if g == nil {
		<-ctx.Done()
		return nil
	}
	l, err := controlSocket(g.d.cfg.Egress.HookSocket, -1)
	if err != nil {
		return err
	}
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var door sync.WaitGroup
	door.Go(func() {
		if err := (&hookDoor{g.before, g.d.log}).serve(own, l); err != nil {
			cancel(err)
		}
	})
	err = g.director.Run(own)
	if cause := context.Cause(own); err == nil && ctx.Err() == nil {
		err = cause // the door has failed
	}
	cancel(nil)
	door.Wait()
	return err
}

func (g *guards) close() error {
	if g == nil {
		return nil
	}
	return g.guard.Close()
}

// kick has taps compared with policies now.
func (g *guards) kick() {
	if g != nil {
		g.director.Kick()
	}
}

// running lists the domains that have taps.
func (g *guards) running() []domain.UUID {
	var all []domain.UUID
	for _, m := range g.d.registry.Machines() {
		if m.State.Active() {
			all = append(all, m.UUID)
		}
	}
	return all
}

// honours refuses policies that deny something to a domain that runs and has an
// interface which cannot be filtered, before they come in force (I10).
func (g *guards) honours(ctx context.Context, e *rules.Engine) error {
	if g == nil {
		return nil
	}
	var problems []error
	for _, id := range g.running() {
		want, err := g.read(ctx, id, e)
		if errors.Is(err, record.ErrRetry) || errors.Is(err, virt.ErrNotFound) {
			continue // it cannot be asked now: when it can, what cannot be guarded is sealed
		}
		if err == nil {
			err = want.Honoured()
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("domain %s: %w", g.d.registry.Name(id), err))
		}
	}
	return errors.Join(problems...)
}

// read says what is to be guarded of a domain, by the policies of an engine.
func (g *guards) read(ctx context.Context, id domain.UUID, e *rules.Engine) (*egress.Guarded, error) {
	s, err := g.d.host.Inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.LiveXML == "" {
		return nil, fmt.Errorf("read interfaces of domain %s: libvirt shows no configuration of its run: %w", id, record.ErrRetry)
	}
	text := s.ConfigXML
	if text == "" {
		text = s.LiveXML
	}
	return guardedBy(id, s.LiveXML, text, g.d.cfg.Egress.SourceMAC, e)
}

// guardedXML is guardedBy of a domain that names itself.
func guardedXML(text string, mac bool, e *rules.Engine) (*egress.Guarded, error) {
	def, err := virt.ReadXML(text)
	if err != nil {
		return nil, err
	}
	id, err := domain.ParseUUID(def.UUID)
	if err != nil {
		return nil, err
	}
	return guardedBy(id, text, text, mac, e)
}

// guardedBy says what is to be guarded of a domain by the XML of its run, and what
// policies know of it by its configuration.
func guardedBy(id domain.UUID, live, config string, mac bool, e *rules.Engine) (*egress.Guarded, error) {
	def, err := virt.ReadXML(live)
	if err != nil {
		return nil, err
	}
	out := &egress.Guarded{ID: id}
	for _, i := range def.Interfaces {
		if !i.Tapped() {
			out.Untapped = append(out.Untapped, i.MAC+" of kind "+i.Kind)
			continue
		}
		dev := egress.Device{Domain: id, Name: i.Device}
		if dev.MAC, err = net.ParseMAC(i.MAC); err != nil {
			return nil, fmt.Errorf("read interfaces of domain %s: %w", id, err)
		}
		dev.CheckMAC = mac
		out.Devices = append(out.Devices, dev)
	}
	vm, err := rules.VMOf(id.String(), def.Name, "running", config)
	if err != nil {
		return nil, err
	}
	all, err := e.Prevents(&vm)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		n, err := filterOf(&p)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, *n)
	}
	return out, nil
}

// filterOf turns a prevent block into what a tap is given.
func filterOf(p *rules.Prevention) (*egress.Policy, error) {
	out := &egress.Policy{Name: p.Policy.Name, Enforce: p.Mode == policy.ModeEnforce, Listed: p.Prevent.Allow != nil, External: p.Prevent.Scope == "external"}
	for _, l := range []struct {
		from []string
		to   *[]egress.Entry
	}{{p.Prevent.Allow, &out.Allow}, {p.Prevent.Deny, &out.Deny}} {
		for _, s := range l.from {
			d, err := policy.ParseDestination(s)
			if err != nil {
				return nil, fmt.Errorf("policy %q: prevent: %w", p.Policy.Name, err)
			}
			protocol := map[string]uint8{"tcp": 6, "udp": 17}[d.Protocol]
			if d.Name != "" { // of allow: a denied name does not load
				out.Names = append(out.Names, egress.NameEntry{Name: d.Name, Port: d.Port, Protocol: protocol})
				continue
			}
			*l.to = append(*l.to, egress.Entry{Prefix: d.Prefix, Port: d.Port, Protocol: protocol})
		}
	}
	return out, nil
}
