package harness

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Result is what a script did in a guest.
type Result struct {
	Stdout, Stderr string // each at most 4 MiB
	Status         int    // exit status; 128 + signal number when it was killed
	Truncated      bool   // a stream was longer than 4 MiB
}

// Control speaks with the control shell of one guest. Methods may be called at the same time. The
// connection is made when it is needed and made again after it broke.
type Control struct {
	path func(context.Context) (string, error)

	mu      sync.Mutex
	conn    net.Conn
	done    chan struct{} // closed when the reader of conn has ended
	waiting map[string]chan reply
}

type reply struct {
	boot string
	res  Result
	err  error
}

var errControlLost = errors.New("control channel broke")

func newControl(path func(context.Context) (string, error)) *Control {
	return &Control{path: path, waiting: map[string]chan reply{}}
}

// Run runs a shell script in the guest and waits for its end. The error is about the channel; how
// the script ended is in Result.Status. When ctx ends first the script is killed.
func (c *Control) Run(ctx context.Context, script string) (Result, error) {
	id := newID()
	r, err := c.ask(ctx, id, "RUN "+id+" "+base64.StdEncoding.EncodeToString([]byte(script+"\n")))
	if err != nil {
		if ctx.Err() != nil {
			c.mu.Lock()
			if c.conn != nil {
				_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = c.conn.Write([]byte("KILL " + id + "\n")) // best effort: the guest may be gone
			}
			c.mu.Unlock()
		}
		return Result{}, fmt.Errorf("run script in guest: %w", err)
	}
	return r.res, nil
}

// Output runs a script and returns what it printed; an exit status other than 0 is an error.
func (c *Control) Output(ctx context.Context, script string) (string, error) {
	r, err := c.Run(ctx, script)
	if err != nil {
		return "", err
	}
	if r.Status != 0 {
		return r.Stdout, fmt.Errorf("run script in guest: exit status %d: %s", r.Status, strings.TrimSpace(r.Stderr))
	}
	return r.Stdout, nil
}

// BootID asks the guest for its boot id, once, with a short deadline of its own.
func (c *Control) BootID(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	id := newID()
	r, err := c.ask(ctx, id, "PING "+id)
	if err != nil {
		return "", fmt.Errorf("ask guest for its boot id: %w", err)
	}
	return r.boot, nil
}

// WaitBoot waits until the control shell answers from a boot other than the given one and returns
// its boot id; "" takes any boot.
func (c *Control) WaitBoot(ctx context.Context, not string) (string, error) {
	for {
		boot, err := c.BootID(ctx)
		if err == nil && boot != not {
			return boot, nil
		}
		if err == nil {
			err = errors.New("it has not restarted yet")
		}
		if werr := pause(ctx, 100*time.Millisecond); werr != nil {
			return "", fmt.Errorf("wait for guest: %w (last: %w)", werr, err)
		}
	}
}

// Close ends the connection and waits for its reader.
func (c *Control) Close() error {
	c.mu.Lock()
	conn, done := c.conn, c.done
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	err := conn.Close()
	<-done
	if errors.Is(err, net.ErrClosed) {
		return nil // the reader met the end of the connection first
	}
	return err
}

func (c *Control) ask(ctx context.Context, id, line string) (reply, error) {
	ch := make(chan reply, 1) // the reader never blocks on it: one reply for an id
	if err := c.send(ctx, id, line, ch); err != nil {
		return reply{}, err
	}
	select {
	case r := <-ch:
		return r, r.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return reply{}, ctx.Err()
	}
}

func (c *Control) send(ctx context.Context, id, line string, ch chan reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		path, err := c.path(ctx)
		if err != nil {
			return err
		}
		conn, err := DialUnix(ctx, path)
		if err != nil {
			return err
		}
		c.conn, c.done = conn, make(chan struct{})
		go c.read(conn, c.done)
	}
	c.waiting[id] = ch
	// A guest that does not read yet (it boots) lets the socket fill up: never wait for it longer than the caller.
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetWriteDeadline(deadline)
	if _, err := c.conn.Write([]byte(line + "\n")); err != nil {
		delete(c.waiting, id)
		c.conn.Close() // half a line may be under way: the reader ends and the next call connects anew
		return fmt.Errorf("write to guest: %w", err)
	}
	return nil
}

// read takes replies until the connection ends. It owns the partial results.
func (c *Control) read(conn net.Conn, done chan struct{}) {
	defer close(done)
	partial := map[string]*reply{}
	sc := bufio.NewScanner(conn)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 {
			continue
		}
		id := f[1]
		switch {
		case f[0] == "PONG" && len(f) == 3:
			c.deliver(id, reply{boot: f[2]})
		case f[0] == "BEGIN" && len(f) == 4:
			status, _ := strconv.Atoi(f[2])
			partial[id] = &reply{res: Result{Status: status, Truncated: f[3] == "1"}}
		case (f[0] == "O" || f[0] == "E") && len(f) == 3 && partial[id] != nil:
			b, err := base64.StdEncoding.DecodeString(f[2])
			if err != nil {
				partial[id].err = fmt.Errorf("decode guest output: %w", err)
				continue
			}
			if f[0] == "O" {
				partial[id].res.Stdout += string(b)
			} else {
				partial[id].res.Stderr += string(b)
			}
		case f[0] == "END" && partial[id] != nil:
			c.deliver(id, *partial[id])
			delete(partial, id)
		}
	}
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	for id, ch := range c.waiting {
		ch <- reply{err: errControlLost}
		delete(c.waiting, id)
	}
}

func (c *Control) deliver(id string, r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.waiting[id]; ok {
		ch <- r
		delete(c.waiting, id)
	}
}

func newID() string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails on Linux
	}
	return hex.EncodeToString(b[:])
}

// pause waits for d or for the end of ctx, whose error it returns then.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// DialUnix connects to a unix socket whose path may be longer than the 107 bytes of a socket
// address: it then goes through a descriptor of the directory.
func DialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	addr := path
	if len(path) > 100 {
		dir, err := os.OpenFile(filepath.Dir(path), syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", path, err)
		}
		defer dir.Close()
		addr = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return conn.(*net.UnixConn), nil
}
