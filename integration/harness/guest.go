package harness

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// GuestConfig describes a domain.
type GuestConfig struct {
	// Name of the domain: letters, digits and hyphens.
	Name string
	// UUID of the domain; random when empty.
	UUID  string
	Image Image
	// Accel is AccelTCG (zero value) or AccelKVM; see BestAccel.
	Accel Accel
	// MemoryMiB: zero value 512.
	MemoryMiB int
	// CPUs: zero value 1.
	CPUs int
	// AgentChannel puts the product's channel into the XML from the start. Without it the domain
	// has to be enrolled.
	AgentChannel bool
	// Devices is further XML for the devices element, such as disks and interfaces.
	Devices string
}

// Guest is a domain on a Host. Its Control field runs scripts in it, also after a restart.
type Guest struct {
	*Control
	host *Host
	cfg  GuestConfig
}

var guestName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,30}$`)

var domainXML = template.Must(template.New("domain").Funcs(template.FuncMap{"x": func(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}}).Parse(`<domain type='{{if eq .Accel "kvm"}}kvm{{else}}qemu{{end}}'>
  <name>{{x .Name}}</name>
  <uuid>{{x .UUID}}</uuid>
  <genid/>
  <memory unit='MiB'>{{.MemoryMiB}}</memory>
  <vcpu>{{.CPUs}}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/var/lib/libvirt/boot/{{.Image.Key}}.vmlinuz</kernel>
    <initrd>/var/lib/libvirt/boot/{{.Image.Key}}.cpio</initrd>
    <cmdline>{{x .Image.Cmdline}}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {{if eq .Accel "kvm"}}<cpu mode='host-passthrough'/>{{else}}<cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>{{end}}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <serial type='file'><source path='/var/log/libvirt/qemu/{{x .Name}}.console'/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name='` + ControlPort + `'/></channel>
    {{if .AgentChannel}}<channel type='unix'><target type='virtio' name='` + AgentPort + `'/></channel>{{end}}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    {{.Devices}}
  </devices>
</domain>
`))

// DefineGuest defines a domain; Start boots it.
func (h *Host) DefineGuest(ctx context.Context, cfg GuestConfig) (*Guest, error) {
	if !guestName.MatchString(cfg.Name) {
		return nil, fmt.Errorf("define guest: name %q: use up to 31 letters, digits and hyphens", cfg.Name)
	}
	if cfg.UUID == "" {
		cfg.UUID = NewUUID()
	}
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = 512
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	cfg.Accel = cfg.Accel.orTCG()
	// QEMU runs as a user of its own, which cannot look into most home directories: it gets copies.
	for src, ext := range map[string]string{cfg.Image.Kernel: ".vmlinuz", cfg.Image.Initrd: ".cpio"} {
		if err := copyFile(filepath.Join(h.cfg.Dir, "lib/boot", cfg.Image.Key+ext), src); err != nil {
			return nil, fmt.Errorf("define guest: %w", err)
		}
	}
	var buf bytes.Buffer
	if err := domainXML.Execute(&buf, cfg); err != nil {
		return nil, fmt.Errorf("define guest: %w", err)
	}
	file := filepath.Join(h.cfg.Dir, cfg.Name+".xml")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		return nil, fmt.Errorf("define guest: %w", err)
	}
	if _, err := h.Virsh(ctx, "define", file); err != nil {
		return nil, fmt.Errorf("define guest: %w", err)
	}
	g := &Guest{host: h, cfg: cfg}
	g.Control = newControl(func(ctx context.Context) (string, error) { return g.Channel(ctx, ControlPort) })
	return g, nil
}

// Name is the domain's name.
func (g *Guest) Name() string { return g.cfg.Name }

// UUID is the domain's UUID in its usual form.
func (g *Guest) UUID() string { return g.cfg.UUID }

// Console is the path of the log of the guest's serial port.
func (g *Guest) Console() string {
	return filepath.Join(g.host.cfg.Dir, "log/qemu", g.cfg.Name+".console")
}

// Start boots the guest and returns when QEMU runs; WaitReady waits for the guest itself.
func (g *Guest) Start(ctx context.Context) error { return g.virsh(ctx, "start") }

// Boot is Start and then WaitReady.
func (g *Guest) Boot(ctx context.Context) error {
	if err := g.Start(ctx); err != nil {
		return fmt.Errorf("start guest %s: %w", g.cfg.Name, err)
	}
	return g.WaitReady(ctx)
}

// WaitReady waits until the guest runs scripts, at most until ctx ends. The error holds the last
// lines of the console.
func (g *Guest) WaitReady(ctx context.Context) error {
	if _, err := g.WaitBoot(ctx, ""); err != nil {
		data, _ := os.ReadFile(g.Console())
		return fmt.Errorf("start guest %s: %w; its console: %s", g.cfg.Name, err, lastLines(string(data), 8))
	}
	return nil
}

// Reboot restarts the guest from within and waits until it is back.
func (g *Guest) Reboot(ctx context.Context) error {
	return g.again(ctx, func() error {
		// The answer is lost with the guest more often than not.
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := g.Run(short, "reboot -f")
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errControlLost) {
			return nil
		}
		return err
	})
}

// Reset restarts the guest as with a reset button and waits until it is back.
func (g *Guest) Reset(ctx context.Context) error {
	return g.again(ctx, func() error { return g.virsh(ctx, "reset") })
}

func (g *Guest) again(ctx context.Context, restart func() error) error {
	boot, err := g.BootID(ctx)
	if err != nil {
		return fmt.Errorf("restart guest %s: %w", g.cfg.Name, err)
	}
	if err := restart(); err != nil {
		return fmt.Errorf("restart guest %s: %w", g.cfg.Name, err)
	}
	if _, err := g.WaitBoot(ctx, boot); err != nil {
		return fmt.Errorf("restart guest %s: %w", g.cfg.Name, err)
	}
	return nil
}

// State is what virsh domstate says: "running", "paused", "shut off".
func (g *Guest) State(ctx context.Context) (string, error) {
	out, err := g.host.Virsh(ctx, "domstate", g.cfg.UUID)
	return strings.TrimSpace(out), err
}

// WaitState waits until virsh domstate says state.
func (g *Guest) WaitState(ctx context.Context, state string) error {
	for {
		now, err := g.State(ctx)
		if err == nil && now == state {
			return nil
		}
		if perr := pause(ctx, 50*time.Millisecond); perr != nil {
			return fmt.Errorf("wait for guest %s to be %s: it is %q: %w", g.cfg.Name, state, now, errors.Join(perr, err))
		}
	}
}

// Pause and Resume act as an administrator would, with virsh.
func (g *Guest) Pause(ctx context.Context) error { return g.virsh(ctx, "suspend") }

// Resume lets a paused guest go on.
func (g *Guest) Resume(ctx context.Context) error { return g.virsh(ctx, "resume") }

// Destroy ends QEMU at once.
func (g *Guest) Destroy(ctx context.Context) error { return g.virsh(ctx, "destroy") }

// Undefine removes the domain, which must not run.
func (g *Guest) Undefine(ctx context.Context) error { return g.virsh(ctx, "undefine") }

func (g *Guest) virsh(ctx context.Context, verb string) error {
	_, err := g.host.Virsh(ctx, verb, g.cfg.UUID)
	return err
}

// Channel is the path of the host end of one of the guest's virtio-serial ports, read from the
// live XML (it changes with each start) and translated for a caller outside the host's namespaces.
func (g *Guest) Channel(ctx context.Context, port string) (string, error) {
	out, err := g.host.Virsh(ctx, "dumpxml", g.cfg.UUID)
	if err != nil {
		return "", err
	}
	var d struct {
		Channels []struct {
			Source struct {
				Path string `xml:"path,attr"`
			} `xml:"source"`
			Target struct {
				Name string `xml:"name,attr"`
			} `xml:"target"`
		} `xml:"devices>channel"`
	}
	if err := xml.Unmarshal([]byte(out), &d); err != nil {
		return "", fmt.Errorf("read live XML of %s: %w", g.cfg.Name, err)
	}
	for _, c := range d.Channels {
		if c.Target.Name == port {
			if c.Source.Path == "" {
				return "", fmt.Errorf("find channel %s of %s: the domain does not run", port, g.cfg.Name)
			}
			return g.host.Outside(c.Source.Path), nil
		}
	}
	return "", fmt.Errorf("find channel %s of %s: the domain has none", port, g.cfg.Name)
}

// copyFile copies src to dst unless dst is there with the same size; names carry a digest of the content.
func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer in.Close()
	if a, err := in.Stat(); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	} else if b, err := os.Stat(dst); err == nil && a.Size() == b.Size() {
		return nil
	}
	out, err := os.OpenFile(dst+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return os.Rename(dst+".tmp", dst)
}
