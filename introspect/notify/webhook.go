package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/provostd/provost/chain/record"
)

// EventType is the type of the CloudEvents that webhooks get.
const EventType = "io.github.provostd.alert"

// Webhook posts alerts as CloudEvents 1.0 in structured JSON. With a secret the
// requests are signed as Standard Webhooks has it (HMAC-SHA256 over id,
// timestamp and body), so receivers verify them with stock libraries.
type Webhook struct {
	http   *httpClient
	secret string // file; empty: not signed
	now    func() time.Time
}

// secretPrefix is what secrets of Standard Webhooks begin with.
const secretPrefix = "whsec_"

// NewWebhook returns a sender. secretFile holds "whsec_" and 24 to 64 bytes in
// base64; it is read for each request, so a new one needs no restart.
func NewWebhook(c HTTPConfig, secretFile string) (*Webhook, error) {
	h, err := newHTTP(c, "")
	if err != nil {
		return nil, err
	}
	w := &Webhook{http: h, secret: secretFile, now: h.cfg.Now}
	if secretFile != "" {
		if _, err := readKey(secretFile); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func readKey(file string) ([]byte, error) {
	s, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(s, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("%s holds no secret for signatures: want %s and 24 to 64 bytes in base64, as of: echo %s$(openssl rand -base64 32): %w", file, secretPrefix, secretPrefix, record.ErrReject)
	}
	return key, nil
}

// cloudEvent is the structured form of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject,omitempty"`
	Time        string `json:"time"`
	ContentType string `json:"datacontenttype"`
	Severity    string `json:"severity"` // an extension attribute
	Data        *Alert `json:"data"`
}

func event(a *Alert) cloudEvent {
	return cloudEvent{SpecVersion: "1.0", ID: a.ID, Source: "//" + a.Host + "/provost", Type: EventType, Subject: a.DomainUUID,
		Time: a.Time.Format(time.RFC3339Nano), ContentType: "application/json", Severity: a.Severity, Data: a}
}

// Send posts one alert.
func (w *Webhook) Send(ctx context.Context, a *Alert) (string, error) {
	body, err := json.Marshal(event(a))
	if err != nil {
		return "", err
	}
	header := map[string]string{"webhook-id": a.ID, "webhook-timestamp": strconv.FormatInt(w.now().Unix(), 10)}
	if w.secret != "" {
		key, err := readKey(w.secret)
		if err != nil {
			return "", err
		}
		header["webhook-signature"] = sign(key, header["webhook-id"], header["webhook-timestamp"], body)
	}
	return w.http.post(ctx, "application/cloudevents+json; charset=utf-8", body, header)
}

// sign returns the signature of a request. Part of the format, which Standard
// Webhooks defines.
func sign(key []byte, id, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, key)
	_, _ = m.Write([]byte(id + "." + timestamp + ".")) // a hash never fails
	_, _ = m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}
