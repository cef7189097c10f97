package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/provostd/provost/rules/policy"
)

// hint is what the help of a command shows beside its flags.
type hint struct {
	examples []string // what stands behind "provost "
	// invalid is what exit code 3 says; empty: the command has none.
	invalid string
}

// hints are by the names of commands. A test wants one for each.
var hints = map[string]hint{
	"status":            {examples: []string{"status", "status --server https://kvm1.example.net:8443 --token-file ~/.provost-token"}},
	"domain list":       {examples: []string{"domain list"}},
	"domain chain":      {examples: []string{"domain chain web-1"}, invalid: "a link between two logs is broken"},
	"domain enroll":     {examples: []string{"domain enroll web-1"}},
	"domain agent-stop": {examples: []string{"domain agent-stop web-1 --reason 'new agent, CHG-12'"}},
	"release":           {examples: []string{"release web-1 --dry-run", "release web-1 --action quarantine --reason 'reinstalled, CHG-12'"}},
	"tail":              {examples: []string{"tail web-1 -f", "tail -f --class 'policy.*,agent.*'"}},
	"query":             {examples: []string{"query --domain web-1 --path /etc/ --since 2h", "query --class network.connect --address 192.0.2.0/24"}},
	"lineage":           {examples: []string{"lineage --domain web-1 /usr/local/bin/x --direction both"}},
	"erase":             {examples: []string{"erase web-1 --record 1042 --reason 'asked by the person' --yes"}},
	"approve":           {examples: []string{"approve --group security-team --policy etc_changed --vm web-1 --reason CHG-4711 --key ~/.ssh/id_ed25519", "approve ... --print > statement; ssh-keygen -Y sign -n provost-approval@v1 -f KEY statement"}},
	"approvals list":    {examples: []string{"approvals list", "approvals list --all"}},
	"approvals show":    {examples: []string{"approvals show CHG-4711", "approvals show CHG-4711 --out approval"}},
	"approvals revoke":  {examples: []string{"approvals revoke CHG-4711 --reason 'work is done' --key ~/.ssh/id_ed25519"}},
	"alerts list":       {examples: []string{"alerts list"}},
	"alerts test":       {examples: []string{"alerts test mail"}},
	"export":            {examples: []string{"export web-1 -o web.zip", "export web-1 --since 2026-11-23T06:00:00Z --until 2026-11-23T07:00:00Z -o morning.zip"}},
	"verify":            {examples: []string{"verify --key host.vkey web.zip", "verify --key host.vkey --replay web.zip", "verify --key host.vkey --state kvm1.state https://kvm1.example.net:8443/"}, invalid: "it was read, and does not verify; or with --replay, verdicts are not those of the policies"},
	"tree":              {examples: []string{"tree --key kvm1.vkey web.zip", "tree --key kvm1.vkey --key kvm2.vkey web-at-kvm1.zip web-at-kvm2.zip"}, invalid: "a bundle does not verify, or two contradict each other"},

	"policy check":         {examples: []string{"policy check policies", "policy check --cost policies"}, invalid: "the bundle does not load"},
	"policy test":          {examples: []string{"policy test policies", "policy test --coverage --run ssh policies"}, invalid: "a test fails, something is not covered or not needed, or the files are wrong"},
	"policy explain":       {examples: []string{"policy explain etc_changed web-1:1042", "policy explain --bundle policies --entries recorded.jsonl etc_changed 1042"}, invalid: "the bundle does not load"},
	"policy fmt":           {examples: []string{"policy fmt policies", "policy fmt --check policies"}, invalid: "a file does not parse, or with --check, is not formatted"},
	"policy diff":          {examples: []string{"policy diff old new", "policy diff --exit-code old new"}, invalid: "a bundle does not load, or with --exit-code, they differ in meaning"},
	"policy docs":          {examples: []string{"policy docs policies > catalogue.md"}, invalid: "the bundle does not load"},
	"policy lsp":           {examples: []string{"policy lsp"}},
	"policy convert sigma": {examples: []string{"policy convert sigma sigma/rules/linux -o converted"}, invalid: "no rule was converted"},
	"policy active":        {examples: []string{"policy active"}},
	"policy apply":         {examples: []string{"policy apply --dry-run policies", "policy apply --max-actions 10 --since 7d policies"}, invalid: "the bundle is refused, and nothing was changed"},
	"policy replay":        {examples: []string{"policy replay --since 7d policies", "policy replay --domain web-1 policies"}, invalid: "the bundle does not load, or with --max-actions, it would have wanted more"},
	"policy rollback":      {examples: []string{"policy rollback"}, invalid: "nothing was changed"},
	"version":              {examples: []string{"version"}},
}

// help explains a command.
func (a *app) help(c *command) {
	fmt.Fprintf(a.stdout, "usage: %s\n\n%s\n\nflags:\n", strings.Join(strings.Fields("provost "+c.name+" [flags] "+c.args), " "), c.short)
	a.flags.SetOutput(a.stdout)
	a.flags.PrintDefaults()
	h := hints[c.name]
	if len(h.examples) > 0 {
		fmt.Fprint(a.stdout, "\nexamples:\n")
		for _, e := range h.examples {
			fmt.Fprintf(a.stdout, "  provost %s\n", e)
		}
	}
	fmt.Fprint(a.stdout, "\nexit codes:\n  0  done\n  1  it could not do its work\n  2  it was called wrongly\n")
	if h.invalid != "" {
		fmt.Fprintf(a.stdout, "  3  %s\n", h.invalid)
	}
}

// usage lists commands: all of them, or those of a group, such as "policy".
func usage(w io.Writer, group string) {
	if group == "" {
		fmt.Fprint(w, "usage: provost COMMAND [flags] [arguments]\n\ncommands:\n")
	} else {
		fmt.Fprintf(w, "usage: provost %s COMMAND [flags] [arguments]\n\ncommands:\n", group)
	}
	width := 0
	for _, c := range commands {
		width = max(width, len(c.name+c.args)+1)
	}
	for _, c := range commands {
		if group == "" || strings.HasPrefix(c.name, group+" ") {
			fmt.Fprintf(w, "  %-*s  %s\n", width, strings.TrimSpace(c.name+" "+c.args), c.short)
		}
	}
	fmt.Fprint(w, "\nprovost COMMAND -h explains a command.\n")
}

// groupOf returns the longest beginning of args that several commands share, such as
// "policy" or "policy convert", and what follows it.
func groupOf(args []string) (group string, rest []string) {
	for n := len(args); n > 0; n-- {
		name := strings.Join(args[:n], " ")
		if slices.ContainsFunc(commands, func(c command) bool { return strings.HasPrefix(c.name, name+" ") }) {
			return name, args[n:]
		}
	}
	return "", args
}

var helpWords = []string{"help", "-h", "-help", "--help"}

// noCommand answers args that name no command. Who asks for help gets it.
func noCommand(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr, "")
		return exitOK
	}
	if args[0] == "help" { // provost help policy check
		if c, rest := find(args[1:]); c != nil && len(rest) == 0 {
			a := newApp(c, stdout, stderr)
			c.declare(a)
			a.help(c)
			return exitOK
		}
		args = append(args[1:len(args):len(args)], "help")
	}
	group, rest := groupOf(args)
	if len(rest) > 0 && slices.Contains(helpWords, rest[0]) {
		usage(stdout, group)
		return exitOK
	}
	usage(stderr, group)
	if len(rest) == 0 {
		fmt.Fprintf(plain{stderr}, "\nprovost %s: name one of its commands\n", group)
	} else {
		name := strings.TrimSpace(group + " " + rest[0])
		fmt.Fprintf(plain{stderr}, "\nprovost: there is no command %q%s\n", name, meant(group, rest[0]))
	}
	return exitUsage
}

// meant proposes the word behind a group that a wrong one is nearest to.
func meant(group, word string) string {
	var next []string
	for _, c := range commands {
		if rest, ok := strings.CutPrefix(c.name, strings.TrimLeft(group+" ", " ")); ok {
			next = append(next, strings.Fields(rest)[0])
		}
	}
	if best := policy.Suggest(word, next); best != "" {
		return fmt.Sprintf("; did you mean %q?", strings.TrimSpace(group+" "+best))
	}
	return ""
}
