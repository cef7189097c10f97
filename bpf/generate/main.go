// Command generate compiles the probe's programs and packs them for the agent:
// it writes the objects, compressed and without what only people and linkers
// read, and the Go types of what both sides read. It promises that what is
// packed loads as what was compiled: code, types and relocations of fields are
// not touched. Nothing imports it; go generate and the tests of package bpf run
// it, in the folder of that package.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	dir := flag.String("dir", "", "existing folder for what is made, beside src")
	whole := flag.Bool("whole", false, "leave the objects as they were compiled there too")
	flag.Parse()
	if err := generate(*dir, *whole); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

// types are the types of C that get one in Go.
var types = []string{
	"event_head", "event_task", "event_exec", "event_fork", "event_exit", "event_creds",
	"event_comm", "event_namespace", "event_target", "event_cgroup", "event_file", "event_close",
	"file_times", "event_rename", "event_mount", "event_net", "event_unix", "event_dns",
	"event_memory", "event_kernel", "event_auth", "event_tamper", "event_aggregate", "sum_key",
	"sum", "sum_layout", "cpu_stats", "config", "event_type", "drop_reason",
	"event_flag", "optional", "gained", "trace_how", "write_how", "mount_operation",
	"mount_api", "net_bits", "memory_kind", "kernel_operation", "module_signature", "tamper_kind",
	"owned", "owned_key", "switches", "held", "starve",
}

// objects are the objects by the names of their files, with what they are
// compiled with beside the flags of all.
var objects = map[string][]string{"probe": nil, "probe_old": {"-DOLD"}}

// generate makes everything. Debug information holds the names of sources as
// the compiler was given them, so the objects differ when it runs elsewhere
// than beside src.
func generate(dir string, whole bool) error {
	for name, flags := range objects {
		// Types are those of one of the objects: the sources are the same.
		if err := compile(dir, name, name == "probe", flags); err != nil {
			return fmt.Errorf("compile %s: %w", name, err)
		}
		object, source := filepath.Join(dir, name+"_x86_bpfel.o"), filepath.Join(dir, name+"_x86_bpfel.go")
		if name == "probe" {
			if err := writeTypes(source, filepath.Join(dir, "types.go")); err != nil {
				return fmt.Errorf("take types out of %s: %w", source, err)
			}
		}
		if err := os.Remove(source); err != nil {
			return fmt.Errorf("remove what bpf2go made: %w", err)
		}
		if err := pack(object, filepath.Join(dir, name+".o.gz")); err != nil {
			return err
		}
		if whole {
			continue
		}
		if err := os.Remove(object); err != nil {
			return fmt.Errorf("remove object: %w", err)
		}
	}
	return nil
}

func compile(dir, name string, withTypes bool, flags []string) error {
	args := []string{"tool", "bpf2go", "-cc", "clang-14", "-strip", "llvm-strip-14", "-target", "amd64",
		"-go-package", "bpf", "-no-global-types", "-output-dir", dir, "-output-stem", name}
	if withTypes {
		for _, t := range types {
			args = append(args, "-type", t)
		}
	}
	args = append(args, "Probe", "src/probe.bpf.c", "--", "-mcpu=v3", "-O2", "-Wall", "-Werror",
		"-Wno-missing-declarations", "-I/usr/include/x86_64-linux-gnu")
	cmd := exec.Command("go", append(args, flags...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go tool bpf2go: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
