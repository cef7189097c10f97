package index

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/record"
)

var benchEntries = flag.Int("entries", 200_000, "entries of the benchmark's ledger; 10000000 shows what is promised")

// busyEvent is what a guest with some work does: few programs and many files.
func busyEvent(r *rand.Rand, n int) event {
	pid := 1000 + uint32(n/50)%30000
	p := &record.Process{Pid: pid, Tid: pid, Start: uint64(n/50) * 1_000_003, Ppid: 900, ParentStart: 5, ExecCount: 1, Name: []byte("worker"),
		Executable: fmt.Appendf(nil, "/usr/bin/program-%d", r.IntN(200)), Credentials: &record.Credentials{Uid: r.Uint32N(5)}}
	e := &record.Event{Process: p, Parent: &record.Process{Pid: 900, Start: 5, Name: []byte("init"), Executable: []byte("/usr/sbin/init")}}
	switch n % 10 {
	case 0:
		p.Args = [][]byte{[]byte("program"), []byte("--work"), fmt.Appendf(nil, "%d", n)}
		return event{record.ClassProcessExec, e}
	case 1:
		return event{record.ClassProcessFork, e}
	case 2:
		e.Network = &record.Network{Family: 4, Protocol: "tcp", Direction: "egress", SourceIp: []byte{10, 0, 0, 5}, SourcePort: 32768 + r.Uint32N(28000),
			DestinationIp: []byte{203, 0, byte(r.IntN(100)), byte(r.IntN(200))}, DestinationPort: 443}
		return event{record.ClassNetworkConnect, e}
	}
	e.File = &record.File{Path: fmt.Appendf(nil, "/srv/data/%03d/%03d/object-%d", r.IntN(500), r.IntN(100), r.IntN(1_000_000)), Inode: r.Uint64() >> 32, Mode: 0o100644, Size: 4096}
	return event{record.ClassFileModify, e}
}

// BenchmarkFirst measures how soon the first entry of an answer comes, in a
// ledger of -entries: of what is rare and old, of what is everywhere, and of
// what is nowhere.
func BenchmarkFirst(b *testing.B) {
	l := newLedger(b)
	vm := l.vm(1)
	r := rand.New(rand.NewPCG(1, 1))
	l.guest(vm, 1, does(record.ClassFileModify, proc(7, 1, "/usr/bin/rare"), "/etc/rare/first"))
	dir := filepath.Join(l.dir, "index")
	x, stop := l.start(dir)
	began := time.Now()
	batch := make([]event, chain.MaxBatchEntries/4)
	for n := 0; n < *benchEntries; n += len(batch) {
		for i := range batch {
			batch[i] = busyEvent(r, n+i)
		}
		l.guest(vm, 1, batch...)
	}
	sealed := time.Since(began)
	for x.Lag() > 0 {
		if err := x.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("%d entries sealed in %.1f s and indexed by %.1f s, in %d chunks", x.Entries(), sealed.Seconds(), time.Since(began).Seconds(), len(x.zones))
	stop()
	fmt.Printf("RESULT index.size %.3g bytes/entry\n", float64(size(b, dir))/float64(*benchEntries))
	began = time.Now()
	x, _ = l.start(dir)
	fmt.Printf("RESULT index.open %.3g s target<=1\n", time.Since(began).Seconds())
	prefix := func(s string) Pattern { return Pattern{text: s, prefix: true} }
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"rare old prefix", Query{Path: prefix("/etc/rare/")}},
		{"common prefix", Query{Path: prefix("/srv/")}},
		{"absent prefix", Query{Path: prefix("/nowhere/")}},
		{"rare old executable", Query{Exe: Exactly([]byte("/usr/bin/rare"))}},
		{"network", Query{Address: netip.MustParsePrefix("203.0.7.0/24")}},
		{"common prefix with rare class", Query{Path: prefix("/srv/"), Classes: []record.Class{record.ClassFileRename}}},
		{"newest of all", Query{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				for _, err := range x.Find(context.Background(), &c.q, nil) {
					if err != nil {
						b.Fatal(err)
					}
					break
				}
			}
			fmt.Printf("RESULT index.first.%s %.3g ms target<=20\n", strings.ReplaceAll(c.name, " ", "_"), b.Elapsed().Seconds()*1000/float64(b.N))
		})
	}
}

func size(b *testing.B, dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			n += i.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkTake measures what indexing an entry costs besides reading it: its
// words, the open chunk, and the rows of the chunks that fill.
func BenchmarkTake(b *testing.B) {
	l := newLedger(b)
	vm := l.vm(1)
	r := rand.New(rand.NewPCG(1, 1))
	const n = 2048
	batch := make([]event, n)
	for i := range batch {
		batch[i] = busyEvent(r, i)
	}
	first := l.guest(vm, 1, batch...)
	items := make([]chain.Item, n)
	for i := range items {
		var err error
		if items[i], err = vm.Item(first + uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
	x, err := Open(Config{Store: l.Store, Dir: filepath.Join(l.dir, "index")})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := x.take(b.Context(), &items[i%n], 0); err != nil {
			b.Fatal(err)
		}
	}
	fmt.Printf("RESULT index.take %.0f entries/s target>=100000\n", float64(b.N)/b.Elapsed().Seconds())
}
