// Command tessera appends entries to a log of Tessera's POSIX driver for a while, with a
// given number of them in flight, and prints one line: how many a second, and the
// median and the 99th percentile of the time from adding one to its being
// integrated, in microseconds. It is the peer of `make bench-chain`.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	var r run
	flag.StringVar(&r.dir, "dir", "", "empty directory of the log")
	flag.IntVar(&r.inFlight, "in-flight", 64, "entries on their way at a time")
	flag.UintVar(&r.batch, "batch", 64, "entries that make Tessera integrate at once")
	flag.DurationVar(&r.age, "age", 5*time.Millisecond, "longest time that Tessera waits for a batch")
	flag.IntVar(&r.size, "size", 200, "bytes of an entry")
	flag.DurationVar(&r.length, "for", 3*time.Second, "how long to go on")
	flag.Parse()
	if err := r.do(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "tessera:", err)
		os.Exit(1)
	}
}

type run struct {
	dir      string
	inFlight int
	batch    uint
	age      time.Duration
	size     int
	length   time.Duration
}

// waiting is an entry on its way.
type waiting struct {
	since  time.Time
	future tessera.IndexFuture
}

func (r *run) do(ctx context.Context) (err error) {
	skey, _, err := note.GenerateKey(rand.Reader, "tessera.example/log")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: r.dir})
	if err != nil {
		return err
	}
	opts := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(r.batch, r.age).WithCheckpointInterval(time.Second)
	log, shutdown, _, err := tessera.NewAppender(ctx, driver, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shutdown(ctx)) }()
	data := make([][]byte, max(r.inFlight, 1024))
	for i := range data {
		data[i] = make([]byte, r.size)
		if _, err := rand.Read(data[i][:r.size/2]); err != nil {
			return err
		}
	}
	ring := make([]waiting, r.inFlight)
	var took []time.Duration
	start := time.Now()
	for i := 0; time.Since(start) < r.length; i++ {
		w := &ring[i%len(ring)]
		if w.future != nil {
			if _, err := w.future(); err != nil {
				return err
			}
			took = append(took, time.Since(w.since))
		}
		*w = waiting{time.Now(), log.Add(ctx, tessera.NewEntry(data[i%len(data)]))}
	}
	rate := float64(len(took)) / time.Since(start).Seconds()
	for i := range ring { // what is left is not counted, but must not fail
		if f := ring[i].future; f != nil {
			if _, err := f(); err != nil {
				return err
			}
		}
	}
	if len(took) == 0 {
		return fmt.Errorf("nothing was integrated in %s", r.length)
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	fmt.Printf("%.1f %.1f %.1f\n", rate, at(0.5), at(0.99))
	return nil
}
