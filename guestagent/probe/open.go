package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// Open loads and attaches the programs and lists what runs. From then on
// events gather in the rings: call Run. It takes root (CAP_BPF, CAP_PERFMON,
// CAP_SYS_ADMIN) and a kernel with BTF.
func Open(cfg Config) (*Probe, error) {
	if cfg.Mode == "" {
		cfg.Mode = ModeAuto
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return nil, fmt.Errorf("open probe: the kernel gives no type information (CONFIG_DEBUG_INFO_BTF), or /sys is not mounted: %w", err)
	}
	if cfg.Mode == ModeTracepoint {
		return open(cfg, ModeTracepoint, "")
	}
	p, err := openAlone(cfg)
	if err == nil {
		return p, nil
	}
	if cfg.Mode == ModeLSM {
		return nil, fmt.Errorf("open probe in mode lsm (mode auto would go on with tracepoints): %w", err)
	}
	cfg.Log.WarnContext(context.Background(), "BPF LSM cannot be used, going on with tracepoints", "error", brief(err))
	return open(cfg, ModeTracepoint, brief(err))
}

// tries is how often the programs are loaded anew because somebody got hold of
// one of their maps. The door leaves no time for that: who does it has ways that
// loading again does not close.
const tries = 3

// openAlone opens in mode lsm, where others are kept out, and begins again
// while somebody got in.
func openAlone(cfg Config) (*Probe, error) {
	var found []finding
	for n := 1; ; n++ {
		p, err := open(cfg, ModeLSM, "")
		if err != nil {
			return nil, err
		}
		held, err := p.holders.look()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open probe: %w", err), p.Close())
		}
		found = append(found, p.found...)
		p.found = found
		if len(held) == 0 || !cfg.Protect {
			return p, nil // without protection the checks tell
		}
		what := describeHeld(held)
		found = append(found, finding{tamper: &record.Tamper{Kind: "hold", Hook: progHolders.hook, Detail: what}})
		cfg.Log.WarnContext(context.Background(), "maps were reached for while the programs were loaded", "held", what, "try", n)
		if n == tries {
			p.found = found
			p.qualify(record.ClassAgentTamper, "from the start on, "+what)
			return p, nil
		}
		if err := p.Close(); err != nil {
			return nil, fmt.Errorf("open probe again: %w", err)
		}
	}
}

// qualify adds to the limit of a class in the hooks record.
func (p *Probe) qualify(class record.Class, limit string) {
	for _, h := range p.hooks.Hooks {
		if record.Class(h.Class) == class {
			h.Error = strings.TrimPrefix(h.Error+"; "+limit, "; ")
		}
	}
}

func open(cfg Config, mode Mode, why string) (_ *Probe, err error) {
	k, err := newKernel(cfg, mode)
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	p := &Probe{cfg: cfg, k: k, digests: newDigests(cfg.DigestBytes, cfg.Options.Digests), sequences: map[uint32]uint64{}, accounted: map[uint32]uint64{}}
	p.digests.changed = p.tellDigests
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if k.wasBlind {
		cfg.Log.WarnContext(context.Background(), "function tracing was off and hooks blind: turned on", "switch", functionTracing)
		p.found = []finding{{tamper: &record.Tamper{Kind: "blind", Detail: "kernel.ftrace_enabled was 0 when the programs were loaded: turned on"}}}
	}
	if p.stats, err = newStats(k.maps["stats"]); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.pace, err = newPace(k.maps["pace"]); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.rings, err = newRings(k); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.sums, err = newSums(k); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if err := p.attach(mode, why); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	t := newTable(nil)
	t.lookup = t.fromProc
	p.dec = newDecoder(t, newGroups(k.groupLookup()))
	p.dec.gains = k.links[progCommitting.name] != nil || k.links[progPrepareExec.name] != nil
	// After attaching: what starts from here on is told by an event.
	if err := k.seed(t); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if p.holders, err = newHolders(k, p.sums); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	if err := p.protect(); err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	k.spec, k.types = nil, nil // large, and of no use any more
	return p, nil
}

// attach brings up all hooks of a mode and makes the hooks record.
func (p *Probe) attach(mode Mode, why string) error {
	p.hooks = &record.Hooks{Os: "linux", Architecture: runtime.GOARCH, Kernel: release(), Mode: string(mode)}
	for _, c := range backbone(mode) {
		h, err := p.k.cover(c)
		if err != nil {
			return err
		}
		if c.off(p.cfg) {
			h.Name, h.Error = "", switchedOff
		}
		p.hooks.Hooks = append(p.hooks.Hooks, h)
	}
	covers := coversOf(mode)
	var hooks []*record.Hook
	for _, c := range covers {
		if c.off(p.cfg) {
			hooks = append(hooks, &record.Hook{Class: uint32(c.class), Error: switchedOff})
			continue
		}
		h, err := p.k.cover(c)
		if err != nil {
			if mode == ModeLSM && needed(c) {
				return err
			}
			p.cfg.Log.WarnContext(context.Background(), "class of events is not covered", "class", c.class.String(), "error", h.Error)
		}
		if why != "" {
			h.Error = strings.TrimPrefix(h.Error+"; lsm: "+why, "; ")
		}
		p.disclaim(h)
		hooks = append(hooks, h)
	}
	if err := p.verify(mode, covers, hooks); err != nil {
		return err
	}
	p.hooks.Hooks = append(p.hooks.Hooks, hooks...)
	if err := p.meet(slices.Concat(backbone(mode), covers)); err != nil {
		return err
	}
	p.hooks.Hooks = append(p.hooks.Hooks, digestHooks(p.cfg, mode)...)
	for _, c := range uncovered {
		p.hooks.Hooks = append(p.hooks.Hooks, &record.Hook{Class: uint32(c.class), Error: c.why})
	}
	return nil
}

// meet has the canary's child act, and notes what has been seen of both.
func (p *Probe) meet(covers []cover) error {
	p.classes = map[string]record.Class{}
	for _, c := range covers {
		for _, x := range slices.Concat(append([][]program{c.needs, c.extra}, c.anyOf...)...) {
			if _, ok := p.classes[x.name]; !ok {
				p.classes[x.name] = c.class
			}
		}
	}
	seen := p.proven
	if len(p.cfg.Canary) > 0 {
		more, err := p.k.child(context.Background(), p.stats, p.cfg.Canary, p.cfg.Allocate)
		if err != nil {
			return fmt.Errorf("have the canary act: %w", err)
		}
		for t := range seen {
			seen[t] = seen[t] || more[t]
		}
		// From now on the child is what acts.
		p.prove(seen)
		p.proven = more
		return nil
	}
	p.prove(seen)
	return nil
}

// verify proves by a canary that the hooks fire. A class whose hook does not
// is told as not covered; one whose hook had no chance to, as not proven.
func (p *Probe) verify(mode Mode, covers []cover, hooks []*record.Hook) error {
	seen, failed, err := canary(p.stats, p.cfg.Allocate)
	if err != nil {
		return fmt.Errorf("prove the hooks: %w", err)
	}
	p.proven = seen
	if mode == ModeLSM {
		if err := judge(p.cfg.Mode, seen, failed); err != nil {
			return err
		}
	}
	for i, c := range covers {
		switch {
		case c.event == 0 || hooks[i].Name == "" || seen[c.event]:
		case failed[c.event] != nil:
			hooks[i].Error = strings.TrimPrefix(hooks[i].Error+"; not proven to fire: "+brief(failed[c.event]), "; ")
			p.cfg.Log.WarnContext(context.Background(), "class of events is not proven", "class", c.class.String(), "error", failed[c.event])
		default:
			hooks[i].Error = "attached and never called: " + hooks[i].Name
			hooks[i].Name = ""
		}
	}
	return nil
}

func needed(c cover) bool {
	for _, t := range required {
		if c.event == t {
			return true
		}
	}
	return false
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
