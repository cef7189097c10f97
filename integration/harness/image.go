package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

//go:embed guest/*.sh
var guestScripts embed.FS

// imageFormat goes into every image's key; raise it when the way images are built changes.
const imageFormat = "provost test image 1\n"

// Names of the guest's virtio-serial ports.
const (
	AgentPort   = "org.provost.0"      // the product's channel
	ControlPort = "org.provost.test.0" // the harness's own channel; no product code knows it
)

// guestModules are the modules a guest loads beside what its kernel has built in.
var guestModules = []string{"virtio_pci", "virtio_console", "virtio_net", "virtio_blk", "virtio_rng"}

// ImageConfig says what a guest image holds.
type ImageConfig struct {
	// Cache keeps kernels and images. Zero value: DefaultCache.
	Cache Cache
	// KernelVersion is "6.12" (zero value), "6.1" or "5.10".
	KernelVersion string
	// NoBPFLSM boots the kernel without bpf among its security modules. Zero value: with it, also
	// where the kernel's own default list leaves it out, as that of 5.10 does.
	NoBPFLSM bool
	// Modules are further kernel modules to load at boot.
	Modules []string
	// SpareModules are put into /lib/modules with what they depend on, and not loaded.
	SpareModules []string
	// Agent is the path of a static provost-agent binary, empty for a guest without one.
	Agent string
	// AgentArgs are the agent's arguments; none may hold blanks.
	AgentArgs []string
	// Files are further files: path in the guest to path on this machine. Execute permission is kept.
	Files map[string]string
}

// Image is a bootable guest: kernel, initramfs and kernel command line.
type Image struct {
	Key     string // digest of all that went into it
	Release string // kernel release, as uname -r in the guest
	Kernel  string // path of the kernel
	Initrd  string // path of the initramfs
	Cmdline string
}

// BuildImage returns the image for cfg, from the cache when nothing that goes into it has changed.
// It may be called by several processes at a time.
func BuildImage(ctx context.Context, cfg ImageConfig) (Image, error) {
	if cfg.Cache.Dir == "" {
		c, err := DefaultCache()
		if err != nil {
			return Image{}, err
		}
		cfg.Cache = c
	}
	if cfg.KernelVersion == "" {
		cfg.KernelVersion = "6.12"
	}
	unlock, err := cfg.Cache.lock()
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	k, err := cfg.Cache.kernel(ctx, cfg.KernelVersion)
	if err != nil {
		return Image{}, err
	}
	files, err := cfg.files()
	if err != nil {
		return Image{}, err
	}
	cmdline, err := k.cmdline(!cfg.NoBPFLSM)
	if err != nil {
		return Image{}, err
	}
	key := cfg.key(k, files)
	img := Image{Key: key, Release: k.Release, Kernel: k.Image, Cmdline: cmdline,
		Initrd: cfg.Cache.path("images", key+".cpio")}
	if _, err := os.Stat(img.Initrd); err == nil {
		now := time.Now()
		_ = os.Chtimes(img.Initrd, now, now) // only the pruning below looks at it
		return img, nil
	}
	data, err := cfg.pack(ctx, k, files)
	if err != nil {
		return Image{}, fmt.Errorf("build guest image: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(img.Initrd), 0o755); err != nil {
		return Image{}, fmt.Errorf("build guest image: %w", err)
	}
	if err := replaceFile(img.Initrd, 0o644, data); err != nil {
		return Image{}, fmt.Errorf("build guest image: %w", err)
	}
	cfg.Cache.pruneImages(12)
	return img, nil
}

// cmdline is the kernel command line of every guest. A panic restarts the guest at once, as on a
// server; the speculation mitigations only cost time under software emulation.
func (k Kernel) cmdline(bpfLSM bool) (string, error) {
	lsm, err := k.lsmParameter(bpfLSM)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace("rdinit=/sbin/init console=ttyS0 panic=-1 loglevel=4 mitigations=off " + lsm), nil
}

// imageFile is one file of the image with its content.
type imageFile struct {
	path string // without leading slash
	perm uint32
	data []byte
}

// files gathers every file that depends on the configuration or on this machine.
func (cfg ImageConfig) files() ([]imageFile, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	out := []imageFile{{"bin/busybox", 0o755, busybox}}
	for src, dst := range map[string]string{
		"rc.sh": "lib/provost-test/rc", "ports.sh": "lib/provost-test/ports", "control.sh": "lib/provost-test/control",
		"agent.sh": "lib/provost-test/agent", "lib.sh": "lib/provost-test/lib.sh", "agentctl.sh": "usr/bin/agentctl",
	} {
		data, err := fs.ReadFile(guestScripts, "guest/"+src)
		if err != nil {
			return nil, fmt.Errorf("read guest script: %w", err)
		}
		out = append(out, imageFile{dst, 0o755, data})
	}
	inittab := "::sysinit:/lib/provost-test/rc\n::respawn:/lib/provost-test/ports\n::respawn:/lib/provost-test/control\n"
	if cfg.Agent != "" {
		agent, err := staticBinary(cfg.Agent)
		if err != nil {
			return nil, fmt.Errorf("take provost-agent into the guest image: %w", err)
		}
		for _, a := range cfg.AgentArgs {
			if strings.ContainsAny(a, " \t\n*?[") {
				return nil, fmt.Errorf("take provost-agent into the guest image: argument %q holds blanks or wildcards", a)
			}
		}
		inittab += "::respawn:/lib/provost-test/agent\n"
		out = append(out, imageFile{"usr/bin/provost-agent", 0o755, agent},
			imageFile{"lib/provost-test/agent-args", 0o644, []byte(strings.Join(cfg.AgentArgs, " ") + "\n")})
	}
	out = append(out, imageFile{"etc/inittab", 0o644, []byte(inittab)},
		imageFile{"etc/hostname", 0o644, []byte("guest\n")},
		imageFile{"etc/hosts", 0o644, []byte("127.0.0.1 localhost\n")},
		imageFile{"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		imageFile{"etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n")})
	for dst, src := range cfg.Files {
		st, err := os.Stat(src)
		if err != nil {
			return nil, fmt.Errorf("take file into the guest image: %w", err)
		}
		data, err := os.ReadFile(src)
		if err != nil {
			return nil, fmt.Errorf("take file into the guest image: %w", err)
		}
		out = append(out, imageFile{strings.TrimPrefix(dst, "/"), uint32(st.Mode().Perm()), data})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out, nil
}

func (cfg ImageConfig) key(k Kernel, files []imageFile) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s%s\n%q %q %q\n", imageFormat, k.Release, guestModules, cfg.Modules, cfg.SpareModules)
	for _, f := range files {
		fmt.Fprintf(h, "%q %o %d\n", f.path, f.perm, len(f.data))
		h.Write(f.data)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

func (cfg ImageConfig) pack(ctx context.Context, k Kernel, files []imageFile) ([]byte, error) {
	var buf bytes.Buffer
	c := newCpioWriter(&buf)
	for _, d := range []string{"proc", "sys", "dev", "run", "root", "mnt", "var/log", "var/tmp", "etc", "opt", "home", "usr/sbin", "lib/modules"} {
		c.dir(d, 0o755)
	}
	c.dir("tmp", 0o1777)
	// The kernel opens these two before anything is mounted.
	c.char("dev/console", 0o600, 5, 1)
	c.char("dev/null", 0o666, 1, 3)
	for _, f := range files {
		c.file(f.path, f.perm, f.data)
	}
	applets, err := command(ctx, "", busyboxPath, "--list-full")
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "bin/busybox" && a != "linuxrc" {
			c.symlink(a, "/bin/busybox")
		}
	}
	load, err := k.moduleFiles(slices.Concat(guestModules, cfg.Modules))
	if err != nil {
		return nil, err
	}
	all, err := k.moduleFiles(slices.Concat(guestModules, cfg.Modules, cfg.SpareModules))
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, m := range all {
		data, err := k.moduleData(ctx, m)
		if err != nil {
			return nil, err
		}
		name := "lib/modules/" + moduleName(m) + ".ko"
		c.file(name, 0o644, data)
		if slices.Contains(load, m) {
			fmt.Fprintf(&list, "/%s\n", name)
		}
	}
	c.file("lib/provost-test/modules", 0o644, []byte(list.String()))
	if err := c.close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// busyboxPath is where Debian's busybox-static puts it.
const busyboxPath = "/bin/busybox"

func staticBusybox() ([]byte, error) {
	b, err := staticBinary(busyboxPath)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errDynamic) {
		return nil, fmt.Errorf("find busybox for the guest: %w (apt-get install busybox-static)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("find busybox for the guest: %w", err)
	}
	return b, nil
}

var errDynamic = errors.New("it is dynamically linked and would not run in the guest")

// staticBinary reads a program and refuses one that needs a dynamic loader, which the guest lacks.
func staticBinary(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("use %s: %w", path, errDynamic)
		}
	}
	return data, nil
}

// pruneImages keeps the newest images. Guests that run have read theirs already; hosts have copies.
func (c Cache) pruneImages(keep int) {
	names, err := filepath.Glob(c.path("images", "*.cpio"))
	if err != nil || len(names) <= keep {
		return
	}
	age := map[string]time.Time{}
	for _, n := range names {
		if st, err := os.Stat(n); err == nil {
			age[n] = st.ModTime()
		}
	}
	sort.Slice(names, func(i, j int) bool { return age[names[i]].After(age[names[j]]) })
	for _, n := range names[keep:] {
		_ = os.Remove(n) // best effort: the next build tries again
	}
}

// lookQEMU finds the emulator.
func lookQEMU() (string, error) {
	p, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return "", fmt.Errorf("find QEMU (apt-get install qemu-system-x86): %w", err)
	}
	return p, nil
}
