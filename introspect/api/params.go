package api

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/record"
)

// params reads parameters and keeps the first error, which wraps
// record.ErrReject and says which parameter is wrong.
type params struct {
	v   url.Values
	err error
}

func (c *call) params() *params { return &params{v: c.v} }

func (p *params) parse(name string, f func(string) error) {
	s := p.v.Get(name)
	if s == "" || p.err != nil {
		return
	}
	if err := f(s); err != nil {
		p.err = fmt.Errorf("%s is %q: %w: %w", name, clip(s), err, record.ErrReject)
	}
}

// process reads a process of a guest: its id, and its start where several have had
// that. What would not narrow an answer is refused: it was meant to.
func (p *params) process() (pid uint32, start uint64) {
	p.parse("pid", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		if err == nil && n == 0 {
			err = errors.New("no process has this id")
		}
		pid = uint32(n)
		return err
	})
	p.parse("start", func(s string) (err error) {
		if start, err = strconv.ParseUint(s, 10, 64); err == nil && start == 0 {
			err = errors.New("want nanoseconds above 0; leave it out for any start")
		}
		return err
	})
	if p.err == nil && start != 0 && pid == 0 {
		p.err = fmt.Errorf("start says which of several processes with one pid is meant: give pid as well: %w", record.ErrReject)
	}
	return pid, start
}

func (p *params) pattern(name string, into *index.Pattern) {
	p.parse(name, func(s string) (err error) { *into, err = index.ParsePattern(s); return err })
}

func (p *params) time(name string, into *int64) {
	p.parse(name, func(s string) error {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || t.Year() < 1970 || t.Year() > 2200 {
			return fmt.Errorf("want a time such as 2026-11-23T06:00:00Z")
		}
		*into = t.UnixNano()
		return nil
	})
}

// number returns a number of entries. def is what it is where it is not given;
// without one it must be.
func (p *params) number(name string, def *uint64) (n uint64) {
	if p.v.Get(name) == "" {
		if def != nil {
			return *def
		}
		if p.err == nil {
			p.err = fmt.Errorf("parameter %s is missing: %w", name, record.ErrReject)
		}
		return 0
	}
	p.parse(name, func(s string) error {
		var err error
		if n, err = strconv.ParseUint(s, 10, 63); err != nil {
			return fmt.Errorf("want a number of entries")
		}
		return nil
	})
	return n
}

func (p *params) boolean(name string, def bool) bool {
	p.parse(name, func(s string) error {
		if s != "true" && s != "false" {
			return fmt.Errorf("want true or false")
		}
		def = s == "true"
		return nil
	})
	return def
}

// classes turns patterns of names into classes, each once; none were asked for
// where there are none.
func (p *params) classes() (out []record.Class) {
	for _, pattern := range p.v["class"] {
		found := false
		for _, k := range record.Classes() {
			if ok, err := path.Match(pattern, k.String()); !ok || err != nil {
				continue
			}
			if found = true; !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
		if !found && p.err == nil {
			p.err = fmt.Errorf("no class matches %q; such are process.exec, file.*, policy.*: %w", clip(pattern), record.ErrReject)
		}
	}
	return out
}
