package bench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// spread is a median with its quartiles.
type spread struct {
	median, q1, q3 float64
	n              int
}

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN(), 0}
	}
	at := func(f float64) float64 {
		x := f * float64(len(v)-1)
		i := int(x)
		if i+1 == len(v) {
			return v[i]
		}
		return v[i] + (x-float64(i))*(v[i+1]-v[i])
	}
	return spread{at(0.5), at(0.25), at(0.75), len(v)}
}

func result(name string, value float64, unit, target string) {
	fmt.Printf("RESULT %s %.4g %s %s\n", name, value, unit, target)
}

// resultOf prints a median; quartiles and number of runs follow the target.
func resultOf(name string, s spread, unit, target string) {
	if target == "" {
		target = "-"
	}
	fmt.Printf("RESULT %s %.4g %s %s quartiles=%.4g..%.4g runs=%d\n", name, s.median, unit, target, s.q1, s.q3, s.n)
}

func note(format string, args ...any) { fmt.Printf("NOTE "+format+"\n", args...) }

// sample is one run of a workload under one configuration.
type sample struct {
	wall, cpu time.Duration // of the workload
	observer  time.Duration // CPU of the observer meanwhile
	waits     uint64        // of the observer
	units     uint64
	records   uint64 // of the agent
	ring      uint64 // bytes in its rings
}

func (s *sample) total() float64 { return float64(s.cpu + s.observer) }
