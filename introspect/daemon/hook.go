package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

// The hook of libvirt asks here before QEMU runs a domain, on a socket of its own
// that only root may use. A request is a line "provost-hook 1 LENGTH" and that many
// bytes of domain XML; the answer is a line, "ok" or "no" with the reason. Libvirt
// waits for it with the domain locked, so nothing that it takes may ask libvirt.
const (
	hookGreeting = "provost-hook 1 "
	hookPatience = 10 * time.Second
	maxHookXML   = 4 << 20
	// hooksAtOnce bounds the requests that are worked on; more wait in the backlog.
	hooksAtOnce = 16
)

// hookDoor answers the hook of libvirt.
type hookDoor struct {
	ask func(ctx context.Context, xml string) error
	log *slog.Logger
}

// serve answers until ctx ends, and waits for the answers under way.
func (h *hookDoor) serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var answers sync.WaitGroup
	defer answers.Wait()
	room := make(chan struct{}, hooksAtOnce)
	for {
		room <- struct{}{}
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("answer the hook of libvirt: %w", err)
		}
		answers.Go(func() {
			defer func() { <-room }()
			defer c.Close()
			h.answer(ctx, c)
		})
	}
}

func (h *hookDoor) answer(ctx context.Context, c net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, hookPatience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	text, err := readHook(c)
	if err == nil {
		err = h.ask(ctx, text)
	}
	line := "ok\n"
	if err != nil {
		h.log.ErrorContext(ctx, "the hook of libvirt is told no", "error", err)
		line = "no " + strings.ReplaceAll(err.Error(), "\n", "; ") + "\n"
	}
	if _, err := io.WriteString(c, line); err != nil {
		h.log.WarnContext(ctx, "the hook of libvirt did not wait for its answer", "error", err)
	}
}

func readHook(r io.Reader) (string, error) {
	b := bufio.NewReaderSize(io.LimitReader(r, maxHookXML+64), 64)
	line, err := b.ReadSlice('\n')
	if err != nil {
		return "", fmt.Errorf("read the hook's request: %w: %w", err, record.ErrReject)
	}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), hookGreeting)
	n, err := strconv.ParseUint(rest, 10, 32)
	if !ok || err != nil || n > maxHookXML {
		return "", fmt.Errorf("read the hook's request: it begins %.40q: %w", line, record.ErrReject)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(b, text); err != nil {
		return "", fmt.Errorf("read the hook's domain XML: %w: %w", err, record.ErrReject)
	}
	return string(text), nil
}

// before guards the taps of a domain that is about to run. It asks libvirt nothing,
// and seals nothing: both might wait for the domain that waits for this. The next
// comparison seals.
func (g *guards) before(ctx context.Context, text string) error {
	e, _ := g.d.policies.current()
	want, err := guardedXML(text, g.d.cfg.Egress.SourceMAC, e)
	if err != nil {
		return err
	}
	return g.director.Before(ctx, want)
}

// Hook is what libvirt's hook for QEMU does: while a domain starts, when its taps
// exist and QEMU does not run yet, it has the daemon guard them. An error keeps the
// domain from starting. Where the daemon cannot be asked or cannot guard a tap though
// a policy is about the domain, the setting egress.fail decides.
func Hook(ctx context.Context, cfg *Config, operation, sub string, xml io.Reader, log *slog.Logger) error {
	if operation != "start" || sub != "begin" || cfg.Egress == nil {
		return nil
	}
	err := askHook(ctx, cfg.Egress.HookSocket, xml)
	if err == nil {
		return nil
	}
	if cfg.Egress.Fail == failOpen {
		log.WarnContext(ctx, "a domain starts though its taps are not guarded yet", "error", err)
		return nil
	}
	return fmt.Errorf("the domain is not started, because what it sends could not be filtered (egress.fail): %w", err)
}

func askHook(ctx context.Context, socket string, xml io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, hookPatience)
	defer cancel()
	text, err := io.ReadAll(io.LimitReader(xml, maxHookXML+1))
	if err != nil {
		return fmt.Errorf("read the domain's XML: %w", err)
	}
	if len(text) > maxHookXML {
		return fmt.Errorf("read the domain's XML: it has more than %d bytes: %w", maxHookXML, record.ErrReject)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("ask provostd: %w; is it running?", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := fmt.Fprintf(c, "%s%d\n%s", hookGreeting, len(text), text); err != nil {
		return fmt.Errorf("ask provostd: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(c, 64<<10))
	switch said := strings.TrimSpace(string(answer)); {
	case said == "ok":
		return nil
	case strings.HasPrefix(said, "no "):
		return fmt.Errorf("provostd says: %s: %w", said[3:], record.ErrReject)
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("ask provostd: no answer within %s", hookPatience)
	default:
		return fmt.Errorf("ask provostd: it answers %.40q: %w", said, errors.Join(err, record.ErrRetry))
	}
}
