package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/introspect/domain"
	"github.com/provostd/provost/introspect/guest"
	"github.com/provostd/provost/rules/approval"
	"github.com/provostd/provost/rules/policy"
)

// Config is the daemon's configuration file. Every setting has a default, so
// an empty file is valid. examples/provostd.hcl explains each one.
type Config struct {
	// HostID names this host in the origins of its logs. Default: host name.
	HostID string `hcl:"host_id,optional"`
	// StateDir holds ledger, keys and everything derived. Default
	// /var/lib/provost.
	StateDir string `hcl:"state_dir,optional"`
	// Anchor is the file outside the store that tells a store which was rolled
	// back (invariant I6). It belongs on another disk. Default
	// /var/lib/provost-anchor/anchor.
	Anchor string `hcl:"anchor,optional"`
	// PayloadKeys is the directory of the keys that payloads are encrypted
	// under, outside of StateDir, so that a copy of that is worthless for
	// payloads that were erased. Default: StateDir with -payload-keys behind
	// its name.
	PayloadKeys string `hcl:"payload_keys,optional"`
	// Policies is the directory of the policy bundle; empty: none.
	Policies string `hcl:"policies,optional"`
	// Mode is the strongest mode that any policy has here: off, audit or
	// enforce. Default enforce.
	Mode string `hcl:"mode,optional"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `hcl:"log_level,optional"`

	Libvirt     *LibvirtConfig     `hcl:"libvirt,block"`
	API         *APIConfig         `hcl:"api,block"`
	Guest       *GuestConfig       `hcl:"guest,block"`
	Checkpoints *CheckpointsConfig `hcl:"checkpoints,block"`
	Keys        *KeysConfig        `hcl:"keys,block"`
	Retention   *RetentionConfig   `hcl:"retention,block"`
	Shards      *ShardsConfig      `hcl:"shards,block"`
	Enforcement *EnforcementConfig `hcl:"enforcement,block"`
	Witnessing  *WitnessingConfig  `hcl:"witnessing,block"`
	Egress      *EgressConfig      `hcl:"egress,block"`
	Witnesses   []WitnessConfig    `hcl:"witness,block"`
	Listeners   []ListenerConfig   `hcl:"listener,block"`
	Identities  []IdentityConfig   `hcl:"identity,block"`
	Domains     []DomainConfig     `hcl:"domain,block"`

	ApproverGroups []ApproverGroupConfig `hcl:"approver_group,block"`
	AlertChannels  []AlertChannelConfig  `hcl:"alert_channel,block"`

	approvers *approval.Roots
	path      string // of the file; empty: there is none
}

// LibvirtConfig says where libvirt is.
type LibvirtConfig struct {
	URI    string `hcl:"uri,optional"`     // default qemu:///system
	RunDir string `hcl:"run_dir,optional"` // of QEMU's pid files; default /run/libvirt/qemu

	ConfigDir  string `hcl:"config_dir,optional"`  // of the persistent configurations; default /etc/libvirt/qemu
	SaveDir    string `hcl:"save_dir,optional"`    // of managed saves; default /var/lib/libvirt/qemu/save
	SweepEvery string `hcl:"sweep_every,optional"` // between looks at every domain; default 60s

	ImageRate int64  `hcl:"image_rate,optional"` // bytes of images read in a second; default 64 MiB
	AuditLog  string `hcl:"audit_log,optional"`  // of the kernel; default: none is read

	sweepEvery time.Duration
}

// GuestConfig bounds what one domain may cost. Zero means the default.
type GuestConfig struct {
	RecordsPerSecond int    `hcl:"records_per_second,optional"` // default 20000
	BytesPerSecond   int    `hcl:"bytes_per_second,optional"`   // default 16 MiB
	SilentAfter      string `hcl:"silent_after,optional"`       // default 10s
	BootGrace        string `hcl:"boot_grace,optional"`         // default 120s
	Heartbeat        string `hcl:"heartbeat,optional"`          // default 2s

	// Covers are event types that every agent must see, and Probe by what: lsm or any.
	// Default: whatever the guest allows.
	Covers []string `hcl:"covers,optional"`
	Probe  string   `hcl:"probe,optional"`

	silentAfter, bootGrace, heartbeat time.Duration
	covers                            []record.Class
}

// CheckpointsConfig says how often heads are signed.
type CheckpointsConfig struct {
	VM    string `hcl:"vm,optional"`    // a VM log that has grown; default 1s
	Host  string `hcl:"host,optional"`  // the host log that has grown; default 1s
	Quote string `hcl:"quote,optional"` // VM checkpoints into the host log, and that to the witnesses; default 10s

	vm, host, quote time.Duration
}

// DomainConfig limits the policies on one domain, and says what its agent owes where
// that is not what GuestConfig asks of all.
type DomainConfig struct {
	UUID string `hcl:"uuid,label"`
	Mode string `hcl:"mode,optional"` // default: that of the host

	SilentAfter string    `hcl:"silent_after,optional"`
	BootGrace   string    `hcl:"boot_grace,optional"`
	Covers      *[]string `hcl:"covers,optional"`
	Probe       string    `hcl:"probe,optional"`

	id   domain.UUID
	duty guest.Duty
}

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// ReadConfig reads and checks a configuration file. The diagnostics name every
// problem of the file at once; files holds its text for rendering them.
func ReadConfig(path string) (*Config, map[string]*hcl.File, hcl.Diagnostics) {
	src, err := readSmall(path)
	if err != nil {
		return nil, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Configuration cannot be read",
			Detail: fmt.Sprintf("%v. Name another file with --config, or write one: examples/provostd.hcl is a start.", err)}}
	}
	c, files, diags := parseConfig(src, path)
	if c != nil {
		c.path = path
	}
	return c, files, diags
}

func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxConfig {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", path, st.Size(), maxConfig)
	}
	return os.ReadFile(path)
}

func parseConfig(src []byte, path string) (*Config, map[string]*hcl.File, hcl.Diagnostics) {
	f, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	files := map[string]*hcl.File{path: f}
	if diags.HasErrors() {
		return nil, files, diags
	}
	c := &Config{}
	diags = append(diags, gohcl.DecodeBody(f.Body, nil, c)...)
	if diags.HasErrors() {
		return nil, files, diags
	}
	diags = append(diags, c.complete(f.Body)...)
	if diags.HasErrors() {
		return nil, files, diags
	}
	return c, files, diags
}

// complete sets the defaults and checks every value.
func (c *Config) complete(body hcl.Body) hcl.Diagnostics {
	v := &validator{body: body}
	if c.HostID == "" {
		c.HostID, _ = os.Hostname() // an empty name fails the check below
		c.HostID = strings.ToLower(c.HostID)
	}
	if err := proof.CheckHostID(c.HostID); err != nil {
		v.bad("host_id", "Host id cannot be used", err.Error()+" Write a name such as host_id = \"kvm1.example.net\".")
	}
	def(&c.StateDir, "/var/lib/provost")
	def(&c.Anchor, "/var/lib/provost-anchor/anchor")
	def(&c.Mode, "enforce")
	def(&c.LogLevel, "info")
	def(&c.PayloadKeys, filepath.Clean(c.StateDir)+"-payload-keys")
	v.path("state_dir", c.StateDir)
	v.path("anchor", c.Anchor)
	v.path("payload_keys", c.PayloadKeys)
	if rel, err := filepath.Rel(c.StateDir, c.PayloadKeys); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		v.bad("payload_keys", "Payload keys lie in the state directory",
			fmt.Sprintf("Whoever copies the ledger would copy %s along, and what is erased here could be read from the copy. Name a directory outside %s.", c.PayloadKeys, c.StateDir))
	}
	if rel, err := filepath.Rel(c.StateDir, c.Anchor); err == nil && !strings.HasPrefix(rel, "..") {
		v.bad("anchor", "Anchor lies in the state directory",
			fmt.Sprintf("%s would be rolled back together with the store it guards. Put it on another file system, or at least outside %s.", c.Anchor, c.StateDir))
	}
	if c.Policies != "" {
		v.path("policies", c.Policies)
	}
	v.oneOf("mode", c.Mode, "off", "audit", "enforce")
	v.oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	c.blocks(v)
	return v.diags
}

func (c *Config) blocks(v *validator) {
	if c.Libvirt == nil {
		c.Libvirt = &LibvirtConfig{}
	}
	def(&c.Libvirt.URI, "qemu:///system")
	def(&c.Libvirt.RunDir, "/run/libvirt/qemu")
	v.path("libvirt.run_dir", c.Libvirt.RunDir)
	def(&c.Libvirt.ConfigDir, "/etc/libvirt/qemu")
	v.path("libvirt.config_dir", c.Libvirt.ConfigDir)
	def(&c.Libvirt.SaveDir, "/var/lib/libvirt/qemu/save")
	v.path("libvirt.save_dir", c.Libvirt.SaveDir)
	if c.Libvirt.AuditLog != "" {
		v.path("libvirt.audit_log", c.Libvirt.AuditLog)
	}
	if c.Libvirt.ImageRate < 0 {
		v.bad("libvirt.image_rate", "Rate is negative", "image_rate is a number of bytes above zero; leave it out for the default.")
	}
	c.Libvirt.sweepEvery = v.duration("libvirt.sweep_every", c.Libvirt.SweepEvery, time.Second, time.Hour)
	c.completeAPI(v)
	if c.Guest == nil {
		c.Guest = &GuestConfig{}
	}
	if c.Guest.RecordsPerSecond < 0 || c.Guest.BytesPerSecond < 0 {
		v.bad("guest", "Quota is negative", "records_per_second and bytes_per_second are numbers above zero; leave them out for the defaults.")
	}
	c.completeWatch(v)
	if c.Checkpoints == nil {
		c.Checkpoints = &CheckpointsConfig{}
	}
	c.Checkpoints.vm = v.duration("checkpoints.vm", c.Checkpoints.VM, 100*time.Millisecond, time.Hour)
	c.Checkpoints.host = v.duration("checkpoints.host", c.Checkpoints.Host, 100*time.Millisecond, time.Hour)
	c.Checkpoints.quote = v.duration("checkpoints.quote", c.Checkpoints.Quote, 100*time.Millisecond, time.Hour)
	c.completeKeys(v)
	c.completeRetention(v)
	c.completeShards(v)
	c.completeWitnesses(v)
	c.completeApprovers(v)
	c.completeAlerts(v)
	c.completeEnforcement(v)
	c.completeEgress(v)
	seen := map[domain.UUID]bool{}
	for i := range c.Domains {
		d := &c.Domains[i]
		var err error
		if d.id, err = domain.ParseUUID(d.UUID); err != nil {
			v.bad("domain", "Domain is not named by its UUID", err.Error()+" (virsh domuuid NAME prints it).")
		} else if seen[d.id] {
			v.bad("domain", "Domain has two blocks", fmt.Sprintf("%s is limited twice; keep one of the blocks.", d.id))
		}
		seen[d.id] = true
		def(&d.Mode, c.Mode)
		v.oneOf("domain.mode", d.Mode, "off", "audit", "enforce")
		c.completeDuty(v, d)
	}
}

func def(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

// validator collects what is wrong with a configuration.
type validator struct {
	body  hcl.Body
	diags hcl.Diagnostics
}

// bad adds an error on a setting, written block.attribute.
func (v *validator) bad(setting, summary, detail string) {
	v.diags = append(v.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary,
		Detail: "Setting " + setting + ": " + detail, Subject: find(v.body, strings.Split(setting, "."))})
}

// find returns where a setting stands, or where the body it belongs to ends.
func find(body hcl.Body, path []string) *hcl.Range {
	b, ok := body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	if a, ok := b.Attributes[path[0]]; ok {
		return a.Expr.Range().Ptr()
	}
	for _, blk := range b.Blocks {
		if blk.Type != path[0] {
			continue
		}
		if len(path) == 1 {
			return blk.DefRange().Ptr()
		}
		return find(blk.Body, path[1:])
	}
	return b.MissingItemRange().Ptr()
}

func (v *validator) path(setting, p string) {
	if !filepath.IsAbs(p) {
		v.bad(setting, "Path is not absolute", fmt.Sprintf("%q depends on where the daemon was started. Write it from the root.", p))
	}
}

func (v *validator) oneOf(setting, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	v.bad(setting, "Unknown value", fmt.Sprintf("%q is none of %s.", value, strings.Join(allowed, ", ")))
}

func (v *validator) duration(setting, value string, lo, hi time.Duration) time.Duration {
	if value == "" {
		return 0
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < lo || d > hi {
		v.bad(setting, "Duration cannot be used", fmt.Sprintf("%q is no duration from %s to %s, such as \"10s\".", value, lo, hi))
	}
	return d
}

// mode turns a checked word into a policy mode.
func mode(word string) policy.Mode {
	switch word {
	case "off":
		return policy.ModeOff
	case "audit":
		return policy.ModeAudit
	}
	return policy.ModeEnforce
}
