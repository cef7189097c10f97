package virt

import (
	"fmt"

	"github.com/provostd/provost/introspect/domain"
)

// eventWord is how one lifecycle event of libvirt is called here. details[i] names detail i.
type eventWord struct {
	word, typ string
	details   []string
}

// lifecycleWords is indexed by virDomainEventType. The numbers are part of libvirt's interface and
// do not change; the binding's own names for them have holes.
var lifecycleWords = []eventWord{
	0: {"define", "vm.define", []string{"added", "updated", "renamed", "from-snapshot"}},
	1: {"undefine", "vm.undefine", []string{"removed", "renamed"}},
	2: {"start", "vm.start", []string{"booted", "migrated", "restored", "from-snapshot", "wakeup", "recreated"}},
	3: {"pause", "vm.pause", []string{"user", "migrating", "ioerror", "watchdog", "restored", "from-snapshot", "api-error",
		"postcopy", "postcopy-failed", "guest-shutdown"}},
	4: {"resume", "vm.resume", []string{"unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"}},
	5: {"stop", "vm.stop", []string{"shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot"}},
	6: {"shutdown", "vm.change", []string{"finished", "guest", "host"}},
	7: {"pmsuspend", "vm.pause", []string{"memory", "disk"}},
	8: {"crash", "vm.crash", []string{"panicked", "crashloaded"}},
}

// describeLifecycle gives type, word and reason of a lifecycle event. Numbers without words are
// kept as numbers, so nothing libvirt says is lost.
func describeLifecycle(event, detail int) (typ, word, reason string) {
	if event < 0 || event >= len(lifecycleWords) {
		return "vm.change", fmt.Sprintf("event-%d", event), fmt.Sprintf("detail-%d", detail)
	}
	w := lifecycleWords[event]
	typ, word, reason = w.typ, w.word, fmt.Sprintf("detail-%d", detail)
	if detail >= 0 && detail < len(w.details) {
		reason = w.details[detail]
	}
	switch {
	case reason == "migrated" && (word == "start" || word == "stop"):
		typ = "vm.migrate"
	case word == "stop" && (reason == "crashed" || reason == "failed"):
		typ = "vm.crash" // the guest's kernel crashed, or QEMU ended without being asked to
	}
	return typ, word, reason
}

// stateReasons is indexed by state, then by virDomain*Reason.
var stateReasons = map[domain.State][]string{
	domain.Running: {"unknown", "booted", "migrated", "restored", "from-snapshot", "unpaused", "migration-canceled", "save-canceled",
		"wakeup", "crashed", "postcopy", "postcopy-failed"},
	domain.Paused: {"unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from-snapshot", "shutting-down", "snapshot",
		"crashed", "starting-up", "postcopy", "postcopy-failed", "api-error"},
	domain.Shutdown:    {"unknown", "user"},
	domain.Shutoff:     {"unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"},
	domain.Crashed:     {"unknown", "panicked"},
	domain.PMSuspended: {"unknown", "disk"},
	domain.Blocked:     {"unknown"},
	domain.NoState:     {"unknown"},
}

func describeState(state domain.State, code int) Status {
	s := Status{State: state, ReasonCode: code, Reason: fmt.Sprintf("reason-%d", code)}
	if names := stateReasons[state]; code >= 0 && code < len(names) {
		s.Reason = names[code]
	}
	return s
}
