package main

import (
	"encoding/json"
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
	"github.com/provostd/provost/rules/policy"
	"github.com/provostd/provost/rules/replay"
)

// replayFlags are what provost verify is given to evaluate policies again.
type replayFlags struct {
	on    bool
	dirs  dirList
	files dirList       // evidence of the shards before
	check *replay.Check // nil: not asked for

	before []verified
}

// verified is what was found in a file.
type verified struct {
	report  any
	text    func(io.Writer) error
	invalid bool
}

// dirList is a flag that may be given several times.
type dirList []string

func (d *dirList) String() string     { return strings.Join(*d, ",") }
func (d *dirList) Set(s string) error { *d = append(*d, s); return nil }

func (f *replayFlags) declare(a *app) {
	a.flags.BoolVar(&f.on, "replay", false, "evaluate the policies again over the sealed records, and compare with the sealed verdicts")
	a.flags.Var(&f.dirs, "bundle", "`DIR` of a policy bundle that was in force, or of several, for --replay, where the evidence has no text of it; once for each")
	a.flags.Var(&f.files, "before", "`FILE` with the evidence, or the archive, of the shard before, for --replay of a file: what policies remember of it is evaluated, too; once for each, the oldest first")
}

// begin reads the bundles. What was sealed from since on and before until is counted.
func (f *replayFlags) begin(a *app, since, until string) error {
	if !f.on {
		if len(f.dirs) > 0 {
			return &usageError{"--bundle is for --replay"}
		}
		if len(f.files) > 0 {
			return &usageError{"--before is for --replay"}
		}
		return nil
	}
	var opts replay.Options
	var err error
	if opts.Since, err = when("since", since, time.Now()); err != nil {
		return err
	}
	if opts.Until, err = when("until", until, time.Now()); err != nil {
		return err
	}
	for _, dir := range f.dirs {
		places, err := bundlesIn(dir)
		if err != nil {
			return err
		}
		for _, place := range places {
			b, err := a.loadBundle(place)
			if err != nil {
				return err
			}
			opts.Bundles = append(opts.Bundles, b)
		}
	}
	f.check, err = replay.NewCheck(opts)
	return err
}

// bundlesIn returns the directories of bundles: dir itself, or those in it, as
// provostd keeps what was in force.
func bundlesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var below []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), policy.Suffix) {
			return []string{dir}, nil
		}
		if inner, _ := filepath.Glob(filepath.Join(dir, e.Name(), "*"+policy.Suffix)); len(inner) > 0 {
			below = append(below, filepath.Join(dir, e.Name()))
		}
	}
	if len(below) == 0 {
		return nil, &usageError{fmt.Sprintf("%s holds no policy bundle", dir)}
	}
	return below, nil
}

// entry returns what a verification of whole logs tells of entries.
func (f *replayFlags) entry() func(mirror.Entry) error {
	if f.check == nil {
		return nil
	}
	return func(e mirror.Entry) error { return f.check.Entry(e.Origin, e.Leaf, e.Hash, e.Payload) }
}

// given takes the texts of policies that verified evidence brings, whose digests were
// compared. Those of --bundle come first.
func (f *replayFlags) given(b *proof.Bundle) error {
	if f.check == nil {
		return nil
	}
	for i := range b.Policies {
		p := &b.Policies[i]
		if p.Lacks != "" {
			f.check.Lacks(p.Digest, "of bundle "+p.Digest.String()+" "+proof.LackText(p.Lacks)+"; name its directory with --bundle")
			continue
		}
		loaded, diags := policy.LoadFS(policy.Overlay(nil, p.Files))
		if diags.HasErrors() {
			f.check.Lacks(p.Digest, "bundle "+p.Digest.String()+" of the evidence does not load here, was it written for another version? "+diags.Error())
			continue
		}
		f.check.Give(loaded)
	}
	return nil
}

// evidence goes through the entries of a bundle that has been verified.
func (f *replayFlags) evidence(b *proof.Bundle) error {
	if f.check == nil {
		return nil
	}
	if err := f.given(b); err != nil {
		return err
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		leaf, err := record.ParseLeaf(e.Leaf)
		if err != nil {
			return err
		}
		var payload []byte
		if len(e.Opening) >= len(record.Salt{}) {
			payload = e.Opening[len(record.Salt{}):]
		}
		if err := f.check.Entry(b.VMOrigin, leaf, record.LeafHash(e.Leaf), payload); err != nil {
			return err
		}
	}
	return nil
}

// verdict shows the report of a verification and, where that succeeded, what the
// policies say.
func (f *replayFlags) verdict(a *app, report any, text func(io.Writer) error, invalid bool) error {
	if f.check == nil || invalid {
		return a.verdict(report, text, invalid)
	}
	r := f.check.Report()
	all, err := joined(report, r, f.before)
	if err != nil {
		return err
	}
	return a.verdict(all, func(w io.Writer) error {
		var errs []error
		for _, b := range f.before {
			errs = append(errs, b.text(w))
		}
		return errors.Join(append(errs, text(w), r.WriteText(w))...)
	}, !r.Valid)
}

// joined puts the report of the policies into the other one, as "policies", and those
// of the shards before, as "before".
func joined(report any, r *replay.Report, before []verified) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(report)
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	if all["policies"], err = json.Marshal(r); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	reports := []any{}
	for _, b := range before {
		reports = append(reports, b.report)
	}
	if len(reports) > 0 {
		if all["before"], err = json.Marshal(reports); err != nil {
			return nil, fmt.Errorf("write report: %w", err)
		}
	}
	return all, nil
}
