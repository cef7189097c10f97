package guestagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/wire"
)

// maxResults bounds answers to commands that wait to be written; a host that
// asks faster than it reads gets no more.
const maxResults = 8

// maxPause bounds the growing pause between attempts to open, as a multiple of
// Config.Retry: with the default a port that is plugged in is found within a
// second.
const maxPause = 16

// servePorts keeps a port open until ctx ends.
func (a *Agent) servePorts(ctx context.Context) {
	said := ""
	pause := a.cfg.Retry
	for ctx.Err() == nil {
		p, err := a.cfg.Open()
		if err == nil {
			said, pause = "", a.cfg.Retry
			a.cfg.Log.DebugContext(ctx, "port is open")
			err = a.servePort(ctx, p)
		}
		a.away()
		if ctx.Err() != nil {
			return
		}
		// The same trouble again and again is told once.
		if s := err.Error(); s != said {
			said = s
			a.cfg.Log.WarnContext(ctx, "channel to the host is not usable, trying on", "error", err)
		}
		a.pause(ctx, pause)
		pause = min(2*pause, maxPause*a.cfg.Retry)
	}
}

func (a *Agent) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// away ends the conversation: nothing is made or sent before the next Hello.
func (a *Agent) away() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conv.welcomed = false
	a.conv.body = nil
	a.sent = 0
}

// servePort lives as long as one open port. It closes it.
func (a *Agent) servePort(ctx context.Context, p Port) error {
	a.mu.Lock()
	a.greet = true // a host that is connected already does not know of us
	a.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = p.Close() }) // makes both directions return
	defer stop()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		if err := a.write(ctx, p); err != nil {
			cancel(err)
		}
	}()
	err := a.read(ctx, p)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	<-wrote
	return err
}

// read takes the host's messages.
func (a *Agent) read(ctx context.Context, p Port) error {
	r := wire.NewReader(p)
	for {
		e, err := r.Read()
		switch {
		case errors.Is(err, ErrAway):
			a.away()
			// What was left of the host before belongs to nobody.
			r = wire.NewReader(p)
			a.pause(ctx, a.cfg.Retry)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		case errors.Is(err, wire.ErrGarbage):
			a.cfg.Log.DebugContext(ctx, "bytes on the channel that are no message", "error", err)
			if e.Type == 0 {
				continue
			}
		case err != nil:
			return fmt.Errorf("read port: %w", err)
		}
		if err := a.take(ctx, e); err != nil {
			// The host does not lie to us, but another program may have
			// connected in its place: this message is worth nothing, the
			// next one may be.
			a.cfg.Log.WarnContext(ctx, "message of the host is not usable", "type", e.Type.String(), "error", err)
		}
	}
}

func (a *Agent) take(ctx context.Context, e wire.Envelope) error {
	switch e.Type {
	case wire.TypeHello:
		return a.greeted(ctx, e.Body)
	case wire.TypeWelcome:
		w, err := wire.ParseWelcome(e.Body)
		if err != nil {
			return err
		}
		if w.Refused {
			a.cfg.Log.WarnContext(ctx, "host refuses this agent", "reason", w.Reason)
			return nil
		}
		a.mu.Lock()
		if a.conv.body == nil {
			a.mu.Unlock()
			return errors.New("welcome without a hello")
		}
		a.conv.welcomed, a.conv.welcome = true, w
		resend := len(a.retained)
		a.spool.nudge() // the writer wants what is on the disk
		a.mu.Unlock()
		a.cfg.Log.InfoContext(ctx, "connected to the host", "resend", resend)
	case wire.TypeAck:
		ack, err := wire.ParseAck(e.Body)
		if err != nil {
			return err
		}
		if !a.acknowledged(ctx, &ack) {
			return nil // nothing waits for room in the window
		}
	case wire.TypeHeartbeat:
		h, err := wire.ParseHeartbeat(e.Body)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.conv.nonce, a.conv.beat = h.Nonce, true
		a.conv.clock = hostClock{h.Time, a.cfg.Boot()}
		if a.conv.body == nil {
			a.greet = true // the host takes us for another
		}
		a.mu.Unlock()
	case wire.TypeCommand:
		if err := a.command(ctx, e.Body); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a host does not send it: %w", record.ErrReject)
	}
	a.Flush()
	return nil
}

// greeted begins a conversation. Frames that the host has sealed already are
// let go of; the others will be sent again, in order.
func (a *Agent) greeted(ctx context.Context, body []byte) error {
	h, err := wire.ParseHello(body)
	if err != nil {
		return err
	}
	if h.MinVersion > wire.Version || h.MaxVersion < wire.Version {
		return fmt.Errorf("host speaks versions %d to %d, this agent speaks %d", h.MinVersion, h.MaxVersion, wire.Version)
	}
	a.mu.Lock()
	tamper := a.pinKey(&h)
	a.mu.Unlock()
	if tamper != nil {
		a.cfg.Log.WarnContext(ctx, "host has another command key", "detail", tamper.Detail, "refused", tamper.Refused)
		a.tell(ctx, record.ClassAgentTamper, &record.Event{Tamper: tamper})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conv = conversation{number: a.conv.number + 1, hello: h, body: bytes.Clone(body), nonce: a.conv.nonce}
	a.sent, a.greet = 0, false
	if h.LastSession == a.session {
		a.release(ctx, h.LastFrame, &h.LastFrameHash)
		if h.LastFrame > a.acked.Frame && !h.LastHash.IsZero() {
			a.acked = wire.Ack{Session: a.session, Frame: h.LastFrame, Index: h.LastIndex, Hash: h.LastHash}
		}
		if h.LastFrame < a.acked.Frame {
			// The host has lost what it said was durable. It hears of it
			// in the Ident and decides; what is still here is sent.
			a.cfg.Log.ErrorContext(ctx, "host is behind its own acknowledgement",
				"acked", a.acked.Frame, "sealed", h.LastFrame)
		}
	}
	a.settle()
	a.Flush()
	return nil
}

// release lets go of frames up to number. Where hash is given, and the frame
// of that number is another one here, nothing is let go of: the host has
// sealed a history that is not ours. The lock is held.
func (a *Agent) release(ctx context.Context, number uint64, hash *record.Hash) {
	n := 0
	for n < len(a.retained) && a.retained[n].number <= number {
		f := a.retained[n]
		if hash != nil && f.number == number && f.hash != *hash {
			a.cfg.Log.ErrorContext(ctx, "host has sealed another frame under this number", "frame", number,
				"ours", f.hash.String(), "sealed", hash.String())
			return
		}
		n++
	}
	clear(a.retained[:n])
	a.retained = a.retained[n:]
	a.sent = max(0, a.sent-n)
}

// acknowledged takes an answer to a frame. Answers come in the order of the
// frames, so one speaks for all before it. It reports whether the writer may
// have something to do now.
func (a *Agent) acknowledged(ctx context.Context, ack *wire.Ack) bool {
	if ack.Session != a.session {
		return false // meant for another run of the agent
	}
	if ack.Refused {
		a.cfg.Log.ErrorContext(ctx, "host refuses a frame, its records are lost", "frame", ack.Frame, "reason", ack.Reason)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// A frame that was not sent in this conversation cannot be answered in it.
	if a.sent == 0 || ack.Frame > a.retained[a.sent-1].number {
		return false
	}
	a.release(ctx, ack.Frame, nil)
	if !ack.Hash.IsZero() && ack.Frame > a.acked.Frame {
		a.acked = *ack
	}
	a.settle()
	return a.sent < len(a.retained) || a.queue.len() > 0 || a.losses.any() || a.spool.holds()
}

// write sends what there is to send. Only this goroutine writes to the port.
func (a *Agent) write(ctx context.Context, p Port) error {
	var w *wire.Writer
	var conv uint64
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		a.mu.Lock()
		var ident, greeting []byte
		if a.conv.body != nil && a.conv.number != conv {
			// A new Hello goes before all else, and starts a new count.
			conv, w = a.conv.number, wire.NewWriter(p)
			ident = a.ident()
		} else if a.conv.body == nil && a.greet {
			a.greet = false
			w = wire.NewWriter(p)
			greeting = a.greeting()
		}
		var result *wire.Result
		if ident == nil && a.conv.welcomed && len(a.results) > 0 {
			result = &a.results[0]
			a.results = a.results[1:]
		}
		talking := a.conv.body != nil && conv == a.conv.number
		wait := a.wait()
		a.mu.Unlock()

		var err error
		did := false
		if greeting != nil {
			did, err = true, w.Write(wire.TypeHeartbeat, greeting)
		} else if ident != nil {
			did, err = true, w.Write(wire.TypeIdent, ident)
		} else if talking {
			did, err = a.say(w, result)
		}
		if err != nil {
			return fmt.Errorf("write port: %w", err)
		}
		if did {
			continue
		}
		tick.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-a.kick:
		case <-tick.C:
		}
	}
}

// say writes one message and reports whether there was one.
func (a *Agent) say(w *wire.Writer, result *wire.Result) (bool, error) {
	if result != nil {
		return true, w.Write(wire.TypeResult, result.AppendBinary(nil))
	}
	if h := a.heartbeat(time.Now()); h != nil {
		return true, w.Write(wire.TypeHeartbeat, h)
	}
	body, err := a.nextFrame()
	if body == nil || err != nil {
		return false, err
	}
	return true, w.Write(wire.TypeFrame, body)
}

// wait is how long the writer may sleep. The lock is held; lanes are the
// writer's own.
func (a *Agent) wait() time.Duration {
	if !a.conv.welcomed {
		return time.Hour // a message of the host wakes it
	}
	d := a.interval()
	if a.lanes.waiting() {
		d = min(d, holePatience/2)
	}
	return d
}
