package chain

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/provostd/provost/chain/record"
)

// guestDay writes n records as the probe makes them on a guest that compiles,
// serves and logs: processes come and go, files are written, connections made.
// Numbers, times and digests are random where they are in life.
type guestDay struct {
	rng      *rand.Rand
	now      uint64
	sequence uint64
	lanes    [2]uint64
	procs    []*record.Process
}

func newGuestDay() *guestDay {
	d := &guestDay{rng: rand.New(rand.NewPCG(1, 9)), now: 4_000_000_000_000}
	for range 40 {
		d.procs = append(d.procs, d.process())
	}
	return d
}

func (d *guestDay) pick(values ...string) string { return values[d.rng.IntN(len(values))] }

func (d *guestDay) process() *record.Process {
	exe := d.pick("/usr/bin/dash", "/usr/bin/bash", "/usr/bin/python3.11", "/usr/bin/gcc-12", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "/usr/bin/x86_64-linux-gnu-ld.bfd", "/usr/sbin/nginx", "/usr/bin/git", "/usr/sbin/cron", "/usr/bin/apt-get")
	pid := uint32(1000 + d.rng.IntN(60000))
	return &record.Process{
		Pid: pid, Tid: pid, Start: d.now - d.rng.Uint64N(1e12), Ppid: uint32(1000 + d.rng.IntN(60000)), ParentStart: d.now - d.rng.Uint64N(1e12), ExecCount: 1,
		Name: []byte(filepath.Base(exe)), Executable: []byte(exe), CgroupId: 5021, MountNamespace: 4026531841, SessionId: 3, LoginUid: 1000,
		WorkingDirectory: []byte("/home/build/src/project"), Device: 2049, Inode: 100000 + d.rng.Uint64N(3e5),
	}
}

func (d *guestDay) event() (record.Class, *record.Event) {
	e := &record.Event{ResultKnown: true}
	i := d.rng.IntN(len(d.procs))
	e.Process = d.procs[i]
	path := fmt.Sprintf("/home/build/src/project/%s/%s_%d.%s", d.pick("core", "net", "fs", "util"), d.pick("table", "queue", "parser", "cache", "main"), d.rng.IntN(400), d.pick("o", "d", "c", "tmp"))
	file := &record.File{Path: []byte(path), Device: 2049, Inode: 500000 + d.rng.Uint64N(1e6), Mode: 0o100644, Size: d.rng.Uint64N(200000), Uid: 1000, Gid: 1000, Links: 1}
	switch n := d.rng.IntN(20); {
	case n < 3:
		p := d.process()
		p.Args = [][]byte{p.Name, []byte("-c"), []byte("-O2"), []byte("-Wall"), []byte(path)}
		p.Filename, p.ArgsLength = p.Executable, 40
		d.procs[i] = p
		e.Process = p
		return record.ClassProcessExec, e
	case n < 5:
		e.Process = d.process()
		return record.ClassProcessFork, e
	case n < 7:
		return record.ClassProcessExit, e
	case n < 11:
		e.File = file
		return record.ClassFileCreate, e
	case n < 16:
		file.Bytes, file.Operations = d.rng.Uint64N(100000), d.rng.Uint64N(30)
		e.File = file
		return record.ClassFileClose, e
	case n < 18:
		e.File = file
		return record.ClassFileDelete, e
	}
	e.Network = &record.Network{
		Family: 4, Protocol: "tcp", SourceIp: []byte{10, 0, 3, 17}, SourcePort: uint32(32768 + d.rng.IntN(28000)),
		DestinationIp: []byte{151, 101, byte(d.rng.IntN(4)), byte(d.rng.IntN(256))}, DestinationPort: 443, Direction: "egress", Type: "stream", Number: 6, Cookie: d.rng.Uint64N(1e5),
	}
	return record.ClassNetworkConnect, e
}

// frame returns n records and the statement over them.
func (d *guestDay) frame(t testing.TB, s *Store, n int) (entries []Entry, payload int) {
	seed := record.Seed{1}
	for i := range seed {
		seed[i] = byte(d.rng.Uint32())
	}
	for range n {
		class, m := d.event()
		b, err := record.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		d.now += 1000 + d.rng.Uint64N(2e6)
		lane := d.rng.IntN(len(d.lanes))
		h := record.Header{Class: class, Lane: uint32(lane), Session: 77, Sequence: d.sequence, LaneSequence: d.lanes[lane], Time: d.now}
		d.sequence++
		d.lanes[lane]++
		salt := seed.Salt(h.Sequence)
		entries = append(entries, Entry{Origin: record.OriginGuest, Header: h, Payload: b, Seed: seed, Commitment: record.Commit(&salt, b)})
		payload += len(b)
	}
	statement := make([]byte, 220)
	for i := range 96 {
		statement[i] = byte(d.rng.Uint32()) // hashes
	}
	signature := make([]byte, 64)
	for i := range signature {
		signature[i] = byte(d.rng.Uint32())
	}
	e, err := s.Draft(record.OriginHost, record.ClassAgentFrame, &record.Frame{Statement: statement, Signature: signature, Count: uint32(n)})
	if err != nil {
		t.Fatal(err)
	}
	return append(entries, e), payload
}

// TestDiskSize holds the disk that a record takes, with all that belongs to it,
// against what is promised: 40 bytes for the tree, 100 in all.
func TestDiskSize(t *testing.T) {
	cfg := diskConfig(t)
	s := mustCreate(t, cfg)
	stop := run(t, s)
	l := mustCreateLog(t, s, 1)
	day := newGuestDay()
	records, payload := 0, 0
	want := 100_000
	if !*long && !*results {
		want = 30_000
	}
	for records < want {
		n := 1 + day.rng.IntN(63)
		entries, bytes := day.frame(t, s, n)
		mustAppend(t, s, Batch{Log: l, Entries: entries})
		records, payload = records+n, payload+bytes
	}
	packNow(t, s)
	shutdown(t, s, stop)
	// What a compaction would come to in its own time.
	s = mustOpen(t, cfg)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	size := func(from, to []byte) float64 {
		n, err := s.db.EstimateDiskUsage(from, to)
		if err != nil {
			t.Fatal(err)
		}
		return float64(n) / float64(records)
	}
	tree := size([]byte{tableTile}, []byte{tableTile + 1})
	bundles := size([]byte{tableBundle}, []byte{tableBundle + 1})
	all := size([]byte{0}, []byte{0xff})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records of %d bytes of payload on average: tree %.1f, bundles %.1f, all %.1f bytes a record in %d files", records, payload/records, tree, bundles, all, len(files))
	if *results {
		fmt.Printf("RESULT chain.disk.tree %.4g bytes/record target<=40\nRESULT chain.disk.record %.4g bytes/record target<=100\n", tree, all)
	}
	if tree > 40 || all > 100 {
		t.Errorf("a record takes %.1f bytes for the tree and %.1f in all, want at most 40 and 100", tree, all)
	}
}
