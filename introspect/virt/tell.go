package virt

import (
	"strconv"

	"github.com/provostd/provost/chain/record"
)

// maxText bounds one text that an event brings: QEMU and who comes to a
// console choose some of them.
const maxText = 512

// teller puts together what an event says. Words stand for libvirt's numbers,
// and the numbers are kept.
type teller struct{ *record.Hypervisor }

func told(word string) teller { return teller{&record.Hypervisor{Word: word}} }

func (t teller) device(s string) teller  { t.Device = bounded(s); return t }
func (t teller) path(s string) teller    { t.Path = bounded(s); return t }
func (t teller) address(s string) teller { t.Address = bounded(s); return t }
func (t teller) was(s string) teller     { t.OldValue = bounded(s); return t }
func (t teller) now(s string) teller     { t.NewValue = bounded(s); return t }
func (t teller) says(s string) teller    { t.Status = bounded(s); return t }

func (t teller) status(words []string, n int) teller { return t.says(wordOf(words, n)) }

func (t teller) number(name string, n int) teller { return t.text(name, strconv.Itoa(n)) }

// text keeps a text or number under a name; empty texts say nothing.
func (t teller) text(name, s string) teller {
	if s != "" && len(t.Numbers) < 32 {
		t.Numbers = append(t.Numbers, name+"="+bounded(s))
	}
	return t
}

func bounded(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "..."
	}
	return s
}

// wordOf is the word for one of libvirt's numbers. One without a word stays a number.
func wordOf(words []string, n int) string {
	if n >= 0 && n < len(words) {
		return words[n]
	}
	return strconv.Itoa(n)
}

// Words for libvirt's numbers, which are part of its interface and do not change.
var (
	metadataTypes   = []string{"description", "title", "element"}
	watchdogActions = []string{"none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"}
	ioErrorActions  = []string{"none", "pause", "report"}
	jobOperations   = []string{"unknown", "start", "save", "restore", "migration-in", "migration-out", "snapshot", "snapshot-revert",
		"dump", "backup", "snapshot-delete"}
	jobTypes         = []string{"none", "bounded", "unbounded", "completed", "failed", "cancelled"}
	guestAgentStates = []string{0: "unknown", 1: "connected", 2: "disconnected"}
	graphicsPhases   = []string{"connect", "initialize", "disconnect"}
	blockJobTypes    = []string{"unknown", "pull", "copy", "commit", "active-commit", "backup"}
	blockJobStates   = []string{"completed", "failed", "canceled", "ready"}
	diskReasons      = []string{"missing-on-start", "dropped-on-start"}
	trayReasons      = []string{"open", "close"}
	memoryActions    = []string{"ignore", "inject", "fatal", "reset"}
	memoryRecipients = []string{"hypervisor", "guest"}
	networkEvents    = []string{"defined", "undefined", "started", "stopped"}
	poolEvents       = []string{"defined", "undefined", "started", "stopped", "created", "deleted"}
	secretEvents     = []string{"defined", "undefined"}
)
