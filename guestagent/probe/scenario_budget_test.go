package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

const stormActs = 4000

func init() {
	actors["storm-network"] = func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for range stormActs {
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
				return err
			}
		}
		return unix.Close(fd)
	}
	actors["storm-files"] = func(dir string) error {
		for i := range stormActs {
			name := filepath.Join(dir, fmt.Sprint(i))
			if err := errors.Join(os.WriteFile(name, []byte("x"), 0o600), os.Rename(name, name+".new"), os.Remove(name+".new")); err != nil {
				return err
			}
		}
		// In the storm one act upon a file of somebody else's.
		return os.WriteFile(filepath.Join(dir, "victim"), []byte("x"), 0o600)
	}
}

// covers says whether the hooks record names a hook for a class.
func covers(p *Probe, class record.Class) bool {
	return slices.ContainsFunc(p.Hooks().Hooks, func(h *record.Hook) bool { return record.Class(h.Class) == class && h.Name != "" })
}

// A process beyond its budget is folded, not dropped: its events, the sums and
// what is declared lost make up what it did, to the last act.
func TestBudget(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("loading programs takes root")
	}
	p, err := Open(Config{Mode: Mode(*mode), Budget: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, x := range []struct {
		actor   string
		classes []record.Class
	}{
		{"storm-network", []record.Class{record.ClassNetworkConnect}},
		{"storm-files", []record.Class{record.ClassFileCreate, record.ClassFileModify, record.ClassFileClose, record.ClassFileRename, record.ClassFileDelete}},
	} {
		t.Run(x.actor, func(t *testing.T) {
			c := &collector{lost: map[uint32]uint64{}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx, c) }()
			dir := workDir(t)
			victim := filepath.Join(dir, "victim")
			if err := os.WriteFile(victim, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			pid := uint32(actor(t, dir, x.actor, dir).Process.Pid)
			c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			hit := func(s seen) bool {
				return s.h.Class == record.ClassFileModify && s.e.Process.Pid == pid && string(s.e.File.Path) == victim
			}
			if x.actor == "storm-files" && c.count(hit) != 1 {
				t.Errorf("%d events of the write to another's file, want 1", c.count(hit))
			}
			var lost uint64
			for _, n := range c.lost {
				lost += n
			}
			if n := c.count(func(s seen) bool {
				return s.h.Class == record.ClassAgentAggregating && s.e.Process.Pid == pid && s.e.Reason == "began"
			}); n == 0 {
				t.Error("nothing says that the process is over its budget")
			}
			for _, class := range x.classes {
				if !covers(p, class) {
					t.Logf("%s is not covered here", class)
					continue
				}
				var whole, folded uint64
				for _, s := range c.all {
					switch {
					case string(s.e.File.GetPath()) == victim: // beside the storm
					case s.h.Class != class || s.e.Process.Pid != pid:
					case s.e.Flags&record.EventAggregated == 0:
						whole++
					default:
						folded += s.e.Count
						if s.e.Until < s.h.Time || len(s.e.Process.Executable) == 0 {
							t.Errorf("sum %v", s.e)
						}
						if f := s.e.File; f != nil && f.Flags&record.FileUserPath == 0 && string(f.Path) != dir {
							t.Errorf("sum of directory %q, want %q", f.Path, dir)
						}
					}
				}
				t.Logf("%s: %d told, %d folded, %d lost of all classes", class, whole, folded, lost)
				if whole+folded > stormActs || whole+folded+lost < stormActs {
					t.Errorf("%s: %d told and %d folded and %d lost of %d", class, whole, folded, lost, stormActs)
				}
				if folded < stormActs/2 {
					t.Errorf("%s: only %d of %d folded", class, folded, stormActs)
				}
			}
		})
	}
}
