package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provostd/provost/chain/mirror"
	"github.com/provostd/provost/chain/proof"
	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/attest"
)

// verifyFlags are what provost verify is given.
type verifyFlags struct {
	keys                      keyList
	policy, state, logs, save string
	bare, one, progress       bool
	since, until              string
	window                    mirror.Window
	replay                    replayFlags
	to                        remote // of a URL
}

func verifyCommand(a *app) func(context.Context, []string) error {
	var f verifyFlags
	a.flags.Var(&f.keys, "key", "verifier key of the host log, or a `FILE` that holds it; with bundles of several hosts once for each")
	a.flags.StringVar(&f.policy, "policy", "", "tlog-policy `FILE`: which witnesses must have cosigned, and keys of logs")
	a.flags.StringVar(&f.state, "state", "", "`FILE` that remembers the newest checkpoint seen, for directories and URLs: the log must contain it")
	a.flags.StringVar(&f.logs, "logs", "", "`ORIGINS` of VM logs to read, separated by commas; default: all that the host log quotes")
	a.flags.BoolVar(&f.one, "one-log", false, "the place is that of the one log that the key is of; of VM logs that it quotes nothing is claimed")
	a.flags.BoolVar(&f.bare, "without-payloads", false, "accept logs whose place has no payloads at all; what stands in them is not claimed")
	a.flags.StringVar(&f.since, "since", "", "say whether anything else happened from this `TIME` on, of whole logs and archives, with --until; --replay: count and compare what was sealed from then on")
	a.flags.StringVar(&f.until, "until", "", "up to this `TIME`")
	a.flags.StringVar(&f.save, "save", "", "`DIR` to keep what is read from a URL in, to be verified again without it")
	a.flags.StringVar(&f.to.token, "token-file", "", "`FILE` that holds the token for a URL")
	a.flags.StringVar(&f.to.certificate, "tls-cert", "", "`FILE` with a client certificate (PEM) for a URL")
	a.flags.StringVar(&f.to.key, "tls-key", "", "`FILE` with the key of --tls-cert (PEM)")
	a.flags.StringVar(&f.to.ca, "ca", "", "`FILE` with the certificates (PEM) that sign the server's; default: those of the system")
	a.flags.BoolVar(&f.progress, "progress", false, "show progress on standard error also where that is no terminal")
	f.replay.declare(a)
	return func(ctx context.Context, args []string) error {
		if err := f.replay.begin(a, f.since, f.until); err != nil {
			return err
		}
		if len(f.keys) == 0 && f.policy == "" {
			return &usageError{"name the verifier key of the host with --key; provostd init printed it, provost status shows it"}
		}
		if err := f.readWindow(time.Now()); err != nil {
			return err
		}
		policy, err := readPolicy(f.policy)
		if err != nil {
			return err
		}
		if f.keys, err = f.keys.read(); err != nil {
			return err
		}
		if len(args) > 1 {
			return a.verifySeveral(&f, args, policy)
		}
		if len(f.keys) > 1 {
			return &usageError{"one place has one key: give --key once, or several bundles"}
		}
		vkey := ""
		if len(f.keys) > 0 {
			vkey = f.keys[0]
		}
		isURL := strings.HasPrefix(args[0], "http://") || strings.HasPrefix(args[0], "https://")
		if !isURL {
			st, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			if !st.IsDir() {
				return a.verifyFile(ctx, &f, args[0], vkey, policy)
			}
			if _, err := os.Stat(filepath.Join(args[0], "manifest.json")); err == nil {
				return &usageError{args[0] + " is an unpacked bundle; give the archive, which nobody can have added to"}
			}
		}
		if len(f.replay.files) > 0 {
			return &usageError{"--before is for a file; a directory or URL has the shards of before itself, see --logs"}
		}
		if f.ofURL() && !isURL {
			return &usageError{"--save, --token-file, --tls-cert, --tls-key and --ca are for URLs"}
		}
		if (f.to.certificate == "") != (f.to.key == "") {
			return &usageError{"--tls-cert and --tls-key belong together"}
		}
		return a.verifyMirror(ctx, &f, args[0], isURL, vkey, policy)
	}
}

// verifySeveral verifies bundles, and what they say of each other.
func (a *app) verifySeveral(f *verifyFlags, files []string, policy *proof.Policy) error {
	if f.state != "" || f.logs != "" || f.bare || f.one || f.ofURL() || f.since+f.until != "" || f.replay.on {
		return &usageError{"several places are verified together only where each is an evidence bundle, by --key and --policy alone"}
	}
	t, err := verifyTogether(files, f.keys, policy)
	if err != nil {
		return err
	}
	return a.verdict(t, t.writeText, !t.Valid)
}

// readWindow reads the time that is asked for.
func (f *verifyFlags) readWindow(now time.Time) error {
	if f.since+f.until == "" || f.replay.on && (f.since == "" || f.until == "") {
		return nil
	}
	since, err := when("since", f.since, now)
	if err != nil {
		return err
	}
	until, err := when("until", f.until, now)
	if err != nil {
		return err
	}
	if f.since == "" || f.until == "" || !since.Before(until) || since.Year() < 1970 || until.Year() > 2200 {
		return &usageError{"give --since and --until, the one before the other"}
	}
	f.window = mirror.Window{Since: since.UnixNano(), Until: until.UnixNano()}
	return nil
}

// ofURL reports whether a flag is set that is for URLs only.
func (f *verifyFlags) ofURL() bool {
	return f.save+f.to.token+f.to.certificate+f.to.key+f.to.ca != ""
}

// verifyFile verifies an evidence bundle, or the archive of a shard, behind those of the
// shards before. Where one of these does not verify, that is what is told.
func (a *app) verifyFile(ctx context.Context, f *verifyFlags, name, vkey string, policy *proof.Policy) error {
	if f.state != "" || f.logs != "" || f.bare || f.one || f.ofURL() {
		return &usageError{"--state, --logs, --one-log and --without-payloads are for directories and URLs, and --save, --token-file, --tls-cert, --tls-key and --ca for URLs; this is a file"}
	}
	for _, earlier := range f.replay.files {
		v, err := a.readFile(ctx, f, earlier, vkey, policy, mirror.Window{})
		if err != nil {
			return err
		}
		if v.invalid {
			return a.verdict(v.report, v.text, true)
		}
		f.replay.before = append(f.replay.before, *v)
	}
	v, err := a.readFile(ctx, f, name, vkey, policy, f.window)
	if err != nil {
		return err
	}
	return f.replay.verdict(a, v.report, v.text, v.invalid)
}

// readFile verifies one file.
func (a *app) readFile(ctx context.Context, f *verifyFlags, name, vkey string, policy *proof.Policy, window mirror.Window) (*verified, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if mirror.IsArchive(file) {
		return a.readArchive(ctx, f, file, st.Size(), vkey, policy, window)
	}
	if f.since != "" && !f.replay.on {
		return nil, &usageError{"--since and --until are for whole logs, archives and --replay; a bundle of a time says itself what it covers: provost export --since --until"}
	}
	b, err := proof.ReadBundle(file, st.Size(), proof.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if vkey == "" {
		// Which log the bundle says it is from decides only which of the
		// trusted keys it must hold against.
		var ok bool
		if vkey, ok = policy.LogKey(b.HostOrigin); !ok {
			return nil, &usageError{fmt.Sprintf("the policy %s names no key, or several, of log %s; add it, or name the key with --key", f.policy, record.Printable([]byte(b.HostOrigin)))}
		}
	}
	r, err := proof.Verify(b, vkey, proof.Options{Frame: attest.Frame, Policy: policy})
	var invalid *proof.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if invalid == nil {
		if err := f.replay.evidence(b); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return &verified{r, r.WriteText, invalid != nil}, nil
}

// readArchive verifies the archive of a shard, without unpacking it.
func (a *app) readArchive(ctx context.Context, f *verifyFlags, file *os.File, size int64, vkey string, policy *proof.Policy, window mirror.Window) (*verified, error) {
	archive, err := mirror.OpenArchive(file, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	r, err := mirror.VerifyArchive(ctx, archive, vkey, mirror.Options{Frame: attest.Frame, Policy: policy, Window: window, Entry: f.replay.entry(), Evidence: f.replay.given, Progress: a.progress(f.progress)})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: interrupted, nothing is proved", file.Name())
	}
	var invalid *mirror.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	return &verified{r, r.WriteText, invalid != nil}, nil
}

// verdict shows a report.
func (a *app) verdict(report any, text func(io.Writer) error, invalid bool) error {
	var werr error
	if serr := a.show(report, func(w io.Writer) { werr = text(w) }); serr != nil || werr != nil {
		return errors.Join(serr, werr)
	}
	if invalid {
		return errInvalid
	}
	return nil
}

// readPolicy reads a policy file; none is given with an empty name.
func readPolicy(name string) (*proof.Policy, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read witness policy: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, proof.MaxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("read witness policy: %w", err)
	}
	p, err := proof.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// maxKey bounds a key file, in bytes.
const maxKey = 4 << 10

// readKey takes a verifier key as it is, or from a file.
func readKey(s string) (string, error) {
	if strings.Count(s, "+") >= 2 && !strings.ContainsRune(s, os.PathSeparator) {
		return s, nil
	}
	f, err := os.Open(s)
	if err != nil {
		if strings.Count(s, "+") >= 2 { // a key whose origin holds slashes
			return s, nil
		}
		return "", fmt.Errorf("read verifier key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return "", fmt.Errorf("read verifier key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
