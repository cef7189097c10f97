package chain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/provostd/provost/chain/keys"
	"github.com/provostd/provost/chain/record"
)

// checkDir is the environment variable by which TestResultsCheck knows that it is the
// child of a measurement; checkDo is what it is to do, checkSize how much of it.
const (
	checkDir  = "PROVOST_RESULTS_CHECK"
	checkDo   = checkDir + "_DO"
	checkSize = checkDir + "_SIZE"
)

// measureEntries has fsck, and an archive, read one log of more than 2^22 entries.
func measureEntries(t *testing.T, report reporter) {
	measureCheck(t, report, "entries", scaled(1<<22+5000), "fsck", "archive")
}

// measureQuotes has fsck, and a repair, read a host log of a million quotes.
func measureQuotes(t *testing.T, report reporter) {
	measureCheck(t, report, "quotes", scaled(1_000_000), "fsck", "repair")
}

// measureCheck reads a store in several ways, each in a process of its own, whose memory
// is told.
func measureCheck(t *testing.T, report reporter, fill string, n int, read ...string) {
	dir := t.TempDir()
	if _, err := keys.Create(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	checkInChild(t, dir, fill, n)
	for _, do := range read {
		start := time.Now()
		peak := checkInChild(t, dir, do, n)
		name := "chain.check." + fill + "." + do
		report(name, float64(n)/time.Since(start).Seconds(), fill+"/s", "")
		report(name+".rss_peak", peak/1024, "MiB", "target<=512")
	}
}

// checkInChild does one thing in a process of its own and returns its peak of resident
// memory in KiB.
func checkInChild(t *testing.T, dir, do string, n int) (peak float64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestResultsCheck$", "-test.timeout", "60m")
	cmd.Env = append(os.Environ(), checkDir+"="+dir, checkDo+"="+do, fmt.Sprintf("%s=%d", checkSize, n))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", do, err, out)
	}
	_, text, _ := strings.Cut(string(out), "peak ")
	text, _, _ = strings.Cut(text, "\n")
	if peak, err = strconv.ParseFloat(text, 64); err != nil || peak == 0 {
		t.Fatalf("%s tells no peak of memory: %s", do, out)
	}
	return peak
}

// TestResultsCheck is the child of TestResults/entries and TestResults/quotes.
func TestResultsCheck(t *testing.T) {
	dir := os.Getenv(checkDir)
	if dir == "" {
		t.Skip("runs as a child of TestResults")
	}
	n, err := strconv.Atoi(os.Getenv(checkSize))
	if err != nil {
		t.Fatal(err)
	}
	cfg := manyConfig(t, dir)
	switch do := os.Getenv(checkDo); do {
	case "entries", "quotes":
		s := mustCreate(t, cfg)
		stop := run(t, s)
		if do == "entries" {
			fillEntries(t, s, n)
		} else {
			fillQuotes(t, s, n)
		}
		waitPacked(t, s)
		shutdown(t, s, stop)
	case "fsck", "repair":
		spool, err := os.Create(filepath.Join(dir, "spool"))
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		if do == "fsck" {
			if r, err := Fsck(t.Context(), cfg, FsckOptions{Spool: spool}); err != nil || !r.OK() || r.Entries < uint64(n) {
				t.Fatalf("fsck: %+v, %v", r, err)
			}
			break
		}
		edit(t, cfg, func(db *pebble.DB) { flipRow(t, db, keyLog(tableHead, 1), 20) })
		if r, err := Repair(t.Context(), cfg, FsckOptions{Spool: spool}); err != nil || len(r.Done) == 0 {
			t.Fatalf("repair: %+v, %v", r, err)
		}
	case "archive":
		s := mustOpen(t, cfg)
		stop := run(t, s)
		if a, err := s.Archive(t.Context(), s.Logs()[1], io.Discard, ArchiveOptions{}); err != nil || a.Size < uint64(n) {
			t.Fatalf("archive: %+v, %v", a, err)
		}
		shutdown(t, s, stop)
	default:
		t.Fatalf("do %q?", do)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			fmt.Printf("peak %s\n", bytes.Fields(rest)[0])
		}
	}
}

// fillEntries fills one log with frames and closes it.
func fillEntries(t *testing.T, s *Store, n int) {
	t.Helper()
	l := mustCreateLog(t, s, 1)
	day := newGuestDay()
	frames := make([][]Entry, 128)
	for i := range frames {
		frames[i], _ = day.frame(t, s, 255)
	}
	var ring [32]*Pending
	for i := 0; int(l.Size()) < n; i++ {
		p := &ring[i%len(ring)]
		if *p != nil {
			if _, err := (*p).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if *p, err = s.Submit(t.Context(), Batch{Log: l, Entries: frames[i%len(frames)]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseLog(context.Background(), l, "it is large", ""); err != nil {
		t.Fatal(err)
	}
}

// fillQuotes has the host log quote n times what a hundred logs have signed: the quotes
// of one size follow each other, which costs as much to check as others.
func fillQuotes(t *testing.T, s *Store, n int) {
	t.Helper()
	const steps = 16
	host := s.HostLog()
	var logs []*Log
	for i := range manyLogs {
		logs = append(logs, mustCreateLog(t, s, i))
	}
	for step := range uint64(steps) {
		var quotes []Entry
		for _, l := range logs {
			mustAppend(t, s, Batch{Log: l, Entries: []Entry{hostEntry(t, s, "grows")}})
		}
		for _, l := range logs {
			if err := s.CheckpointNow(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			p, _ := l.Checkpoint()
			e, err := s.Draft(record.OriginHost, record.ClassVMCheckpoint, &record.VMCheckpoint{Origin: l.origin, Size: p.Size, Note: p.Note})
			if err != nil {
				t.Fatal(err)
			}
			quotes = append(quotes, e)
		}
		for host.Size() < uint64(n)*(step+1)/steps {
			b := Batch{Log: s.host}
			for range 20 {
				b.Entries = append(b.Entries, quotes...)
			}
			mustAppend(t, s, b)
		}
	}
}
