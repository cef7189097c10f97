package chain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// measureAppends seals one batch after the other and writes the same rows to
// Pebble without a ledger.
func measureAppends(t *testing.T, report reporter) {
	s := mustCreate(t, diskConfig(t))
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	raw := newRaw(t)
	targets := map[int]string{1: "target>=1000", 64: "target>=50000", 1024: "target>=100000"}
	for _, n := range []int{1, 64, 1024} {
		entries := frames(t, n)
		var ledger, pebble []float64
		var lat []time.Duration
		for range 4 {
			rate, _ := timed(lasting(800*time.Millisecond), n, func() { raw.write(t, entries) })
			pebble = append(pebble, rate)
			rate, some := timed(lasting(800*time.Millisecond), n, func() { mustAppend(t, s, Batch{Log: l, Entries: entries}) })
			ledger, lat = append(ledger, rate), append(lat, some...)
			waitPacked(t, s)
		}
		name := fmt.Sprintf("chain.append.batch%d", n)
		report(name, mean(ledger), "records/s", targets[n])
		report(name+".ack_p50", quantile(lat, 0.5), "us", "target<=2000")
		report(name+".ack_p99", quantile(lat, 0.99), "us", "target<=20000")
		report(name+".raw", mean(pebble), "records/s", "")
		report(name+".over_raw", mean(ledger)/mean(pebble), "times", "target>=0.7")
	}
	start := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	report("chain.stop", float64(time.Since(start).Milliseconds()), "ms", "target<=1000")
}

// waitPacked returns when the packer has done all that it can: what is owed to
// one measurement is not paid in the next.
func waitPacked(t testing.TB, s *Store) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(5 * time.Minute); ; <-look.C {
		behind := uint64(0)
		for _, l := range s.Logs() {
			behind += l.Size()/tileWidth - l.packed.Load()
		}
		if behind == 0 {
			return
		}
		if err := s.Err(); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d bundles are not packed: %v", behind, err)
		}
	}
}

// inFlight keeps n records on their way in batches of the given size, over the
// logs in turn, for about d.
func inFlight(t testing.TB, s *Store, logs []*Log, entries []Entry, n, batch int, d time.Duration) (rate float64, lat []time.Duration) {
	t.Helper()
	type waiting struct {
		since   time.Time
		pending *Pending
	}
	ring := make([]waiting, n/batch)
	ctx := context.Background()
	start := time.Now()
	for i := 0; time.Since(start) < d; i++ {
		w := &ring[i%len(ring)]
		if w.pending != nil {
			if _, err := w.pending.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			lat = append(lat, time.Since(w.since))
		}
		at := i * batch % len(entries)
		p, err := s.Submit(ctx, Batch{Log: logs[i%len(logs)], Entries: entries[at : at+batch]})
		if err != nil {
			t.Fatal(err)
		}
		*w = waiting{time.Now(), p}
	}
	rate = float64(len(lat)*batch) / time.Since(start).Seconds()
	for _, w := range ring { // what is left is not counted
		if w.pending != nil {
			if _, err := w.pending.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rate, lat
}

// measurePeers has the ledger, Tessera's POSIX driver and Pebble take turns with
// the same numbers of entries in flight: entries of 200 bytes, each a batch of
// its own, all in one log. Of each peer the best way to set it up counts.
func measurePeers(t *testing.T, report reporter) {
	peer := buildTessera(t)
	for _, c := range []struct {
		n       int
		tessera [][2]string // batch, age
		target  string
	}{
		{64, [][2]string{{"64", "5ms"}, {"256", "5ms"}}, "target>=20"},
		{8192, [][2]string{{"8192", "250ms"}, {"4096", "250ms"}}, "target>=5"},
	} {
		s := mustCreate(t, diskConfig(t))
		stop := run(t, s)
		logs := []*Log{mustCreateLog(t, s, 1)}
		raw := newRaw(t)
		entries := frames(t, 8192)
		var ledger, packed, pebble []float64
		tessera, tesseraP50 := make([][]float64, len(c.tessera)), make([][]float64, len(c.tessera))
		var lat []time.Duration
		for range 3 {
			start, before, commits := time.Now(), logs[0].Size(), s.durable.Load()
			rate, some := inFlight(t, s, logs, entries, c.n, 1, lasting(3*time.Second))
			ledger, lat = append(ledger, rate), append(lat, some...)
			batch := max(int(logs[0].Size()-before)/int(s.durable.Load()-commits), 1)
			waitPacked(t, s)
			packed = append(packed, float64(logs[0].Size()-before)/time.Since(start).Seconds())
			rate, _ = timed(lasting(2*time.Second), batch, func() { raw.write(t, entries[:batch]) })
			pebble = append(pebble, rate)
			for i, how := range c.tessera {
				rate, p50 := runTessera(t, peer, c.n, how[0], how[1], lasting(3*time.Second))
				tessera[i], tesseraP50[i] = append(tessera[i], rate), append(tesseraP50[i], p50)
			}
		}
		best := 0.0
		for i, how := range c.tessera {
			name := fmt.Sprintf("chain.in_flight%d.tessera_batch%s", c.n, how[0])
			report(name, mean(tessera[i]), "entries/s", "")
			report(name+".ack_p50", mean(tesseraP50[i]), "us", "")
			best = max(best, mean(tessera[i]))
		}
		name := fmt.Sprintf("chain.in_flight%d", c.n)
		report(name, mean(ledger), "records/s", "")
		report(name+".ack_p50", quantile(lat, 0.5), "us", "")
		report(name+".ack_p99", quantile(lat, 0.99), "us", "")
		report(name+".over_tessera", mean(ledger)/best, "times", c.target)
		report(name+".packed_over_tessera", mean(packed)/best, "times", "")
		report(name+".raw", mean(pebble), "records/s", "")
		report(name+".raw_over_tessera", mean(pebble)/best, "times", "")
		report(name+".over_raw", mean(ledger)/mean(pebble), "times", "target>=0.7")
		shutdown(t, s, stop)
	}
}

// buildTessera builds the peer from the bench module.
func buildTessera(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tessera")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "../bench", "-o", path, "./tessera")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the peer: %v\n%s", err, out)
	}
	return path
}

func runTessera(t *testing.T, program string, n int, batch, age string, d time.Duration) (rate, p50 float64) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "-dir", dir, "-in-flight", fmt.Sprint(n), "-batch", batch, "-age", age, "-size", fmt.Sprint(benchPayload), "-for", d.String())
	var log bytes.Buffer // it tells of each new log
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, log.Bytes())
	}
	var p99 float64
	if _, err := fmt.Sscan(string(out), &rate, &p50, &p99); err != nil {
		t.Fatalf("%s says %q: %v", cmd, out, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return rate, p50
}

// measureLogs compares the cost of the same records in one log and over 500,
// and has 64 logs seal single records.
func measureLogs(t *testing.T, report reporter) {
	s := mustCreate(t, diskConfig(t))
	stop := run(t, s)
	defer shutdown(t, s, stop)
	var logs []*Log
	for i := range 501 {
		logs = append(logs, mustCreateLog(t, s, i))
	}
	one, logs := logs[:1], logs[1:]
	entries := frames(t, 8192)
	var single, many []float64
	for range 4 {
		for _, c := range []struct {
			logs  []*Log
			rates *[]float64
		}{{one, &single}, {logs, &many}} {
			rate, _ := inFlight(t, s, c.logs, entries, 500*32, 32, lasting(2*time.Second))
			*c.rates = append(*c.rates, rate)
			waitPacked(t, s)
		}
	}
	report("chain.append.500_logs", mean(many), "records/s", "target>=50000")
	report("chain.append.500_logs_over_one", mean(single)/mean(many), "times", "target<=1.3")
	rate, lat := inFlight(t, s, logs[:64], entries, 64, 1, lasting(2*time.Second))
	report("chain.append.64_logs_of_batch1", rate, "records/s", "target>=20000")
	report("chain.append.64_logs_of_batch1.ack_p50", quantile(lat, 0.5), "us", "target<=5000")
	report("chain.append.64_logs_of_batch1.ack_p99", quantile(lat, 0.99), "us", "target<=50000")
}
