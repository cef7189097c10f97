package spine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/integration/harness"
	"github.com/provostd/provost/integration/lab"
	"github.com/provostd/provost/introspect/api/client"
)

// desk is a receiver of webhooks, on an address that it keeps while it is away.
type desk struct {
	address string
	key     []byte
	srv     *http.Server

	mu  sync.Mutex // guards got
	got map[string]int
	bad []string
}

func (d *desk) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	d.srv = &http.Server{Handler: d}
	go func() { _ = d.srv.Serve(l) }() // ends with Close
}

// ServeHTTP verifies as docs/operator.md says.
func (d *desk) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	m := hmac.New(sha256.New, d.key)
	fmt.Fprintf(m, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
	var e struct {
		ID   string `json:"id"`
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); err != nil || r.Header.Get("webhook-signature") != want || json.Unmarshal(body, &e) != nil || e.ID != r.Header.Get("webhook-id") {
		d.bad = append(d.bad, fmt.Sprintf("%v %s", r.Header, body))
		return
	}
	d.got[e.Data.Policy+" "+e.ID]++
}

func alertResult(class record.Class, verdict uint64) func(*lab.Entry) bool {
	return func(e *lab.Entry) bool {
		m, ok := e.Msg.(*record.AlertResult)
		return ok && e.Leaf.Header.Class == class && m.VerdictIndex == verdict
	}
}

// TestAlertsOutliveTheDaemon kills provostd between an alert's outcome and its
// delivery, while the receiver is away: it comes with the next start.
func TestAlertsOutliveTheDaemon(t *testing.T) {
	ctx := testContext(t)
	d := &desk{address: "127.0.0.1:0", key: []byte(strings.Repeat("k", 32)), got: map[string]int{}}
	d.open(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString(d.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Config{
		Dir: fmt.Sprintf("/run/pv-%d-%s", os.Getpid(), shortName(t)), Policies: root + "/examples/policies/baseline", Channel: true, Out: t.Logf, AgentArgs: []string{"-protect", "off"},
		Extra: fmt.Sprintf("alert_channel \"desk\" {\n  type = \"webhook\"\n  url = \"http://%s/\"\n  secret_file = %q\n}\n", d.address, secret),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = l.CopyLog(t.Output()) // what it says helps; that it cannot be read does not
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Provost(ctx, "alerts", "test", "--socket", l.Socket(), "desk"); err != nil || !strings.Contains(out, "delivered: HTTP 200") {
		t.Errorf("alerts test: %v\n%s", err, out)
	}
	if err := d.srv.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	guestRun(t, ctx, l, lab.Activity)
	verdict := wait(t, ctx, l, "verdict on /etc", lab.Verdict("etc_changed"))
	outcome := wait(t, ctx, l, "outcome of the alert", lab.Outcome("etc_changed", "alert"))
	if o := outcome.Msg.(*record.Outcome); o.Result != "done" || o.StateAfter != "logged, queued for desk" {
		t.Errorf("outcome %v", o)
	}
	if err := l.KillDaemon(); err != nil {
		t.Fatal(err)
	}
	d.open(t)
	if err := l.StartDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	wait(t, ctx, l, "delivery", alertResult(record.ClassPolicyAlertDelivered, verdict.Leaf.Index))
	var channels []client.AlertChannel
	out, err := l.Provost(ctx, "alerts", "list", "--output", "json", "--socket", l.Socket())
	if err != nil || json.Unmarshal([]byte(out), &channels) != nil || len(channels) != 1 || channels[0].Delivered == 0 {
		t.Errorf("alerts list: %v\n%s", err, out)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	tests, alerts := 0, 0
	for what, n := range d.got {
		switch {
		case strings.HasPrefix(what, "test test/"):
			tests += n
		case strings.HasPrefix(what, "etc_changed kvm1.lab/vm/"):
			alerts += n
		}
	}
	if tests != 1 || alerts == 0 || len(d.bad) > 0 {
		t.Errorf("received %v; not verified: %q", d.got, d.bad)
	}
}
