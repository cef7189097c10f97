package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/provostd/provost/rules/author"
	"github.com/provostd/provost/rules/policy"
)

// policyFmtCommand brings files into their canonical form. A file is replaced in
// one step, so that a crash leaves the old text or the new one.
func policyFmtCommand(a *app) func(context.Context, []string) error {
	check := a.flags.Bool("check", false, "change nothing; exit code 3 where a file is not formatted")
	diff := a.flags.Bool("diff", false, "show the lines that change")
	return func(_ context.Context, args []string) error {
		files, err := policyFiles(args)
		if err != nil {
			return err
		}
		changed, broken := []string{}, false
		for _, name := range files {
			src, err := readSmall(name, policy.MaxFileSize, false)
			if err != nil {
				return err
			}
			out, diags := policy.Format(name, src)
			if diags.HasErrors() {
				broken = true
				if err := policy.WriteDiagnostics(plain{a.stderr}, diags, map[string][]byte{name: src}, 100, false); err != nil {
					return err
				}
				continue
			}
			if bytes.Equal(out, src) {
				continue
			}
			changed = append(changed, name)
			if *diff && a.output == "text" {
				writeLines(plain{a.stdout}, name, src, out)
			}
			if !*check && !*diff {
				if err := replaceFile(name, out); err != nil {
					return err
				}
			}
		}
		if err := a.show(map[string]any{"changed": changed}, func(w io.Writer) {
			if !*diff {
				for _, name := range changed {
					fmt.Fprintln(w, name)
				}
			}
		}); err != nil {
			return err
		}
		if broken || *check && len(changed) > 0 {
			return errInvalid
		}
		return nil
	}
}

// policyFiles lists the policy and test files that are named, or that stand in the
// directories that are.
func policyFiles(args []string) ([]string, error) {
	var all []string
	for _, arg := range args {
		st, err := os.Stat(arg)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &usageError{fmt.Sprintf("there is no %s; name files named *%s, or the directory of a bundle", arg, policy.Suffix)}
		}
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			if !strings.HasSuffix(arg, policy.Suffix) && !strings.HasSuffix(arg, policy.TestSuffix) {
				return nil, &usageError{fmt.Sprintf("%s is named neither *%s nor *%s", arg, policy.Suffix, policy.TestSuffix)}
			}
			all = append(all, arg)
			continue
		}
		n := len(all)
		for _, suffix := range []string{policy.Suffix, policy.TestSuffix} {
			entries, err := os.ReadDir(arg)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
					all = append(all, filepath.Join(arg, e.Name()))
				}
			}
		}
		if len(all) == n {
			return nil, &usageError{fmt.Sprintf("%s has no file named *%s", arg, policy.Suffix)}
		}
	}
	return all, nil
}

// writeLines shows what changes: formatting moves things within their lines, and
// takes away empty ones at the end.
func writeLines(w io.Writer, name string, before, after []byte) {
	was, is := strings.Split(string(before), "\n"), strings.Split(string(after), "\n")
	fmt.Fprintf(w, "--- %s\n+++ %s, formatted\n", name, name)
	for i := 0; i < len(was); {
		j := i
		for j < len(was) && (j >= len(is) || was[j] != is[j]) {
			j++
		}
		if j == i {
			i++
			continue
		}
		fmt.Fprintf(w, "@@ line %d @@\n", i+1)
		for _, l := range was[i:j] {
			fmt.Fprintf(w, "-%s\n", l)
		}
		if i < len(is) {
			for _, l := range is[i:min(j, len(is))] {
				fmt.Fprintf(w, "+%s\n", l)
			}
		}
		i = j
	}
}

// replaceFile puts new contents in the place of a file, with its mode. A crash
// leaves a file ".provost-fmt-*" beside it at most.
func replaceFile(name string, data []byte) (err error) {
	name, err = filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".provost-fmt-")
	if err != nil {
		return fmt.Errorf("format %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Chmod(st.Mode().Perm()), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("format %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// loadBundle loads a bundle that has to be valid. Where it is not, its diagnostics
// are shown.
func (a *app) loadBundle(dir string) (*policy.Bundle, error) {
	if err := bundleDir(dir); err != nil {
		return nil, err
	}
	b, diags := policy.Load(dir)
	if diags.HasErrors() {
		if err := policy.WriteDiagnostics(plain{a.stderr}, diags, policy.Sources(dir, diags), 100, false); err != nil {
			return nil, err
		}
		fmt.Fprintf(plain{a.stderr}, "%s cannot be loaded\n", dir)
		return nil, errInvalid
	}
	return b, nil
}

// bundleDir refuses what is not the directory of a bundle, and says what would be.
func bundleDir(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &usageError{fmt.Sprintf("there is no %s; name the directory of a policy bundle, which holds files named *%s", dir, policy.Suffix)}
	case err != nil:
		return err
	case !st.IsDir():
		return &usageError{fmt.Sprintf("%s is a file; name the directory of the bundle: %s", dir, filepath.Dir(dir))}
	}
	return nil
}

func policyDocsCommand(a *app) func(context.Context, []string) error {
	return func(_ context.Context, args []string) error {
		if a.output == "json" {
			return &usageError{"the catalogue is Markdown; it has no JSON form"}
		}
		b, err := a.loadBundle(args[0])
		if err != nil {
			return err
		}
		return author.Catalogue(plain{a.stdout}, b)
	}
}

func policyDiffCommand(a *app) func(context.Context, []string) error {
	code := a.flags.Bool("exit-code", false, "exit code 3 where the bundles differ in meaning")
	return func(_ context.Context, args []string) error {
		was, err := a.loadBundle(args[0])
		if err != nil {
			return err
		}
		is, err := a.loadBundle(args[1])
		if err != nil {
			return err
		}
		d := author.Compare(was, is)
		return a.verdict(d, d.WriteText, *code && !d.Empty())
	}
}
