package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/rules"
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/replay"
)

// errReplaying refuses a replay beside another: each keeps a processor busy.
var errReplaying = fmt.Errorf("policies are being replayed for somebody else: %w", record.ErrRetry)

// replayPolicies judges recorded entries by a bundle that an operator sends, beside
// the one in force. Nothing is sealed, and nothing done.
func (d *Daemon) replayPolicies(ctx context.Context, body io.Reader, logs []*chain.Log, since time.Time, progress func(done, total uint64)) (*client.Replayed, error) {
	in, b, diags, err := d.policies.receive(body)
	if err != nil {
		return nil, err
	}
	defer in.discard()
	out := &client.Replayed{Diagnostics: diags, Read: []client.ReadLog{}}
	if b == nil {
		out.Reason = "the bundle does not load"
		return out, nil
	}
	r, read, err := d.replay(ctx, b, logs, since, progress)
	if err != nil {
		return nil, err
	}
	out.Read = read
	out.Report, err = json.Marshal(r)
	return out, err
}

// replay judges the entries of VM logs since a time, and those ahead of it that
// policies would remember.
func (d *Daemon) replay(ctx context.Context, b *policy.Bundle, logs []*chain.Log, since time.Time, progress func(done, total uint64)) (*replay.TrialReport, []client.ReadLog, error) {
	if !d.policies.replaying.TryLock() {
		return nil, nil, errReplaying
	}
	defer d.policies.replaying.Unlock()
	opts := d.policies.options()
	opts.Recorded = true // what this host cannot do is refused when it is applied
	candidate, err := rules.New(b, opts)
	if err != nil {
		return nil, nil, err
	}
	active, _ := d.policies.current()
	t := replay.NewTrial(candidate, active, since, func() time.Duration { return time.Since(d.started) })
	parts, total, err := partsOf(logs, since.Add(-t.Window()))
	if err != nil {
		return nil, nil, err
	}
	done := uint64(0)
	read := []client.ReadLog{}
	for _, p := range parts {
		uuid := p.log.Name().Domain
		t.Begin(p.log.Origin(), uuid, d.name(uuid))
		err := p.read(ctx, t, d.policies.nothing, func() {
			if done++; done%progressEvery == 0 {
				progress(done, total)
			}
		})
		if err != nil {
			return nil, nil, fmt.Errorf("replay %s: %w", p.log.Origin(), err)
		}
		read = append(read, client.ReadLog{Log: p.log.Origin(), First: p.from, Last: p.to - 1})
	}
	return t.Report(), read, nil
}

// progressEvery is how many entries are judged between two words on how far it is.
const progressEvery = 4096

// logPart is what is read of a log: the entries from from, before to.
type logPart struct {
	log      *chain.Log
	from, to uint64
}

// partsOf chooses what of VM logs was sealed at a time or later.
func partsOf(logs []*chain.Log, since time.Time) (parts []logPart, total uint64, err error) {
	for _, l := range logs {
		if l.Name().IsHost() || l.Gone() != nil {
			continue
		}
		to := l.Size()
		from, err := l.FirstAt(since.UnixNano())
		if err != nil {
			return nil, 0, err
		}
		if from < to {
			parts = append(parts, logPart{l, from, to})
			total += to - from
		}
	}
	return parts, total, nil
}

// learnAhead is how many entries ahead of a part tell of the domain: its state, mostly.
const learnAhead = 1024

// read has the entries of a part judged; each calls done.
func (p *logPart) read(ctx context.Context, t *replay.Trial, nothing *rules.Engine, done func()) error {
	ahead := max(p.log.Minimum(), p.from-min(p.from, learnAhead))
	if p.from > 0 && ahead > 0 {
		if err := p.learn(t, nothing, 0); err != nil {
			return err
		}
	}
	for i := ahead; i < p.from; i++ {
		if err := p.learn(t, nothing, i); err != nil {
			return err
		}
	}
	for next := p.from; next < p.to; next++ { // an entry that cannot be read ends Read, and is passed
		for it, err := range p.log.Read(ctx, next, p.to) {
			if errors.Is(err, chain.ErrUnreadable) || errors.Is(err, chain.ErrPruned) {
				break
			}
			if err != nil {
				return err
			}
			next = it.Index + 1
			m, err := it.Decode()
			if err != nil {
				m = nil // erased, or it does not decode: nobody can judge it
			}
			if err := t.Entry(it.Leaf, it.LeafHash, m); err != nil {
				return err
			}
			done()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *logPart) learn(t *replay.Trial, nothing *rules.Engine, index uint64) error {
	it, err := p.log.Look(index)
	if errors.Is(err, chain.ErrPruned) || err == nil && it.LeafBytes == nil {
		return nil // gone: the rest tells what it can
	}
	if err != nil {
		return err
	}
	m, err := it.Decode()
	if err != nil {
		return nil
	}
	return t.Learn(nothing, it.Leaf, it.LeafHash, m)
}

// budget replays a bundle ahead of its coming in force, and says why it must not;
// "" where it may.
func (d *Daemon) budget(ctx context.Context, b *policy.Bundle, q client.ApplyQuery, out *client.Applied) (string, error) {
	if q.MaxActions == nil {
		return "", nil
	}
	r, _, err := d.replay(ctx, b, d.store.Logs(), q.Since, func(uint64, uint64) {})
	if err != nil {
		return "", err
	}
	r.Noisy = nil // words of payloads, which are given by a replay only
	if out.Replay, err = json.Marshal(r); err != nil {
		return "", err
	}
	if r.Wanted > *q.MaxActions {
		return fmt.Sprintf("since %s it would have wanted %d actions, more than the %d allowed", r.Since, r.Wanted, *q.MaxActions), nil
	}
	return "", nil
}
