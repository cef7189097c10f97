package hostbench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The sender is this test binary, started again: a process of its own that
// plays all guests, so that neither its memory nor its garbage is the host's.
// It obeys one line at a time on its standard input and answers each with a
// line of JSON.

// senderPlan is what a sender is started with.
type senderPlan struct {
	Sockets []string   `json:"sockets"` // one for each guest
	Domains [][16]byte `json:"domains"`
	Epoch   [16]byte   `json:"epoch"`
	Frames  []int      `json:"frames"` // made ahead, for each guest
	Events  []int      `json:"events"` // in each frame
}

const planVariable = "PROVOST_HOSTBENCH_SENDER"

func TestMain(m *testing.M) {
	if plan := os.Getenv(planVariable); plan != "" {
		if err := runSender(plan, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "sender:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// player is one guest of a sender.
type player struct {
	*agent
	listener *net.UnixListener
	frames   [][]byte
}

func runSender(text string, in io.Reader, out io.Writer) error {
	var plan senderPlan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		return err
	}
	players, err := makePlayers(&plan)
	if err != nil {
		return err
	}
	answer := json.NewEncoder(out)
	if err := answer.Encode("ready"); err != nil {
		return err
	}
	floods := map[int]*flood{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		var result any
		switch word {
		case "greet": // all guests, in order
			for _, p := range players {
				if err = p.accept(p.listener); err != nil {
					break
				}
			}
		case "stream": // all guests at once, all frames
			result, err = streamAll(players)
		case "round": // GUEST N: N frames, one after the other
			result, err = rounds(players, rest)
		case "flood": // GUEST: what it has, until told to stop
			n, _ := strconv.Atoi(rest)
			floods[n] = startFlood(players[n])
		case "calm": // GUEST
			n, _ := strconv.Atoi(rest)
			result, err = floods[n].end()
		default:
			err = fmt.Errorf("there is no word %q", word)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := answer.Encode(result); err != nil {
			return err
		}
	}
	return nil
}

func makePlayers(plan *senderPlan) ([]*player, error) {
	var all []*player
	for i, path := range plan.Sockets {
		a, err := newAgent(plan.Domains[i], plan.Epoch, uint64(0x1000+i))
		if err != nil {
			return nil, err
		}
		p := &player{agent: a}
		for n := range plan.Frames[i] {
			events, err := mix(n*plan.Events[i], plan.Events[i])
			if err != nil {
				return nil, err
			}
			f, err := a.frame(events)
			if err != nil {
				return nil, err
			}
			p.frames = append(p.frames, f)
		}
		if p.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// take removes the next n frames of those made ahead.
func (p *player) take(n int) ([][]byte, error) {
	if n > len(p.frames) {
		return nil, fmt.Errorf("%d frames wanted, %d are left", n, len(p.frames))
	}
	f := p.frames[:n]
	p.frames = p.frames[n:]
	return f, nil
}

func streamAll(players []*player) (any, error) {
	errs := make([]error, len(players))
	began := time.Now()
	var wg sync.WaitGroup
	for i, p := range players {
		wg.Go(func() { errs[i] = p.stream(p.frames) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

func rounds(players []*player, rest string) (any, error) {
	var guest, n int
	if _, err := fmt.Sscan(rest, &guest, &n); err != nil {
		return nil, err
	}
	frames, err := players[guest].take(n)
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, 0, n)
	for _, f := range frames {
		d, err := players[guest].round(f)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return took, nil
}

// flood streams frames until it is ended.
type flood struct {
	stop chan struct{}
	done chan error
	sent int
}

// floodBatch is how many frames go out between two looks at whether to stop.
const floodBatch = 32

func startFlood(p *player) *flood {
	f := &flood{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		for {
			select {
			case <-f.stop:
				f.done <- nil
				return
			default:
			}
			frames, err := p.take(floodBatch)
			if err == nil {
				err = p.stream(frames)
			}
			if err != nil {
				f.done <- err
				return
			}
			f.sent += len(frames)
		}
	}()
	return f
}

func (f *flood) end() (any, error) {
	close(f.stop)
	err := <-f.done
	return f.sent, err
}

// sender is the parent's end.
type sender struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startSender(plan *senderPlan) (*sender, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &sender{cmd: exec.Command(exe)}
	s.cmd.Env = append(os.Environ(), planVariable+"="+string(text))
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = json.NewDecoder(out)
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sender: %w", err)
	}
	var ready string
	if err := s.out.Decode(&ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start sender: %w", err), s.close())
	}
	return s, nil
}

// tell sends a line and decodes the answer into v.
func (s *sender) tell(v any, format string, args ...any) error {
	if _, err := fmt.Fprintf(s.in, format+"\n", args...); err != nil {
		return fmt.Errorf("tell sender: %w", err)
	}
	if v == nil {
		var ignored any
		v = &ignored
	}
	if err := s.out.Decode(v); err != nil {
		return fmt.Errorf("tell sender %q: %w", fmt.Sprintf(format, args...), err)
	}
	return nil
}

func (s *sender) close() error {
	err := s.in.Close()
	return errors.Join(err, s.cmd.Wait())
}
