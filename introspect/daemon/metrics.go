package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/provostd/provost/chain"
	"github.com/provostd/provost/chain/index"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect"
	"github.com/provostd/provost/introspect/api/access"
	"github.com/provostd/provost/introspect/enforce"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/introspect/notify"
	"github.com/provostd/provost/introspect/virt"
	"github.com/provostd/provost/rules"
)

// metrics are the daemon's figures. Labels are bounded: policies by name,
// never paths or processes.
type metrics struct {
	registry *prometheus.Registry
	triggers *prometheus.CounterVec
	approved *prometheus.CounterVec
	actions  *prometheus.CounterVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.triggers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "provost_policy_triggers_total", Help: "Verdicts sealed.",
	}, []string{"policy", "mode", "severity"})
	m.actions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "provost_policy_actions_total", Help: "Outcomes of actions sealed.",
	}, []string{"policy", "mode", "action", "result"})
	m.approved = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "provost_policy_approvals_total", Help: "Uses and ends of approvals sealed.",
	}, []string{"state"})
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "provost_build_info", Help: "Version of the daemon."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.triggers, m.approved, m.actions, info)
	return m
}

// triggered counts a verdict. It is called behind its seal, so a count is never
// ahead of the evidence.
func (m *metrics) triggered(v *record.Verdict) {
	if rules.OfApproval(v) {
		m.approved.WithLabelValues(v.Approval.State).Inc()
		return
	}
	if v.LimitMax > 0 {
		return // stands beside a verdict, which is counted
	}
	m.triggers.WithLabelValues(v.Policy, v.Mode, v.Severity).Inc()
}

func (m *metrics) acted(policy, mode, action, result string) {
	m.actions.WithLabelValues(policy, mode, action, result).Inc()
}

// count registers a counter that some part keeps by itself.
func (m *metrics) count(name, help string, f func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_" + name, Help: help},
		func() float64 { return float64(f()) }))
}

func (m *metrics) gauge(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "provost_" + name, Help: help}, f))
}

func (m *metrics) guest(s *guest.Stats) {
	m.count("guest_handshakes_total", "Handshakes with guest agents completed.", s.Handshakes.Load)
	m.count("guest_frames_total", "Frames taken for sealing.", s.Frames.Load)
	m.count("guest_records_total", "Records in these frames.", s.Records.Load)
	m.count("guest_acks_total", "Frames acknowledged after they were durable.", s.Acks.Load)
	m.count("guest_duplicate_frames_total", "Frames sent again that were sealed already.", s.Duplicates.Load)
	m.count("guest_refused_frames_total", "Frames refused; each refusal is sealed.", s.Refused.Load)
	m.count("guest_protocol_violations_total", "Connections ended for breaking the protocol.", s.Misbehaved.Load)
	m.count("guest_garbage_total", "Stretches of bytes that were no envelope.", s.Garbage.Load)
	m.count("guest_sequence_gaps_total", "Holes found in what agents sent; each is sealed.", s.Gaps.Load)
	m.count("guest_events_dropped_total", "Events that agents say were observed and could not be kept.", s.Dropped.Load)
	m.count("guest_events_unexplained_total", "Events missing that no agent owned up to.", s.Unexplained.Load)
	m.count("guest_rollbacks_total", "Agents that hold an acknowledgement the log does not bear out.", s.Rollbacks.Load)
	m.count("guest_silences_total", "Times an agent went silent while its domain ran.", s.Silences.Load)
	m.count("guest_throttled_total", "Frames that waited for their domain's quota.", s.Throttled.Load)
}

func (m *metrics) egress(g *guards) {
	s := g.director.Stats()
	m.gauge("egress_taps", "Tap devices that are guarded.", func() float64 { return float64(s.Taps.Load()) })
	m.gauge("egress_failing_domains", "Domains that run and are not guarded as their policies ask for.", func() float64 { return float64(s.Failing.Load()) })
	m.count("egress_drops_sealed_total", "Denied flows sealed.", s.Drops.Load)
	m.count("egress_flows_total", "New flows that taps told of.", s.Flows.Load)
	m.count("egress_undeclared_flows_total", "Destinations that guests reached for and their agents did not tell of.", s.Undeclared.Load)
	m.count("egress_events_lost_total", "Flows that taps could not tell of; each loss is sealed.", s.Lost.Load)
}

func (m *metrics) libvirt(s *virt.Stats) {
	m.gauge("libvirt_connected", "1 while libvirt's events are heard.", func() float64 { return float64(s.Connected.Load()) })
	m.count("libvirt_connections_total", "Connections made to libvirt.", s.Connections.Load)
	m.count("libvirt_gaps_total", "Times libvirt was not heard any more.", s.Gaps.Load)
	m.count("libvirt_events_total", "Events received.", s.Events.Load)
	m.count("libvirt_events_counted_total", "Events beyond the rate that guests may cause, sealed as counts.", s.Counted.Load)
	m.count("libvirt_sweeps_total", "Looks at a domain for what libvirt does not announce.", s.Sweeps.Load)
	m.count("libvirt_sweep_errors_total", "Looks that libvirt did not answer.", s.SweepErrors.Load)
	m.count("libvirt_events_lost_total", "Events lost to a fault while they were copied.",
		func() uint64 { return s.CallbackPanics.Load() + s.LoopPanics.Load() })
	m.count("libvirt_audit_errors_total", "Times the audit log could not be opened.", s.AuditErrors.Load)
	m.count("libvirt_snapshot_errors_total", "Observations without the facts they should carry.", s.SnapshotErrors.Load)
	m.count("libvirt_call_timeouts_total", "Calls to libvirt given up at their deadline.", s.CallTimeouts.Load)
	m.gauge("libvirt_queue_length", "Observations not sealed yet.", func() float64 { return float64(s.QueueLength.Load()) })
}

func (m *metrics) images(s *introspect.ImageStats) {
	m.gauge("images_pending", "Files of domains whose digest is still to be sealed.", func() float64 { return float64(s.Pending.Load()) })
	m.count("images_read_total", "Files of domains read whole for their digest.", s.Hashed.Load)
	m.count("images_cached_total", "Files of domains whose digest was known.", s.Cached.Load)
	m.count("images_failed_total", "Files of domains that could not be read, or changed meanwhile.", s.Failed.Load)
	m.count("images_bytes_total", "Bytes read for digests.", s.Bytes.Load)
}

func (m *metrics) ledger(s *chain.Store, j *introspect.Judge, e *enforce.Enforcer) {
	m.gauge("ledger_logs", "Logs in the ledger.", func() float64 { return float64(len(s.Logs())) })
	m.gauge("ledger_entries", "Durable entries of all logs.", func() float64 {
		n := uint64(0)
		for _, l := range s.Logs() {
			n += l.Size()
		}
		return float64(n)
	})
	m.gauge("ledger_commits", "Durable commits.", func() float64 { return float64(s.End().Commit - 1) })
	m.gauge("ledger_entries_unsigned", "Durable entries no checkpoint covers yet.", func() float64 {
		n := uint64(0)
		for _, l := range s.Logs() {
			c, _ := l.Checkpoint()
			n += l.Size() - min(c.Size, l.Size())
		}
		return float64(n)
	})
	m.gauge("ledger_fenced_entries", "Entries whose rows were damaged and are fenced off.", func() float64 { return float64(s.Fenced()) })
	m.count("ledger_unreadable_entries_total", "Entries come to that could not be read: payload key lost, or fenced.", s.Unreadable)
	m.count("rules_entries_judged_total", "Entries evaluated.", func() uint64 { _, n, _ := j.Judged(); return n })
	m.count("rules_held_frames_total", "Frames that waited until policies had judged what their guest has sent before.", j.Held)
	m.count("rules_errors_total", "Entries a policy could not be decided for; each is sealed.", func() uint64 { _, _, n := j.Judged(); return n })
	m.count("rules_mismatches_total", "Times two ways to evaluate a policy disagreed; each is sealed.", j.Mismatches)
	m.gauge("rules_backlog_commits", "Commits not judged yet.", func() float64 { return float64(backlog(s, j)) })
	m.gauge("enforce_verdicts_open", "Verdicts whose actions are not all done.", func() float64 { return float64(e.InFlight()) })
}

func (m *metrics) index(x *index.Index) {
	m.gauge("index_entries", "Entries that queries find.", func() float64 { return float64(x.Entries()) })
	m.gauge("index_backlog_commits", "Commits not indexed yet.", func() float64 { return float64(x.Lag()) })
}

// access registers what happens at the listeners.
func (m *metrics) access(s *access.Stats, d *access.Sealer) {
	m.count("api_requests_total", "Requests from somebody who is known.", s.Requests.Load)
	m.count("api_authentication_failures_total", "Requests that did not show who sends them.", s.Failures.Load)
	m.count("api_requests_limited_total", "Requests refused because of their number.", s.Limited.Load)
	m.count("api_requests_busy_total", "Expensive requests refused because others of the same sender ran.", s.Busy.Load)
	m.count("api_requests_cut_total", "Requests ended because their token or certificate was not in force any more.", s.Cut.Load)
	m.count("api_panics_total", "Requests that ended in a fault of the daemon.", s.Panics.Load)
	m.gauge("api_connections", "Open connections.", func() float64 { return float64(s.Connections.Load()) })
	m.count("api_connections_refused_total", "Connections closed because of their number.", s.Refused.Load)
	m.count("api_connection_errors_total", "Connections that ended in an error, failed TLS handshakes among them.", s.Broken.Load)
	m.count("api_reloads_total", "Times certificates, CAs or tokens were read.", s.Reloads.Load)
	m.count("api_reload_failures_total", "Times they could not be used.", s.ReloadFails.Load)
	m.count("disclosures_total", "Disclosures of payloads sealed.", func() uint64 { n, _ := d.Sealed(); return n })
	m.count("disclosures_refused_total", "Payloads not given because their disclosure could not be sealed.", func() uint64 { _, n := d.Sealed(); return n })
}

func (m *metrics) retention(s *chain.RetentionStats) {
	m.count("retention_rounds_total", "Looks at what is old enough to go.", s.Rounds.Load)
	m.count("retention_failures_total", "Logs that such a look could not deal with; the next one tries again.", s.Failures.Load)
	m.count("retention_records_erased_total", "Records whose payloads were old enough and are erased.", s.Erased.Load)
	m.count("retention_entries_pruned_total", "Entries that were old enough and are pruned.", s.Pruned.Load)
	m.count("retention_hashes_pruned_total", "Pruned entries whose leaf hashes are gone too.", s.Tiles.Load)
}

// alerts registers what becomes of alerts, for each channel by its name in the
// configuration.
func (m *metrics) alerts(n *notify.Notifier) {
	for i, c := range n.Status() {
		labels := prometheus.Labels{"channel": c.Name}
		now := func() *notify.Status { return &n.Status()[i] }
		m.registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "provost_alerts_waiting", ConstLabels: labels,
				Help: "Alerts that wait to be delivered."}, func() float64 { return float64(now().Waiting) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_alerts_delivered_total", ConstLabels: labels,
				Help: "Alerts delivered; each is sealed."}, func() float64 { return float64(now().Delivered) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_alerts_given_up_total", ConstLabels: labels,
				Help: "Alerts given up; each is sealed."}, func() float64 { return float64(now().GivenUp) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_alerts_refused_total", ConstLabels: labels,
				Help: "Alerts that found no room in the queue; their outcomes say so."}, func() float64 { return float64(now().Refused) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_alert_failures_total", ConstLabels: labels,
				Help: "Attempts to deliver an alert that failed."}, func() float64 { return float64(now().Failures) }),
		)
	}
}

// witnesses registers what witnesses do, for each by its name in the
// configuration.
func (m *metrics) witnesses(s *chain.Store) {
	all, _, _ := s.Witnesses()
	if len(all) == 0 {
		return
	}
	m.gauge("witness_quorum", "1 while the newest round reached the quorum of witnesses.", func() float64 {
		if _, missing, _ := s.Witnesses(); missing != "" {
			return 0
		}
		return 1
	})
	m.count("witness_shortfalls_total", "Times the quorum was lost; each is sealed.", func() uint64 { _, _, n := s.Witnesses(); return n })
	m.gauge("witness_cosigned_entries", "Size of the newest host checkpoint that reached the quorum.", func() float64 {
		p, _ := s.Cosigned()
		return float64(p.Size)
	})
	for i, w := range all {
		labels := prometheus.Labels{"witness": w.Name}
		now := func() chain.WitnessStatus { all, _, _ := s.Witnesses(); return all[i] }
		m.registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "provost_witness_cosigned_timestamp_seconds", ConstLabels: labels,
				Help: "When the witness cosigned last, on its clock."}, func() float64 { return float64(now().Time) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "provost_witness_disputed", ConstLabels: labels,
				Help: "1 while the witness says that it has seen another history."}, func() float64 {
				if now().Disputed {
					return 1
				}
				return 0
			}),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_witness_cosignatures_total", ConstLabels: labels,
				Help: "Cosignatures taken in."}, func() float64 { return float64(now().Cosigned) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "provost_witness_failures_total", ConstLabels: labels,
				Help: "Rounds the witness did not cosign in."}, func() float64 { return float64(now().Failures) }),
		)
	}
}

func backlog(s *chain.Store, j *introspect.Judge) uint64 {
	judged, _, _ := j.Judged()
	end := s.End().Commit - 1
	return end - min(judged, end)
}
