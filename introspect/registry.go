package introspect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/virt"
)

// Registry turns what libvirt shows into entries: it gives every domain its
// log, its incarnations and its epochs, and tells the sessions which channels
// to serve. Its methods may be called from several goroutines.
type Registry struct {
	cfg      RegistryConfig
	store    *chain.Store
	sessions *guest.Sessions
	log      *slog.Logger

	observing sync.Mutex // one observation at a time, so that what is known follows the log

	mu       sync.Mutex // guards the rest
	machines map[domain.UUID]*machine
	marks    map[domain.UUID]marking // of the epochs of those that run
	hearing  bool                    // libvirt
	facts    map[domain.UUID]factsRow
	images   map[string]*imageList // by origin of the log

	imageStats ImageStats

	kick chan struct{} // cap 1: an epoch may want its marker
}

// RegistryConfig is what a Registry needs.
type RegistryConfig struct {
	Store    *chain.Store
	Sessions *guest.Sessions
	HostID   string
	Software string // name and version of the daemon, for the genesis of logs
	// Activation says which policies judge the log of a domain from now on;
	// nil where there are none.
	Activation func(uuid string) *record.BundleActivation
	// ShardEntries and ShardAge are when the log of an incarnation goes on in
	// another shard; DefaultShardEntries and DefaultShardAge.
	ShardEntries uint64
	ShardAge     time.Duration
	Now          func() time.Time // default: time.Now
	// ImageRate is how many bytes of images are read in a second; DefaultImageRate.
	ImageRate int64
	// Inspect reads the facts of a domain now.
	Inspect func(ctx context.Context, id domain.UUID) (virt.Snapshot, error)
	// Reverted says which snapshot a domain was reverted to last. Nil: nobody knows.
	Reverted func(ctx context.Context, id domain.UUID) (*virt.Image, error)
	// Mark writes the marker of an epoch into the live metadata of its domain. Nil:
	// there are none, and where memory comes from is guessed.
	Mark func(ctx context.Context, id domain.UUID, m *virt.Mark) error
	Log  *slog.Logger
}

// NewRegistry reads what is known of the host's domains from the ledger.
func NewRegistry(cfg RegistryConfig) (*Registry, error) {
	store := cfg.Store
	if cfg.ShardEntries == 0 {
		cfg.ShardEntries = DefaultShardEntries
	}
	if cfg.ShardAge <= 0 {
		cfg.ShardAge = DefaultShardAge
	}
	if cfg.ImageRate <= 0 {
		cfg.ImageRate = DefaultImageRate
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Registry{cfg: cfg, store: store, sessions: cfg.Sessions, log: cfg.Log, machines: map[domain.UUID]*machine{},
		marks: map[domain.UUID]marking{}, kick: make(chan struct{}, 1), facts: map[domain.UUID]factsRow{}, images: map[string]*imageList{}}
	for row, err := range store.MetaPrefix(machinePrefix) {
		if err != nil {
			return nil, fmt.Errorf("read domains from the ledger: %w", err)
		}
		m, err := parseMachine(row.Value)
		if err != nil {
			return nil, err
		}
		l, ok := store.LogByOrigin(m.origin(r.cfg.HostID))
		if !ok {
			return nil, fmt.Errorf("read domains from the ledger: domain %s has no log: %w", m.UUID, record.ErrFatal)
		}
		m.log = l
		r.machines[m.UUID] = m
	}
	if err := errors.Join(r.readFacts(), r.readImages()); err != nil {
		return nil, err
	}
	return r, nil
}

// Observe seals what one observation says. It is the sink of virt.Host.
func (r *Registry) Observe(ctx context.Context, o virt.Observation) error {
	r.observing.Lock()
	defer r.observing.Unlock()
	switch o.Kind {
	case virt.KindGapBegin:
		r.hears(false)
		r.log.WarnContext(ctx, "libvirt is not heard any more", "reason", o.Reason)
		return nil
	case virt.KindConnected:
		if err := r.connected(ctx, &o); err != nil {
			return err
		}
		r.hears(true)
		return r.covered(ctx, &o)
	case virt.KindSweep:
		if err := r.swept(ctx, &o); err != nil {
			return fmt.Errorf("seal what is different in domain %s: %w", o.Domain.Name, err)
		}
		return nil
	case virt.KindHost:
		if err := r.observeHost(ctx, &o); err != nil {
			return fmt.Errorf("seal %s: %w", o.Type, err)
		}
		return nil
	}
	if err := r.observeDomain(ctx, &o, record.OriginHost); err != nil {
		return fmt.Errorf("seal %s of domain %s: %w", o.Type, o.Domain.Name, err)
	}
	return nil
}

func (r *Registry) hears(libvirt bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hearing = libvirt
}

// Operated seals what an operator had Provost do to a domain, with what is to
// be seen of it afterwards.
func (r *Registry) Operated(ctx context.Context, id domain.UUID, word string, what []string) error {
	r.observing.Lock()
	defer r.observing.Unlock()
	s, err := r.cfg.Inspect(ctx, id) // under the lock: facts must not be older than what is known
	if err != nil {
		return fmt.Errorf("seal %s of domain %s: %w", word, id, err)
	}
	err = r.observeDomain(ctx, &virt.Observation{
		Kind: virt.KindDevice, Type: record.ClassVMChange.String(), Word: word, Reason: strings.Join(what, "; "),
		Event: -1, Detail: -1, Domain: s.Domain, Time: s.Time, Snapshot: &s,
	}, record.OriginOperator)
	if err != nil {
		return fmt.Errorf("seal %s of domain %s: %w", word, s.Domain.Name, err)
	}
	return nil
}

// connected seals the blind interval that ends now, in the host log and in the
// log of every domain that differs behind it (invariant I4).
func (r *Registry) connected(ctx context.Context, o *virt.Observation) error {
	if o.Gap == nil {
		return nil
	}
	g := &record.Gap{From: o.Gap.From.UnixNano(), To: o.Gap.To.UnixNano(), Cause: strings.TrimSpace(o.Gap.Cause + " " + o.Gap.Detail)}
	var batches []chain.Batch
	for _, c := range o.Gap.Changes {
		k := c.After
		if k == nil {
			k = c.Before
		}
		g.Changes = append(g.Changes, fmt.Sprintf("%s %s: %s", k.UUID, k.Name, strings.Join(c.What, ", ")))
		m := r.get(k.UUID)
		if m == nil || m.Ended {
			continue
		}
		var err error
		if m, err = r.reopen(ctx, m); err != nil {
			return fmt.Errorf("seal blind interval: %w", err)
		}
		e, err := r.store.Draft(record.OriginHost, record.ClassVMGap, &record.Gap{From: g.From, To: g.To, Cause: g.Cause, Changes: c.What})
		if err != nil {
			return err
		}
		batches = append(batches, chain.Batch{Log: m.log, Entries: []chain.Entry{e}})
	}
	e, err := r.store.Draft(record.OriginHost, record.ClassHostGap, g)
	if err != nil {
		return err
	}
	batches = append(batches, chain.Batch{Log: r.store.HostLog(), Entries: []chain.Entry{e}})
	if _, err := r.store.AppendAll(ctx, batches); err != nil {
		return fmt.Errorf("seal blind interval: %w", err)
	}
	for _, c := range o.Gap.Changes {
		if c.After == nil && c.Before != nil {
			if err := r.vanished(ctx, c.Before, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// vanished ends the incarnation of a domain that was undefined unseen.
func (r *Registry) vanished(ctx context.Context, k *virt.Known, o *virt.Observation) error {
	return r.observeDomain(ctx, &virt.Observation{
		Kind: virt.KindResync, Type: record.ClassVMUndefine.String(), Word: "undefine", Reason: "vanished while libvirt was not heard",
		Event: -1, Detail: -1, Domain: k.Domain, Time: o.Time,
	}, record.OriginHost)
}

func (r *Registry) get(id domain.UUID) *machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machines[id]
}

// observeDomain seals one observation of a domain: the epoch it opens, if it
// does, and the event, in one batch with what is known of the domain from now.
func (r *Registry) observeDomain(ctx context.Context, o *virt.Observation, origin record.Origin) error {
	o = r.believe(o)
	undefine := o.Word == "undefine" && o.Reason != "renamed"
	known := r.get(o.Domain.UUID)
	if known != nil && !known.Ended && o.Word == "start" && o.Reason == "migrated" {
		if err := r.depart(ctx, known); err != nil {
			return err
		}
	}
	if known != nil && !known.Ended {
		var err error
		if known, err = r.reopen(ctx, known); err != nil {
			return err
		}
	}
	fresh := known == nil || known.Ended
	if fresh {
		if undefine {
			return nil // it had no log, or has it closed
		}
		if o.Kind == virt.KindNotice {
			return r.homeless(ctx, o)
		}
		var err error
		if known, err = r.begin(ctx, o, known); err != nil {
			return err
		}
	}
	if departs(o) {
		r.sessions.Remove(known.UUID) // how far its agent is sealed here is told below
	}
	m := *known // replaced when the batch is durable
	m.Name = o.Domain.Name
	entries, rows, err := r.entries(ctx, &m, o, origin, fresh)
	if err != nil {
		return err
	}
	// A domain without a configuration is gone with its run: transient, or
	// undefined meanwhile. One that migrated away has departed.
	over := o.Word == "stop"
	m.Ended = undefine && !m.State.Active() || over && (departs(o) || o.Snapshot == nil && o.SnapshotErr == nil)
	if len(entries) > 0 {
		row, err := m.write()
		if err != nil {
			return err
		}
		facts := r.unsavedFacts(m.UUID)
		images, err := r.wantImages(&m, o.Snapshot)
		if err != nil {
			return err
		}
		b := chain.Batch{Log: m.log, Entries: entries, Meta: slices.Concat(rows, []chain.MetaWrite{row}, facts, images)}
		if _, err := r.store.Append(ctx, b); err != nil {
			return err
		}
		r.savedFacts(m.UUID, facts)
		r.savedImages(m.log.Origin())
	}
	r.mu.Lock()
	r.machines[m.UUID] = &m
	r.mu.Unlock()
	r.serve(&m)
	r.noteMark(&m, o.Snapshot)
	if m.Ended {
		return r.store.CloseLog(ctx, m.log, closeReasonEnd, "")
	}
	if settles(o.Word) {
		if err := r.store.CheckpointNow(ctx, m.log); err != nil {
			return err
		}
	}
	return nil
}

// departs reports whether a domain has left by migration.
func departs(o *virt.Observation) bool { return o.Word == "stop" && o.Reason == "migrated" }

// handover says where the memory of a domain that has left was last, for the log that
// it goes on in to be held against. Its session has ended before.
func (r *Registry) handover(m *machine) (chain.Entry, error) {
	p, err := guest.ProgressIn(r.store, m.log)
	if err != nil {
		return chain.Entry{}, err
	}
	size, root := m.log.Root()
	last, err := m.log.LeafHash(size - 1)
	if err != nil {
		return chain.Entry{}, fmt.Errorf("seal departure: %w", err)
	}
	h := &record.Handover{What: "departed", Origin: m.log.Origin(), Epoch: m.Epoch[:], Index: size - 1, Hash: last[:], Root: root[:]}
	if p.Session != 0 {
		h.Key, h.Session, h.Frame, h.FrameHash, h.Sequence = p.Key, p.Session, p.Frame, p.FrameHash[:], p.Sequence
	}
	return r.store.Draft(record.OriginHost, record.ClassVMHandover, h)
}

// depart ends an incarnation whose domain arrives anew by migration.
func (r *Registry) depart(ctx context.Context, m *machine) error {
	m.Ended = true
	row, err := m.write()
	if err != nil {
		return err
	}
	e, err := r.store.Draft(record.OriginHost, record.ClassVMChange, &record.Event{
		Vm: &record.VM{Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: -1, LibvirtDetail: -1}, Reason: "arrived anew by migration",
	})
	if err != nil {
		return err
	}
	if _, err := r.store.Append(ctx, chain.Batch{Log: m.log, Entries: []chain.Entry{e}, Meta: []chain.MetaWrite{row}}); err != nil {
		return fmt.Errorf("end incarnation %d: %w", m.Incarnation, err)
	}
	r.sessions.Remove(m.UUID) // nothing of it may come behind the end
	return r.store.CloseLog(ctx, m.log, closeReasonEnd, "")
}

// settles reports whether a domain's history should be signed at once: it may
// not run again, or not here.
func settles(word string) bool {
	return slices.Contains([]string{"stop", "pause", "crash", "pmsuspend"}, word)
}

// begin creates the log of a new incarnation.
func (r *Registry) begin(ctx context.Context, o *virt.Observation, last *machine) (*machine, error) {
	m := &machine{UUID: o.Domain.UUID, Name: o.Domain.Name, Incarnation: 1}
	g := &record.Genesis{DomainName: o.Domain.Name, Cause: "define", Software: r.cfg.Software}
	if o.Kind == virt.KindResync {
		g.Cause = "first_seen"
	} else if o.Reason == "migrated" {
		g.Cause = "arrival"
	}
	if last != nil {
		m.Incarnation = last.Incarnation + 1
		g.PreviousOrigin = last.log.Origin()
		if c, ok := last.log.Checkpoint(); ok {
			g.PreviousCheckpoint = c.Note
		}
	}
	if s := o.Snapshot; s != nil {
		genesisFacts(g, s)
	}
	if s := o.Snapshot; s != nil && s.Mark != nil && (o.Reason == "migrated" || o.Reason == "restored") {
		g.Source = &record.Handover{What: "marked", Origin: s.Mark.Origin, Epoch: s.Mark.Epoch[:], Index: s.Mark.Index, Hash: s.Mark.Hash[:], Note: s.Mark.Note}
		if o.Reason == "restored" {
			g.Cause = "restore"
		}
		if last == nil {
			r.quoteSource(g, m.UUID)
		}
	}
	known := &virt.Facts{} // of the incarnation before nothing is known
	if o.Snapshot != nil {
		known = virt.FactsOf(o.Snapshot)
	}
	if err := r.takeFacts(m.UUID, known); err != nil {
		return nil, err
	}
	origin := proof.VMOrigin(r.cfg.HostID, m.UUID.String(), m.Incarnation)
	// A crash between the two steps below leaves a log without a domain row:
	// the next start finds it by its origin and goes on with it.
	l, ok := r.store.LogByOrigin(origin)
	if !ok {
		var err error
		if l, err = r.store.CreateLog(ctx, origin, g); err != nil {
			return nil, fmt.Errorf("begin incarnation %d: %w", m.Incarnation, err)
		}
	}
	m.log = l
	return m, nil
}

// quoteSource has the first log of a domain on this host continue the one that its
// memory comes from, where the marker names such a log of another host.
func (r *Registry) quoteSource(g *record.Genesis, id domain.UUID) {
	name, err := proof.ParseOrigin(g.Source.Origin)
	if err != nil || name.Domain != id.String() || name.HostID == r.cfg.HostID {
		return
	}
	if c, err := proof.ParseCheckpoint(g.Source.Note); err != nil || c.Origin != g.Source.Origin || c.Size <= g.Source.Index {
		return
	}
	g.PreviousOrigin, g.PreviousCheckpoint = g.Source.Origin, g.Source.Note
}

func disks(all []virt.Disk) []*record.Disk {
	var out []*record.Disk
	for _, d := range all {
		for depth, f := range d.Chain {
			rd := &record.Disk{Target: d.Target, Depth: uint32(depth), Path: f.Path, Size: uint64(max(f.Size, 0)), Inode: f.Inode,
				ReadOnly: depth > 0 || d.ReadOnly, Error: f.Error}
			if !f.ModTime.IsZero() {
				rd.Mtime = f.ModTime.UnixNano()
			}
			if depth == 0 {
				rd.Format = d.Format
			}
			out = append(out, rd)
		}
	}
	return out
}

// entries updates m from the observation and returns what to seal of it.
func (r *Registry) entries(ctx context.Context, m *machine, o *virt.Observation, origin record.Origin, fresh bool) (entries []chain.Entry, rows []chain.MetaWrite, err error) {
	if entries, err = r.activate(m); err != nil {
		return nil, nil, err
	}
	before := *m
	if cause := m.absorb(o); cause != "" {
		epoch, row, err := r.openEpoch(ctx, m, cause, o)
		if err != nil {
			return nil, nil, err
		}
		entries, rows = append(entries, epoch...), row
	}
	if o.Kind == virt.KindResync && o.Word != "undefine" && (m.same(&before) || fresh && !m.State.Active()) {
		return entries, rows, nil // nothing happened to it: it is as we know it, or as its genesis says
	}
	if departs(o) && before.Epoch != (epochID{}) {
		e, err := r.handover(&before)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	class := m.class(o, &before)
	v := &record.VM{
		Uuid: m.UUID.String(), Name: m.Name, State: m.State.String(), LibvirtEvent: int32(o.Event), LibvirtDetail: int32(o.Detail),
		LibvirtId: int64(o.Domain.ID), Detail: o.Reason, QemuPid: uint32(m.QEMU.Pid), QemuStart: m.QEMU.Start,
		Source: string(o.Kind), Arrived: o.Time.UnixNano(), Hypervisor: o.Hypervisor,
	}
	reason := o.Word
	if o.SnapshotErr != nil {
		reason += ", facts not read: " + o.SnapshotErr.Error()
	}
	e, err := r.store.Draft(origin, class, &record.Event{Vm: v, Reason: reason})
	if err != nil {
		return nil, nil, err
	}
	entries = append(entries, e)
	if o.Word == "stop" && o.Reason == "saved" && m.Epoch != (epochID{}) {
		lin, err := r.lineage(m.UUID)
		if err != nil {
			return nil, nil, err
		}
		lin.saved(m)
		row, err := lin.write(m.UUID)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, row)
	}
	return entries, rows, nil
}

// activate returns the entry that says which policies judge what follows it,
// where that has changed.
func (r *Registry) activate(m *machine) ([]chain.Entry, error) {
	if r.cfg.Activation == nil {
		return nil, nil
	}
	e, err := r.store.Draft(record.OriginHost, record.ClassPolicyLoaded, r.cfg.Activation(m.UUID.String()))
	if err != nil {
		return nil, err
	}
	d := digest(string(e.Payload))
	now := hex.EncodeToString(d[:])
	if m.Bundle == now {
		return nil, nil
	}
	m.Bundle = now
	return []chain.Entry{e}, nil
}

// same reports whether o is the same run of the same domain in the same state.
func (m *machine) same(o *machine) bool {
	return m.Epoch == o.Epoch && m.State == o.State && m.Name == o.Name && m.Enrolled == o.Enrolled
}

// absorb takes over what the snapshot tells and returns the cause of a new
// epoch, or "".
func (m *machine) absorb(o *virt.Observation) (epoch string) {
	s := o.Snapshot
	over := o.Word == "stop" || o.Word == "crash"
	if s != nil && over && s.Domain.State.Active() {
		s = nil // the facts are of the next run already; its own event follows
	}
	m.Unread = s == nil && o.SnapshotErr != nil
	if s != nil {
		m.State, m.Enrolled, m.Channel = s.Domain.State, s.Enrolled, s.ChannelPath
		m.GenerationID, m.LibvirtID, m.Persistent = s.GenerationID, s.Domain.ID, s.Domain.Persistent
		m.ConfigDigest = s.Known().ConfigDigest
		if s.QEMU.Pid != 0 && s.QEMU != m.QEMU {
			m.QEMU, m.Reverted = s.QEMU, ""
			cause := epochCause(o)
			if cause == "revert" || cause == "restore" || cause == "found" {
				m.Reverted = "start" // a resume or a pause by reason of a snapshot follows
			}
			m.From = from(m, s.Mark, cause)
			return cause
		}
		if !m.State.Active() {
			m.QEMU = virt.Process{}
		}
	}
	if s == nil {
		m.follow(o.Word)
	}
	if o.Kind == virt.KindReboot && !o.Repeat && m.QEMU.Pid != 0 {
		return "reset"
	}
	if m.revertsInProcess(o) {
		return "revert"
	}
	if o.Word == wordWentBack && m.QEMU.Pid != 0 {
		return "rewound"
	}
	return ""
}

// revertsInProcess reports whether libvirt has taken the memory of a running QEMU
// back to a snapshot. It tells of it by the reason of a pause, of a resume, or of
// both; so it does behind the start of another process from saved memory, be that of a
// snapshot or of a file.
func (m *machine) revertsInProcess(o *virt.Observation) bool {
	if o.Kind != virt.KindLifecycle || o.Word != "pause" && o.Word != "resume" || m.QEMU.Pid == 0 {
		return false
	}
	told := m.Reverted
	m.Reverted = ""
	if o.Reason != "from-snapshot" || told == "start" || told == "pause" && o.Word == "resume" {
		return false
	}
	if o.Word == "pause" {
		m.Reverted = "pause"
	}
	return true
}

// from is the log that memory comes from, where that is not one of the machine's own
// incarnation.
func from(m *machine, mark *virt.Mark, cause string) *source {
	if mark == nil || cause != "arrival" && cause != "restore" {
		return nil
	}
	name, err := proof.ParseOrigin(mark.Origin)
	own := m.log.Name()
	if err != nil || name.HostID == own.HostID && name.Domain == own.Domain && name.Incarnation == own.Incarnation {
		return nil
	}
	return &source{Origin: mark.Origin, Epoch: mark.Epoch}
}

// follow takes over what an event without a snapshot says of the state.
func (m *machine) follow(word string) {
	switch word {
	case "pause":
		m.State = domain.Paused
	case "pmsuspend":
		m.State = domain.PMSuspended
	case "resume", "start":
		m.State = domain.Running
	case "stop", "crash":
		m.State, m.QEMU, m.Channel = domain.Shutoff, virt.Process{}, ""
	}
}

// class is the class of the entry about an observation. What a resync shows is
// called by the change of state that was missed.
func (m *machine) class(o *virt.Observation, before *machine) record.Class {
	class, err := record.ParseClass(o.Type)
	if err != nil {
		return record.ClassVMChange // newer libvirt: the raw numbers are kept
	}
	if o.Kind != virt.KindResync || o.Word == "undefine" || m.State == before.State {
		return class
	}
	switch {
	case m.State == domain.Paused || m.State == domain.PMSuspended:
		return record.ClassVMPause
	case m.State == domain.Crashed:
		return record.ClassVMCrash
	case !m.State.Active():
		return record.ClassVMStop
	case m.Epoch != before.Epoch:
		return record.ClassVMStart
	}
	return record.ClassVMResume
}

// epochCause says why there is another QEMU process.
func epochCause(o *virt.Observation) string {
	switch {
	case o.Reason == "restored":
		return "restore"
	case o.Reason == "from-snapshot":
		return "revert"
	case o.Reason == "migrated":
		return "arrival"
	case o.Kind == virt.KindResync:
		return "found"
	}
	return "start"
}

// serve starts, changes or ends the session of a domain.
func (r *Registry) serve(m *machine) {
	if d, ok := m.session(); ok {
		r.sessions.Set(d)
		return
	}
	r.sessions.Remove(m.UUID)
}

// Machine is what the registry knows of a domain.
type Machine struct {
	UUID        domain.UUID
	Name        string
	State       domain.State
	Enrolled    bool
	Incarnation uint64
	Epoch       [16]byte
	Log         *chain.Log
}

// Machines returns the domains that are defined or run, by name.
func (r *Registry) Machines() []Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Machine
	for _, m := range r.machines {
		if !m.Ended {
			all = append(all, Machine{m.UUID, m.Name, m.State, m.Enrolled, m.Incarnation, m.Epoch, m.log})
		}
	}
	slices.SortFunc(all, func(a, b Machine) int { return strings.Compare(a.Name+a.UUID.String(), b.Name+b.UUID.String()) })
	return all
}

// ErrNoDomain says that no domain has the name or UUID asked for.
var ErrNoDomain = errors.New("no such domain")

// Find returns the domain with the given name or UUID.
func (r *Registry) Find(nameOrUUID string) (Machine, error) {
	all := r.Machines()
	i := slices.IndexFunc(all, func(m Machine) bool { return m.UUID.String() == strings.ToLower(nameOrUUID) })
	if i < 0 { // a UUID is that of its domain, whatever others are called
		i = slices.IndexFunc(all, func(m Machine) bool { return m.Name == nameOrUUID })
	}
	if i >= 0 {
		return all[i], nil
	}
	return Machine{}, fmt.Errorf("find domain %q: %w", nameOrUUID, ErrNoDomain)
}

func digest(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

// Name returns the last known name of a domain, or "".
func (r *Registry) Name(id domain.UUID) string {
	if m := r.get(id); m != nil {
		return m.Name
	}
	return ""
}

// Known returns what was known of every domain when it was sealed last, for
// libvirt's adapter to compare with after a start.
func (r *Registry) Known() []virt.Known {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []virt.Known
	for _, m := range r.machines {
		if !m.Ended {
			all = append(all, virt.Known{
				Domain:       domain.Domain{UUID: m.UUID, Name: m.Name, ID: m.LibvirtID, State: m.State, Persistent: m.Persistent},
				QEMU:         m.QEMU,
				GenerationID: m.GenerationID,
				ConfigDigest: m.ConfigDigest,
			})
		}
	}
	return all
}
