package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// process is a program that observes while workloads run.
type process struct {
	cmd    *exec.Cmd
	out    output
	waited chan error
}

// output gathers what a program says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func startProcess(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), waited: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { p.waited <- p.cmd.Wait() }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// end asks the program to end, and insists after a while.
func (p *process) end(s os.Signal) error {
	_ = p.cmd.Process.Signal(s) // it may have ended by itself: Wait says so
	t := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer t.Stop()
	if err := <-p.waited; err != nil {
		return fmt.Errorf("%s ended: %w: %s", filepath.Base(p.cmd.Path), err, &p.out)
	}
	return nil
}

// observer is a configuration under which workloads run.
type observer interface {
	// pids are those whose use of the machine is counted.
	pids() []int
	// drained waits until all of a workload has been told, and checks it.
	drained(ctx context.Context, d *done) error
	// end stops it.
	end(ctx context.Context) error
}

// nothing is the agent installed and not running.
type nothing struct{}

func (nothing) pids() []int                          { return nil }
func (nothing) drained(context.Context, *done) error { return nil }
func (nothing) end(context.Context) error            { return nil }
func startNothing(context.Context) (observer, error) { return nothing{}, nil }

// agent is the real one, with its host.
type agent struct {
	p    *process
	host *host
	work string
	dir  string
	lost acts // declared when the last workload had been taken in
}

// startAgent returns when the agent observes and all programs are attached.
func startAgent(ctx context.Context, bin, work, dir string) (_ *agent, err error) {
	if dir, err = os.MkdirTemp(dir, "agent"); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "agent.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		return nil, err
	}
	a := &agent{work: work, dir: dir, lost: acts{}}
	socket := filepath.Join(dir, "port")
	if a.host, err = listen(socket); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.host.close())
		}
	}()
	if a.p, err = startProcess(bin, "-config", conf, "-port", socket, "-mode", "tracepoint"); err != nil {
		return nil, err
	}
	accept, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err = a.host.accept(accept); err == nil {
		err = a.host.until(ctx, "hooks record", func() bool { return a.host.hooks != nil })
	}
	if err == nil {
		err = a.mark(ctx)
	}
	if err != nil {
		_ = a.p.cmd.Process.Kill()
		return nil, errors.Join(err, <-a.p.waited, errors.New(a.p.out.String()))
	}
	return a, nil
}

func (a *agent) pids() []int { return []int{a.p.pid()} }

// mark waits for the end of a process that begins now: events come in the
// order of their times, so all before it are there. Where even that end was
// lost, the next one is waited for.
func (a *agent) mark(ctx context.Context) error {
	for range 100 {
		d, err := work(ctx, &workload{args: []string{"idle", "1"}}, a.work, a.dir)
		if err != nil {
			return err
		}
		lost := a.host.anyLost
		if err := a.host.until(ctx, "end of a marker", func() bool { return a.host.ended[d.pid] || a.host.anyLost > lost }); err != nil {
			return err
		}
		if a.host.ended[d.pid] {
			return nil
		}
	}
	return errors.New("the agent goes on losing events")
}

func (a *agent) drained(ctx context.Context, d *done) error {
	if err := a.mark(ctx); err != nil {
		return err
	}
	// Sums come some seconds later.
	err := a.host.until(ctx, "sums", func() bool { return a.host.check(d, a.lost) == nil })
	if err != nil {
		err = errors.Join(a.host.check(d, a.lost), err)
	}
	a.lost = acts{}
	for c, n := range a.host.lost {
		a.lost[c] = n
	}
	a.host.forget()
	return err
}

func (a *agent) end(ctx context.Context) error {
	// A hole may still be waiting for its explanation: see guestagent.
	err := a.mark(ctx)
	if err == nil {
		err = a.host.until(ctx, "balanced books", func() bool { return a.host.balanced() == nil })
	}
	if err != nil {
		err = errors.Join(err, a.host.balanced())
	}
	err = errors.Join(err, a.p.end(os.Interrupt))
	return errors.Join(err, a.host.close(), os.RemoveAll(a.dir))
}
