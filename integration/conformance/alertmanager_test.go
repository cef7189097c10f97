package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/introspect/notify"
)

// alertmanager returns how to call Debian's Alertmanager: as it is installed, or
// else as it lies in its package, which is unpacked into the cache. That one finds
// its templates in a mount namespace of its own.
func alertmanager(t *testing.T) []string {
	t.Helper()
	if path, err := exec.LookPath("prometheus-alertmanager"); err == nil {
		return []string{path}
	}
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(root, ".cache", "tools", "prometheus-alertmanager")
	if _, err := os.Stat(tree); err != nil {
		script := `set -e; rm -rf "$1.part"; mkdir -p "$1.part"; cd "$1.part"
			apt-get -q -o APT::Sandbox::User=root download prometheus-alertmanager
			dpkg-deb -x prometheus-alertmanager_*.deb .; rm prometheus-alertmanager_*.deb; mv "$1.part" "$1"`
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", tree).CombinedOutput(); err != nil {
			t.Fatalf("fetch Alertmanager: %v\n%s\napt-get update may help, or apt-get install prometheus-alertmanager", err, out)
		}
	}
	return []string{"unshare", "-m", "sh", "-c", `set -e; tree=$1; shift; mount -t tmpfs none /usr/share; mkdir /usr/share/prometheus
		cp -r "$tree/usr/share/prometheus/alertmanager" /usr/share/prometheus/; exec "$tree/usr/bin/prometheus-alertmanager" "$@"`, "sh", tree}
}

// TestAlertmanager has Prometheus' Alertmanager take our alerts: one that fires,
// the same again, and one whose words try to be something else.
func TestAlertmanager(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route:\n  receiver: nobody\nreceivers:\n- name: nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := port.Addr().String()
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	argv := append(alertmanager(t), "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+address, "--cluster.listen-address=")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	base := "http://" + address
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if r, err := http.Get(base + "/-/ready"); err == nil {
			_ = r.Body.Close() // its status is all
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("alertmanager does not answer")
		}
	}
	m, err := notify.NewAlertmanager(notify.HTTPConfig{URL: base}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &notify.Alert{ID: "kvm1/vm/u/1/1/7/0", Host: "kvm1", Time: time.Now().Add(-time.Minute), Policy: "etc_changed", Severity: "high", Title: "File under /etc changed",
		Message: `web-1: "}]{{ .Labels }} <script>`, DomainUUID: "11111111-2222-4333-8444-555555555555", DomainName: "web-1", Log: "kvm1/vm/u/1/1", Verdict: 7}
	other := *a
	other.Policy, other.Test = "test", true
	for _, one := range []*notify.Alert{a, a, &other} {
		if detail, err := m.Send(ctx, one); err != nil || detail != "HTTP 200" {
			t.Fatalf("%q, %v", detail, err)
		}
	}
	r, err := http.Get(base + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }() // read only
	var got []struct {
		Labels, Annotations map[string]string
		EndsAt              time.Time
		Status              struct{ State string }
	}
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("it has %d alerts, want 2: the same one twice is one", len(got))
	}
	for _, g := range got {
		if g.Status.State == "resolved" || !g.EndsAt.After(time.Now()) || g.Annotations["description"] != a.Message || g.Labels["domain"] != a.DomainUUID || !strings.Contains(fmt.Sprint(a.Policy, other.Policy), g.Labels["alertname"]) {
			t.Errorf("it has %+v", g)
		}
	}
}
