package probe

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxCommand bounds the arguments that are told of an old process, and
	// maxCommands those of all that are kept until they are told, in bytes.
	maxCommand  = 4096
	maxCommands = 1 << 20
	// commandWait is how long one process's arguments may take, and
	// commandsWait all. Reading them reads memory of the process, which a
	// user's file system may have to bring and never does: a reader that waits
	// for it cannot be called back, and maxCommandReaders may be lost so.
	commandWait       = 250 * time.Millisecond
	commandsWait      = 2 * time.Second
	maxCommandReaders = 2
)

// oldProcess is one that ran before the agent did, and what to check it by.
type oldProcess struct {
	id         identity
	executable []byte
}

type command struct {
	id identity
	before
}

// commands are read behind proc, of processes that ran before the agent did, in
// the order given, and passed to f. Those that nobody could read in time are
// left out. A reader that hangs ends with the process, or when it is answered.
func commands(ctx context.Context, proc string, all []oldProcess, wait, most time.Duration, f func(*command)) {
	if len(all) == 0 {
		return
	}
	found := make(chan command) // a reader waits until it is taken
	over := make(chan struct{})
	defer close(over)
	var next atomic.Int64
	reader := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(all) {
				return
			}
			c := command{all[i].id, readBefore(proc, &all[i])}
			select {
			case found <- c:
			case <-over:
				return
			}
		}
	}
	end, one := time.NewTimer(most), time.NewTimer(wait)
	defer end.Stop()
	defer one.Stop()
	readers := 1
	go reader()
	for left := len(all); left > 0; {
		select {
		case c := <-found:
			f(&c)
			left--
			one.Reset(wait)
		case <-one.C:
			if readers++; readers > maxCommandReaders {
				return
			}
			one.Reset(wait)
			go reader()
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// readBefore is what /proc has beside the name of the executable. Unlike what
// exec tells, the arguments are what the process has left of them.
func readBefore(proc string, of *oldProcess) (b before) {
	dir := filepath.Join(proc, strconv.Itoa(int(of.id.pid)))
	f, err := os.Open(dir + "/cmdline")
	if err != nil {
		return b
	}
	defer f.Close()
	// One more than is told: whether there is more.
	line, err := io.ReadAll(io.LimitReader(f, maxCommand+1))
	if err != nil {
		return b
	}
	var st unix.Stat_t
	if unix.Stat(dir+"/exe", &st) == nil { // kernel threads have none
		b.device, b.inode = st.Dev, st.Ino
	}
	// It must still be that process, with that program.
	exe, err := os.Readlink(dir + "/exe")
	if string(bytes.TrimSuffix([]byte(exe), []byte(" (deleted)"))) != string(of.executable) && err == nil {
		return before{}
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return before{}
	}
	if _, _, ticks, ok := parseStat(stat); !ok || ticks != of.id.start/userTick {
		return before{}
	}
	b.read, b.length, b.cut = true, uint64(len(line)), len(line) > maxCommand
	b.args = arguments(line[:min(len(line), maxCommand)])
	return b
}

// learnCommands has the table know the arguments of old processes, as far as
// they can be read at once. What is told of one before, or instead, says that
// they are missing.
func (p *Probe) learnCommands(ctx context.Context) {
	var all []oldProcess
	for pid, x := range p.dec.table.live {
		if x.old != nil && !x.old.read {
			all = append(all, oldProcess{identity{pid, x.start}, x.executable})
		}
	}
	kept := 0
	commands(ctx, "/proc", all, commandWait, commandsWait, func(c *command) {
		x := p.dec.table.live[c.id.pid]
		if x == nil || x.start != c.id.start || x.old == nil {
			return
		}
		if n := len(c.args)*24 + int(c.length); kept+n > maxCommands {
			c.args, c.cut = nil, true
		} else {
			kept += n
		}
		*x.old = c.before
	})
}
