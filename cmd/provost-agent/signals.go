package main

import (
	"context"
	"fmt"
	"os"
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

// watchInit returns what tells whether the machine is going down: the first
// process has become another program then. systemd runs systemd-shutdown in
// its place before it signals what is left; it keeps its own when it is only
// replaced by a newer version of itself.
func watchInit(link string) func() bool {
	before, err := initProgram(link)
	return func() bool {
		now, errNow := initProgram(link)
		return err == nil && errNow == nil && now != before
	}
}

func initProgram(link string) (string, error) {
	s, err := os.Readlink(link)
	if err != nil {
		return "", fmt.Errorf("read program of the first process: %w", err)
	}
	return strings.TrimSuffix(s, " (deleted)"), nil
}
