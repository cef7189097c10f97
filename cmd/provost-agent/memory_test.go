package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPercent(t *testing.T) {
	for live, want := range map[uint64][2]uint64{ // what lives, and what the heap may become at least and at most
		0:         {0, 3 << 20},
		1 << 20:   {3 << 20, 4 << 20},
		3 << 20:   {5 << 20, 6 << 20},
		12 << 20:  {15 << 20, 16 << 20},
		100 << 20: {110 << 20, 113 << 20},
	} {
		got := live + live*uint64(percentFor(live))/100
		if got < want[0] || got > want[1] {
			t.Errorf("%d bytes live, the heap may become %d, want %d to %d", live, got, want[0], want[1])
		}
	}
}

func TestReadOnlyOf(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-006ee000 r-xp 00000000 fe:00 132 /usr/bin/provost-agent":           true,
		"006ee000-00a47000 r--p 002ee000 fe:00 132 /usr/bin/provost-agent":           true,
		"00a47000-00b13000 rw-p 00647000 fe:00 132 /usr/bin/provost-agent":           false, // ours, changed
		"7f0000000000-7f0000001000 r--s 00000000 fe:00 132 /usr/bin/provost-agent":   false,
		"7f0000000000-7f0000001000 r--p 00000000 fe:00 133 /opt/usr/bin/provost-age": false,
		"7f0000000000-7f0000001000 r--p 00000000 fe:00 133 /x/usr/bin/provost-agent": false,
		"7fff00000000-7fff00001000 r-xp 00000000 00:00 0 [vdso]":                     false,
		"7fff00000000-7fff00001000 r--p 00000000 00:00 0":                            false,
		"garbage": false,
		"":        false,
	} {
		if from, to := readOnlyOf(line, "/usr/bin/provost-agent"); from < to != want || from > to {
			t.Errorf("%q: %x to %x", line, from, to)
		}
	}
}

// The program goes on when its pages are gone: they come back from the file.
func TestDropPages(t *testing.T) {
	if err := dropPages("/proc/self/smaps"); err != nil {
		t.Fatal(err)
	}
	if _, err := bootID(); err != nil {
		t.Error(err)
	}
	if err := dropPages(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("mappings that cannot be read are no error")
	}
	bad := filepath.Join(t.TempDir(), "maps")
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// A range that is not mapped is told; one that was changed is left alone.
	for anonymous, fails := range map[string]bool{"0": true, "4": false} {
		text := "1000-2000 r--p 00000000 fe:00 1 " + exe + "\nSize:  4 kB\nAnonymous:             " + anonymous + " kB\nVmFlags: rd mr\n"
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := dropPages(bad); (err != nil) != fails {
			t.Errorf("with %s kB changed: %v", anonymous, err)
		}
	}
}
