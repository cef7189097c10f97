package probe

import (
	"fmt"
	"strings"
	"testing"
)

func TestContainerOf(t *testing.T) {
	a, b := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	for path, want := range map[string]string{
		"/": "", "": "", "/init.scope": "", "/system.slice/ssh.service": "", "/user.slice/user-1000.slice/session-1.scope": "",
		"/docker/" + a:                                a,
		"/system.slice/docker-" + a + ".scope":        a,
		"/docker/" + a + "/system.slice/cron.service": a,
		"/docker/" + a + "/docker/" + b:               a + "/" + b, // b is what a calls it
		"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" + a:  a,
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + a + ".scope":        a,
		"/kubepods/burstable/pod8e1b2c/" + a:                                        a,
		"/kubepods.slice/kubepods-pod1.slice/crio-" + a + ".scope":                  a,
		"/kubepods.slice/kubepods-pod1.slice/crio-conmon-" + a + ".scope":           "",
		"/machine.slice/libpod-" + a + ".scope/container":                           a,
		"/machine.slice/libpod-conmon-" + a + ".scope":                              "",
		"/user.slice/user-1.slice/user@1.service/user.slice/libpod-" + a + ".scope": "user-1/" + a,
		"/user.slice/user-1000.slice/user@1000.service/docker-" + a + ".scope":      "user-1000/" + a, // whoever made it
		"/user.slice/user-1000.slice/lxc/x":                                         "user-1000/x",
		"/user.slice/user-x.slice/docker-" + a + ".scope":                           a, // no user
		"/docker/" + a + "/user.slice/user-1000.slice/session-1.scope":              a,
		"/lxc.payload.\xff\xfe":                                                     "?",
		"/lxc/" + strings.Repeat("n", 1000):                                         strings.Repeat("n", maxContainer),
		strings.Repeat("/lxc/x", 9):                                                 "x/x/x/x",
		"/system.slice/nerdctl-" + a + ".scope":                                     a,
		"/lxc.payload.web/system.slice/nginx.service":                               "web",
		"/lxc.monitor.web": "",
		"/lxc/db":          "db",
		"/lxc.payload.web/system.slice/docker-" + a + ".scope":                        "web/" + a,
		`/machine.slice/machine-debian\x2dtree.scope/payload/init.scope`:              "debian-tree",
		"/machine.slice/machine-deb.scope/supervisor":                                 "",
		"/machine.slice/machine-deb.scope/payload/machine-x/supervisor":               "deb", // its own root made it
		"/system.slice/docker-" + a + ".scope/machine-x/supervisor":                   a,
		"/lxc.payload.web/machine-/supervisor":                                        "web",
		"/user.slice/user-5.slice/user@5.service/user-0.slice/docker-" + a + ".scope": "user-5/" + a,
		`/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`:               "",
		"/machine.slice/systemd-nspawn@deb.service/payload/system.slice/cron.service": "deb",
		"/system.slice/docker-" + a[:63] + ".scope":                                   "",
		"/system.slice/docker-" + strings.ToUpper(a) + ".scope":                       "",
	} {
		if got := containerOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestGroups(t *testing.T) {
	asked := 0
	g := newGroups(func(id uint64) []byte {
		asked++
		if id == 7 {
			return []byte("/seven")
		}
		return nil
	})
	for range 2 {
		if x := g.find(7); string(x.path) != "/seven" {
			t.Errorf("group 7: %q", x.path)
		}
		if x := g.find(8); x.path != nil || x.id != 8 {
			t.Errorf("group 8: %q", x.path)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times, want once for each", asked)
	}
	g.made(8, []byte("/lxc/late"))
	if x := g.find(8); x.container != "late" {
		t.Errorf("group 8: %+v", x)
	}
	// Who makes groups without end does not make the table grow, and does
	// not push out those in use.
	const many = 2 * maxGroupBytes / (groupBytes + maxGroupPath)
	for id := uint64(100); id < 100+many; id++ {
		g.made(id, fmt.Appendf(nil, "/%s/%d", strings.Repeat("x", 2*maxGroupPath), id))
		g.find(7)
	}
	bytes := 0
	for id := range g.known.all {
		x, _ := g.known.get(id)
		bytes += x.size()
	}
	if bytes > maxGroupBytes || bytes < maxGroupBytes/2 || g.bytes != bytes || asked != 2 {
		t.Errorf("groups of %d bytes, booked %d, asked %d times", bytes, g.bytes, asked)
	}
	if x := g.find(99 + many); len(x.path) != maxGroupPath {
		t.Errorf("path of %d bytes", len(x.path))
	}
}
