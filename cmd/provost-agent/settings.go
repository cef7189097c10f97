package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provostd/provost/guestagent/probe"
	"github.com/provostd/provost/guestagent/spool"
	"github.com/provostd/provost/guestagent/wire"
)

// settings are the flags. The configuration file has the same names.
type settings struct {
	port        string
	mode        probe.Mode
	logLevel    slog.Level
	queueBytes  int
	options     probe.Options
	allocate    uint64
	budget      uint64
	digestBytes uint64
	protect     bool
	allowKill   bool
	check       time.Duration
	spoolBytes  int64
	spoolDir    string
	showVersion bool
}

const (
	// maxSpool bounds what is kept in memory about the spool: some hundred
	// bytes for each 64 KiB.
	maxSpool = 16 << 30
	// minSpoolQueue is what the queue needs beside a spool: memory in which
	// records wait while the disk is slow.
	minSpoolQueue = 1 << 20
)

// defaultConfig is read if it is there; one that is named must be there.
const defaultConfig = "/etc/provost/agent.conf"

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("provost-agent", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.port, "port", wire.PortName, "virtio-serial port: its name, or the path of its device or of a unix socket")
	mode := f.String("mode", string(probe.ModeAuto), "where file events come from: auto, lsm or tracepoint")
	level := f.String("log-level", "info", "debug, info, warn or error")
	f.IntVar(&s.queueBytes, "queue-bytes", 8<<20, "memory for records that wait for the host, in bytes; at least 65536")
	classes := f.String("classes", "none", "optional classes of events, separated by commas: signals, unix, dns, renames, digests; or none")
	f.Uint64Var(&s.allocate, "allocate-bytes", 64<<20, "growth of a process's memory by one call from which on it is told, in bytes; 0: none")
	f.Uint64Var(&s.budget, "budget", 50000, "acts upon files, networks and memory that a process may do in a second before they are told as sums; 0: any number")
	f.Int64Var(&s.spoolBytes, "spool-bytes", 0, "disk for records that wait for the host when memory fills, encrypted, in bytes; 0: none, else at least 1048576")
	f.StringVar(&s.spoolDir, "spool-directory", "/var/lib/provost-agent", "where they are put")
	f.Uint64Var(&s.digestBytes, "digest-bytes", 64<<20, "size of the largest executable or written file whose SHA-256 is told, in bytes; 0: none is read")
	protect := f.String("protect", "on", "on: refuse to be killed, traced or detached, where the kernel allows it, until the host stops the agent; off: obey signals")
	kill := f.String("allow-kill", "off", "on: the host's policies may have processes of this guest killed; off: they are refused")
	f.DurationVar(&s.check, "check", 10*time.Second, "how often it is proven that the hooks are there and fire; 0: at the start only")
	config := f.String("config", defaultConfig, "configuration file: lines of NAME = VALUE, with the names of these flags")
	f.BoolVar(&s.showVersion, "version", false, "print the version and end")
	if err := f.Parse(args); err != nil {
		return settings{}, err
	}
	if f.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q: all settings are flags", f.Arg(0))
	}
	if s.showVersion {
		return s, nil
	}
	if err := readConfig(f, *config); err != nil {
		return settings{}, err
	}
	var errs []error
	var err error
	if s.mode, err = probe.ParseMode(*mode); err != nil {
		errs = append(errs, err)
	}
	if err := s.logLevel.UnmarshalText([]byte(*level)); err != nil {
		errs = append(errs, fmt.Errorf("parse log-level %q: want debug, info, warn or error", *level))
	}
	if s.queueBytes < 64<<10 || s.queueBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("queue-bytes is %d: want 65536 to 1073741824", s.queueBytes))
	}
	if s.options, err = probe.ParseOptions(*classes); err != nil {
		errs = append(errs, err)
	}
	switch {
	case s.spoolBytes == 0:
	case s.spoolBytes < spool.MinBytes || s.spoolBytes > maxSpool:
		errs = append(errs, fmt.Errorf("spool-bytes is %d: want 0, or %d to %d", s.spoolBytes, spool.MinBytes, int64(maxSpool)))
	case s.queueBytes < minSpoolQueue:
		errs = append(errs, fmt.Errorf("queue-bytes is %d: with a spool want at least %d", s.queueBytes, minSpoolQueue))
	case !filepath.IsAbs(s.spoolDir):
		errs = append(errs, fmt.Errorf("spool-directory is %q: want an absolute path", s.spoolDir))
	}
	switch *protect {
	case "on", "off":
		s.protect = *protect == "on"
	default:
		errs = append(errs, fmt.Errorf("protect is %q: want on or off", *protect))
	}
	switch *kill {
	case "on", "off":
		s.allowKill = *kill == "on"
	default:
		errs = append(errs, fmt.Errorf("allow-kill is %q: want on or off", *kill))
	}
	if s.port == "" {
		errs = append(errs, errors.New("port is empty"))
	}
	return s, errors.Join(errs...)
}

// readConfig sets the flags that the command line has not set.
func readConfig(f *flag.FlagSet, path string) error {
	given := map[string]bool{}
	f.Visit(func(x *flag.Flag) { given[x.Name] = true })
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !given["config"] {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer file.Close()
	seen := map[string]bool{}
	in := bufio.NewScanner(file)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch x := f.Lookup(name); {
		case !ok:
			return fmt.Errorf("%s:%d: %q is not of the form NAME = VALUE", path, n, line)
		case x == nil || name == "config" || name == "version":
			return fmt.Errorf("%s:%d: there is no setting %q; see provost-agent -help", path, n, name)
		case seen[name]:
			return fmt.Errorf("%s:%d: %s is set twice", path, n, name)
		case given[name]:
			// The command line wins.
		default:
			if err := f.Set(name, value); err != nil {
				return fmt.Errorf("%s:%d: set %s: %w", path, n, name, err)
			}
		}
		seen[name] = true
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	return nil
}
