package probe

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/provostd/provost/chain/record"
)

// sprayed is more destinations than have sums of their own.
const sprayed = 8000

func init() {
	actors["spray"] = func(string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for i := range sprayed {
			if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 3, byte(i >> 8), byte(i)}, Port: 9}); err != nil {
				return err
			}
		}
		return unix.Close(fd)
	}
}

// Datagrams to more destinations than there is room for are told to the last,
// with fewer events than there are datagrams.
func TestSpray(t *testing.T) {
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
	c := &collector{lost: map[uint32]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, c) }()
	pid := uint32(actor(t, workDir(t), "spray", "x").Process.Pid)
	c.find(t, "exit", func(s seen) bool { return s.h.Class == record.ClassProcessExit && s.e.Process.Pid == pid })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	var lost, packets, others, events, single, sends uint64
	for _, n := range c.lost {
		lost += n
	}
	for _, s := range c.all {
		if s.e.Process.GetPid() != pid || s.e.Network == nil {
			continue
		}
		events++
		if s.h.Class != record.ClassNetworkFlow {
			sends++
			continue
		}
		if s.h.Lane != record.NoLane {
			single++ // there was no room for a sum
		}
		packets += s.e.Network.Packets
		if s.e.Reason == "others" {
			others += s.e.Count
			if s.e.Network.DestinationIp != nil || s.e.Network.DestinationPort != 0 || len(s.e.Process.Executable) == 0 {
				t.Errorf("sum of several destinations: %v", s.e)
			}
		} else if len(s.e.Network.DestinationIp) != 4 || s.e.Network.DestinationPort != 9 {
			t.Errorf("sum of one destination: %v", s.e)
		}
	}
	t.Logf("%d events, %d of them first datagrams, %d without a sum; %d datagrams, %d of them in sums of others, %d lost",
		events, sends, single, packets, others, lost)
	if packets > sprayed || packets+lost < sprayed || lost == 0 && packets != sprayed {
		t.Errorf("%d of %d datagrams are told, %d lost", packets, sprayed, lost)
	}
	if single > 0 {
		t.Errorf("%d datagrams found no room in a sum", single)
	}
	// The sums are taken every few seconds: how many destinations have one of
	// their own depends on how long the spray takes. Those in sums of others
	// are no events of their own, beside some before the budget is gone.
	if others >= sprayed/4 && events > 2*sprayed-others*3/2 {
		t.Errorf("%d events for %d datagrams, %d of them in sums of others", events, sprayed, others)
	}
}
