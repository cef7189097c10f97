package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ClearHost ends what an earlier run has left running in dir and removes dir. It refuses when the
// program that made it still runs and has not given it up with Keep, and when dir holds files but
// is no host's directory.
func ClearHost(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "host.json"))
	if errors.Is(err, fs.ErrNotExist) {
		entries, rerr := os.ReadDir(dir)
		if errors.Is(rerr, fs.ErrNotExist) || rerr == nil && len(entries) == 0 {
			return nil
		}
		for _, e := range entries {
			// An interrupted NewHost leaves at most these behind.
			if !strings.Contains(" etc lib cache log run dev sys root host.json.tmp ", " "+e.Name()+" ") {
				return fmt.Errorf("clear host: %s holds %s and no host.json: it is no host's directory; name another one", dir, e.Name())
			}
		}
		return os.RemoveAll(dir)
	}
	if err != nil {
		return fmt.Errorf("clear host: %w", err)
	}
	var s hostState
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("clear host: read %s/host.json: %w", dir, err)
	}
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("clear host: %w", err)
	}
	if s.Boot == boot {
		if s.Owner.alive() && !s.Kept && s.Owner.Pid != os.Getpid() {
			return fmt.Errorf("clear host: %s is in use by process %d", dir, s.Owner.Pid)
		}
		if err := s.end(dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// end stops every process of the host. While the holder lives its UTS namespace cannot have been
// given to anybody else, so every process in it is the host's. Without it only libvirtd (known by
// its start time) and the QEMUs that libvirt's own pid files name are stopped.
func (s hostState) end(dir string) error {
	var errs []error
	errs = append(errs, s.Daemon.stop(10*time.Second))
	if s.Holder.alive() && s.UTS != "" {
		for _, p := range processesIn(s.UTS) {
			if p != s.Holder && p.Pid != os.Getpid() {
				errs = append(errs, p.stop(3*time.Second))
			}
		}
	} else {
		errs = append(errs, endByPidFiles(dir))
	}
	errs = append(errs, s.Holder.stop(time.Second))
	return errors.Join(errs...)
}

// endByPidFiles stops the QEMU processes named by libvirt's pid files, if their command line says
// that they belong to a domain of that name.
func endByPidFiles(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "run/qemu/*.pid"))
	if err != nil {
		return fmt.Errorf("stop guests: %w", err)
	}
	var errs []error
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(string(data), &pid); err != nil {
			continue
		}
		p, err := findProcess(pid)
		if err != nil {
			continue
		}
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name := strings.TrimSuffix(filepath.Base(f), ".pid")
		if err != nil || !bytes.Contains(argv, []byte("\x00guest="+name+",")) {
			continue
		}
		errs = append(errs, p.stop(3*time.Second))
	}
	return errors.Join(errs...)
}
