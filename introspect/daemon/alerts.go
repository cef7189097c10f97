package daemon

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/provostd/provost/introspect/api"
	"github.com/provostd/provost/introspect/api/client"
	"github.com/provostd/provost/introspect/enforce"
	"github.com/provostd/provost/introspect/notify"
)

// AlertChannelConfig is a way to tell people of alerts. Which settings a type
// has, alertTypes says.
type AlertChannelConfig struct {
	Name string `hcl:"name,label"`
	Type string `hcl:"type"` // webhook, alertmanager, journal, syslog, command

	URL         string   `hcl:"url,optional"`
	Secret      string   `hcl:"secret_file,optional"` // of the signatures of a webhook
	Token       string   `hcl:"token_file,optional"`  // bearer token
	CA          string   `hcl:"ca,optional"`          // PEM; default: the system's
	Certificate string   `hcl:"certificate,optional"` // ours, PEM
	Key         string   `hcl:"key,optional"`         // of it, PEM
	Cleartext   bool     `hcl:"cleartext,optional"`   // http:// to other hosts
	Hold        string   `hcl:"hold,optional"`        // how long an alert fires in Alertmanager; default 1h
	Address     string   `hcl:"address,optional"`     // of syslog
	Facility    string   `hcl:"facility,optional"`    // of syslog; default auth
	Socket      string   `hcl:"socket,optional"`      // of journald
	Command     []string `hcl:"command,optional"`     // program and arguments
	User        string   `hcl:"user,optional"`        // it runs as; default: the daemon's

	Timeout     string `hcl:"timeout,optional"`     // of one attempt; default 10s
	GiveUp      string `hcl:"give_up,optional"`     // how long an alert is tried; default 24h
	Concurrency int    `hcl:"concurrency,optional"` // alerts of different domains at once; default 1

	timeout, giveUp, hold time.Duration
}

// alertTypes are the settings that each type has beside timeout, give_up and
// concurrency; the first ones are required where they end in "!".
var alertTypes = map[string][]string{
	"webhook":      {"url!", "secret_file", "token_file", "ca", "certificate", "key", "cleartext"},
	"alertmanager": {"url!", "token_file", "ca", "certificate", "key", "cleartext", "hold"},
	"journal":      {"socket"},
	"syslog":       {"address!", "facility", "ca", "certificate", "key"},
	"command":      {"command!", "user"},
}

var channelName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// given are the settings of a block that only some types have.
func (c *AlertChannelConfig) given() map[string]bool {
	return map[string]bool{"url": c.URL != "", "secret_file": c.Secret != "", "token_file": c.Token != "", "ca": c.CA != "", "certificate": c.Certificate != "",
		"key": c.Key != "", "cleartext": c.Cleartext, "hold": c.Hold != "", "address": c.Address != "", "facility": c.Facility != "", "socket": c.Socket != "",
		"command": len(c.Command) > 0, "user": c.User != ""}
}

// completeAlerts checks the blocks; the files they name are read at the start.
func (c *Config) completeAlerts(v *validator) {
	seen := map[string]bool{notify.LogChannel: true}
	for i := range c.AlertChannels {
		a := &c.AlertChannels[i]
		if !channelName.MatchString(a.Name) {
			v.bad("alert_channel", "Alert channel has a name that cannot be used", fmt.Sprintf("%q: want small letters, digits, - and _, 63 at most.", a.Name))
		}
		if seen[a.Name] {
			v.bad("alert_channel", "Alert channel has two blocks", fmt.Sprintf("%q is described twice, or is \"log\", which every host has; keep one.", a.Name))
		}
		seen[a.Name] = true
		a.timeout = v.duration("alert_channel.timeout", a.Timeout, 100*time.Millisecond, 5*time.Minute)
		a.giveUp = v.duration("alert_channel.give_up", a.GiveUp, time.Second, 30*24*time.Hour)
		a.hold = v.duration("alert_channel.hold", a.Hold, time.Minute, 7*24*time.Hour)
		if a.Concurrency < 0 || a.Concurrency > 64 {
			v.bad("alert_channel.concurrency", "Concurrency cannot be used", fmt.Sprintf("%d is no number from 1 to 64.", a.Concurrency))
		}
		for setting, path := range map[string]string{"secret_file": a.Secret, "token_file": a.Token, "ca": a.CA, "certificate": a.Certificate, "key": a.Key, "socket": a.Socket} {
			if path != "" {
				v.path("alert_channel."+setting, path)
			}
		}
		a.checkType(v)
	}
}

func (c *AlertChannelConfig) checkType(v *validator) {
	known, ok := alertTypes[c.Type]
	if !ok {
		v.oneOf("alert_channel.type", c.Type, "webhook", "alertmanager", "journal", "syslog", "command")
		return
	}
	given := c.given()
	var names []string
	for _, s := range known {
		name, required := strings.CutSuffix(s, "!")
		names = append(names, name)
		if required && !given[name] {
			v.bad("alert_channel", "Alert channel lacks a setting", fmt.Sprintf("%q is of type %s, which needs %s.", c.Name, c.Type, name))
		}
		delete(given, name)
	}
	for name, set := range given {
		if set {
			v.bad("alert_channel."+name, "Setting is not for this type", fmt.Sprintf("%q is of type %s, which has %s.", c.Name, c.Type, strings.Join(names, ", ")))
		}
	}
}

// channelNames are what policies may name.
func (c *Config) channelNames() []string {
	names := []string{notify.LogChannel}
	for _, a := range c.AlertChannels {
		names = append(names, a.Name)
	}
	return names
}

// sender makes what delivers for a channel.
func (c *AlertChannelConfig) sender() (notify.Sender, error) {
	t := notify.TLSConfig{CAFile: c.CA, CertificateFile: c.Certificate, KeyFile: c.Key}
	h := notify.HTTPConfig{URL: c.URL, TokenFile: c.Token, TLS: t, Cleartext: c.Cleartext}
	switch c.Type {
	case "webhook":
		return notify.NewWebhook(h, c.Secret)
	case "alertmanager":
		return notify.NewAlertmanager(h, c.hold)
	case "journal":
		return notify.NewJournal(c.Socket), nil
	case "syslog":
		return notify.NewSyslog(c.Address, c.Facility, t)
	case "command":
		return notify.NewCommand(c.Command, c.User)
	}
	return nil, fmt.Errorf("alert channels of type %q are not known", c.Type) // checkType has refused it
}

// alertChannels makes all channels of the configuration.
func (c *Config) alertChannels() ([]notify.Channel, error) {
	var all []notify.Channel
	var errs []error
	for i := range c.AlertChannels {
		a := &c.AlertChannels[i]
		s, err := a.sender()
		if err != nil {
			errs = append(errs, fmt.Errorf("alert_channel %q: %w", a.Name, err))
			continue
		}
		all = append(all, notify.Channel{Name: a.Name, Type: a.Type, Sender: s, Timeout: a.timeout, GiveUp: a.giveUp, Concurrency: a.Concurrency})
	}
	return all, errors.Join(errs...)
}

// CheckAlerts reads what alert channels need, so that a secret or a certificate
// that cannot be used is found before a start.
func CheckAlerts(c *Config) error {
	_, err := c.alertChannels()
	return err
}

func openNotifier(d *Daemon) (*notify.Notifier, error) {
	all, err := d.cfg.alertChannels()
	if err != nil {
		return nil, err
	}
	return notify.New(notify.Config{Store: d.store, Channels: all, Host: d.cfg.HostID, Name: d.name, Log: d.log, Now: time.Now})
}

// alert hands an alert to the log, which journald keeps, and to its channels.
func (d *Daemon) alert(ctx context.Context, a enforce.Alert) (enforce.Handed, error) {
	d.log.WarnContext(ctx, "ALERT", "policy", a.Policy, "severity", a.Severity, "title", a.Title, "message", a.Message,
		"uuid", a.Domain.String(), "log", a.Log.Origin(), "verdict", a.Verdict, "cause", a.Cause)
	h, err := d.notifier.Hand(a.Log, a.Verdict, a.Action, a.Channels)
	return enforce.Handed{To: h.To, Rows: h.Rows, Durable: h.Durable}, err
}

func (d *Daemon) alertStatus(context.Context) ([]client.AlertChannel, error) {
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	all := []client.AlertChannel{}
	for _, s := range d.notifier.Status() {
		all = append(all, client.AlertChannel{Name: s.Name, Type: s.Type, Waiting: s.Waiting, Oldest: stamp(s.Oldest), Last: stamp(s.Last), Problem: s.Problem,
			Delivered: s.Delivered, GivenUp: s.GivenUp, Failures: s.Failures, Refused: s.Refused})
	}
	return all, nil
}

// testAlert sends a test alert by a channel. That it is not delivered is an
// answer.
func (d *Daemon) testAlert(ctx context.Context, channel, requester string) (*client.AlertTest, error) {
	names := d.cfg.channelNames()[1:] // all but the log
	if !slices.Contains(names, channel) {
		return nil, fmt.Errorf("alert channel %q: the configuration has %s: %w", channel, strings.Join(append([]string{"no others than"}, names...), " "), api.ErrNotFound)
	}
	detail, err := d.notifier.Test(ctx, channel, requester)
	if err != nil {
		return &client.AlertTest{Channel: channel, Detail: err.Error()}, nil
	}
	return &client.AlertTest{Channel: channel, Delivered: true, Detail: detail}, nil
}
