package chain

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	results = flag.Bool("results", false, "measure and print RESULT lines")
	scale   = flag.Float64("scale", 1, "part of the sizes and times that -results measures with; what is not measured with 1 is not to be quoted")
	only    = flag.String("only", "", "sections that -results measures, with commas between them; all when empty")
)

type reporter func(name string, value float64, unit, target string)

// TestResults prints the figures that `make bench-chain` shows, in sections.
// What is compared takes turns on the same disk in the same run, so that ratios
// mean something where the machine itself is unsteady.
func TestResults(t *testing.T) {
	if !*results {
		t.Skip("measures only with -results")
	}
	report := func(name string, value float64, unit, target string) {
		fmt.Println(strings.TrimRight(fmt.Sprintf("RESULT %s %.4g %s %s", name, value, unit, target), " "))
	}
	for _, s := range []struct {
		name string
		run  func(*testing.T, reporter)
	}{
		{"append", measureAppends}, {"peers", measurePeers}, {"logs", measureLogs},
		{"disk", func(t *testing.T, _ reporter) { TestDiskSize(t) }},
		{"million", measureMillion}, {"many", measureMany}, {"entries", measureEntries}, {"quotes", measureQuotes},
	} {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			fmt.Printf("# %s is left out: -only %s\n", s.name, *only)
			continue
		}
		t.Run(s.name, func(t *testing.T) { s.run(t, report) })
	}
}

// scaled is a number of entries, or of rounds, under -scale.
func scaled(n int) int { return max(int(float64(n)**scale), 1) }

// lasting is a time under -scale.
func lasting(d time.Duration) time.Duration { return time.Duration(float64(d) * *scale) }

// timed runs f for about d and returns records per second and the latencies of
// its calls.
func timed(d time.Duration, records int, f func()) (rate float64, lat []time.Duration) {
	start := time.Now()
	for len(lat) == 0 || time.Since(start) < d {
		t := time.Now()
		f()
		lat = append(lat, time.Since(t))
	}
	return float64(records*len(lat)) / time.Since(start).Seconds(), lat
}

// quantile returns one of latencies, in microseconds.
func quantile(lat []time.Duration, q float64) float64 {
	slices.Sort(lat)
	return float64(lat[int(q*float64(len(lat)-1))].Nanoseconds()) / 1e3
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
