package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/provostd/provost/chain/record"
)

// Alertmanager posts alerts to the API of Prometheus' Alertmanager, version 2.
// A verdict is a moment and an alert there has a duration: it fires for a time
// (hold) that each further verdict of the same policy on the same domain begins
// anew. While it fires it is sent again and again, since an Alertmanager that is
// restarted has forgotten it.
type Alertmanager struct {
	http *httpClient
	hold time.Duration
	now  func() time.Time

	mu     sync.Mutex // guards firing
	firing map[labels]*managed
}

// DefaultHold is how long an alert fires.
const DefaultHold = time.Hour

const (
	resendEvery = time.Minute
	maxFiring   = 1024 // what fires beyond is not sent again
	maxPosted   = 64   // in one request
)

// labels are what an alert is known by there: further ones of the same replace
// it. What a guest writes is in none of them, so it cannot multiply them.
type labels struct {
	Name     string `json:"alertname"`
	Severity string `json:"severity"`
	Host     string `json:"host"`
	Domain   string `json:"domain,omitempty"` // UUID
	Job      string `json:"job"`
}

// managed is a postableAlert of the API.
type managed struct {
	Labels      labels            `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	// GeneratorURL is what the interface links to; there it has to be a URI.
	GeneratorURL string `json:"generatorURL,omitempty"`
}

// NewAlertmanager returns a sender. URL is that of Alertmanager itself, ahead of /api.
func NewAlertmanager(c HTTPConfig, hold time.Duration) (*Alertmanager, error) {
	h, err := newHTTP(c, "/api/v2/alerts")
	if err != nil {
		return nil, err
	}
	if hold <= 0 {
		hold = DefaultHold
	}
	return &Alertmanager{http: h, hold: hold, now: h.cfg.Now, firing: map[labels]*managed{}}, nil
}

// Send posts one alert.
func (m *Alertmanager) Send(ctx context.Context, a *Alert) (string, error) {
	one := m.fire(a)
	detail, err := m.post(ctx, []*managed{one})
	if err != nil || a.Test {
		return detail, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.firing) < maxFiring || m.firing[one.Labels] != nil {
		m.firing[one.Labels] = one
	}
	return detail, nil
}

// fire describes an alert that was decided at a time and fires from then on. One
// that comes late fires as long as any other.
func (m *Alertmanager) fire(a *Alert) *managed {
	one := &managed{
		Labels:   labels{Name: a.Policy, Severity: a.Severity, Host: a.Host, Domain: a.DomainUUID, Job: "provost"},
		StartsAt: a.Time, EndsAt: m.now().Add(m.hold).UTC(),
		Annotations: map[string]string{"summary": a.Title, "description": a.Message, "alert_id": a.ID},
	}
	if a.Title == "" {
		one.Annotations["summary"] = a.Policy
	}
	for k, v := range map[string]string{"domain_name": a.DomainName, "log": a.Log, "verdict_hash": a.VerdictHash, "cause_class": a.CauseClass, "error": a.Error} {
		if v != "" {
			one.Annotations[k] = v
		}
	}
	if a.Log != "" {
		one.Annotations["verdict"], one.Annotations["cause"] = fmt.Sprint(a.Verdict), fmt.Sprint(a.Cause)
	}
	return one
}

func (m *Alertmanager) post(ctx context.Context, all []*managed) (string, error) {
	body, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	return m.http.post(ctx, "application/json", body, nil)
}

// Run sends what fires again every minute, as Prometheus does. An answer is
// not waited for longer than a minute; what is not taken now is sent next time.
func (m *Alertmanager) Run(ctx context.Context) {
	t := time.NewTicker(resendEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			own, cancel := context.WithTimeout(ctx, resendEvery)
			_ = m.resend(own) // the next round tries again; failures of new alerts are told
			cancel()
		case <-ctx.Done():
			return
		}
	}
}

// resend posts what fires, and forgets what does not any more.
func (m *Alertmanager) resend(ctx context.Context) error {
	now := m.now()
	var all []*managed
	m.mu.Lock()
	for l, one := range m.firing {
		if !one.EndsAt.After(now) {
			delete(m.firing, l)
			continue
		}
		all = append(all, one)
	}
	m.mu.Unlock()
	var errs []error
	for len(all) > 0 && ctx.Err() == nil {
		n := min(len(all), maxPosted)
		_, err := m.post(ctx, all[:n])
		errs = append(errs, err)
		all = all[n:]
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("send what fires again: %w: %w", err, record.ErrRetry)
	}
	return nil
}
