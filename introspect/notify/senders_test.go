package notify

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sample = &Alert{ID: "test.host/vm/x/1/1/7/0", Host: "test.host", Time: time.Unix(1700000000, 123456000).UTC(), Policy: "etc-changes", Severity: "critical",
	Title: "Change", Message: `/etc/"x"] \`, DomainUUID: webUUID, DomainName: "web", Log: "test.host/vm/x/1/1", Verdict: 7, Cause: 5, VerdictHash: "ab"}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestWebhook holds a request against CloudEvents 1.0 and Standard Webhooks.
func TestWebhook(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})), 0o644)
	key := []byte("0123456789abcdef0123456789abcdef")
	secret := write(t, "secret", "whsec_"+base64.StdEncoding.EncodeToString(key)+"\n", 0o600)
	now := time.Unix(1700000100, 0)
	w, err := NewWebhook(HTTPConfig{URL: srv.URL + "/hook?x=1", TokenFile: write(t, "token", "s3cret\n", 0o600), TLS: TLSConfig{CAFile: ca}, Now: func() time.Time { return now }}, secret)
	if err != nil {
		t.Fatal(err)
	}
	if detail, err := w.Send(within(t, 10*time.Second), sample); err != nil || detail != "HTTP 202" {
		t.Fatal(detail, err)
	}
	if got.URL.String() != "/hook?x=1" || got.Header.Get("Authorization") != "Bearer s3cret" || !strings.HasPrefix(got.Header.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("%s %v", got.URL, got.Header)
	}
	if got.Header.Get("webhook-id") != sample.ID || got.Header.Get("webhook-timestamp") != "1700000100" || got.Header.Get("webhook-signature") != sign(key, sample.ID, "1700000100", body) {
		t.Errorf("signature %v", got.Header)
	}
	// The vector of the Standard Webhooks specification's libraries.
	vector, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if s := sign(vector, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); s != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("the specification's vector is signed %s", s)
	}
	var event map[string]any
	if err := json.Unmarshal(body, &event); err != nil {
		t.Fatal(err)
	}
	data := event["data"].(map[string]any)
	if event["specversion"] != "1.0" || event["id"] != sample.ID || event["source"] != "//test.host/provost" || event["type"] != EventType || event["subject"] != webUUID ||
		event["time"] != "2023-11-14T22:13:20.123456Z" || event["datacontenttype"] != "application/json" || data["message"] != sample.Message || data["verdict"] != 7.0 {
		t.Errorf("event %s", body)
	}
	// Without the CA nobody is believed.
	w, err = NewWebhook(HTTPConfig{URL: srv.URL}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Send(within(t, 10*time.Second), sample); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server with a certificate of nobody is believed: %v", err)
	}
}

// TestAnswers holds what each status means for an alert.
func TestAnswers(t *testing.T) {
	followed := false
	status, header := 200, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		followed = followed || r.URL.Path == "/elsewhere"
		w.Header().Set("Location", "/elsewhere")
		if header != "" {
			w.Header().Set("Retry-After", header)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "words of the receiver")
	}))
	defer srv.Close()
	now := time.Unix(1700000000, 0)
	w, err := NewWebhook(HTTPConfig{URL: srv.URL, Now: func() time.Time { return now }}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		header string
		final  bool
		after  time.Duration
	}{
		{500, "", false, 0}, {503, "7", false, 7 * time.Second}, {429, now.Add(time.Minute).UTC().Format(http.TimeFormat), false, time.Minute}, {429, "-3", false, 0}, {503, "99999999999999999999", false, 0},
		{400, "", true, 0}, {413, "", true, 0}, {422, "", true, 0}, {401, "", false, 0}, {404, "", false, 0}, {302, "", false, 0}, {307, "", false, 0},
	} {
		status, header = c.status, c.header
		_, err := w.Send(within(t, 10*time.Second), sample)
		var f *Failure
		if !errors.As(err, &f) || f.Final != c.final || f.After != c.after || f.Said != "words of the receiver" || strings.Contains(f.What, "words") {
			t.Errorf("%d with Retry-After %q: %+v", c.status, c.header, err)
		}
	}
	if followed {
		t.Error("a redirection was followed")
	}
	srv.Close()
	if _, err := w.Send(within(t, 10*time.Second), sample); err == nil {
		t.Error("nobody listens, and the alert is delivered")
	}
}

// TestRefusedConfigurations holds that what cannot be honoured is refused (I10).
func TestRefusedConfigurations(t *testing.T) {
	for what, err := range map[string]error{
		"cleartext":          second(NewWebhook(HTTPConfig{URL: "http://receiver.example.net/"}, "")),
		"a user in the url":  second(NewWebhook(HTTPConfig{URL: "https://u:p@receiver.example.net/"}, "")),
		"another scheme":     second(NewWebhook(HTTPConfig{URL: "file:///etc/passwd"}, "")),
		"a public secret":    second(NewWebhook(HTTPConfig{URL: "https://x/"}, write(t, "s", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", 0o644))),
		"a short secret":     second(NewWebhook(HTTPConfig{URL: "https://x/"}, write(t, "s", "whsec_MDEy", 0o600))),
		"no secret":          second(NewWebhook(HTTPConfig{URL: "https://x/"}, "/no/such/file")),
		"a CA without any":   second(NewAlertmanager(HTTPConfig{URL: "https://x/", TLS: TLSConfig{CAFile: write(t, "ca", "x", 0o644)}}, 0)),
		"a key alone":        second(NewAlertmanager(HTTPConfig{URL: "https://x/", TLS: TLSConfig{KeyFile: "/x"}}, 0)),
		"a relative program": second(NewCommand([]string{"true"}, "")),
		"no program":         second(NewCommand([]string{"/no/such/program"}, "")),
		"no such user":       second(NewCommand([]string{"/bin/true"}, "no-such-user-here")),
		"a relative socket":  second(NewSyslog("unix://dev/log", "", TLSConfig{})),
		"no port":            second(NewSyslog("udp://receiver", "", TLSConfig{})),
		"another protocol":   second(NewSyslog("http://receiver:80", "", TLSConfig{})),
		"another facility":   second(NewSyslog("udp://receiver:514", "lpr", TLSConfig{})),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if _, err := NewWebhook(HTTPConfig{URL: "http://receiver.example.net/", Cleartext: true}, ""); err != nil {
		t.Errorf("cleartext that was asked for: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestAlertmanager holds requests against the API's postableAlerts, and what is
// sent again.
func TestAlertmanager(t *testing.T) {
	var got [][]map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all []map[string]any
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil || r.URL.Path != "/am/api/v2/alerts" {
			t.Errorf("%s: %v", r.URL, err)
		}
		got = append(got, all)
	}))
	defer srv.Close()
	now := time.Unix(1700000500, 0)
	m, err := NewAlertmanager(HTTPConfig{URL: srv.URL + "/am/", Now: func() time.Time { return now }}, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 10*time.Second)
	again, other, try := *sample, *sample, *sample
	again.ID, again.Message, other.Policy, try.Test = "second", "later", "other", true
	for _, a := range []*Alert{sample, &again, &other, &try} {
		if _, err := m.Send(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	one := got[0][0]
	labels, notes := one["labels"].(map[string]any), one["annotations"].(map[string]any)
	if len(got[0]) != 1 || labels["alertname"] != "etc-changes" || labels["severity"] != "critical" || labels["domain"] != webUUID || labels["host"] != "test.host" ||
		notes["summary"] != "Change" || notes["description"] != sample.Message || one["startsAt"] != "2023-11-14T22:13:20.123456Z" || one["endsAt"] != "2023-11-14T22:31:40Z" {
		t.Errorf("posted %v", got[0])
	}
	got = nil
	now = now.Add(9 * time.Minute)
	if err := m.resend(ctx); err != nil || len(got) != 1 || len(got[0]) != 2 {
		t.Fatalf("sent again: %v, %v", got, err)
	}
	for _, a := range got[0] {
		if l := a["labels"].(map[string]any); l["alertname"] == "etc-changes" && a["annotations"].(map[string]any)["alert_id"] != "second" {
			t.Errorf("sent again is %v, want the newest", a)
		}
	}
	got = nil
	now = now.Add(2 * time.Minute)
	if err := m.resend(ctx); err != nil || got != nil || len(m.firing) != 0 {
		t.Errorf("what does not fire any more is sent: %v, %v", got, err)
	}
}

// parseFields reads entries of the journal's native protocol.
func parseFields(t *testing.T, b []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for len(b) > 0 {
		name, rest, ok := strings.Cut(string(b), "\n")
		if !ok || len(rest) < 8 {
			t.Fatalf("%q is no field", b)
		}
		n := binary.LittleEndian.Uint64([]byte(rest[:8]))
		all[name] = rest[8 : 8+n]
		b = []byte(rest[8+n+1:])
	}
	return all
}

// TestJournal reads a datagram, and a large entry from the file it is passed in.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	j := NewJournal(path)
	ctx := within(t, 10*time.Second)
	if _, err := j.Send(ctx, sample); err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 1<<20), make([]byte, 128)
	n, err := l.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	f := parseFields(t, buf[:n])
	if f["MESSAGE"] != `ALERT critical etc-changes on web: Change: /etc/"x"] \` || f["PRIORITY"] != "2" || f["MESSAGE_ID"] != JournalMessageID || f["PROVOST_VERDICT"] != "7" || f["PROVOST_ID"] != sample.ID {
		t.Errorf("fields %q", f)
	}
	large := field(nil, "MESSAGE", strings.Repeat("x", 4<<20))
	if err := j.write(ctx, large); err != nil {
		t.Fatal(err)
	}
	n, oobn, _, _, err := l.ReadMsgUnix(buf, oob)
	if err != nil || n != 0 {
		t.Fatalf("%d bytes: %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "passed")
	defer file.Close()
	if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals != unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE {
		t.Errorf("seals %x: %v", seals, err)
	}
	b := make([]byte, len(large)+1)
	if n, err := file.ReadAt(b, 0); n != len(large) || !errors.Is(err, io.EOF) || string(b[:n]) != string(large) {
		t.Errorf("%d bytes of %d: %v", n, len(large), err)
	}
	if _, err := NewJournal("/no/such/socket").Send(ctx, sample); err == nil {
		t.Error("there is no journal, and the alert is delivered")
	}
}

// TestSyslog receives a message by each transport.
func TestSyslog(t *testing.T) {
	want := fmt.Sprintf(`<130>1 2023-11-14T22:13:20.123456Z test.host provostd %d alert [provost@32473 id="%s" policy="etc-changes" severity="critical" domain_uuid="%s" domain_name="web" log="%s" verdict_hash="ab" verdict="7" cause="5"] `+
		"\xef\xbb\xbf"+`ALERT critical etc-changes on web: Change: /etc/"x"] \`, os.Getpid(), sample.ID, webUUID, sample.Log)
	ctx := within(t, 20*time.Second)
	send := func(address string, c TLSConfig) {
		t.Helper()
		s, err := NewSyslog(address, "local0", c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(ctx, sample); err != nil {
			t.Fatalf("%s: %v", address, err)
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	for network, address := range map[string]string{"unixgram": path, "udp": "127.0.0.1:0"} {
		l, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if network == "udp" {
			send("udp://"+l.LocalAddr().String(), TLSConfig{})
		} else {
			send("unix://"+path, TLSConfig{})
		}
		b := make([]byte, 64<<10)
		if n, _, err := l.ReadFrom(b); err != nil || string(b[:n]) != want {
			t.Errorf("%s: %q (%v), want %q", network, b[:n], err, want)
		}
	}
	srv := httptest.NewUnstartedServer(nil) // for its certificate
	srv.StartTLS()
	defer srv.Close()
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})), 0o644)
	for _, network := range []string{"tcp", "tls"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				got <- err.Error()
				return
			}
			defer c.Close()
			if network == "tls" {
				c = tls.Server(c, srv.TLS)
			}
			r := bufio.NewReader(c)
			size, _ := r.ReadString(' ')
			n, _ := strconv.Atoi(strings.TrimSpace(size))
			b := make([]byte, n)
			_, err = io.ReadFull(r, b)
			got <- fmt.Sprintf("%s%v", b, err)
		}()
		send(network+"://"+l.Addr().String(), TLSConfig{CAFile: ca})
		if s := <-got; s != want+"<nil>" {
			t.Errorf("%s: %q, want %q", network, s, want)
		}
	}
	if got := structured.Replace(`a"b\c]`); got != `a\"b\\c\]` {
		t.Errorf("structured data is escaped as %s", got)
	}
}

// TestCommand holds what a program gets, and what becomes of one that does not
// end.
func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("PROVOST_SECRET", "of the daemon")
	run := func(script string, d time.Duration) error {
		t.Helper()
		c, err := NewCommand([]string{"/bin/sh", "-c", script, "sh", out}, "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err = c.Send(ctx, sample)
		return err
	}
	if err := run(`cat >"$1"; env >>"$1"; pwd >>"$1"`, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	text, rest, _ := strings.Cut(string(b), "\n")
	var e cloudEvent
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.ID != sample.ID || e.Data.Message != sample.Message {
		t.Errorf("its input is %q: %v", text, err)
	}
	if strings.Contains(rest, "SECRET") || !strings.HasSuffix(rest, "\n/\n") || !strings.Contains(rest, commandPath) {
		t.Errorf("its environment and directory are %q", rest)
	}
	var f *Failure
	if err := run(`echo no use >&2; exit 100`, 10*time.Second); !errors.As(err, &f) || !f.Final || !strings.Contains(f.Said, "no use") || strings.Contains(f.What, "no use") {
		t.Errorf("exit 100: %+v", err)
	}
	if err := run(`exit 3`, 10*time.Second); !errors.As(err, &f) || f.Final {
		t.Errorf("exit 3: %+v", err)
	}
	// It and what it has started are killed.
	if err := run(`sleep 1000 & echo $! >"$1"; cat >/dev/null; wait`, time.Second); err == nil {
		t.Error("a program that does not end delivers")
	}
	b, err = os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !strings.Contains(string(st), ") Z ") {
		if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); strings.HasPrefix(string(cmdline), "sleep\x001000") {
			t.Errorf("what it has started lives: %s", st)
		}
	}
}
