package actions

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/virt"
)

// TestSnapshotThatTakesLong goes on behind its deadline: another attempt, of this daemon or of
// one that was restarted, leaves it and its files alone, and finds what it has made.
func TestSnapshotThatTakesLong(t *testing.T) {
	l := newLab(t)
	g, id := l.define("g", l.disk("vda", "qcow2"))
	l.must(g.Start(l.ctx))
	restarted := l.connect()
	req := virt.SnapshotRequest{Name: "7-policy", Memory: true, Dir: l.dir + "/memory", Spare: 1 << 20, MaxChain: 4}
	if _, err := l.virt.Snapshot(l.ctx, id, req, time.Millisecond); !errors.Is(err, record.ErrRetry) {
		t.Fatalf("a deadline that cannot be met: %v", err)
	}
	if _, err := l.virt.Snapshot(l.ctx, id, req, time.Minute); !errors.Is(err, virt.ErrBusy) || !errors.Is(err, record.ErrRetry) {
		t.Errorf("while it is being taken: %v", err)
	}
	for { // until libvirt has begun
		job, err := l.host.Virsh(l.ctx, "domjobinfo", g.UUID())
		l.must(err)
		if _, err := os.Stat(l.dir + "/vda.qcow2.provost-7-policy"); err == nil || !strings.Contains(job, "None") {
			break
		}
	}
	for _, h := range []*virt.Host{restarted, l.virt} {
		for {
			r, err := h.Snapshot(l.ctx, id, req, time.Minute)
			if errors.Is(err, record.ErrRetry) {
				continue
			}
			if err != nil || !r.Existed || len(r.Files) != 2 || r.Files[0].Size == 0 || r.Files[1].Role != "memory" || r.Files[1].Size == 0 {
				t.Errorf("behind it: %+v %v", r, err)
			}
			break
		}
	}
}

// TestLinksOfADomainThatWasOff gives the links of a domain back that was off when they were set
// down, and runs by now.
func TestLinksOfADomainThatWasOff(t *testing.T) {
	l := newLab(t)
	l.network("lan")
	g, id := l.define("g", nics)
	before, err := l.virt.Interfaces(l.ctx, id)
	l.must(err)
	_, err = l.virt.LinksDown(l.ctx, id, nil)
	l.must(err)
	l.must(g.Start(l.ctx))
	if all, err := l.virt.Interfaces(l.ctx, id); err != nil || all[0].LiveLink != virt.LinkDown {
		t.Fatalf("started: %+v %v", all, err)
	}
	after, err := l.virt.RestoreLinks(l.ctx, id, before, virt.ModeLink)
	l.must(err)
	var links []string
	for _, n := range after {
		links = append(links, n.LiveLink+"/"+n.ConfigLink)
	}
	if got := strings.Join(links, " "); got != "up/up down/down up/up" {
		t.Errorf("links %s", got)
	}
}
