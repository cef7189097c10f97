package harness

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Kernel is an unpacked Debian cloud kernel. It is never installed on the machine.
type Kernel struct {
	Version string // asked for: "6.12", "6.1", "5.10"
	Release string // as uname -r in the guest: "6.12.117+deb12-cloud-amd64"
	Image   string // path of the bzImage
	dir     string // root of the unpacked package
}

var kernelVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

// Kernel returns Debian's cloud kernel of the given version ("6.12", "6.1", "5.10"), from the cache
// or else through apt, from the sources configured on this machine or, for a version that only an
// older release has, from that release on the same mirror. A kernel in the cache is used as
// it is; remove the cache's kernels directory to get Debian's newest build of it.
func (c Cache) Kernel(ctx context.Context, version string) (Kernel, error) {
	if !kernelVersion.MatchString(version) {
		return Kernel{}, fmt.Errorf("get kernel: version %q is not of the form 6.12", version)
	}
	unlock, err := c.lock()
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	return c.kernel(ctx, version)
}

// kernel does the work of Kernel; the caller holds the lock.
func (c Cache) kernel(ctx context.Context, version string) (Kernel, error) {
	dir := c.path("kernels", version)
	if k, err := openKernel(dir, version); err == nil {
		return k, nil
	}
	source := machineApt
	if suite := suites[version]; suite != "" {
		private := c.path("apt-" + suite)
		defer os.RemoveAll(private) // some megabytes of lists, of use once
		var err error
		if source, err = privateApt(ctx, private, suite); err != nil {
			return Kernel{}, fmt.Errorf("find kernel %s: %w", version, err)
		}
	}
	pkg, err := resolveKernelPackage(ctx, source, version)
	if err != nil {
		return Kernel{}, err
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return Kernel{}, fmt.Errorf("clear kernel download: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("make kernel directory: %w", err)
	}
	if _, err := source.run(ctx, tmp, "apt-get", "download", pkg); err != nil {
		return Kernel{}, fmt.Errorf("download kernel package %s: %w", pkg, err)
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return Kernel{}, fmt.Errorf("download kernel package %s: found %d package files, want 1", pkg, len(debs))
	}
	if _, err := command(ctx, tmp, "dpkg-deb", "-x", debs[0], "."); err != nil {
		return Kernel{}, fmt.Errorf("unpack kernel package %s: %w", pkg, err)
	}
	if err := os.Remove(debs[0]); err != nil {
		return Kernel{}, fmt.Errorf("unpack kernel package %s: %w", pkg, err)
	}
	release := strings.TrimPrefix(strings.TrimSuffix(pkg, "-unsigned"), "linux-image-")
	// The package leaves depmod to its installation script.
	if _, err := command(ctx, tmp, "depmod", "-b", tmp, release); err != nil {
		return Kernel{}, fmt.Errorf("index kernel modules: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return Kernel{}, fmt.Errorf("replace kernel: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return Kernel{}, fmt.Errorf("replace kernel: %w", err)
	}
	return openKernel(dir, version)
}

func openKernel(dir, version string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-"+version+".*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, fmt.Errorf("open kernel %s: no image in %s", version, dir)
	}
	sort.Strings(images)
	image := images[len(images)-1]
	k := Kernel{Version: version, Image: image, dir: dir,
		Release: strings.TrimPrefix(filepath.Base(image), "vmlinuz-")}
	if _, err := os.Stat(k.modules("modules.dep")); err != nil {
		return Kernel{}, fmt.Errorf("open kernel %s: %w", version, err)
	}
	return k, nil
}

// resolveKernelPackage follows a metapackage to the image package: image names carry the build and
// rotate in Debian, metapackages stay.
func resolveKernelPackage(ctx context.Context, source apt, version string) (string, error) {
	metas := []string{"linux-image-" + version + "-cloud-amd64", "linux-image-cloud-amd64"}
	find := func() string {
		for _, meta := range metas {
			out, err := source.run(ctx, "", "apt-cache", "depends", meta)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(out)) {
				dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
				if ok && strings.HasPrefix(dep, "linux-image-"+version+".") {
					return dep
				}
			}
		}
		return ""
	}
	if pkg := find(); pkg != "" {
		return pkg, nil
	}
	if source.suite != "" {
		return "", fmt.Errorf("find kernel %s: none of %s in suite %s depends on an image of that version", version, strings.Join(metas, ", "), source.suite)
	}
	// A machine fresh from an image has no package lists.
	if _, err := source.run(ctx, "", "apt-get", "update"); err != nil {
		return "", fmt.Errorf("find kernel %s: %w", version, err)
	}
	if pkg := find(); pkg != "" {
		return pkg, nil
	}
	return "", fmt.Errorf("find kernel %s: none of %s in apt's sources depends on an image of that version; add Debian's security suite to the sources",
		version, strings.Join(metas, ", "))
}

func (k Kernel) modules(name string) string {
	for _, base := range []string{"lib/modules", "usr/lib/modules"} {
		p := filepath.Join(k.dir, base, k.Release, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return filepath.Join(k.dir, "lib/modules", k.Release, name)
}

// lsmParameter is the kernel parameter that puts bpf among the kernel's security modules, or leaves
// it out; empty when the kernel's own default is that already.
func (k Kernel) lsmParameter(bpf bool) (string, error) {
	data, err := os.ReadFile(filepath.Join(k.dir, "boot", "config-"+k.Release))
	if err != nil {
		return "", fmt.Errorf("read kernel configuration: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "CONFIG_LSM=")
		if !ok {
			continue
		}
		list := strings.Split(strings.Trim(v, `"`), ",")
		has := slices.Contains(list, "bpf")
		switch {
		case has == bpf:
			return "", nil
		case bpf:
			list = append(list, "bpf")
		default:
			list = slices.DeleteFunc(list, func(m string) bool { return m == "bpf" })
		}
		return "lsm=" + strings.Join(list, ","), nil
	}
	return "", fmt.Errorf("read kernel configuration: no CONFIG_LSM in that of %s", k.Release)
}

// moduleFiles lists the files of the modules named, dependencies first, each once. A name that is
// built into the kernel gives no file; one that is unknown is an error.
func (k Kernel) moduleFiles(names []string) ([]string, error) {
	deps, err := readModulesDep(k.modules("modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(k.modules("modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("read built-in modules: %w", err)
	}
	isBuiltin := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		isBuiltin[moduleName(strings.TrimSpace(line))] = true
	}
	byName := map[string]string{}
	for file := range deps {
		byName[moduleName(file)] = file
	}
	var out []string
	seen := map[string]bool{}
	add := func(file string) {
		if !seen[file] {
			seen[file] = true
			out = append(out, file)
		}
	}
	for _, name := range names {
		file, ok := byName[name]
		if !ok {
			if isBuiltin[name] {
				continue
			}
			return nil, fmt.Errorf("find module %s: kernel %s has none of that name", name, k.Release)
		}
		// modules.dep lists the dependencies so that the last has to be loaded first.
		for i := len(deps[file]) - 1; i >= 0; i-- {
			add(deps[file][i])
		}
		add(file)
	}
	return out, nil
}

func readModulesDep(path string) (map[string][]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read module dependencies: %w", err)
	}
	deps := map[string][]string{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		file, rest, ok := strings.Cut(sc.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("read module dependencies: line %q has no colon", sc.Text())
		}
		deps[file] = strings.Fields(rest)
	}
	return deps, sc.Err()
}

// moduleName turns kernel/drivers/net/virtio_net.ko.xz into virtio_net.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// moduleData is the content of a module file, unpacked: the guest then needs no decompressor.
func (k Kernel) moduleData(ctx context.Context, file string) ([]byte, error) {
	path := k.modules(file)
	switch filepath.Ext(path) {
	case ".ko":
		return os.ReadFile(path)
	case ".xz":
		return command(ctx, "", "xz", "-dc", path)
	default:
		return nil, fmt.Errorf("unpack module %s: unknown compression", file)
	}
}

// command runs a program to its end and returns its standard output; its standard error is part of
// the error.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
