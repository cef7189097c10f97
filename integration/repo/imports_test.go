package repo

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers are the folders from the bottom up. A package may import from its own
// folder and from lower layers.
var layers = map[string]int{
	"bpf": 0, "chain": 0,
	"guestagent": 1, "rules": 1,
	"introspect":  2,
	"cmd":         3,
	"integration": 4,
}

func folder(rel string) string { f, _, _ := strings.Cut(rel, "/"); return f }

// TestArrows holds the direction of imports: bpf, chain -> guestagent, rules
// -> introspect -> cmd -> integration.
func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		from := folder(p.rel())
		low, ok := layers[from]
		if !ok {
			t.Errorf("%s stands in no layer: put it into one of the folders %v, or give its folder a layer here", p.ImportPath, layers)
			continue
		}
		for _, i := range p.Imports {
			to := own(i)
			if to == "" || folder(to) == from {
				continue
			}
			if layers[folder(to)] >= low {
				t.Errorf("%s imports %s: arrows go down only, so that the evidence can be read, verified and tested without what stands above it", p.rel(), to)
			}
		}
		for _, i := range append(slices.Clone(p.TestImports), p.XTestImports...) {
			// A test may run its package in a real guest.
			to := own(i)
			if to == "" || folder(to) == from || to == "integration/harness" {
				continue
			}
			if layers[folder(to)] >= low {
				t.Errorf("a test of %s imports %s: arrows go down only; a test that needs more than one layer belongs into integration", p.rel(), to)
			}
		}
	}
}

// TestNarrow holds the packages that may import only a few of ours.
func TestNarrow(t *testing.T) {
	rules := []struct {
		from, why string
		may       []string
	}{
		{"chain/record", "it is the format, and everybody imports it", nil},
		{"chain/proof", "an auditor verifies without store and keys", []string{"chain/record"}},
		{"chain/witness", "it speaks a protocol, and knows neither store nor keys", []string{"chain/record", "chain/proof"}},
		{"chain/keys", "signing keys are read here only (I9), so it must stay small enough to review", []string{"chain/record", "chain/proof"}},
		{"bpf", "it holds kernel programs and their layouts, no knowledge of records", nil},
		{"guestagent", "the guest agent is static and small", []string{"chain/record", "bpf", "guestagent"}},
		{"guestagent/attest", "it lets verifiers of evidence read what agents sign, and nothing more", []string{"chain/record", "chain/proof", "guestagent/wire"}},
		{"rules", "evaluation depends on entries only (I5), not on the ledger", []string{"chain/record", "rules"}},
		{"introspect/api/client", "the static command line imports it on any system", []string{"chain/record", "chain/proof", "chain/lineage", "chain/mirror"}},
		{"chain/mirror", "an auditor verifies without store and keys", []string{"chain/record", "chain/proof", "chain/spool"}},
		{"chain/spool", "verifiers and the ledger's check share it", nil},
		{"chain/lineage", "the static command line writes its graphs on any system", []string{"chain/record"}},
		{"introspect/notify", "it reads verdicts and sends them; what it sends to, it is given", []string{"chain", "chain/record"}},
		{"introspect/domain", "it holds words, shared by all host parts", nil},
		{"integration/harness", "it must stay an independent witness of what Provost says", nil},
	}
	for _, r := range rules {
		found := false
		for _, p := range packages(t) {
			if p.rel() != r.from && !strings.HasPrefix(p.rel(), r.from+"/") || r.from == "guestagent" && p.rel() == "guestagent/attest" {
				continue
			}
			found = true
			for _, i := range p.Imports {
				to := own(i)
				if to == "" || slices.ContainsFunc(r.may, func(m string) bool {
					return to == m || (m == "guestagent" || m == "rules") && strings.HasPrefix(to, m+"/")
				}) {
					continue
				}
				t.Errorf("%s imports %s: of this module it may import %v only: %s", p.rel(), to, r.may, r.why)
			}
		}
		if !found {
			t.Errorf("there is no package %s any more: take its rule away or mend its name", r.from)
		}
	}
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			switch {
			case own(i) == "bpf" && p.rel() != "guestagent/probe" && p.rel() != "introspect/egress":
				t.Errorf("%s imports bpf: only guestagent/probe and introspect/egress load kernel programs", p.rel())
			case own(i) == "bpf/egress" && p.rel() != "introspect/egress":
				t.Errorf("%s imports bpf/egress: only introspect/egress guards taps", p.rel())
			case folder(p.rel()) == "introspect" && folder(own(i)) == "guestagent" && own(i) != "guestagent/wire" && own(i) != "guestagent/attest":
				t.Errorf("%s imports %s: the host shares the protocol with the guest (guestagent/wire, guestagent/attest), and no code that runs in it", p.rel(), own(i))
			case own(i) == "chain/keys" && !slices.Contains([]string{"chain", "introspect/daemon"}, p.rel()) && folder(p.rel()) != "integration":
				t.Errorf("%s imports chain/keys: the ledger signs and the daemon opens the key files, nobody else has to do with them (I9)", p.rel())
			}
		}
	}
}

// heavy names the dependencies that only few packages may import, by the
// prefix of the import path.
var heavy = []struct {
	prefix, why string
	only        []string
}{
	{"google.golang.org/protobuf", "payloads are encoded in one place", []string{"chain/record"}},
	{"github.com/planetscale/vtprotobuf", "payloads are encoded in one place", []string{"chain/record"}},
	// chain/proof and chain hand signers and trees of these packages on; they are pure and small.
	{"golang.org/x/mod/sumdb/note", "signed notes are made and checked by the evidence packages", []string{"chain", "chain/keys", "chain/proof"}},
	{"golang.org/x/mod/sumdb/tlog", "trees and proofs belong to the evidence packages", []string{"chain", "chain/proof"}},
	// The tiles endpoint takes the paths of tiles from it.
	{"filippo.io/torchwood", "C2SP formats belong to the evidence packages and to the endpoint that serves them", []string{"chain/proof", "introspect/api"}},
	{"github.com/cockroachdb/pebble", "the store is reached through the ledger only", []string{"chain", "chain/index", "chain/chaintest"}},
	{"github.com/cilium/ebpf", "kernel programs are loaded in two places", []string{"bpf", "bpf/egress", "guestagent/probe", "introspect/egress"}},
	// The daemon's configuration is HCL too, and its program prints the diagnostics. The language server reads the tokens of texts that do not parse.
	{"github.com/hashicorp/hcl", "policies are compiled in one place; the engine sees closures only", []string{"rules/policy", "rules/lsp", "introspect/daemon", "cmd/provostd"}},
	{"github.com/zclconf/go-cty", "policies are compiled in one place; the engine sees closures only", []string{"rules/policy"}},
	{"github.com/gaissmai/bart", "conditions are found in one place", []string{"rules/index"}},
	{"gopkg.in/yaml", "only Sigma rules are YAML", []string{"rules/sigma"}},
	{"go.yaml.in/yaml", "only Sigma rules are YAML", []string{"rules/sigma"}},
	{"github.com/hiddeco/sshsig", "approvals are verified in one place", []string{"rules/approval"}},
	{"golang.org/x/crypto/ssh", "approvals are verified in one place", []string{"rules/approval"}},
	{"github.com/hashicorp/hcl-lang", "only the language server needs it", []string{"rules/lsp"}},
	{"github.com/creachadair/jrpc2", "only the language server needs it", []string{"rules/lsp"}},
	{"libvirt.org/go", "libvirt is a C library that can block and crash; one package tames it", []string{"introspect/virt"}},
	// chain/witness is a client over what it is handed; the daemon builds that.
	{"net/http", "servers and clients stand in the service packages", []string{"chain/witness", "introspect/api", "introspect/api/access", "introspect/api/client", "introspect/console", "introspect/daemon", "introspect/notify"}},
	{"github.com/prometheus", "parts keep plain counters; the daemon names and serves them", []string{"introspect/daemon"}},
}

// TestHeavy holds the table of packages: each heavy dependency in its rows only.
func TestHeavy(t *testing.T) {
	for _, p := range packages(t) {
		if folder(p.rel()) == "integration" {
			continue // tests and tools may look at a running host as its users do
		}
		for _, i := range p.Imports {
			for _, h := range heavy {
				if i != h.prefix && !strings.HasPrefix(i, h.prefix+"/") && !strings.HasPrefix(i, h.prefix+".v") {
					continue
				}
				if !slices.Contains(h.only, p.rel()) {
					t.Errorf("%s imports %s, which only %v may: %s", p.rel(), i, h.only, h.why)
				}
			}
		}
	}
}

// TestPrograms holds what the programs must not link.
func TestPrograms(t *testing.T) {
	programs := []struct {
		path, why string
		not       []string
	}{
		{"./cmd/provost", "it is static, runs anywhere and verifies offline", []string{
			"github.com/cockroachdb/pebble", "libvirt.org/go", "github.com/prometheus", "github.com/cilium/ebpf", module + "/chain$", module + "/chain/keys"}},
		{"./cmd/provost-agent", "it runs as root in every guest, so it must be small and reach no network", []string{
			"github.com/cockroachdb/pebble", "github.com/hashicorp/hcl", "github.com/zclconf/go-cty", "libvirt.org/go", "net/http", "github.com/prometheus",
			module + "/chain$", module + "/chain/keys", module + "/chain/proof", module + "/guestagent/attest", module + "/rules", module + "/introspect"}},
	}
	for _, c := range programs {
		deps := list(t, "-deps", c.path)
		for _, n := range c.not {
			exact, isExact := strings.CutSuffix(n, "$")
			i := slices.IndexFunc(deps, func(p *pkg) bool {
				return p.ImportPath == exact || !isExact && strings.HasPrefix(p.ImportPath, n+"/")
			})
			if i >= 0 {
				t.Errorf("%s links %s, which it must not: %s\n%s", c.path, deps[i].ImportPath, c.why, why(deps, deps[i].ImportPath))
			}
		}
		for _, p := range deps {
			if len(p.CgoFiles) > 0 && !p.Standard {
				t.Errorf("%s links %s, which is cgo: %s\n%s", c.path, p.ImportPath, c.why, why(deps, p.ImportPath))
			}
		}
	}
}

// why shows a chain of imports that leads to a dependency. deps come as "go
// list -deps" lists them: each behind what it imports, the program last.
func why(deps []*pkg, dep string) string {
	chain := dep
	for _, p := range deps {
		if slices.Contains(p.Imports, dep) {
			dep = p.ImportPath
			chain = dep + " -> " + chain
		}
	}
	return chain
}

// TestCrossVet vets the command line for the systems it must work on.
func TestCrossVet(t *testing.T) {
	for _, system := range []string{"darwin/arm64", "windows/amd64", "linux/arm64"} {
		t.Run(system, func(t *testing.T) {
			goos, arch, _ := strings.Cut(system, "/")
			cmd := exec.Command("go", "vet", "./cmd/provost")
			cmd.Dir = root
			cmd.Env = append(cmd.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("provost does not build for %s, where auditors and tenants run it: %v\n%s", system, err, out)
			}
		})
	}
}
