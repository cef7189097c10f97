package actions

import (
	"errors"
	"strings"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/virt"
)

const nics = `<interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'/><model type='virtio'/></interface>
<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='lanbr'/><link state='down'/><model type='virtio'/></interface>
<interface type='user'><mac address='52:54:00:00:00:03'/><model type='virtio'/></interface>`

func xmls(t *testing.T, l *lab, uuid string) (live, config string) {
	t.Helper()
	var err error
	if live, err = l.host.Virsh(l.ctx, "dumpxml", uuid); err != nil {
		t.Fatal(err)
	}
	if config, err = l.host.Virsh(l.ctx, "dumpxml", "--inactive", uuid); err != nil {
		t.Fatal(err)
	}
	return live, config
}

// TestLinks takes the links of all interfaces down and gives each back what it had,
// while the guest runs: live and persistent configuration are byte for byte what they were.
func TestLinks(t *testing.T) {
	l := newLab(t)
	l.network("lan")
	l.network("cell")
	g, id := l.define("g", nics)
	l.must(g.Start(l.ctx))
	liveBefore, configBefore := xmls(t, l, g.UUID())
	before, err := l.virt.Interfaces(l.ctx, id)
	l.must(err)
	if len(before) != 3 || before[0].LiveLink != "up" || before[1].LiveLink != "down" || before[2].Type != "user" || before[0].Device == "" {
		t.Fatalf("interfaces %+v", before)
	}
	after, err := l.virt.LinksDown(l.ctx, id, nil)
	l.must(err)
	for _, n := range after {
		if !n.Down() {
			t.Errorf("interface %s is %s, %s", n.Key, n.LiveLink, n.ConfigLink)
		}
	}
	if again, err := l.virt.LinksDown(l.ctx, id, nil); err != nil || !again[0].Down() {
		t.Errorf("once more: %+v %v", again, err)
	}
	if _, err := l.virt.RestoreLinks(l.ctx, id, before, virt.ModeLink); err != nil {
		t.Fatal(err)
	}
	live, config := xmls(t, l, g.UUID())
	same(t, "live, behind link_down", live, liveBefore)
	same(t, "persistent, behind link_down", config, configBefore)

	// One of them, by the network of its own.
	if after, err = l.virt.Isolate(l.ctx, id, []string{before[0].Key}, "cell"); err != nil || virt.NetworkOf(after[0].Live) != "cell" || virt.NetworkOf(after[0].Config) != "cell" {
		t.Errorf("isolate: %+v %v", after, err)
	}
	if _, err := l.virt.RestoreLinks(l.ctx, id, before[:1], virt.ModeIsolate); err != nil {
		t.Fatal(err)
	}
	live, config = xmls(t, l, g.UUID())
	same(t, "live, behind isolate", stripPort(live), stripPort(liveBefore))
	same(t, "persistent, behind isolate", config, configBefore)

	// A guest that runs lets go of its interface; one that does not keeps it, and that is told.
	l.must(g.WaitReady(l.ctx))
	if after, err = l.virt.Unplug(l.ctx, id, []string{before[2].Key}); err != nil || len(after) != 2 {
		t.Errorf("unplug: %+v %v", after, err)
	}
	if _, err := l.virt.RestoreLinks(l.ctx, id, before[2:], virt.ModeUnplug); err != nil {
		t.Fatal(err)
	}
	l.must(g.Pause(l.ctx))
	if _, err = l.virt.Unplug(l.ctx, id, []string{before[0].Key}); !errors.Is(err, record.ErrReject) || !strings.Contains(err.Error(), "not let go") {
		t.Errorf("unplug from a guest that does not answer: %v", err)
	}
}

// TestMark keeps a mark in the metadata, and what others keep there beside it.
func TestMark(t *testing.T) {
	l := newLab(t)
	g, id := l.define("g", "")
	l.must(g.Start(l.ctx))
	if _, err := l.host.Virsh(l.ctx, "metadata", g.UUID(), "--uri", "urn:x", "--key", "x", "--set", "<theirs/>", "--live", "--config"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l.must(l.virt.SetQuarantineMark(l.ctx, id, "<quarantine><hold policy='p' leaf='7'/></quarantine>"))
	}
	live, config, err := l.virt.QuarantineMark(l.ctx, id)
	if err != nil || !strings.Contains(live, `leaf="7"`) || !strings.Contains(config, `leaf="7"`) {
		t.Errorf("mark %q %q %v", live, config, err)
	}
	l.must(l.virt.SetQuarantineMark(l.ctx, id, ""))
	if live, config, err = l.virt.QuarantineMark(l.ctx, id); err != nil || live+config != "" {
		t.Errorf("mark that was taken away: %q %q %v", live, config, err)
	}
	if live, config := xmls(t, l, g.UUID()); !strings.Contains(live, "theirs") || !strings.Contains(config, "theirs") {
		t.Error("what others keep in the metadata is gone")
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("%s: line %d is %q, was %q", what, i, g[i], w[i])
			return
		}
	}
	if len(g) != len(w) {
		t.Errorf("%s: %d lines, were %d", what, len(g), len(w))
	}
}

// stripPort leaves out the number that libvirt draws for each place on a network.
func stripPort(s string) string {
	for {
		from := strings.Index(s, " portid='")
		if from < 0 {
			return s
		}
		to := strings.IndexByte(s[from+9:], '\'')
		s = s[:from] + s[from+9+to+1:]
	}
}
