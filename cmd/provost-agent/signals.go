package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endings are the signals that ask a process to end. The runtime would end the
// agent at each of them.
var endings = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// signalPause bounds how often a signal is answered: each answer is a record,
// and who may signal the agent may do so in a loop. Signals that come meanwhile
// are one, as they are to the kernel.
const signalPause = time.Second

// obey gives every signal to terminate until ctx ends.
func obey(ctx context.Context, signals <-chan os.Signal, pause time.Duration, terminate func(context.Context, string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			name := fmt.Sprint(s)
			if n, ok := s.(unix.Signal); ok {
				name = unix.SignalName(n)
			}
			terminate(ctx, name)
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// takesDown are the programs that the first process becomes to take the
// machine down.
var takesDown = []string{"systemd-shutdown", "shutdown", "halt", "poweroff", "reboot", "kexec"}

// watchInit returns what tells whether the machine is going down: the first
// process, of which exe is the link in /proc, has executed a program that takes
// it down. systemd does so before it signals what is left. The link's text
// alone proves nothing, since it follows the renaming of the file; neither does
// another file alone, since an upgrade of init replaces it.
func watchInit(exe string) func() bool {
	before, err := initProgram(exe)
	return func() bool {
		now, errNow := initProgram(exe)
		return err == nil && errNow == nil && now.file != before.file && now.path != before.path &&
			slices.Contains(takesDown, filepath.Base(now.path))
	}
}

// program is what a process runs: the file itself, and where it lies now.
type program struct {
	file struct{ dev, ino uint64 }
	path string
}

func initProgram(exe string) (p program, err error) {
	if p.path, err = os.Readlink(exe); err != nil {
		return program{}, fmt.Errorf("read program of the first process: %w", err)
	}
	p.path = strings.TrimSuffix(p.path, " (deleted)")
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil { // of the file that runs, wherever it is
		return program{}, fmt.Errorf("look at program of the first process: %w", err)
	}
	p.file.dev, p.file.ino = st.Dev, st.Ino
	return p, nil
}
