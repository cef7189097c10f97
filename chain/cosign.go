package chain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
)

// Witness cosigns checkpoints: package witness speaks to one. A method must
// return within a bound of its own, and may be called by several goroutines.
type Witness interface {
	Key() proof.WitnessKey
	// Cosign returns a verified cosignature on the checkpoint c, whose signed
	// note is msg. from is the size it cosigned last; prove makes consistency
	// proofs to c from sizes between 1 and c's. A *proof.DisputeError says
	// that the witness knows another history.
	Cosign(ctx context.Context, c proof.Checkpoint, msg []byte, from uint64, prove func(from uint64) ([]record.Hash, error)) (proof.Cosignature, error)
	// Latest returns what the witness shows as its newest checkpoint of a
	// log, unverified.
	Latest(ctx context.Context, origin string) ([]byte, error)
}

// ForkError says that a witness holds a checkpoint which the host log's own key
// signed and which this ledger does not contain: the ledger was rolled back, or
// a second one uses its keys. Nothing may be appended.
type ForkError struct {
	Witness  string
	Origin   string
	Size     uint64
	Root     record.Hash
	OurSize  uint64
	Evidence []byte // the signed checkpoint
}

// Error says what was found, and holds the evidence.
func (e *ForkError) Error() string {
	return fmt.Sprintf("witness %s holds a checkpoint of %s at size %d with root %s, signed by this host's key, which this ledger of size %d does not contain: "+
		"it was rolled back, or a copy of it runs elsewhere; keep both and find out which, the checkpoint is:\n%s",
		e.Witness, e.Origin, e.Size, e.Root, e.OurSize, e.Evidence)
}

// Is makes a ForkError fatal.
func (e *ForkError) Is(target error) bool { return target == record.ErrFatal }

// WitnessStatus is what became of asking one witness.
type WitnessStatus struct {
	Name     string
	Key      string // name and hash of its verifier key
	Size     uint64 // that it cosigned last; 0: none yet
	Time     int64  // of that, Unix seconds on its clock
	Cosigned uint64 // cosignatures in this run
	Failures uint64 // rounds in this run that it did not cosign in
	Problem  string // why not the last time; empty: it did
	Disputed bool   // it says that it has seen another history
}

// cosigning is the state of all witnesses. Rounds are made by cosignLoop only, and
// by lastCosign behind its end.
type cosigning struct {
	kick chan struct{} // cap 1: a token asks for a round; more are one

	mu        sync.Mutex // guards the rest
	waiting   []*cosignWait
	covered   uint64 // size of the checkpoint of the last round
	over      error  // why there are no more rounds
	witnesses []WitnessStatus
	short     bool // the quorum was not reached, and that is sealed
	missing   string
	falls     uint64 // shortfalls sealed in this run
	cosigned  *Published
}

// newCosigning returns the state of witnesses nobody has asked yet.
func newCosigning(all []Witness) *cosigning {
	c := &cosigning{kick: make(chan struct{}, 1)}
	for _, w := range all {
		c.witnesses = append(c.witnesses, WitnessStatus{Name: w.Key().Name, Key: w.Key().ID(), Problem: "not asked yet"})
	}
	return c
}

// Witnesses returns what became of the witnesses, in the order of the
// configuration. missing says which cosignatures the quorum lacks; it is empty
// where it is reached. shortfalls counts how often it was lost in this run.
func (s *Store) Witnesses() (all []WitnessStatus, missing string, shortfalls uint64) {
	s.cosigning.mu.Lock()
	defer s.cosigning.mu.Unlock()
	return slices.Clone(s.cosigning.witnesses), s.cosigning.missing, s.cosigning.falls
}

// Cosigned returns the newest host checkpoint whose cosignatures reach the
// quorum. ok is false where there is none, or no witness is configured.
func (s *Store) Cosigned() (p Published, ok bool) {
	s.cosigning.mu.Lock()
	defer s.cosigning.mu.Unlock()
	if s.cosigning.cosigned == nil {
		return Published{}, false
	}
	return *s.cosigning.cosigned, true
}

// cosignWait is somebody who waits for a round over a size, or a larger one.
type cosignWait struct {
	size uint64
	done chan error // cap 1
}

// wait registers somebody who waits for a round over the checkpoint p. Nil: every
// witness has cosigned it already.
func (c *cosigning) wait(p *Published) (*cosignWait, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over != nil:
		return nil, c.over // it says what was tried
	case c.covered >= p.Size && !slices.ContainsFunc(c.witnesses, func(w WitnessStatus) bool { return w.Problem != "" }):
		return nil, nil
	}
	w := &cosignWait{size: p.Size, done: make(chan error, 1)}
	c.waiting = append(c.waiting, w)
	return w, nil
}

// leave takes somebody out who waits no longer.
func (c *cosigning) leave(w *cosignWait) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.DeleteFunc(c.waiting, func(o *cosignWait) bool { return o == w })
}

// ended tells those whom a round over a size was enough for that it has ended; with
// an error all of them, and those who come later, since it was the last one.
func (c *cosigning) ended(size uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.covered, c.over = size, err
	c.waiting = slices.DeleteFunc(c.waiting, func(w *cosignWait) bool {
		if err == nil && w.size > size {
			return false // it has asked for the next round
		}
		w.done <- err
		return true
	})
}

// askWitnesses asks for a round without waiting for it.
func (s *Store) askWitnesses() {
	select {
	case s.cosigning.kick <- struct{}{}:
	default: // one is asked for already
	}
}

// cosignApart is the shortest time between the beginnings of two rounds. Guests
// can have checkpoints made, by being paused or stopped, and so can readers, by
// exports: witnesses of others must not pay for that.
const cosignApart = time.Second

// cosignLoop makes a round whenever one is asked for, until ctx ends. It stands
// beside the checkpoints, which no witness may delay.
func (s *Store) cosignLoop(ctx context.Context) {
	err := s.cosignRounds(ctx)
	if err != nil {
		_ = s.fail(err) // Run finds it and ends
	} else {
		err = ErrClosed
	}
	s.cosigning.ended(0, err)
}

// cosignRounds returns nil when ctx ends, and else why nothing may go on.
func (s *Store) cosignRounds(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.cosigning.kick:
		}
		next := s.cfg.after(min(cosignApart, s.cfg.WitnessEvery))
		if p := s.host.published.Load(); p != nil {
			err := s.cosignRound(ctx, p, s.submitAndWait(ctx))
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			}
			s.cosigning.ended(p.Size, nil)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// CosignNow has the witnesses cosign the published host checkpoint, or a later
// one, and returns when all have answered or failed to. That some have not is no
// error: it stands in Witnesses, and a lost quorum is sealed. Whoever asks while
// a round is under way, or within a second of its beginning, shares the next one,
// unless that round covers what he wants cosigned. It needs Run to be running.
func (s *Store) CosignNow(ctx context.Context) error {
	p := s.host.published.Load()
	if len(s.cfg.Witnesses) == 0 || p == nil {
		return nil
	}
	w, err := s.cosigning.wait(p)
	if w != nil {
		s.askWitnesses()
		select {
		case err = <-w.done:
		case <-ctx.Done():
			s.cosigning.leave(w)
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("have witnesses cosign: %w", err)
	}
	return nil
}

// answer is what became of asking one witness in one round.
type witnessAnswer struct {
	asked bool
	sig   proof.Cosignature
	err   error
}

// cosignRound has every witness that has not done so cosign the host checkpoint
// p, all at once. The checkpoint has been anchored and published
// before: a witness that answers late, or never, delays nothing. What comes
// back is stored and synced before it is shown; a crash before that loses
// cosignatures which the next round gets again. seal may be nil: then the state
// of the quorum is left to the next round.
func (s *Store) cosignRound(ctx context.Context, p *Published, seal func(*request) error) error {
	if len(s.cfg.Witnesses) == 0 {
		return nil
	}
	answers := s.ask(ctx, p)
	if ctx.Err() != nil {
		return context.Cause(ctx) // their silence is ours
	}
	merged, err := s.storeCosignatures(p, answers)
	if err != nil {
		return err
	}
	if err := s.judgeDisputes(ctx, p, answers, seal); err != nil {
		return err
	}
	return s.judgeQuorum(merged, seal)
}

// ask asks the witnesses in parallel. One that has cosigned p already is not
// asked again.
func (s *Store) ask(ctx context.Context, p *Published) []witnessAnswer {
	answers := make([]witnessAnswer, len(s.cfg.Witnesses))
	before, _, _ := s.Witnesses()
	var asking sync.WaitGroup
	for i, w := range s.cfg.Witnesses {
		if before[i].Size == p.Size && before[i].Problem == "" {
			continue
		}
		answers[i].asked = true
		asking.Go(func() {
			answers[i].sig, answers[i].err = w.Cosign(ctx, p.Checkpoint, p.Note, before[i].Size, func(from uint64) ([]record.Hash, error) {
				path, err := s.host.ProveConsistency(from, p.Size)
				return fromPath(path), err
			})
		})
	}
	asking.Wait()
	return answers
}

// storeCosignatures adds what came back to the stored checkpoint, and to the
// published one if it is still that.
func (s *Store) storeCosignatures(p *Published, answers []witnessAnswer) (*Published, error) {
	var add []proof.Cosignature
	for _, a := range answers {
		if a.asked && a.err == nil {
			add = append(add, a.sig)
		}
	}
	merged := p
	if len(add) > 0 {
		msg, err := proof.AddCosignatures(p.Note, add...)
		if err != nil {
			return nil, err
		}
		merged = &Published{Checkpoint: p.Checkpoint, Note: msg, Cosigned: true, key: p.key}
		if err := s.storeCosigned(merged, answers); err != nil {
			return nil, err
		}
	}
	s.cosigning.mu.Lock()
	defer s.cosigning.mu.Unlock()
	for i, a := range answers {
		w := &s.cosigning.witnesses[i]
		switch {
		case !a.asked:
		case a.err == nil:
			w.Size, w.Time, w.Problem, w.Disputed = p.Size, a.sig.Time, "", false
			w.Cosigned++
		default:
			w.Problem = a.err.Error()
			w.Failures++
		}
	}
	return merged, nil
}

func (s *Store) storeCosigned(merged *Published, answers []witnessAnswer) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }() // committed or given up by then
	err := batch.Set(keySeq(tableCheckpoint, s.host.id, merged.Size), merged.Note, nil)
	for i, a := range answers {
		if a.asked && a.err == nil {
			err = errors.Join(err, batch.Set(keyMeta(metaWitness, []byte(s.cfg.Witnesses[i].Key().ID())), witnessRow{size: merged.Size, time: a.sig.Time}.append(nil), nil))
		}
	}
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	if err != nil {
		return s.fail(fmt.Errorf("store cosigned checkpoint: %w", err))
	}
	if now := s.host.published.Load(); now != nil && now.Size == merged.Size {
		s.host.published.Store(merged)
	}
	return nil
}

// judgeDisputes looks at witnesses which say that they know another history. A
// checkpoint that this host's key signed and this log does not contain ends
// everything (invariant I6). A word alone does not: else any witness, and
// whoever can answer in its place, could stop the host. It is sealed, once.
func (s *Store) judgeDisputes(ctx context.Context, p *Published, answers []witnessAnswer, seal func(*request) error) error {
	for i, a := range answers {
		var d *proof.DisputeError
		if !errors.As(a.err, &d) {
			continue
		}
		w := s.cfg.Witnesses[i]
		if msg, err := w.Latest(ctx, s.host.origin); err == nil {
			if c, err := proof.OpenCheckpoint(msg, s.host.verifier); err == nil && s.host.contains(c) != nil {
				// What an operator gave up is no news, and stays a dispute.
				known, err := s.gaveUp(c.Size)
				if err != nil {
					return s.fail(err)
				}
				if known {
					s.cfg.Log.Warn("a witness holds history that a restore has given up; its operator must begin anew with this log", slog.String("witness", w.Key().Name), slog.Uint64("size", c.Size))
				} else {
					return s.fail(&ForkError{Witness: w.Key().Name, Origin: c.Origin, Size: c.Size, Root: c.Root, OurSize: s.host.Size(), Evidence: msg})
				}
			}
		}
		s.cosigning.mu.Lock()
		state := &s.cosigning.witnesses[i]
		known := state.Disputed
		state.Disputed = true
		row := witnessRow{size: state.Size, time: state.Time, disputed: true}
		s.cosigning.mu.Unlock()
		if known || seal == nil {
			continue
		}
		s.cfg.Log.Error("a witness disputes the host log", slog.String("witness", w.Key().Name), slog.Any("error", d))
		m := s.witnessState(p.Size, "")
		m.Dispute = d.Error()
		if err := s.sealWitness(record.ClassWitnessDisputed, m, seal, keyMeta(metaWitness, []byte(w.Key().ID())), row.append(nil)); err != nil {
			return err
		}
	}
	return nil
}

// judgeQuorum seals that the quorum was lost or is reached again: once for
// each change, across restarts.
func (s *Store) judgeQuorum(p *Published, seal func(*request) error) error {
	_, err := s.cfg.Quorum.Check(p.Note)
	missing := ""
	if err != nil {
		missing = err.Error()
	}
	s.cosigning.mu.Lock()
	changed := s.cosigning.short != (missing != "")
	s.cosigning.missing = missing
	if missing == "" {
		s.cosigning.cosigned = p
	}
	s.cosigning.mu.Unlock()
	if !changed || seal == nil {
		return nil
	}
	class, row := record.ClassWitnessRestored, []byte{witnessVersion, 0}
	if missing != "" {
		class, row[1] = record.ClassWitnessShortfall, 1
		s.cfg.Log.Warn("witnesses do not cosign the host log", slog.String("missing", missing))
	}
	if err := s.sealWitness(class, s.witnessState(p.Size, missing), seal, keyMeta(metaQuorum, nil), row); err != nil {
		return err
	}
	s.cosigning.mu.Lock()
	defer s.cosigning.mu.Unlock()
	if s.cosigning.short = missing != ""; s.cosigning.short {
		s.cosigning.falls++
	}
	return nil
}

// maxProblem bounds what an entry repeats of an error, in bytes.
const maxProblem = 1024

func (s *Store) witnessState(size uint64, missing string) *record.WitnessState {
	all, _, _ := s.Witnesses()
	m := &record.WitnessState{Size: size, Missing: missing}
	for _, w := range all {
		problem := record.Printable([]byte(w.Problem[:min(len(w.Problem), maxProblem)]))
		m.Answers = append(m.Answers, &record.WitnessAnswer{Name: w.Name, Key: w.Key, Size: w.Size, Time: w.Time, Problem: problem})
	}
	return m
}

// sealWitness seals a change together with the row that remembers it: a crash
// leaves both or neither.
func (s *Store) sealWitness(class record.Class, m *record.WitnessState, seal func(*request) error, key, row []byte) error {
	e, err := s.Draft(record.OriginHost, class, m)
	if err != nil {
		return err
	}
	r := newRequest(Batch{Log: s.host, Entries: []Entry{e}})
	r.extra = func(b *pebble.Batch, _ []Sealed) error { return b.Set(key, row, nil) }
	if err := seal(r); err != nil {
		return fmt.Errorf("seal %s: %w", class, err)
	}
	return nil
}

// lastCosign runs when everything else has ended: what is sealed last should
// be witnessed as well, since a host that is down is easily tampered with.
// Nothing can be sealed about it any more.
func (s *Store) lastCosign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p := s.host.published.Load()
	if p == nil {
		return
	}
	if err := s.cosignRound(ctx, p, nil); err != nil {
		s.cfg.Log.Warn("the last checkpoint is not witnessed", slog.Any("error", err))
	}
}

// witnessRow is an M 'w' row: 1 version, 8 size that the witness cosigned last,
// 8 time of that in Unix seconds, 1 flags (1: it disputes the log).
type witnessRow struct {
	size     uint64
	time     int64
	disputed bool
}

const (
	witnessVersion = 1
	witnessRowSize = 18
)

func (r witnessRow) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, witnessVersion), r.size)
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	if r.disputed {
		return append(b, 1)
	}
	return append(b, 0)
}

func parseWitness(b []byte) (witnessRow, error) {
	if len(b) != witnessRowSize || b[0] != witnessVersion || b[17] > 1 {
		return witnessRow{}, fmt.Errorf("parse witness row: %d bytes do not make a row of version %d", len(b), witnessVersion)
	}
	return witnessRow{size: binary.BigEndian.Uint64(b[1:]), time: int64(binary.BigEndian.Uint64(b[9:])), disputed: b[17] == 1}, nil
}

// loadWitnesses brings back what is known of the configured witnesses.
func (s *Store) loadWitnesses() error {
	s.cosigning.mu.Lock()
	defer s.cosigning.mu.Unlock()
	for i := range s.cosigning.witnesses {
		w := &s.cosigning.witnesses[i]
		row, ok, err := get(s.db, keyMeta(metaWitness, []byte(w.Key)))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r, err := parseWitness(row)
		if err != nil {
			return corrupt("witness %s: %v", w.Name, err)
		}
		if r.size > s.host.Size() {
			return corrupt("witness %s has cosigned size %d, the host log has %d leaves", w.Name, r.size, s.host.Size())
		}
		w.Size, w.Time, w.Disputed = r.size, r.time, r.disputed
	}
	row, ok, err := get(s.db, keyMeta(metaQuorum, nil))
	if err != nil {
		return err
	}
	if ok && (len(row) != 2 || row[0] != witnessVersion || row[1] > 1) {
		return corrupt("the row of the quorum holds %x", row)
	}
	s.cosigning.short = ok && row[1] == 1
	return s.loadCosigned()
}

// witnessRows checks what fsck finds of witnesses.
func (f *fsck) witnessRows(context.Context) error {
	host := uint64(0)
	if f.s.host != nil {
		host = f.heads[f.s.host.id].size
	}
	err := scan(f.s.db, []byte{tableMeta, metaWitness}, func(key, value []byte) error {
		if r, err := parseWitness(value); err != nil {
			f.find("witness", nil, nil, "%s: %v", record.Printable(key[2:]), err)
		} else if r.size > host {
			f.find("witness", nil, nil, "%s has cosigned size %d, the host log has %d leaves", record.Printable(key[2:]), r.size, host)
		}
		return nil
	})
	if err != nil {
		return err
	}
	row, ok, err := get(f.s.db, keyMeta(metaQuorum, nil))
	if ok && (len(row) != 2 || row[0] != witnessVersion || row[1] > 1) {
		f.find("witness", nil, nil, "the row of the quorum holds %x", row)
	}
	return err
}

// loadCosigned finds the newest stored host checkpoint that reaches the quorum.
// It looks at a few only: during a long outage many are stored that do not, and
// the next round makes a newer one anyway.
func (s *Store) loadCosigned() (err error) {
	if len(s.cfg.Witnesses) == 0 {
		return nil
	}
	it, err := s.db.NewIter(iterBounds(keyLog(tableCheckpoint, s.host.id)))
	if err != nil {
		return fmt.Errorf("find cosigned checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for n, ok := 0, it.Last(); ok && n < 64; n, ok = n+1, it.Prev() {
		msg, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read cosigned checkpoint: %w", err)
		}
		if _, err := s.cfg.Quorum.Check(msg); err != nil {
			continue
		}
		c, err := proof.OpenCheckpoint(msg, s.host.verifier)
		if err != nil {
			return corrupt("stored checkpoint of %s: %v", s.host.origin, err)
		}
		if err := s.host.contains(c); err != nil {
			return corrupt("stored checkpoint of %s: %v", s.host.origin, err)
		}
		s.cosigning.cosigned = &Published{Checkpoint: c, Note: slices.Clone(msg), Cosigned: true, key: s.cfg.Keys.HostPublic()}
		return nil
	}
	return it.Error()
}
