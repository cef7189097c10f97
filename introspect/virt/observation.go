package virt

import (
	"time"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
)

// Kind says what an observation is about.
type Kind string

const (
	// KindLifecycle is a lifecycle event of libvirt.
	KindLifecycle Kind = "lifecycle"
	// KindReboot is a reboot or reset of a guest that kept its QEMU process.
	KindReboot Kind = "reboot"
	// KindDevice is a change of a device or of the metadata of a domain.
	KindDevice Kind = "device"
	// KindNotice is any other event of a domain: watchdog, I/O error, finished job and the like.
	KindNotice Kind = "notice"
	// KindHost is an event of something that domains use: a network, a storage pool, a secret.
	KindHost Kind = "host"
	// KindSweep gives what a look at a domain has found, when that is not what was told last.
	KindSweep Kind = "sweep"
	// KindConnected says that events are heard from here on. Gap is set when something was missed before.
	KindConnected Kind = "connected"
	// KindGapBegin says that events are no longer heard; Reason and Gap.From are set.
	KindGapBegin Kind = "gap-begin"
	// KindResync gives the facts of one domain after connecting, one observation for each domain.
	KindResync Kind = "resync"
)

// Observation is one thing seen at libvirt. It is not changed after delivery.
type Observation struct {
	// Number counts observations of this Host from 1, in order of arrival, without holes.
	Number uint64
	Kind   Kind
	// Type is the event type of the policy language, such as "vm.start"; "vm.change" for what has
	// no type of its own, "vm.gap" for the connection.
	Type string
	// Word is libvirt's event in one neutral word: "define", "start", "pause", "watchdog".
	Word string
	// Reason is libvirt's detail in one word, or the cause of a gap.
	Reason string
	// Event and Detail are libvirt's own numbers for lifecycle events, -1 for others: newer
	// versions of libvirt send numbers for which this version has no words.
	Event, Detail int
	// Domain holds UUID, Name and ID as libvirt gave them with the event; State and Persistent
	// only when there is a Snapshot. Zero for the connection.
	Domain domain.Domain
	// Time is when the event arrived here. Libvirt sends no time of origin.
	Time time.Time
	// Repeat marks a reboot less than a second after one of the same domain: libvirt reports one
	// reset two to five times.
	Repeat bool
	// Hypervisor holds what the event says beyond its word, nil for most lifecycle events.
	Hypervisor *record.Hypervisor
	// Snapshot holds the facts read after the event, nil when they could not be read or the event
	// asks for none.
	Snapshot *Snapshot
	// SnapshotErr says why Snapshot is nil although the event asks for one.
	SnapshotErr error
	// Facts is set with KindSweep.
	Facts *Facts
	// Gap is set with KindGapBegin and, after a gap, with KindConnected.
	Gap *Gap
	// Coverage is set with KindConnected.
	Coverage *Coverage
}

// Gap is a stretch of time in which libvirt was not heard.
type Gap struct {
	From, To time.Time // To is zero while the gap is open
	Cause    string    // "libvirtd-exit", "keepalive", "connect", "daemon-restart", "error"
	Detail   string    // libvirt's own words, if any
	Changes  []Change  // what is different from before, for each domain that differs
}

// Change is what happened to one domain during a gap, as far as it can be told afterwards.
type Change struct {
	// What is any of: "appeared", "vanished", "started", "stopped", "restarted" (another QEMU
	// process), "state", "renamed", "config".
	What   []string
	Before *Known // nil when the domain appeared
	After  *Known // nil when it vanished
}

// Known is what is remembered of a domain to find out afterwards what a gap has hidden.
type Known struct {
	domain.Domain
	QEMU         Process `json:"qemu"`
	GenerationID string  `json:"generation_id,omitempty"`
	ConfigDigest string  `json:"config_digest,omitempty"` // SHA-256 of the persistent configuration, hexadecimal
}

// Coverage says which events of libvirt are listened to on this connection.
type Coverage struct {
	LibvirtVersion string            // of the daemon: "9.0.0"
	URI            string            // as the daemon names itself
	Events         []string          // names of the events registered
	Missing        map[string]string // name of an event that could not be registered, and why
	KeepAlive      bool              // a daemon that hangs is noticed
}

// Process names one process for ever: a pid alone is given to another process later.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// Snapshot is the facts about a domain at one moment. Parts that could not be read are empty and
// named in Errors.
type Snapshot struct {
	Time   time.Time
	Domain domain.Domain
	Status Status
	// LiveXML is the configuration of the run, empty when the domain does not run. No secrets.
	LiveXML string
	// ConfigXML is the persistent configuration, empty for a transient domain. No secrets.
	ConfigXML string
	// QEMU is the domain's process from libvirt's pid file, zero when it does not run.
	QEMU Process
	// ChannelPath is the unix socket of the product's channel in the live XML, empty when the domain
	// does not run or is not enrolled.
	ChannelPath string
	// Enrolled says that the persistent configuration (for a transient domain: the live one) has the channel.
	Enrolled bool
	// GenerationID is the live VM generation id, empty if there is none.
	GenerationID string
	// Mark is the marker in the live metadata, nil if there is none.
	Mark *Mark
	// MarkForged says why Mark, though there was one, is nil: it was not true.
	MarkForged string
	Disks      []Disk
	// Boot are the files that a start begins with, beside disks.
	Boot []BootFile
	// Machine and Architecture are of the virtual machine; CPUXML is its processor, which libvirt
	// gives in full for a domain that runs.
	Machine, Architecture, CPUXML string
	Errors                        []string
}

// Known is the part of a snapshot that is remembered.
func (s *Snapshot) Known() Known {
	return Known{Domain: s.Domain, QEMU: s.QEMU, GenerationID: s.GenerationID, ConfigDigest: digest(s.ConfigXML)}
}

// Disk is one disk with its files.
type Disk struct {
	Target string // "vda"
	Device string // "disk", "cdrom", "floppy", "lun"
	Format string // of the first file: "qcow2", "raw"
	// Chain is the disk's file and its backing files, in this order.
	Chain []DiskFile
	// ReadOnly says that the domain may not write to it, as to a CD.
	ReadOnly bool
	// Partial says that backing files may be missing from Chain: libvirt lists them for a running
	// domain only.
	Partial bool
}

// DiskFile is one file of a disk chain.
type DiskFile struct {
	Path    string // or what libvirt gives in its place: "nbd://host/name", "pool/volume"
	Size    int64
	Inode   uint64
	Device  uint64 // number of the file system
	ModTime time.Time
	// ChangeTime is when content or attributes changed last. Unlike ModTime it cannot be set.
	ChangeTime time.Time
	Error      string // why the file could not be looked at; the numbers are then zero
}

// Same says whether two looks were at the same file with the same content, as far as its file
// system's numbers tell.
func (f *DiskFile) Same(o *DiskFile) bool {
	return f.Error == "" && o.Error == "" && f.Size == o.Size && f.Inode == o.Inode && f.Device == o.Device &&
		f.ModTime.Equal(o.ModTime) && f.ChangeTime.Equal(o.ChangeTime)
}

// BootFile is a file that a start begins with.
type BootFile struct {
	Role string // firmware, nvram, kernel, initrd, dtb
	DiskFile
}

// Status is a domain's state with libvirt's reason for it.
type Status struct {
	State      domain.State `json:"state"`
	Reason     string       `json:"reason"`      // one word, such as "user" or "ioerror"
	ReasonCode int          `json:"reason_code"` // libvirt's own number
}
