package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// archiveKeyring is where Debian's package debian-archive-keyring puts its keys.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// suites names the release that carries a kernel which the one this machine runs no longer has.
var suites = map[string]string{"5.10": "bullseye"}

// apt is a way to call apt: with the machine's own configuration, or with a private one.
type apt struct {
	options []string
	suite   string // empty: the sources of this machine
}

func (a apt) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	return command(ctx, dir, program, append(append([]string{"-q"}, a.options...), args...)...)
}

// machineApt reads the sources that are configured here. As root apt would download as user _apt,
// who often cannot write below a home directory.
var machineApt = apt{options: []string{"-o", "APT::Sandbox::User=root"}}

// privateApt has sources, lists, state and downloads of its own in dir, so that another release
// can be read without a trace in /etc/apt and in the machine's package lists. Proxies and the like
// are still those of the machine. Signatures are checked against Debian's keyring; dates are not,
// because a release past its end is signed no more. Lists are fetched first.
func privateApt(ctx context.Context, dir, suite string) (apt, error) {
	if _, err := os.Stat(archiveKeyring); err != nil {
		return apt{}, fmt.Errorf("check signatures of suite %s: %w (apt-get install debian-archive-keyring)", suite, err)
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return apt{}, fmt.Errorf("make private apt: %w", err)
		}
	}
	// apt.conf comes after all configuration of the machine. The hooks there are about the machine's cache.
	conf := `#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
`
	for key, name := range map[string]string{"Dir::Etc::SourceList": "sources.list", "Dir::State": "", "Dir::State::Lists": "lists",
		"Dir::State::status": "status", "Dir::Cache": "cache"} {
		conf += fmt.Sprintf("%s %q;\n", key, filepath.Join(dir, name))
	}
	if err := os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(conf), 0o644); err != nil {
		return apt{}, fmt.Errorf("make private apt: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "status"), nil, 0o644); err != nil {
		return apt{}, fmt.Errorf("make private apt: %w", err)
	}
	a := apt{options: []string{"-c", filepath.Join(dir, "apt.conf")}, suite: suite}
	sources, err := suiteSources(ctx, suite)
	if err != nil {
		return apt{}, err
	}
	var tried []error
	for _, s := range sources {
		if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(s), 0o644); err != nil {
			return apt{}, fmt.Errorf("make private apt: %w", err)
		}
		_, err := a.run(ctx, "", "apt-get", "-o", "APT::Update::Error-Mode=any", "update")
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return apt{}, fmt.Errorf("read suite %s: %w", suite, ctx.Err())
		}
		tried = append(tried, err)
	}
	return apt{}, fmt.Errorf("read suite %s: %w", suite, errors.Join(tried...))
}

// suiteSources is the text of sources.list for another suite: on the mirror that this machine uses
// for its own release, or else, for a release that has left the mirrors, in Debian's archive.
func suiteSources(ctx context.Context, suite string) ([]string, error) {
	own, err := codename()
	if err != nil {
		return nil, err
	}
	out, err := machineApt.run(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
	if err != nil {
		return nil, fmt.Errorf("read apt's sources: %w", err)
	}
	var texts []string
	for _, part := range []string{"", "-security"} {
		uri := ""
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 2 && strings.TrimSuffix(f[1], "/updates") == own+part {
				uri = f[0]
				break
			}
		}
		if uri == "" {
			return nil, fmt.Errorf("read apt's sources: none is for %s%s, so no mirror is known to have %s%s; add Debian's own sources", own, part, suite, part)
		}
		for i, u := range []string{uri, strings.Replace(uri, "//deb.", "//archive.", 1)} {
			if i == len(texts) {
				texts = append(texts, "")
			}
			texts[i] += fmt.Sprintf("deb [signed-by=%s] %s %s%s main\n", archiveKeyring, u, suite, part)
		}
	}
	if texts[0] == texts[1] {
		texts = texts[:1] // a mirror that is not Debian's has no archive beside it
	}
	return texts, nil
}

// codename is the name of the Debian release that this machine runs.
func codename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("find Debian release: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", errors.New("find Debian release: /etc/os-release has no VERSION_CODENAME")
}
